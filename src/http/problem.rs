//! Every error that the HTTP routes answer with, as `application/problem+json` (RFC 9457).

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id;
use crate::ledger::input::sentences;
use crate::ledger::{FieldProblem, LedgerError};

/// One type of problem.
pub(super) struct Row {
    pub(super) status: u16,
    /// The last part of `type`.
    pub(super) slug: &'static str,
    pub(super) title: &'static str,
    /// When it occurs: an example of its `detail`.
    pub(super) when: &'static str,
}

macro_rules! problems {
    ($($kind:ident $status:literal $slug:literal $title:literal $when:literal)*) => {
        /// The types of problems. The table below makes the answers and the OpenAPI document's responses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind),* }

        impl Kind {
            pub(super) fn row(self) -> Row {
                match self {
                    $(Self::$kind => Row { status: $status, slug: $slug, title: $title, when: $when }),*
                }
            }
        }
    };
}

problems! {
    MalformedBody 400 "malformed-body" "Malformed body" "the body is not JSON: EOF while parsing an object at line 1 column 2"
    InvalidParameter 400 "invalid-parameter" "Invalid parameter" "limit must be an integer from 1 to 200 (got \"0\")"
    SignatureMissing 400 "signature-missing" "Signature missing" "the Stripe-Signature header is required"
    SignatureMalformed 400 "signature-malformed" "Malformed signature" "the signature header can't be read"
    SignatureMismatch 400 "signature-mismatch" "Signature does not match" "the body was changed in transit, or signed with another secret"
    SignatureStale 400 "signature-stale" "Signature too old or too new" "the signature must be at most 300 s old (got 301 s); check this machine's clock"
    Unauthorized 401 "unauthorized" "Unauthorized" "the bearer token is not one of this server's"
    Forbidden 403 "forbidden" "Forbidden" "this token may only read; use API_TOKEN"
    NotFound 404 "not-found" "Not found" "no payment has this id"
    SwitchedOff 404 "switched-off" "Not configured" "the API is off; set API_TOKEN to turn it on"
    MethodNotAllowed 405 "method-not-allowed" "Method not allowed" "the Allow header lists this route's methods"
    Conflict 409 "conflict" "Conflict" "reversal 01a2… is reversed; only one that is permanently_failed is replayed"
    Stale 409 "stale" "Changed meanwhile" "reversal 01a2… is no longer permanently_failed"
    BodyTooLarge 413 "body-too-large" "Body too large" "the body must be at most 1 MiB"
    UnsupportedMediaType 415 "unsupported-media-type" "Unsupported media type" "the body must have `Content-Type: application/json`"
    InvalidField 422 "invalid-field" "Invalid field" "amount must be a positive integer in minor units (got 0)"
    TooManyRequests 429 "too-many-requests" "Too many requests" "this token's limit of 500 requests a second is used up; try again in 1 s"
    Overloaded 503 "overloaded" "Overloaded" "the database is behind; try again"
    Unavailable 503 "unavailable" "Unavailable for now" "the database is unavailable; nothing was changed, send the same request again"
}

impl Kind {
    /// The whole `type`.
    pub(super) fn uri(self) -> String {
        format!("/problems/{}", self.row().slug)
    }
}

/// An error as HTTP answers it.
#[derive(Debug)]
pub(crate) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldProblem>,
    hint: Option<Hint>,
    cause: Option<Cause>,
}

/// What a response header adds.
#[derive(Clone, Copy, Debug)]
enum Hint {
    /// `Retry-After`, in seconds.
    RetryAfter(u64),
    /// `WWW-Authenticate` (RFC 6750).
    Bearer,
}

impl Hint {
    fn header(self) -> (HeaderName, HeaderValue) {
        match self {
            Self::RetryAfter(seconds) => (RETRY_AFTER, HeaderValue::from(seconds)),
            Self::Bearer => (WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"clawback\"")),
        }
    }
}

/// What only the log may say about a failed request, as an extension of its response.
#[derive(Clone, Debug)]
pub(super) struct Cause(pub(super) String);

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// The type of the problem: a stable relative URI reference, for programs to compare.
    #[serde(rename = "type")]
    #[schema(pattern = "^/problems/[a-z-]+$", examples("/problems/invalid-field"))]
    problem_type: String,
    /// The type in words; the same for all problems of one type.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong, and what to do next. For people: the wording may change.
    detail: String,
    /// The path of the first wrong field, or the name of the wrong parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// Every wrong field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(nullable = false)]
    errors: Vec<FieldError>,
    /// The request's id, as in the header `x-request-id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
}

