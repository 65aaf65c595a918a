//! What is answered before anything is executed: the faults at the door, and the refusals of the exchange itself.

use std::borrow::Cow;

use crate::faults::Fault;
use crate::shapes::{Answer, ApiError};

/// The answer of a fault that strikes before the key is looked at, with `None` for a cut connection; none for other
/// faults.
pub(crate) fn at_the_door(fault: &Fault, request: &str) -> Option<Option<Answer>> {
    let error = match fault {
        Fault::DropBeforeApply => return Some(None),
        Fault::UnavailableHtml => return Some(Some(Answer::html(503, "Service Unavailable", request))),
        Fault::BadGateway => return Some(Some(Answer::html(502, "Bad Gateway", request))),
        Fault::Conflict409 => in_flight(),
        Fault::RateLimited { retry_after } => rate_limited(*retry_after),
        Fault::LockTimeout => locked(),
        Fault::ServerErrorAtTheEdge => ApiError::server_error(),
        Fault::Unauthorized => ApiError::unauthorized("Invalid API Key provided: sk_test_****sims".to_owned()),
        Fault::PermissionDenied => ApiError::new(
            403,
            "invalid_request_error",
            "The provided key 'rk_test_****' does not have the required permissions for this endpoint.",
        )
        .code("more_permissions_required"),
        Fault::Refused { .. } if !fault.is_in_execution() => refused(fault)?,
        _ => return None,
    };
    Some(Some(error.into_answer(request)))
}

/// The error that a fault puts into words; none for a fault that does not.
pub(crate) fn refused(fault: &Fault) -> Option<ApiError> {
    let Fault::Refused { status, code, message } = fault else { return None };
    let error = ApiError::new(*status, "invalid_request_error", message.clone());
    Some(ApiError { code: code.clone().map(Cow::Owned), ..error })
}

/// Another request works on the object.
pub(crate) fn locked() -> ApiError {
    let message = "This object cannot be accessed right now because another API request or Stripe process is currently \
                   accessing it.";
    ApiError::new(429, "invalid_request_error", message).code("lock_timeout")
}

pub(crate) fn in_flight() -> ApiError {
    let message = "There is currently another in-progress request using this Stripe Idempotent Key (that probably \
                   means you submitted twice, and the other request is still going through). Please try again later.";
    ApiError::new(409, "invalid_request_error", message).code("idempotency_key_in_use")
}

pub(crate) fn other_parameters(key: &str) -> ApiError {
    let message = format!(
        "Keys for idempotent requests can only be used with the same parameters they were first used with. \
         Try using a key other than '{key}' if you meant to execute a different request."
    );
    ApiError::new(400, "idempotency_error", message)
}

pub(crate) fn rate_limited(retry_after: Option<u64>) -> ApiError {
    let message = "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.";
    let error = ApiError::new(429, "invalid_request_error", message)
        .code("rate_limit")
        .header("stripe-rate-limited-reason", "global-rate");
    match retry_after {
        Some(seconds) => error.header("retry-after", seconds.to_string()),
        None => error,
    }
}
