//! One row per line of the tables in which the project keeps what is known of Stripe's errors and outcomes, with bodies
//! as Stripe sends them.

use super::*;

fn asked() -> ReverseTransfer {
    ReverseTransfer {
        transfer_id: "tr_1".to_owned(),
        amount: 700,
        currency: "eur".to_owned(),
        refund_application_fee: false,
        claim: "stripe:re_1".to_owned(),
        generation: 0,
    }
}

fn classified(status: u16, headers: &Headers, body: &str) -> Report {
    classify(status, headers, body.as_bytes(), Asked::Reversal(&asked()))
}

fn meaning(status: u16, body: &str) -> Meaning {
    classified(status, &Headers::default(), body).meaning
}

/// A reversal as Stripe answers it to what [`asked`] asks, with changes.
fn reversal(changes: &[(&str, serde_json::Value)]) -> String {
    let mut body = serde_json::json!({
        "id": "trr_1", "object": "transfer_reversal", "amount": 700, "balance_transaction": "txn_1",
        "created": 1_790_000_000, "currency": "eur", "destination_payment_refund": "pyr_1",
        "metadata": {"clawback_claim": asked().claim},
        "source_refund": null, "transfer": "tr_1",
    });
    for (name, value) in changes {
        body[name] = value.clone();
    }
    body.to_string()
}

fn error(fields: serde_json::Value) -> String {
    serde_json::json!({ "error": fields }).to_string()
}

fn invalid_request(code: &str) -> String {
    error(serde_json::json!({
        "code": code, "doc_url": format!("https://stripe.com/docs/error-codes/{code}"), "message": "Something is not right.",
        "request_log_url": "https://dashboard.stripe.com/test/logs/req_1", "type": "invalid_request_error",
    }))
}

fn without_code(message: &str) -> String {
    error(serde_json::json!({"message": message, "type": "invalid_request_error"}))
}

fn with_message(code: &str, message: &str, param: Option<&str>) -> String {
    error(serde_json::json!({"code": code, "message": message, "param": param, "type": "invalid_request_error"}))
}

const NOTHING: &str = "";
const HTML: &str = "<html><head><title>503 Service Temporarily Unavailable</title></head><body>nginx</body></html>";
const API_ERROR: &str = r#"{"error":{"message":"An unknown error occurred","type":"api_error"}}"#;
const FULLY_REVERSED: &str =
    r#"{"error":{"message":"The transfer tr_1 is already fully reversed.","type":"invalid_request_error"}}"#;
const MORE_THAN_LEFT: &str = r#"{"error":{"message":"Reversal amount ($7.00) is greater than unreversed amount on transfer ($5.00)","param":"amount","type":"invalid_request_error"}}"#;
const NO_SUCH_TRANSFER: &str = r#"{"error":{"code":"resource_missing","doc_url":"https://stripe.com/docs/error-codes/resource-missing","message":"No such transfer: 'tr_1'","param":"id","type":"invalid_request_error"}}"#;
const OTHER_MODE: &str = r#"{"error":{"code":"resource_missing","message":"No such transfer: 'tr_1'; a similar object exists in live mode, but a test mode key was used to make this request.","param":"id","type":"invalid_request_error"}}"#;
const OTHER_PARAMETERS: &str = r#"{"error":{"message":"Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key other than 'clawback-1-0' if you meant to execute a different request.","type":"idempotency_error"}}"#;
const KEY_IN_USE: &str = r#"{"error":{"code":"idempotency_key_in_use","message":"There is currently another in-progress request using this Stripe Idempotent Key.","type":"invalid_request_error"}}"#;
const BAD_KEY: &str =
    r#"{"error":{"message":"Invalid API Key provided: sk_test_****1234","type":"invalid_request_error"}}"#;

/// What [`reversal`] says.
fn done() -> Meaning {
    Meaning::Reversed { reversal_id: "trr_1".to_owned(), balance_transaction: Some("txn_1".to_owned()) }
}

