//! What a URL or a form says. A field that is unknown, given twice or wrong is refused with its name, its value and what is
//! allowed; one that is empty is not given, as browsers send it.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use maud::html;
use url::form_urlencoded;

use super::page::Refusal;
use crate::http::Parameter;
pub(super) use crate::http::{Currency, Yes, YesNo};
use crate::ledger::{FieldProblem, Note};
use crate::operator::limits::{REASON_MAX_CHARS, one_line, operator_name};

/// The longest other text.
const TEXT_MAX_CHARS: usize = 300;

/// The fields that were sent.
#[derive(Debug)]
pub(super) struct Fields {
    /// What was not asked for yet.
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    problems: Vec<FieldProblem>,
}

/// Those of a URL.
pub(super) struct Asked(pub(super) Fields);

/// Those of a form.
pub(super) struct Sent(pub(super) Fields);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Self(Fields::of(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

impl<S: Send + Sync> FromRequest<S> for Sent {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let body = Bytes::from_request(request, state).await.map_err(|rejection: BytesRejection| {
            let (status, detail) = match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => (StatusCode::PAYLOAD_TOO_LARGE, "The form must be at most 16 KiB."),
                _ => (StatusCode::BAD_REQUEST, "The form broke off."),
            };
            Refusal::new(status, "Not done", detail, html! { "Go back, and send it again." })
        })?;
        Ok(Self(Fields::of(&body)))
    }
}

impl Fields {
    fn of(encoded: &[u8]) -> Self {
        let given = form_urlencoded::parse(encoded).into_owned().collect();
        Self { given, known: Vec::new(), problems: Vec::new() }
    }

    /// The field as it was sent.
    fn raw(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let at = self.given.iter().position(|(given, _)| given == name)?;
        let (_, value) = self.given.remove(at);
        Some(value).filter(|value| !value.is_empty())
    }

    /// A text on one line. PostgreSQL takes no NUL.
    pub(super) fn text(&mut self, name: &'static str) -> Option<String> {
        let value = self.raw(name).filter(|value| !value.trim().is_empty())?;
        one_line(&value, TEXT_MAX_CHARS).map_err(|problem| self.problems.push(FieldProblem::new(name, problem))).ok()
    }

    /// A value of a certain kind.
    pub(super) fn parsed<T: Parameter>(&mut self, name: &'static str) -> Option<T> {
        let value = self.raw(name)?;
        let parsed = T::parse(&value);
        if parsed.is_none() {
            self.problems.push(FieldProblem::text(name, &T::must(), &value));
        }
        parsed
    }

    /// A text that must be there; empty when it is not, which [`Self::done`] refuses.
    pub(super) fn required(&mut self, name: &'static str, max_chars: usize) -> String {
        let value = self.raw(name).unwrap_or_default();
        one_line(&value, max_chars).unwrap_or_else(|problem| {
            self.problems.push(FieldProblem::new(name, problem));
            String::new()
        })
    }

    /// Who logs in; empty when that is no name, which [`Self::done`] refuses.
    pub(super) fn operator(&mut self) -> String {
        let value = self.raw("operator").unwrap_or_default();
        operator_name(&value).unwrap_or_else(|problem| {
            self.problems.push(FieldProblem::new("operator", problem));
            String::new()
        })
    }

    /// Who acts, and why, for the history.
    pub(super) fn note(&mut self, operator: &str) -> Note {
        Note::new(operator, self.required("reason", REASON_MAX_CHARS))
    }

    /// A secret, which no answer repeats.
    pub(super) fn secret(&mut self, name: &'static str) -> String {
        self.raw(name).unwrap_or_default()
    }

    /// Checks that nothing was wrong, and that nothing else was sent.
    pub(super) fn done(mut self) -> Result<(), Refusal> {
        for (name, _) in &self.given {
            let problem = match self.known.contains(&name.as_str()) {
                true => FieldProblem::new(name, "is given twice"),
                false => {
                    let name = crate::ledger::input::shown(name);
                    FieldProblem::new(&name, format!("unknown field {name:?}; known: {}", self.known.join(", ")))
                }
            };
            self.problems.push(problem);
        }
        if self.problems.is_empty() { Ok(()) } else { Err(Refusal::invalid(&self.problems)) }
    }
}

/// An amount in minor units.
pub(super) struct Amount(pub(super) i64);

impl Parameter for Amount {
    fn must() -> String {
        "a positive integer in minor units".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok().filter(|amount| *amount >= 1).map(Self)
    }
}

/// `text`.
pub(super) struct AsText;

impl Parameter for AsText {
    fn must() -> String {
        "text".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        (text == "text").then_some(Self)
    }
}

/// `csv`.
pub(super) struct Csv;

impl Parameter for Csv {
    fn must() -> String {
        "csv".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        (text == "csv").then_some(Self)
    }
}

/// How many.
pub(super) struct Count(pub(super) i32);

impl Parameter for Count {
    fn must() -> String {
        "a positive integer".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        text.trim().parse().ok().filter(|count| *count >= 1).map(Self)
    }
}
