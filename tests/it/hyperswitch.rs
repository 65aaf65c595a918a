//! Hyperswitch's webhooks over real HTTP: what is believed, what is recorded, and what is done once.

use clawback::http::webhooks::{self, IngressState};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{
    HYPERSWITCH_KEY, TestApp, both_databases, eventually, hyperswitch_event, sign_hyperswitch, two_sellers,
};

both_databases! {
    a_refund_goes_all_the_way_to_the_reversed_transfers,
    a_body_that_was_sent_again_changes_nothing,
    a_refund_that_reverted_the_transfer_itself_creates_no_reversal,
    a_refund_that_is_not_done_and_other_events_are_recorded_with_a_reason,
    a_refund_of_an_unknown_payment_waits_for_its_registration,
    what_is_not_really_signed_is_refused_and_leaves_no_trace,
    a_body_that_cannot_be_read_is_refused,
    a_refund_of_stripes_and_one_of_hyperswitchs_with_the_same_id_are_two,
    a_refund_of_another_merchant_with_the_same_id_is_another_refund,
    of_two_states_of_a_refund_the_later_one_counts,
    a_refund_that_succeeds_after_all_asks_only_for_what_is_missing,
    a_refund_that_succeeds_after_all_beside_another_one_takes_what_both_owe_together,
    what_a_refund_that_succeeds_after_all_can_not_take_beside_another_one_needs_an_operator,
    without_a_secret_the_endpoint_is_not_there,
}

fn event(id: &str, amount: i64) -> String {
    hyperswitch_event(id, "ref_1", "pay_1", amount).to_string()
}

/// The event of the whole refund, with the value at a JSON pointer replaced.
fn event_with(pointer: &str, value: Value) -> String {
    let mut event = hyperswitch_event("evt_1", "ref_1", "pay_1", 10_000);
    *event.pointer_mut(pointer).unwrap() = value;
    event.to_string()
}

