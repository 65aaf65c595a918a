//! axum's extractors with [`Problem`] as their rejection.

use std::error::Error;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::ToSchema;

use super::json::{in_our_words, repair};
use super::openapi::component;
use super::problem::{Kind, Problem};
use crate::ledger::{CorrectedPayment, FieldProblem, NewPayment, NewRefund, NewTransfers};

/// A body that a route takes.
pub(super) trait Input: DeserializeOwned + ToSchema {
    /// Every field whose value can't be used.
    fn problems(&self) -> Vec<FieldProblem>;
}

impl Input for NewPayment {
    fn problems(&self) -> Vec<FieldProblem> {
        self.problems()
    }
}

impl Input for NewTransfers {
    fn problems(&self) -> Vec<FieldProblem> {
        self.problems()
    }
}

impl Input for CorrectedPayment {
    fn problems(&self) -> Vec<FieldProblem> {
        self.problems()
    }
}

impl Input for NewRefund {
    fn problems(&self) -> Vec<FieldProblem> {
        self.problems()
    }
}

/// [`axum::Json`], declared as `application/json`, with usable values: else 415, 413, 400, or 422 with every wrong field.
pub(crate) struct Json<T>(pub(super) T);

impl<T: Input, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "the body must have `Content-Type: application/json`";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        parse(&Bytes::from_request(request, state).await?).map(Self)
    }
}

fn parse<T: Input>(body: &[u8]) -> Result<T, Problem> {
    let input = match axum::Json::<T>::from_bytes(body) {
        Ok(axum::Json(input)) => input,
        Err(JsonRejection::JsonDataError(error)) => return Err(wrong_shape::<T>(body, &error)),
        // serde_json calls it a matter of syntax, too, when a word is expected and something else is there.
        Err(JsonRejection::JsonSyntaxError(error)) => return Err(wrong_shape::<T>(body, &error)),
        Err(error) => return Err(Problem::malformed(format!("the body is not JSON: {}", innermost(&error)))),
    };
    let problems = input.problems();
    if problems.is_empty() { Ok(input) } else { Err(Problem::invalid(problems)) }
}

/// serde stops at the first error. So the body is compared with its schema, repaired, and its values are checked too.
fn wrong_shape<T: Input>(body: &[u8], error: &(dyn Error + 'static)) -> Problem {
    let mut value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) => return Problem::malformed(format!("the body is not JSON: {error}")),
    };
    if !value.is_object() {
        return Problem::malformed("the body must be a JSON object");
    }
    let mut problems = Vec::new();
    repair(component(&T::name()), &mut value, "", &mut problems);
    if let Ok(repaired) = serde_json::from_value::<T>(value) {
        let known = problems.clone();
        let is_new = |new: &FieldProblem| !known.iter().any(|known| new.field.starts_with(&known.field));
        problems.extend(repaired.problems().into_iter().filter(is_new));
    }
    if problems.is_empty() {
        // A field that is given twice: the comparison sees the last one only.
        let located =
            source::<serde_path_to_error::Error<serde_json::Error>>(error).map(|e| super::json::locate(e, ""));
        let (field, problem) = located.unwrap_or_default();
        problems.push(FieldProblem::new(field.unwrap_or_default(), problem));
    }
    Problem::invalid(problems)
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    declared.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::new(Kind::BodyTooLarge, "the body must be at most 1 MiB");
        }
        Self::malformed("the body broke off; send the request again")
    }
}

/// [`axum::extract::Query`]. A parameter that is unknown, given twice, or wrong is a 400: a misspelt filter must not list
/// everything.
pub(crate) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let axum::extract::Query(query) = axum::extract::Query::try_from_uri(&parts.uri)?;
        Ok(Self(query))
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let error = source::<serde_path_to_error::Error<serde::de::value::Error>>(&rejection);
        let told = error.map_or_else(|| rejection.body_text(), |error| error.inner().to_string());
        // serde names an unknown and a repeated parameter in its message alone.
        let named = told.split('`').nth(1).map(ToOwned::to_owned);
        let path = error.map(|error| error.path().to_string()).filter(|path| path != ".").or(named);
        let problem = in_our_words(&told).replacen("unknown field", "unknown parameter", 1);
        Self::invalid_parameter(FieldProblem::new(path.unwrap_or_default(), problem))
    }
}

