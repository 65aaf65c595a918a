//! The id of the request that is being answered: taken from the caller's `x-request-id`, or made.
//!
//! `requests` wraps every request in [`scope`]; [`super::problem`] asks for [`current`]. It is for finding things again, in the
//! log and with the caller: nothing is decided by it, and nobody needs to trust it.

use std::future::Future;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// On requests and on answers.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is taken over from a caller, in bytes.
pub(crate) const MAX_BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: String;
}

/// The caller's id if it is short and plain enough for a log line, or else a new one.
pub(crate) fn of(headers: &HeaderMap) -> String {
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    given.filter(|id| is_plain(id)).map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// Runs `answering` as the request with this id.
pub(crate) async fn scope<F: Future>(id: String, answering: F) -> F::Output {
    CURRENT.scope(id, answering).await
}

/// The id of the request that is being answered, inside [`scope`].
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

/// As a header of the answer.
pub(crate) fn header_value(id: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(id).ok()
}

fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(&byte);
    !id.is_empty() && id.len() <= MAX_BYTES && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    fn of_value(value: &[u8]) -> String {
        of(&HeaderMap::from_iter([(HEADER, HeaderValue::from_bytes(value).unwrap())]))
    }

    #[test]
    fn a_short_and_plain_id_is_taken_over() {
        for id in ["1", "req-01_A.b:c/d=e+f", &"x".repeat(MAX_BYTES)] {
            assert_eq!(of_value(id.as_bytes()), id);
        }
    }

    #[test]
    fn any_other_one_is_replaced() {
        let long = "x".repeat(MAX_BYTES + 1);
        for id in [b"" as &[u8], b"a b", b"a\tb", b"a\"b", "ä".as_bytes(), b"\xff", b"{}", long.as_bytes()] {
            assert!(of_value(id).parse::<Uuid>().is_ok(), "{id:?}");
        }
        assert!(of(&HeaderMap::new()).parse::<Uuid>().is_ok());
    }
}