#[test]
fn a_success_means_what_its_body_says() {
    let (done, pending) = (done(), "trr_1".to_owned());
    let status = |status: &str| reversal(&[("status", status.into())]);
    let rows = [
        ("no status", reversal(&[]), done.clone()),
        ("a null status", reversal(&[("status", ().into())]), done.clone()),
        ("succeeded", status("succeeded"), done),
        ("pending", status("pending"), Meaning::Pending { reversal_id: pending.clone() }),
        ("a status newer than this code", status("queued"), Meaning::Pending { reversal_id: pending }),
        ("failed", status("failed"), Meaning::Ended { status: "failed".to_owned() }),
        ("canceled", status("canceled"), Meaning::Ended { status: "canceled".to_owned() }),
        ("no body", NOTHING.to_owned(), Meaning::Unreadable),
        ("HTML", HTML.to_owned(), Meaning::Unreadable),
        ("half a body", reversal(&[])[..60].to_owned(), Meaning::Unreadable),
        ("another object", r#"{"id":"tr_1","object":"transfer","amount":700}"#.to_owned(), Meaning::Unreadable),
        ("an error with status 200", API_ERROR.to_owned(), Meaning::Unreadable),
        ("another transfer", reversal(&[("transfer", "tr_2".into())]), Meaning::Unreadable),
        ("another amount", reversal(&[("amount", 699.into())]), Meaning::Unreadable),
        ("another currency", reversal(&[("currency", "usd".into())]), Meaning::Unreadable),
        ("an empty id", reversal(&[("id", "".into())]), Meaning::Unreadable),
        (
            "another reversal of ours",
            reversal(&[("metadata", serde_json::json!({"clawback_claim": "stripe:re_2"}))]),
            Meaning::Unreadable,
        ),
    ];
    for (what, body, expected) in rows {
        assert_eq!(meaning(200, &body), expected, "{what}: {body}");
    }
}

#[test]
fn a_success_of_a_read_that_comes_here_is_one_that_the_client_could_not_read() {
    let report = classify(200, &Headers::default(), reversal(&[]).as_bytes(), Asked::Read);
    assert_eq!(report.meaning, Meaning::Unreadable);
}

#[test]
fn a_failure_means_what_the_table_says() {
    let rows = [
        (409, KEY_IN_USE.to_owned(), Meaning::KeyInUse),
        (409, NOTHING.to_owned(), Meaning::KeyInUse),
        (429, invalid_request("lock_timeout"), Meaning::Locked),
        (409, invalid_request("lock_timeout"), Meaning::Locked),
        (429, invalid_request("rate_limit"), Meaning::RateLimited),
        (400, invalid_request("rate_limit"), Meaning::RateLimited),
        (429, HTML.to_owned(), Meaning::RateLimited),
        (500, API_ERROR.to_owned(), Meaning::ServerError),
        (500, HTML.to_owned(), Meaning::ServerError),
        (501, NOTHING.to_owned(), Meaning::ServerError),
        (520, HTML.to_owned(), Meaning::ServerError),
        (502, HTML.to_owned(), Meaning::Unavailable),
        (503, HTML.to_owned(), Meaning::Unavailable),
        (503, API_ERROR.to_owned(), Meaning::Unavailable),
        (504, NOTHING.to_owned(), Meaning::Unavailable),
        (424, API_ERROR.to_owned(), Meaning::Unavailable),
        (400, FULLY_REVERSED.to_owned(), Meaning::AlreadyReversed),
        (402, FULLY_REVERSED.to_owned(), Meaning::AlreadyReversed),
        (400, MORE_THAN_LEFT.to_owned(), Meaning::MoreThanLeft),
        (402, MORE_THAN_LEFT.to_owned(), Meaning::MoreThanLeft),
        (400, invalid_request("balance_insufficient"), Meaning::BalanceInsufficient),
        (402, invalid_request("insufficient_funds"), Meaning::BalanceInsufficient),
        (400, without_code("Insufficient funds in Stripe account."), Meaning::BalanceInsufficient),
        (402, without_code("The account has an insufficient available balance."), Meaning::BalanceInsufficient),
        (400, without_code("Insufficient permissions."), Meaning::Rejected),
        (400, without_code("No such fund."), Meaning::Rejected),
        (400, without_code("The balance is locked."), Meaning::Rejected),
        (400, with_message("a_code_newer_than_this", "Insufficient funds.", None), Meaning::Rejected),
        (400, error(serde_json::json!({"param": "amount", "type": "invalid_request_error"})), Meaning::MoreThanLeft),
        (400, error(serde_json::json!({"param": "id", "type": "invalid_request_error"})), Meaning::Rejected),
        (400, without_code("This is greater than what is left."), Meaning::MoreThanLeft),
        (400, with_message("parameter_invalid_integer", "Invalid integer.", Some("amount")), Meaning::Rejected),
        (400, with_message("parameter_unknown", "It is greater than it may be.", None), Meaning::Rejected),
        (404, NO_SUCH_TRANSFER.to_owned(), Meaning::NoSuchTransfer),
        (404, OTHER_MODE.to_owned(), Meaning::Denied),
        (400, OTHER_PARAMETERS.to_owned(), Meaning::KeyMisused),
        (401, BAD_KEY.to_owned(), Meaning::Denied),
        (401, NOTHING.to_owned(), Meaning::Denied),
        (401, invalid_request("api_key_expired"), Meaning::Denied),
        (400, invalid_request("api_key_expired"), Meaning::Denied),
        (403, invalid_request("more_permissions_required"), Meaning::Denied),
        (403, error(serde_json::json!({"message": "No.", "type": "invalid_request_error"})), Meaning::Forbidden),
        (403, invalid_request("account_invalid"), Meaning::Forbidden),
        (400, invalid_request("account_invalid"), Meaning::Forbidden),
        (400, invalid_request("livemode_mismatch"), Meaning::Denied),
        (400, invalid_request("parameter_unknown"), Meaning::Rejected),
        (400, invalid_request("parameter_invalid_integer"), Meaning::Rejected),
        (400, invalid_request("amount_too_small"), Meaning::Rejected),
        (400, invalid_request("amount_too_large"), Meaning::Rejected),
        (400, invalid_request("transfers_not_allowed"), Meaning::Rejected),
        (402, invalid_request("a_code_newer_than_this"), Meaning::Rejected),
        // Not Stripe's: a proxy or a firewall answered.
        (400, HTML.to_owned(), Meaning::Unavailable),
        (403, HTML.to_owned(), Meaning::Unavailable),
        (404, r#"{"message":"no route"}"#.to_owned(), Meaning::Unavailable),
        (408, NOTHING.to_owned(), Meaning::Unavailable),
        (302, NOTHING.to_owned(), Meaning::Unavailable),
        (302, without_code("It is elsewhere."), Meaning::Unavailable),
    ];
    for (status, body, expected) in rows {
        assert_eq!(meaning(status, &body), expected, "{status} {body}");
        let read = classify(status, &Headers::default(), body.as_bytes(), Asked::Read);
        assert_eq!(read.meaning, expected, "a failure means the same for a read: {status} {body}");
    }
}

fn creation() -> CreateTransfer {
    CreateTransfer {
        name: CreateTransfer::name_of("acct_1", 700, "eur", 0),
        payment_ref: "pi_1".to_owned(),
        payment_currency: "eur".to_owned(),
        amount: 700,
        currency: "eur".to_owned(),
        destination: "acct_1".to_owned(),
        generation: 0,
    }
}

fn meaning_of_creation(status: u16, body: &str) -> Meaning {
    classify(status, &Headers::default(), body.as_bytes(), Asked::Creation(&creation())).meaning
}

#[test]
fn a_creation_has_happened_only_where_its_answer_is_the_transfer_that_was_asked_for() {
    let transfer = |changes: &[(&str, serde_json::Value)]| {
        let mut body = serde_json::json!({
            "id": "tr_1", "object": "transfer", "amount": 700, "amount_reversed": 0, "created": 1_790_000_000,
            "currency": "eur", "destination": "acct_1", "livemode": false, "reversed": false,
            "metadata": {"clawback_transfer": creation().name, "payment_ref": "pi_1"}, "transfer_group": "pi_1",
        });
        for (name, value) in changes {
            body[name] = value.clone();
        }
        body.to_string()
    };
    let created = Meaning::Created { transfer_id: "tr_1".to_owned() };
    for (what, body, expected) in [
        ("as asked", transfer(&[]), created.clone()),
        ("without metadata", transfer(&[("metadata", serde_json::json!({}))]), created),
        ("no body", NOTHING.to_owned(), Meaning::Unreadable),
        ("HTML", HTML.to_owned(), Meaning::Unreadable),
        ("a reversal", reversal(&[]), Meaning::Unreadable),
        ("another amount", transfer(&[("amount", 699.into())]), Meaning::Unreadable),
        ("another currency", transfer(&[("currency", "usd".into())]), Meaning::Unreadable),
        ("another account", transfer(&[("destination", "acct_2".into())]), Meaning::Unreadable),
        ("an empty id", transfer(&[("id", "".into())]), Meaning::Unreadable),
        (
            "another transfer of ours",
            transfer(&[(
                "metadata",
                serde_json::json!({"clawback_transfer": "acct_1:700eur:1", "payment_ref": "pi_1"}),
            )]),
            Meaning::Unreadable,
        ),
        (
            "the same of another payment",
            transfer(&[("metadata", serde_json::json!({"clawback_transfer": creation().name, "payment_ref": "pi_2"}))]),
            Meaning::Unreadable,
        ),
    ] {
        assert_eq!(meaning_of_creation(200, &body), expected, "{what}: {body}");
    }
}

#[test]
fn a_refused_creation_means_the_same_as_a_refused_reversal_except_where_it_is_about_the_transfer() {
    for (status, body, expected) in [
        (409, KEY_IN_USE.to_owned(), Meaning::KeyInUse),
        (429, invalid_request("rate_limit"), Meaning::RateLimited),
        (500, API_ERROR.to_owned(), Meaning::ServerError),
        (503, HTML.to_owned(), Meaning::Unavailable),
        (400, invalid_request("balance_insufficient"), Meaning::BalanceInsufficient),
        (400, OTHER_PARAMETERS.to_owned(), Meaning::KeyMisused),
        (401, BAD_KEY.to_owned(), Meaning::Denied),
        (404, OTHER_MODE.to_owned(), Meaning::Denied),
        (400, invalid_request("resource_missing"), Meaning::NoSuchAccount),
        (404, invalid_request("resource_missing"), Meaning::NoSuchAccount),
        (400, invalid_request("transfers_not_allowed"), Meaning::Rejected),
        // Nothing is reversed yet, so these can't mean what they mean for a reversal.
        (400, MORE_THAN_LEFT.to_owned(), Meaning::Rejected),
        (400, FULLY_REVERSED.to_owned(), Meaning::Rejected),
    ] {
        assert_eq!(meaning_of_creation(status, &body), expected, "{status} {body}");
    }
}

#[test]
fn a_replayed_failure_of_the_server_is_never_tried_again_with_the_same_key() {
    for status in [500, 502, 503, 504, 424] {
        let headers = Headers { replayed: true, should_retry: Some(true), ..Headers::default() };
        let report = classified(status, &headers, API_ERROR);
        assert_eq!((report.meaning, report.replayed), (Meaning::ServerError, true), "{status}");
    }
}

#[test]
fn should_retry_changes_two_meanings_and_no_others() {
    let rows = [
        (400, invalid_request("parameter_unknown"), true, Meaning::Unavailable),
        (400, invalid_request("parameter_unknown"), false, Meaning::Rejected),
        (503, HTML.to_owned(), false, Meaning::ServerError),
        (503, HTML.to_owned(), true, Meaning::Unavailable),
        (500, API_ERROR.to_owned(), true, Meaning::ServerError),
        (500, API_ERROR.to_owned(), false, Meaning::ServerError),
        (409, KEY_IN_USE.to_owned(), false, Meaning::KeyInUse),
        (429, invalid_request("rate_limit"), false, Meaning::RateLimited),
        (429, invalid_request("lock_timeout"), false, Meaning::Locked),
        (400, invalid_request("balance_insufficient"), true, Meaning::BalanceInsufficient),
        (400, FULLY_REVERSED.to_owned(), true, Meaning::AlreadyReversed),
        (400, OTHER_PARAMETERS.to_owned(), true, Meaning::KeyMisused),
        (401, BAD_KEY.to_owned(), true, Meaning::Denied),
        (200, reversal(&[]), true, done()),
    ];
    for (status, body, should_retry, expected) in rows {
        let headers = Headers { should_retry: Some(should_retry), ..Headers::default() };
        assert_eq!(classified(status, &headers, &body).meaning, expected, "{should_retry}: {status} {body}");
    }
}

#[test]
fn a_report_carries_what_people_and_stripes_support_ask_for() {
    let headers = Headers {
        request_id: Some("req_1".to_owned()),
        retry_after: Some(Duration::from_secs(7)),
        rate_limited_reason: Some("endpoint-rate".to_owned()),
        ..Headers::default()
    };
    let expected = Report {
        meaning: Meaning::RateLimited,
        http_status: Some(429),
        request_id: Some("req_1".to_owned()),
        code: Some("rate_limit".to_owned()),
        message: "Something is not right. (limiter: endpoint-rate)".to_owned(),
        retry_after: Some(Duration::from_secs(7)),
        replayed: false,
    };
    assert_eq!(classified(429, &headers, &invalid_request("rate_limit")), expected);
}

#[test]
fn a_wait_that_stripe_asks_for_is_capped() {
    let headers = Headers { retry_after: Some(Duration::from_secs(86_400)), ..Headers::default() };
    assert_eq!(classified(503, &headers, HTML).retry_after, Some(RETRY_AFTER_MAX));
}

#[test]
fn a_message_is_one_line_cut_to_its_limit_and_shows_no_key() {
    let body = error(serde_json::json!({
        "message": format!("Bad key\nsk_live_abc and \"rk_live_abc\", key=whsec_abc. The masked sk_test_****1234 and risk_level stay. {}", "é".repeat(2_000)),
        "type": "invalid_request_error",
    }));
    let message = classified(400, &Headers::default(), &body).message;
    let expected = "Bad key [redacted] and [redacted] [redacted] The masked sk_test_****1234 and risk_level stay. é";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(message.chars().count(), MESSAGE_MAX_CHARS);
    assert!(message.ends_with('…'), "{message}");
}

#[test]
fn a_message_is_cut_only_where_it_is_too_long() {
    let message = |text: &str| classified(400, &Headers::default(), &without_code(text)).message;
    for longest in ["é", "e"].map(|letter| letter.repeat(MESSAGE_MAX_CHARS)) {
        assert_eq!(message(&longest), longest);
    }
    let words = "é ".repeat(2_000);
    let cut: String = words.chars().take(MESSAGE_MAX_CHARS - 1).chain(['…']).collect();
    assert_eq!(message(&words), cut);
    assert_eq!(message(""), "");
}

#[test]
fn no_answer_means_unreached_unless_the_other_side_is_not_proven_to_be_stripe() {
    let network = classify_transport(TransportFailure::Network, None, "connection refused");
    assert_eq!((network.meaning, network.http_status), (Meaning::Unreached, None));
    assert_eq!(network.message, "connection refused");
    let broken_off = classify_transport(TransportFailure::Network, Some(200), "the body broke off");
    assert_eq!((broken_off.meaning, broken_off.http_status), (Meaning::Unreached, Some(200)));
    let tls = classify_transport(TransportFailure::Tls, None, "invalid peer certificate: UnknownIssuer");
    assert_eq!(tls.meaning, Meaning::TlsFailed);
}

#[test]
fn what_no_database_holds_and_no_terminal_should_obey_is_left_out() {
    let body = with_message("odd\u{0}\u{1b}[2J", "It is\u{0} not \u{1b}[31mright", None);
    let report = classified(400, &Headers::default(), &body);
    assert_eq!((report.message.as_str(), report.code.as_deref()), ("It is not [31mright", Some("odd[2J")));
}
