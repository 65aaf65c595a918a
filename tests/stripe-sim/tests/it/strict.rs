//! What Stripe refuses: metadata, parameters, ids, and what it does not save for a key.

use serde_json::{Value, json};
use stripe_sim::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Caller;

const REVERSALS: &str = "/v1/transfers/tr_1/reversals";

fn message(body: &Value) -> &str {
    body["error"]["message"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn metadata_within_the_limits_is_taken() {
    let caller = Caller::new();
    let (key, value) = (format!("metadata[{}]", "k".repeat(40)), "ü".repeat(500));
    let got = caller.post(REVERSALS, "k", &[("amount", "1"), (&key, &value), ("metadata[unset]", "")]).await;
    assert_eq!(got.status, 200, "{}", got.body);
    assert_eq!(got.body["metadata"], json!({ "k".repeat(40): value }));
    let names: Vec<String> = (0..50).map(|n| format!("metadata[k{n}]")).collect();
    let form: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).chain([("amount", "1")]).collect();
    assert_eq!(caller.post(REVERSALS, "k2", &form).await.status, 200);
}

#[tokio::test]
async fn metadata_beyond_the_limits_is_refused_and_the_key_stays_free() {
    let long_key = format!("metadata[{}]", "k".repeat(41));
    let long_value = "v".repeat(501);
    let names: Vec<String> = (0..51).map(|n| format!("metadata[k{n}]")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
    let rows: [(&[(&str, &str)], &str); 6] = [
        (&[(&long_key, "v")], "Metadata keys can have up to 40 characters, but you passed in a key that is 41"),
        (&[("metadata[k]", &long_value)], "Metadata values can have up to 500 characters, but you passed in a value"),
        (&[("metadata[clawback[tr_1]]", "5")], "Metadata keys can't contain square brackets"),
        (&[("metadata[a][b]", "5")], "Metadata keys can't contain square brackets"),
        (&[("metadata", "text")], "Invalid object"),
        (&many, "Metadata can have up to 50 keys, but you've set 51."),
    ];
    for path in [REVERSALS, "/v1/transfers"] {
        let caller = Caller::new();
        let valid: &[_] = match path {
            REVERSALS => &[("amount", "1")],
            _ => &[("amount", "1"), ("currency", "eur"), ("destination", "acct_1")],
        };
        for (metadata, says) in rows {
            let got = caller.post(path, "k", &[valid, metadata].concat()).await;
            let kind = got.body["error"]["type"].as_str();
            assert_eq!((got.status, kind), (400, Some("invalid_request_error")), "{metadata:?}");
            assert!(message(&got.body).starts_with(says), "{metadata:?}: {}", got.body);
        }
        let got = caller.post(path, "k", valid).await;
        assert_eq!((got.status, got.header("idempotent-replayed")), (200, None));
    }
}

#[tokio::test]
async fn unknown_parameters_are_named_for_reads_and_writes() {
    let caller = Caller::new();
    let got = caller.post(REVERSALS, "k", &[("amount", "1"), ("one", "1"), ("two", "2")]).await;
    assert_eq!((got.status, got.error()), (400, "parameter_unknown"));
    assert_eq!(message(&got.body), "Received unknown parameters: one, two");
    for path in ["/v1/transfers/tr_1?x=1", "/v1/transfers?source_transaction=ch_1", "/v1/refunds?status=failed"] {
        assert_eq!(caller.get(path).await.error(), "parameter_unknown", "{path}");
    }
}

#[tokio::test]
async fn an_empty_or_malformed_value_is_refused() {
    let caller = Caller::new();
    let create = |more: &[(&'static str, &'static str)]| {
        let valid = [("amount", "1"), ("currency", "eur"), ("destination", "acct_1")];
        let valid = valid.into_iter().filter(|(name, _)| more.iter().all(|(given, _)| given != name));
        valid.chain(more.to_vec()).collect::<Vec<_>>()
    };
    type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, &'a str);
    let rows: [Row<'_>; 8] = [
        (REVERSALS, vec![("amount", "")], "parameter_invalid_empty", "amount"),
        (REVERSALS, vec![("amount", "+5")], "parameter_invalid_integer", "amount"),
        (REVERSALS, vec![("refund_application_fee", "yes")], "invalid_request_error", "refund_application_fee"),
        ("/v1/transfers", create(&[("currency", "xyz")]), "invalid_request_error", "currency"),
        ("/v1/transfers", create(&[("currency", "euro")]), "invalid_request_error", "currency"),
        ("/v1/transfers", create(&[("destination", "acct_")]), "resource_missing", "destination"),
        ("/v1/transfers", create(&[("source_transaction", "pi_1")]), "resource_missing", "source_transaction"),
        ("/v1/transfers", create(&[("source_type", "cash")]), "invalid_request_error", "source_type"),
    ];
    for (at, (path, form, error, param)) in rows.into_iter().enumerate() {
        let got = caller.post(path, &at.to_string(), &form).await;
        let found = (got.status, got.error(), got.body["error"]["param"].as_str().unwrap_or_default());
        assert_eq!(found, (400, error, param), "{form:?}: {}", got.body);
    }
    assert_eq!((caller.reversed(), caller.sim.ledger().transfers.len()), (0, 1));
}

/// Sends a path as it stands: an HTTP client would resolve its dots.
async fn raw_post(caller: &Caller, path: &str) -> String {
    let address = caller.sim.base_url().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk_test_1\r\ncontent-length: 8\r\nconnection: close\r\n\r\n\
         amount=1"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_id_that_can_not_be_stripes_matches_no_route() {
    let caller = Caller::new();
    for id in [".", "..", "%2E%2E", "tr_1%2F..%2Ftr_1", "tr_1%20", "tr-1", "tr_1%3F"] {
        let answer = raw_post(&caller, &format!("/v1/transfers/{id}/reversals")).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{id}: {answer}");
        assert!(answer.contains("Unrecognized request URL (POST: /v1/transfers/"), "{id}: {answer}");
    }
    assert!(raw_post(&caller, "/v1/transfers/somebody/reversals").await.contains("No such transfer: 'somebody'"));
    assert!(raw_post(&caller, REVERSALS).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
#[should_panic(expected = "id must be tr_")]
async fn a_transfer_whose_id_can_not_be_stripes_is_not_added() {
    Caller::new().sim.add_transfer("tr_1/..", 1, "eur", "acct_1");
}

#[tokio::test]
async fn a_reversal_without_metadata_shows_null_when_asked_to() {
    let caller = Caller::new();
    caller.sim.set_null_metadata(true);
    assert_eq!(caller.reverse("k", "1").await.body.get("metadata"), Some(&Value::Null));
    let with = caller.post(REVERSALS, "k2", &[("amount", "1"), ("metadata[a]", "b")]).await;
    assert_eq!(with.body["metadata"], json!({"a": "b"}));
    let listed = caller.get(REVERSALS).await.body;
    assert_eq!(listed["data"][1].get("metadata"), Some(&Value::Null));
}

#[tokio::test]
async fn a_refusal_and_a_500_are_replayed_for_24_hours_and_then_run_again() {
    let caller = Caller::new();
    let day = std::time::Duration::from_secs(24 * 3_600);
    caller.sim.fault("tr_1", Fault::ServerError, 1);
    caller.sim.set_balance("acct_1", Some(100));
    let statuses = async || {
        let (fault, short) = (caller.reverse("fault", "1").await, caller.reverse("short", "200").await);
        [fault, short].map(|got| (got.status, got.header("idempotent-replayed").is_some()))
    };
    assert_eq!(statuses().await, [(500, false), (400, false)]);
    caller.sim.set_balance("acct_1", None);
    assert_eq!(statuses().await, [(500, true), (400, true)]);
    caller.sim.advance(day);
    assert_eq!(statuses().await, [(200, false), (200, false)]);
    assert_eq!(caller.sim.counts().replays, 2);
}