/// A wrong field.
#[derive(Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Its path in the body.
    #[schema(examples("transfers[0].amount"))]
    field: String,
    /// What is wrong with it.
    #[schema(examples("transfers[0].amount must be a positive integer in minor units (got 0)"))]
    problem: String,
}

impl Problem {
    pub(crate) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), hint: None, cause: None }
    }

    /// 400: the body can't be read.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(Kind::MalformedBody, detail)
    }

    /// 404.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// 422, with every wrong field.
    pub(crate) fn invalid(errors: Vec<FieldProblem>) -> Self {
        Self { errors: errors.clone(), ..Self::new(Kind::InvalidField, sentences(&errors)) }
    }

    /// 400, with the wrong query parameter.
    pub(crate) fn invalid_parameter(error: FieldProblem) -> Self {
        Self::new(Kind::InvalidParameter, error.to_string()).at(error)
    }

    /// 401, with its challenge.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self { hint: Some(Hint::Bearer), ..Self::new(Kind::Unauthorized, detail) }
    }

    /// 503: nothing was changed.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, detail).retry_after(5)
    }

    /// The same problem, with the field to blame.
    pub(crate) fn at(self, error: FieldProblem) -> Self {
        Self { errors: vec![error], ..self }
    }

    /// The same problem, with `Retry-After`.
    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self { hint: Some(Hint::RetryAfter(seconds)), ..self }
    }

    /// Its kind.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// Its title, and what is wrong, for a page.
    pub(crate) fn in_words(&self) -> (&'static str, String) {
        (self.kind.row().title, self.detail.clone())
    }

    fn body(self) -> ProblemBody {
        let Row { status, title, .. } = self.kind.row();
        let error = |problem: FieldProblem| FieldError { problem: problem.to_string(), field: problem.field };
        ProblemBody {
            problem_type: self.kind.uri(),
            title,
            status,
            detail: self.detail,
            field: self.errors.first().map(|first| first.field.clone()).filter(|field| !field.is_empty()),
            errors: self.errors.into_iter().map(error).collect(),
            request_id: request_id::current(),
        }
    }

    #[cfg(test)]
    pub(super) fn into_json(self) -> serde_json::Value {
        serde_json::json!(self.body())
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        let (header, cause) = (self.hint.map(|hint| [hint.header()]), self.cause.take());
        let status = StatusCode::from_u16(self.kind.row().status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let content_type = [(CONTENT_TYPE, "application/problem+json")];
        let mut response = (status, content_type, header, Json(self.body())).into_response();
        if let Some(cause) = cause {
            response.extensions_mut().insert(cause);
        }
        response
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        let detail = error.to_string();
        match error {
            // What the database said is for the log alone.
            LedgerError::Database(_) => {
                Self { cause: Some(Cause(detail)), ..Self::unavailable(Kind::Unavailable.row().when) }
            }
            LedgerError::Overloaded => Self::new(Kind::Overloaded, detail).retry_after(1),
            LedgerError::Stale { .. } | LedgerError::Retry => Self::new(Kind::Stale, detail).retry_after(1),
            LedgerError::Illegal(_) | LedgerError::Conflict(_) => Self::new(Kind::Conflict, detail),
            LedgerError::NotFound { .. } => Self::not_found(detail),
            LedgerError::Invalid(errors) => Self::invalid(errors),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    #[test]
    fn what_the_database_said_goes_to_the_log_alone() {
        let error = LedgerError::Database(sea_orm::DbErr::Custom("password hush".into()));
        let response = Problem::from(error).into_response();
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &HeaderValue::from(5)));
        assert!(response.extensions().get::<Cause>().unwrap().0.contains("hush"));
        let error = LedgerError::Database(sea_orm::DbErr::Custom("password hush".into()));
        assert!(!Problem::from(error).into_json().to_string().contains("hush"));
    }

    #[test]
    fn an_overloaded_ledger_asks_for_another_try_in_a_second() {
        let response = Problem::from(LedgerError::Overloaded).into_response();
        assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER]), (503, &HeaderValue::from(1)));
        assert_eq!(Problem::from(LedgerError::Overloaded).into_json()["type"], "/problems/overloaded");
    }

    #[test]
    fn every_wrong_field_is_in_the_detail_and_in_the_errors() {
        let amount = FieldProblem::new("amount", "must be an integer (got \"12\")");
        let problem = Problem::invalid(vec![amount, FieldProblem::new("refund_ref", "is required")]).into_json();
        assert_eq!(problem["detail"], "amount must be an integer (got \"12\"); refund_ref is required");
        assert_eq!(problem["field"], "amount");
        assert_eq!(
            problem["errors"][1],
            serde_json::json!({"field": "refund_ref", "problem": "refund_ref is required"})
        );
    }
}