async fn answer(response: Response) -> Value {
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

async fn problem(response: Response, status: StatusCode, slug: &str) -> Value {
    let answered = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((answered, problem["type"].as_str().unwrap()), (status, &*format!("/problems/{slug}")), "{problem}");
    problem
}

async fn reversals(app: &TestApp) -> i64 {
    app.db.count("reversals").await
}

async fn a_refund_goes_all_the_way_to_the_reversed_transfers(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    let answer = answer(app.post_hyperswitch(&event("evt_1", 10_000)).await).await;
    assert_eq!(answer, json!({"received": true, "outcome": "accepted", "reversals": 2}));
    eventually("both are reversed", || async {
        let payment = app.payment("pay_1").await;
        (payment["transfers"][0]["status"] == "reversed" && payment["transfers"][1]["status"] == "reversed")
            .then_some(())
    })
    .await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
    let refund = app.refund_view("ref_1").await;
    assert_eq!((&refund["source"], &refund["currency"]), (&json!("hyperswitch"), &json!("eur")));
}

async fn a_body_that_was_sent_again_changes_nothing(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    let body = event("evt_1", 5_000);
    assert_eq!(answer(app.post_hyperswitch(&body).await).await["outcome"], "accepted");
    for body in [body, event("evt_2", 5_000), event("evt_3", 5_000)] {
        assert_eq!(answer(app.post_hyperswitch(&body).await).await["outcome"], "duplicate");
    }
    let many = (0..8).map(|_| async { answer(app.post_hyperswitch(&event("evt_4", 5_000)).await).await });
    for answer in futures_util::future::join_all(many).await {
        assert_eq!(answer["outcome"], "duplicate");
    }
    assert_eq!(reversals(&app).await, 2);
}

async fn a_refund_that_reverted_the_transfer_itself_creates_no_reversal(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    let split = json!({"stripe_split_refund": {"revert_platform_fee": true, "revert_transfer": true}});
    let answer = answer(app.post_hyperswitch(&event_with("/content/object/split_refunds", split)).await).await;
    assert_eq!(answer["outcome"], "ignored");
    assert_eq!(app.refund_view("ref_1").await["status"], "nothing_to_reverse");
    assert_eq!(reversals(&app).await, 0);
}

async fn a_refund_that_is_not_done_and_other_events_are_recorded_with_a_reason(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    for (number, status) in ["pending", "review"].into_iter().enumerate() {
        let mut event = hyperswitch_event(&format!("evt_of_{number}"), "ref_1", "pay_1", 10_000);
        event["content"]["object"]["status"] = json!(status);
        let answer = answer(app.post_hyperswitch(&event.to_string()).await).await;
        assert_eq!(answer["outcome"], "ignored");
        assert!(answer["reason"].as_str().unwrap().contains(status), "{answer}");
    }
    let other = event_with("/event_type", json!("payment_succeeded"));
    assert_eq!(answer(app.post_hyperswitch(&other).await).await["outcome"], "ignored");
    let recorded =
        app.db.count("webhook_events WHERE source = 'hyperswitch' AND outcome = 'ignored' AND detail <> ''").await;
    assert_eq!((recorded, reversals(&app).await), (3, 0));
    assert_eq!(answer(app.post_hyperswitch(&event("evt_9", 10_000)).await).await["outcome"], "accepted");
}

async fn a_refund_of_an_unknown_payment_waits_for_its_registration(app: TestApp) {
    assert_eq!(answer(app.post_hyperswitch(&event("evt_1", 10_000)).await).await["outcome"], "unmatched");
    app.register(two_sellers("pay_1")).await;
    assert_eq!(reversals(&app).await, 2);
}

async fn what_is_not_really_signed_is_refused_and_leaves_no_trace(app: TestApp) {
    let body = event("evt_1", 10_000);
    let signature = sign_hyperswitch(HYPERSWITCH_KEY, body.as_bytes());
    for (header, slug) in [
        (sign_hyperswitch("another_key", body.as_bytes()), "signature-mismatch"),
        (sign_hyperswitch(HYPERSWITCH_KEY, format!("{body} ").as_bytes()), "signature-mismatch"),
        (signature.to_uppercase(), "signature-malformed"),
        (signature[..126].to_owned(), "signature-malformed"),
        (signature[..64].to_owned(), "signature-malformed"),
        (String::new(), "signature-malformed"),
    ] {
        problem(app.post_hyperswitch_signed(body.clone(), &header).await, StatusCode::BAD_REQUEST, slug).await;
    }
    let changed = body.replace("10000", "10001");
    assert_ne!(changed, body);
    let changed = app.post_hyperswitch_signed(changed, &signature).await;
    problem(changed, StatusCode::BAD_REQUEST, "signature-mismatch").await;
    let unsigned = app.http.post(format!("{}/webhooks/hyperswitch", app.base_url)).body(body).send().await.unwrap();
    let unsigned = problem(unsigned, StatusCode::BAD_REQUEST, "signature-missing").await;
    assert!(unsigned["detail"].as_str().unwrap().contains("x-webhook-signature-512"), "{unsigned}");
    assert_eq!(app.db.count("webhook_events").await + app.db.count("claims").await, 0);
}

async fn a_body_that_cannot_be_read_is_refused(app: TestApp) {
    for body in ["", "{", "[]", "\"evt_1\""] {
        problem(app.post_hyperswitch(body).await, StatusCode::BAD_REQUEST, "malformed-body").await;
    }
    let unreadable = event_with("/content/object/amount", json!(0));
    let refused = problem(app.post_hyperswitch(&unreadable).await, StatusCode::BAD_REQUEST, "malformed-body").await;
    assert_eq!(refused["field"], "content.object.amount");

    let not_utf8: &[u8] = b"{\"event_id\":\"\xff\"}";
    let response = app.post_hyperswitch_signed(not_utf8, &sign_hyperswitch(HYPERSWITCH_KEY, not_utf8)).await;
    problem(response, StatusCode::BAD_REQUEST, "malformed-body").await;

    let mut huge = event_with("/event_type", json!("payment_succeeded"));
    huge.push_str(&" ".repeat(1024 * 1024 - huge.len()));
    assert_eq!(answer(app.post_hyperswitch(&huge).await).await["outcome"], "ignored");
    huge.push(' ');
    problem(app.post_hyperswitch(&huge).await, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large").await;
}

async fn a_refund_of_stripes_and_one_of_hyperswitchs_with_the_same_id_are_two(app: TestApp) {
    app.register(two_sellers("pi_1")).await;
    app.refund_of(2_000, 1).await;
    let same_id = hyperswitch_event("evt_1", "re_1", "pi_1", 3_000).to_string();
    assert_eq!(answer(app.post_hyperswitch(&same_id).await).await["outcome"], "accepted");
    assert_eq!(reversals(&app).await, 4);
}

async fn a_refund_of_another_merchant_with_the_same_id_is_another_refund(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    assert_eq!(answer(app.post_hyperswitch(&event("evt_1", 2_000)).await).await["outcome"], "accepted");
    let mut other = hyperswitch_event("evt_2", "ref_1", "pay_2", 700);
    other["merchant_id"] = json!("merchant_2");
    assert_eq!(answer(app.post_hyperswitch(&other.to_string()).await).await["outcome"], "unmatched");
    assert_eq!(app.db.count("claims WHERE reference = 'ref_1'").await, 2);
    // A report need not name the merchant of a payment, but can't mean another one by that.
    let mut report = json!({"source": "hyperswitch", "refund_ref": "ref_1", "payment_ref": "pay_2", "amount": 700, "currency": "eur"});
    assert_eq!(app.report(&report).await.status(), StatusCode::OK);
    report["payment_ref"] = json!("pay_3");
    let refused = problem(app.report(&report).await, StatusCode::CONFLICT, "conflict").await;
    assert!(refused["detail"].as_str().unwrap().contains("name the account"), "{refused}");
    report["account"] = json!("merchant_3");
    assert_eq!(app.report(&report).await.status(), StatusCode::CREATED);
    // What was reported without a merchant is the same refund as its webhook.
    let early = json!({"source": "hyperswitch", "refund_ref": "ref_9", "payment_ref": "pay_1", "amount": 10, "currency": "eur"});
    assert_eq!(app.report(&early).await.status(), StatusCode::CREATED);
    let same = hyperswitch_event("evt_9", "ref_9", "pay_1", 10).to_string();
    assert_eq!(answer(app.post_hyperswitch(&same).await).await["outcome"], "duplicate");
    assert_eq!(app.refund_view("ref_9").await["account"], "merchant_1790000000");
}

/// The event of the whole refund in a status, which it has had since a minute.
fn state(id: &str, status: &str, minute: u32) -> String {
    state_of(("ref_1", 10_000), id, status, minute)
}

/// The same of any refund.
fn state_of((refund, amount): (&str, i64), id: &str, status: &str, minute: u32) -> String {
    let mut event = hyperswitch_event(id, refund, "pay_1", amount);
    event["event_type"] = json!(format!("refund_{status}"));
    event["content"]["object"]["status"] = json!(status);
    event["content"]["object"]["updated_at"] = json!(format!("2026-11-23T10:{minute:02}:00.000Z"));
    event.to_string()
}

async fn of_two_states_of_a_refund_the_later_one_counts(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.register(two_sellers("pay_1")).await;
    let send = async |body: String| answer(app.post_hyperswitch(&body).await).await["outcome"].clone();
    assert_eq!(send(state("evt_1", "succeeded", 1)).await, "accepted");
    assert_eq!(send(state("evt_2", "failed", 3)).await, "failed");
    // An older word that comes late, and then a corrected one.
    assert_eq!(send(state("evt_3", "succeeded", 2)).await, "ignored");
    assert_eq!(app.refund_view("ref_1").await["status"], "failed");
    assert_eq!(send(state("evt_4", "succeeded", 4)).await, "accepted");
    assert_eq!(send(state("evt_5", "failed", 3)).await, "ignored");
    let refund = app.refund_view("ref_1").await;
    assert_eq!((&refund["status"], &refund["failed_at"]), (&json!("matched"), &Value::Null));
    // It fails twice, and a success in between comes last.
    assert_eq!(send(state("evt_6", "failed", 5)).await, "failed");
    assert_eq!(send(state("evt_7", "failed", 7)).await, "duplicate");
    assert_eq!(send(state("evt_8", "succeeded", 6)).await, "ignored");
    assert_eq!(send(state("evt_9", "succeeded", 8)).await, "accepted");
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    eventually("both are reversed", || async {
        ((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")) == (6_000, 3_000)).then_some(())
    })
    .await;
}

async fn a_refund_that_succeeds_after_all_asks_only_for_what_is_missing(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.register(two_sellers("pay_1")).await;
    let send = async |body: String| answer(app.post_hyperswitch(&body).await).await["outcome"].clone();
    send(state("evt_1", "succeeded", 1)).await;
    let id = app.refund_view("ref_1").await["reversals"][0]["id"].as_str().unwrap().parse().unwrap();
    app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    send(state("evt_2", "failed", 2)).await;
    assert_eq!(send(state("evt_3", "succeeded", 3)).await, "accepted");
    let refund = app.refund_view("ref_1").await;
    assert!(refund["attention"].as_str().unwrap().contains("succeeded there later"), "{refund}");
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    eventually("both are reversed", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn taken_back(app: &TestApp, amounts: (i64, i64)) {
    eventually(&format!("{amounts:?} are taken back"), || async {
        ((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")) == amounts).then_some(())
    })
    .await;
    eventually("no reversal is open", || async {
        (app.db.count("reversals WHERE status = 'pending'").await == 0).then_some(())
    })
    .await;
}

async fn a_refund_that_succeeds_after_all_beside_another_one_takes_what_both_owe_together(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    let send = async |body: String| answer(app.post_hyperswitch(&body).await).await["outcome"].clone();
    let (first, second) = (("ref_1", 5_000), ("ref_2", 2_000));
    assert_eq!(send(state_of(first, "evt_1", "succeeded", 1)).await, "accepted");
    taken_back(&app, (3_000, 1_500)).await;
    assert_eq!(send(state_of(first, "evt_2", "failed", 2)).await, "failed");
    // What was taken for the first covers it.
    assert_eq!(send(state_of(second, "evt_3", "succeeded", 3)).await, "accepted");
    assert_eq!(reversals(&app).await, 2);
    assert_eq!(send(state_of(first, "evt_4", "succeeded", 4)).await, "accepted");
    taken_back(&app, (4_200, 2_100)).await;
    for refund in ["ref_1", "ref_2"] {
        let refund = app.refund_view(refund).await;
        assert_eq!((&refund["status"], refund["reversals"].as_array().unwrap().len()), (&json!("matched"), 2));
    }
}

async fn what_a_refund_that_succeeds_after_all_can_not_take_beside_another_one_needs_an_operator(app: TestApp) {
    app.register(two_sellers("pay_1")).await;
    let send = async |body: String| answer(app.post_hyperswitch(&body).await).await["outcome"].clone();
    let (first, second) = (("ref_1", 2_000), ("ref_2", 8_000));
    send(state_of(first, "evt_1", "succeeded", 1)).await;
    taken_back(&app, (1_200, 600)).await;
    send(state_of(first, "evt_2", "failed", 2)).await;
    send(state_of(second, "evt_3", "succeeded", 3)).await;
    taken_back(&app, (4_800, 2_400)).await;
    // Each of the two has its reversal of each transfer, and Stripe can't tell a second one from it.
    assert_eq!(send(state_of(first, "evt_4", "succeeded", 4)).await, "accepted");
    let refund = app.refund_view("ref_1").await;
    assert_eq!(refund["status"], "matched");
    for words in ["1200 eur more of transfer tr_1", "600 eur more of transfer tr_2"] {
        assert!(refund["attention"].as_str().unwrap_or_default().contains(words), "{refund}");
    }
    assert_eq!(
        (app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2"), reversals(&app).await),
        (4_800, 2_400, 4)
    );
}

async fn without_a_secret_the_endpoint_is_not_there(app: TestApp) {
    let state = IngressState {
        ledger: app.ledger().clone(),
        stripe_webhook_secret: Some("whsec".into()),
        stripe_livemode: None,
        hyperswitch_webhook_secret: None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, webhooks::routes(state)).into_future());
    let body = event("evt_1", 10_000);
    let request = app.http.post(format!("http://{address}/webhooks/hyperswitch"));
    let response = request
        .header("x-webhook-signature-512", sign_hyperswitch("", body.as_bytes()))
        .body(body)
        .send()
        .await
        .unwrap();
    let problem = problem(response, StatusCode::NOT_FOUND, "switched-off").await;
    assert!(problem["detail"].as_str().unwrap().contains("HYPERSWITCH_WEBHOOK_SECRET"), "{problem}");
}
