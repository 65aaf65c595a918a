//! JSON bodies of requests: declared as JSON, read to their end, and of the form that is asked for. Used by every route
//! that takes a body; what the values may be is the ledger's to say.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;

use super::problem::{Problem, locate};

/// The body as a `T`, or the problem with it: 415 when it is not declared as JSON, 413 when it is too large, 400 when it is
/// no JSON, 422 with the field's path when it is of another form.
pub(super) fn json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    if !is_json(headers) {
        return Err(Problem::unsupported_media_type());
    }
    parse(&body?)
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (essence, _) = declared.split_once(';').unwrap_or((declared, ""));
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Broken JSON is malformed (400); JSON of another form than a `T`'s is invalid at a field (422).
fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (field, problem) = locate(&error, "");
        field.map_or_else(|| Problem::malformed(problem.as_str()), |field| Problem::invalid(field, &problem))
    })?;
    deserializer.end().map_err(|error| Problem::malformed(error.to_string()))?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::*;
    use crate::ledger::NewPayment;

    fn problem(body: &str) -> (StatusCode, String) {
        let problem = parse::<NewPayment>(body.as_bytes()).unwrap_err();
        let shown = format!("{problem:?}");
        (problem.into_response().status(), shown)
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
        for body in ["", "{", "{\"payment_ref\":\"pi_1\",}", "\u{1}"] {
            let (status, shown) = problem(body);
            assert_eq!(status, 400, "{body}");
            assert!(shown.contains("line 1 column"), "{shown}");
        }
    }

    #[test]
    fn a_wrong_type_a_missing_and_an_unknown_field_are_invalid_at_their_path() {
        let start = r#"{"payment_ref":"pi_1","amount":1,"currency":"eur""#;
        for (body, field) in [
            (r#"{"payment_ref":"pi_1","amount":"1"}"#.to_owned(), "\"amount\""),
            (format!("{start}}}"), "\"transfers\""),
            (format!("{start},\"transfers\":[],\"extra\":1}}"), "\"extra\""),
            (format!("{start},\"transfers\":[{{\"seller_id\":\"s1\"}}]}}"), "\"transfers[0].destination\""),
            (format!("{start},\"transfers\":[{{\"amount\":1.5}}]}}"), "\"transfers[0].amount\""),
        ] {
            let (status, shown) = problem(&body);
            assert_eq!(status, 422, "{body}");
            assert!(shown.contains(&format!("field: Some({field})")), "{shown}");
        }
    }

    #[test]
    fn something_behind_the_payment_is_malformed() {
        let (status, shown) = problem(r#"{"payment_ref":"pi_1","amount":1,"currency":"eur","transfers":[]} x"#);
        assert_eq!(status, 400);
        assert!(shown.contains("trailing characters"), "{shown}");
    }

    #[test]
    fn only_json_is_taken_with_or_without_parameters() {
        for (declared, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonx", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, declared.parse().unwrap());
            assert_eq!(is_json(&headers), expected, "{declared}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
