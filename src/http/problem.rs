//! Errors of the HTTP endpoints, as `application/problem+json` (RFC 9457). The one place that makes them.
//!
//! The ingress and the API return a [`Problem`] from their handlers. It never shows what a database or a library said:
//! that goes to the log, once, where the error is turned into a problem. Which problem may come from which route is in
//! the OpenAPI document.

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::request_id;
use crate::ledger::LedgerError;

/// What every `type` begins with. RFC 9457 asks for the full path in a relative reference.
pub(crate) const TYPE_BASE: &str = "/problems/";

/// An error as HTTP tells it. `type` is stable, for programs; `detail` is for people, and says what to do next.
#[derive(Debug)]
pub(crate) struct Problem {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: String,
    field: Option<String>,
    hint: Option<Hint>,
}

/// What a response header adds.
#[derive(Clone, Copy, Debug)]
enum Hint {
    /// `Retry-After`, in seconds.
    RetryAfter(u64),
    /// `WWW-Authenticate`, as RFC 6750 asks for.
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

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct ProblemBody {
    /// Which problem it is: a stable relative URI reference, for programs to compare.
    #[serde(rename = "type")]
    #[schema(pattern = "^/problems/[a-z-]+$", examples("/problems/invalid-field"))]
    problem_type: String,
    /// The type in words; the same for all problems of one type.
    title: &'static str,
    /// The HTTP status once more.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time, and what to do next. For people: its words may change.
    detail: String,
    /// The path of the field, or the name of the parameter, that is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    field: Option<String>,
    /// The request's id, which is also in the header `x-request-id` and in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
}

impl Problem {
    /// A problem with a `type` and a title of its own.
    pub(crate) fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, slug, title, detail: detail.into(), field: None, hint: None }
    }

    /// The same problem, with the path of the field that caused it (`transfers[0].amount`).
    pub(crate) fn at(self, field: Option<String>) -> Self {
        Self { field, ..self }
    }

    fn with(self, hint: Hint) -> Self {
        Self { hint: Some(hint), ..self }
    }

    /// 404: there is no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// 405: the route exists, but not with this method.
    pub(crate) fn method_not_allowed() -> Self {
        let detail = "this route does not take this method; the Allow header has those that it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// 404: an endpoint that answers only when a setting is there.
    pub(crate) fn switched_off(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "switched-off", "Not configured", detail)
    }

    /// 401, with the challenge that RFC 6750 asks for.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail).with(Hint::Bearer)
    }

    /// 403: known, but not allowed to do this.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// 400: the body is not JSON, or not what it must be.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed-body", "Malformed body", detail)
    }

    /// 415: the body is not declared as JSON.
    pub(crate) fn unsupported_media_type() -> Self {
        let detail = "the body must come with `Content-Type: application/json`";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", "Unsupported media type", detail)
    }

    /// 422: JSON of the right form, with a value that is not acceptable.
    pub(crate) fn invalid(field: String, problem: &str) -> Self {
        let detail = format!("{field}: {problem}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "Invalid field", detail).at(Some(field))
    }

    /// 400: a query parameter is unknown, or has a value that is not acceptable.
    pub(crate) fn invalid_parameter(name: &str, problem: &str) -> Self {
        let detail = format!("{name}: {problem}");
        Self::new(StatusCode::BAD_REQUEST, "invalid-parameter", "Invalid parameter", detail).at(Some(name.to_owned()))
    }

    /// 429: more requests than the limit allows; may be sent again after this many seconds.
    pub(crate) fn too_many_requests(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
            .with(Hint::RetryAfter(retry_after_seconds))
    }

    /// 503: nothing was changed, and the same request may be sent again.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable for now", detail)
            .with(Hint::RetryAfter(5))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody {
            problem_type: format!("{TYPE_BASE}{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail,
            field: self.field,
            request_id: request_id::current(),
        };
        let content_type = [(CONTENT_TYPE, "application/problem+json")];
        (self.status, content_type, self.hint.map(|hint| [hint.header()]), Json(body)).into_response()
    }
}

impl From<LedgerError> for Problem {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Database(error) => {
                tracing::error!(%error, "the ledger's database is unavailable");
                Self::unavailable("the database is unavailable; nothing was changed, send the same request again")
            }
            LedgerError::Stale { .. } => {
                Self::new(StatusCode::CONFLICT, "stale", "Changed meanwhile", error.to_string())
                    .with(Hint::RetryAfter(1))
            }
            LedgerError::Illegal(_) | LedgerError::Conflict(_) => {
                Self::new(StatusCode::CONFLICT, "conflict", "Conflict", error.to_string())
            }
            LedgerError::NotFound { .. } => Self::not_found(error.to_string()),
            LedgerError::Invalid { field, problem } => Self::invalid(field, &problem),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "Body too large", "at most 1 MiB is taken")
            }
            _ => Self::malformed("the body could not be read to its end; send the request again"),
        }
    }
}

/// Where a JSON error lies, as a path, and what is wrong there. No path: the text as a whole is no JSON, or of another form.
///
/// `root` is the path of what was deserialized. serde reports a missing field at its parent; the path names the field.
pub(crate) fn locate(error: &serde_path_to_error::Error<serde_json::Error>, root: &str) -> (Option<String>, String) {
    let problem = error.inner().to_string();
    if !error.inner().is_data() {
        return (None, problem);
    }
    let missing = problem.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
    let inside = Some(error.path().to_string()).filter(|path| path != ".");
    let steps = [root, inside.as_deref().unwrap_or(""), missing.unwrap_or("")];
    let path = steps.into_iter().filter(|step| !step.is_empty()).collect::<Vec<_>>().join(".");
    ((!path.is_empty()).then_some(path), problem)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Order {
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its errors are looked at")]
    struct Item {
        amount: i64,
    }

    fn located(json: &str, root: &str) -> (Option<String>, String) {
        let mut deserializer = serde_json::Deserializer::from_str(json);
        locate(&serde_path_to_error::deserialize::<_, Order>(&mut deserializer).unwrap_err(), root)
    }

    #[test]
    fn a_wrong_type_is_located_at_its_field() {
        let (field, problem) = located(r#"{"items":[{"amount":1},{"amount":"x"}]}"#, "");
        assert_eq!(field.as_deref(), Some("items[1].amount"));
        assert!(problem.contains("expected i64 at line 1 column"), "{problem}");
    }

    #[test]
    fn a_missing_field_is_located_by_its_own_name() {
        assert_eq!(located(r#"{"items":[{}]}"#, "data").0.as_deref(), Some("data.items[0].amount"));
        assert_eq!(located("{}", "").0.as_deref(), Some("items"));
    }

    #[test]
    fn an_error_of_the_whole_has_no_field() {
        for json in ["7", "", "{", r#"{"items":[{"amount":"#, r#"{"items":[{"amount":1,}]}"#] {
            assert_eq!(located(json, "").0, None, "{json}");
        }
    }

    #[test]
    fn what_the_database_said_is_not_shown() {
        let error = LedgerError::Database(sea_orm::DbErr::Custom("password hush".into()));
        let problem = Problem::from(error);
        assert_eq!(problem.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(!problem.detail.contains("hush"));
    }
}