/// The value of a query parameter.
pub(crate) trait Parameter: Sized {
    /// What it must be.
    fn must() -> String;
    /// Reads it.
    fn parse(text: &str) -> Option<Self>;
}

/// A query parameter, where it is given. An empty value is a value: a script whose variable is empty must not get everything.
#[derive(Debug)]
pub(crate) struct Given<T>(pub(super) Option<T>);

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Parameter> Deserialize<'de> for Given<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let problem = || FieldProblem::text("", &T::must(), &text).problem;
        T::parse(&text).map(|value| Self(Some(value))).ok_or_else(|| serde::de::Error::custom(problem()))
    }
}

/// An id in the path: Clawback's or the provider's. One that no row can have is not looked up: PostgreSQL refuses NUL.
pub(crate) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) if !id.contains('\0') => Ok(Self(id)),
            _ => Err(Problem::not_found("nothing has this id")),
        }
    }
}

/// The error of this type in the chain of sources.
fn source<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    error.downcast_ref().or_else(|| source(error.source()?))
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    error.source().map_or(error, innermost)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    fn problem(body: &str) -> Value {
        parse::<NewPayment>(body.as_bytes()).unwrap_err().into_json()
    }

    #[test]
    fn the_documented_body_is_a_payment() {
        let body = br#"{"payment_ref":"pi_1","amount":10000,"currency":"eur","transfers":[{"seller_id":"s1",
            "stripe_transfer_id":"tr_1","destination":"acct_1","amount":9000,"currency":"eur"}]}"#;
        let payment = parse::<NewPayment>(body).unwrap();
        assert_eq!((payment.amount, payment.transfers[0].amount), (10_000, 9_000));
    }

    #[test]
    fn broken_json_is_malformed_with_line_and_column() {
        for body in ["", "{", "{\"payment_ref\":\"pi_1\",}", "\u{1}", "{\"amount\":\"1\"} x", "{\"amount\":1e999}"] {
            let problem = problem(body);
            assert_eq!(problem["type"], "/problems/malformed-body", "{body}");
            assert!(problem["detail"].as_str().unwrap().contains("line 1 column"), "{problem}");
        }
        assert_eq!(problem("[1]")["detail"], "the body must be a JSON object");
    }

    #[test]
    fn wrong_types_and_wrong_values_are_told_together() {
        let problem = problem(r#"{"amount":0,"currency":5,"transfers":[],"payment_ref":"pi_1","extra":1}"#);
        let told: Vec<&str> =
            problem["errors"].as_array().unwrap().iter().map(|error| error["field"].as_str().unwrap()).collect();
        assert_eq!((problem["status"].as_u64(), told.len()), (Some(422), 4), "{problem}");
        for field in ["amount", "currency", "transfers", "extra"] {
            assert!(told.contains(&field), "{field}: {problem}");
        }
        assert!(!problem.to_string().contains(" line "), "{problem}");
    }

    #[test]
    fn a_field_that_is_given_twice_is_refused() {
        let problem = problem(r#"{"payment_ref":"pi_1","amount":1,"amount":2,"currency":"eur","transfers":[]}"#);
        assert_eq!(problem["field"], "transfers");
        let body =
            br#"{"source":"stripe","refund_ref":"re_1","payment_ref":"pi_1","amount":1,"amount":2,"currency":"eur"}"#;
        let problem = parse::<NewRefund>(body).err().unwrap().into_json();
        assert_eq!(problem["detail"], "amount is given twice");
    }

    #[test]
    fn only_json_is_taken_with_or_without_parameters() {
        for (declared, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/problem+json", false),
            ("application/jsonx", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, declared.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{declared}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
