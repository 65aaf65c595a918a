//! Webhooks over real HTTP: what is believed, what is recorded, and what is done once.

use std::net::SocketAddr;

use chrono::Utc;
use clawback::http::webhooks::{self, IngressState};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;

use crate::support::{TestApp, both_databases, two_sellers};

both_databases! {
    a_signed_refund_is_accepted_and_each_transfer_gets_one_reversal,
    a_forged_signature_is_refused_and_leaves_no_trace,
    a_body_that_was_changed_after_signing_is_refused,
    a_webhook_without_a_signature_is_refused,
    a_signature_that_is_too_old_or_from_the_future_is_refused_as_stale,
    one_fitting_signature_among_several_is_enough,
    a_body_of_one_mebibyte_is_taken_and_one_byte_more_is_refused,
    a_signed_body_that_is_no_json_is_refused_with_its_place,
    a_signed_refund_that_cannot_be_used_is_refused_by_its_field_and_not_recorded,
    an_unknown_event_is_ignored_and_recorded,
    the_same_event_twice_is_done_once,
    the_same_event_eight_times_at_once_is_done_once,
    the_same_refund_under_two_event_ids_is_done_once,
    a_refund_of_an_unknown_payment_is_kept_until_the_payment_is_registered,
    a_refund_counts_when_it_has_succeeded_and_not_before,
    a_refunded_charge_counts_once_it_lists_its_refunds,
    a_refund_with_expanded_objects_is_accepted,
    a_refund_whose_transfer_stripe_has_reversed_creates_no_reversal,
    another_method_is_refused_with_the_one_that_is_taken,
    without_a_secret_the_endpoint_is_not_there,
    without_its_database_the_sender_is_asked_to_try_again,
}

/// The refund of all of it.
fn refund() -> Value {
    json!({
        "id": "re_1", "object": "refund", "amount": 10_000, "currency": "eur", "status": "succeeded",
        "payment_intent": "pi_1", "charge": "ch_1", "transfer_reversal": null,
    })
}

fn event(id: &str, event_type: &str, object: &Value) -> String {
    json!({"id": id, "object": "event", "type": event_type, "data": {"object": object}}).to_string()
}

fn signature(secret: &str, signed_at: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{signed_at}.{body}").as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

fn header(secret: &str, signed_at: i64, body: &str) -> String {
    format!("t={signed_at},v1={}", signature(secret, signed_at, body))
}

async fn register(app: &TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), StatusCode::CREATED);
}

/// The answer to an event that must be received.
async fn received(response: Response) -> Value {
    assert_eq!(response.status(), StatusCode::OK);
    let answer: Value = response.json().await.unwrap();
    assert_eq!(answer["received"], true);
    answer
}

/// The `outcome` that a really signed event must have.
async fn outcome(app: &TestApp, body: &str) -> String {
    received(app.post_webhook(body).await).await["outcome"].as_str().unwrap().to_owned()
}

/// The problem that a request must end in.
async fn problem(response: Response, status: StatusCode, slug: &str) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let answered = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((answered, problem["type"].as_str().unwrap()), (status, &*format!("/problems/{slug}")), "{problem}");
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    problem
}

/// The amounts of the reversals of pi_1, transfer by transfer.
async fn reversals(app: &TestApp) -> Vec<Vec<i64>> {
    let payment = app.ledger().payment("pi_1").await.unwrap().unwrap();
    payment
        .transfers
        .iter()
        .map(|transfer| transfer.reversals.iter().map(|reversal| reversal.amount).collect())
        .collect()
}

async fn a_signed_refund_is_accepted_and_each_transfer_gets_one_reversal(app: TestApp) {
    register(&app).await;
    let answer = received(app.post_webhook(&event("evt_1", "refund.created", &refund())).await).await;
    assert_eq!(answer, json!({"received": true, "outcome": "accepted", "reversals": 2}));
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn a_forged_signature_is_refused_and_leaves_no_trace(app: TestApp) {
    register(&app).await;
    let body = event("evt_1", "refund.created", &refund());
    let forged = app.post_signed(&body, &header("whsec_another", Utc::now().timestamp(), &body)).await;
    problem(forged, StatusCode::BAD_REQUEST, "signature-mismatch").await;
    assert_eq!(reversals(&app).await, [[0; 0], []]);
    assert_eq!(outcome(&app, &body).await, "accepted", "a recorded event would be a duplicate now");
}

async fn a_body_that_was_changed_after_signing_is_refused(app: TestApp) {
    let body = event("evt_1", "refund.created", &refund());
    let header = header(&app.webhook_secret, Utc::now().timestamp(), &body);
    let changed = app.post_signed(&body.replace("10000", "10001"), &header).await;
    problem(changed, StatusCode::BAD_REQUEST, "signature-mismatch").await;
}

async fn a_webhook_without_a_signature_is_refused(app: TestApp) {
    let response = request(&app, Method::POST).body(event("evt_1", "refund.created", &refund())).send().await.unwrap();
    problem(response, StatusCode::BAD_REQUEST, "signature-missing").await;
    let malformed = app.post_signed("{}", "nonsense").await;
    problem(malformed, StatusCode::BAD_REQUEST, "signature-malformed").await;
}

async fn a_signature_that_is_too_old_or_from_the_future_is_refused_as_stale(app: TestApp) {
    let body = event("evt_1", "customer.created", &json!({"id": "cus_1"}));
    for off in [-320, 320, -86_400] {
        let header = header(&app.webhook_secret, Utc::now().timestamp() + off, &body);
        problem(app.post_signed(&body, &header).await, StatusCode::BAD_REQUEST, "signature-stale").await;
    }
    // Before the first one is taken nothing was recorded; both ways, clocks may differ by less than 300 s.
    for (off, expected) in [(-280, "ignored"), (280, "duplicate")] {
        let header = header(&app.webhook_secret, Utc::now().timestamp() + off, &body);
        assert_eq!(received(app.post_signed(&body, &header).await).await["outcome"], expected);
    }
}

async fn one_fitting_signature_among_several_is_enough(app: TestApp) {
    let body = event("evt_1", "customer.created", &json!({"id": "cus_1"}));
    let now = Utc::now().timestamp();
    let fitting = signature(&app.webhook_secret, now, &body);
    let rolled = signature("whsec_rolled", now, &body);
    received(app.post_signed(&body, &format!("t={now},v1={rolled},v1={fitting},v0={rolled}")).await).await;
    let neither = app.post_signed(&body, &format!("t={now},v1={rolled},v1={rolled},v0={fitting}")).await;
    problem(neither, StatusCode::BAD_REQUEST, "signature-mismatch").await;
}

async fn a_body_of_one_mebibyte_is_taken_and_one_byte_more_is_refused(app: TestApp) {
    let mut body = event("evt_1", "customer.created", &json!({"id": "cus_1"}));
    body.push_str(&" ".repeat(1024 * 1024 - body.len()));
    assert_eq!(outcome(&app, &body).await, "ignored");
    body.push(' ');
    problem(app.post_webhook(&body).await, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large").await;
}

async fn a_signed_body_that_is_no_json_is_refused_with_its_place(app: TestApp) {
    for body in ["", "{", "[]", "\"evt_1\""] {
        let problem = problem(app.post_webhook(body).await, StatusCode::BAD_REQUEST, "malformed-body").await;
        assert!(problem["detail"].as_str().unwrap().contains("line 1"), "{problem}");
    }
}

async fn a_signed_refund_that_cannot_be_used_is_refused_by_its_field_and_not_recorded(app: TestApp) {
    register(&app).await;
    for (field, value) in [("amount", json!(0)), ("currency", json!("euro")), ("id", json!(null))] {
        let mut refund = refund();
        refund[field] = value;
        let response = app.post_webhook(&event("evt_1", "refund.created", &refund)).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "malformed-body").await;
        assert_eq!(problem["field"], format!("data.object.{field}"));
    }
    assert_eq!(outcome(&app, &event("evt_1", "refund.created", &refund())).await, "accepted");
}

async fn an_unknown_event_is_ignored_and_recorded(app: TestApp) {
    let body = event("evt_1", "customer.created", &json!({"id": "cus_1"}));
    let answer = received(app.post_webhook(&body).await).await;
    assert_eq!(answer["outcome"], "ignored");
    assert!(answer["reason"].as_str().unwrap().contains("customer.created"), "{answer}");
    assert_eq!(outcome(&app, &body).await, "duplicate", "it was recorded");
}

async fn the_same_event_twice_is_done_once(app: TestApp) {
    register(&app).await;
    let body = event("evt_1", "refund.created", &refund());
    assert_eq!(outcome(&app, &body).await, "accepted");
    assert_eq!(outcome(&app, &body).await, "duplicate");
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn the_same_event_eight_times_at_once_is_done_once(app: TestApp) {
    register(&app).await;
    let body = event("evt_1", "refund.created", &refund());
    let outcomes = futures_util::future::join_all((0..8).map(|_| outcome(&app, &body))).await;
    let count = |wanted: &str| outcomes.iter().filter(|outcome| *outcome == wanted).count();
    assert_eq!((count("accepted"), count("duplicate")), (1, 7), "{outcomes:?}");
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn the_same_refund_under_two_event_ids_is_done_once(app: TestApp) {
    register(&app).await;
    assert_eq!(outcome(&app, &event("evt_1", "refund.created", &refund())).await, "accepted");
    assert_eq!(outcome(&app, &event("evt_2", "refund.created", &refund())).await, "duplicate");
    assert_eq!(outcome(&app, &event("evt_3", "charge.refund.updated", &refund())).await, "duplicate");
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn a_refund_of_an_unknown_payment_is_kept_until_the_payment_is_registered(app: TestApp) {
    assert_eq!(outcome(&app, &event("evt_1", "refund.created", &refund())).await, "unmatched");
    register(&app).await;
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn a_refund_counts_when_it_has_succeeded_and_not_before(app: TestApp) {
    register(&app).await;
    for (number, status) in ["pending", "requires_action"].into_iter().enumerate() {
        let mut refund = refund();
        refund["status"] = json!(status);
        let answer = app.post_webhook(&event(&format!("evt_{number}"), "refund.updated", &refund)).await;
        let answer = received(answer).await;
        assert_eq!(answer["outcome"], "ignored");
        assert!(answer["reason"].as_str().unwrap().contains(status), "{answer}");
    }
    assert_eq!(reversals(&app).await, [[0; 0], []]);
    assert_eq!(outcome(&app, &event("evt_9", "refund.updated", &refund())).await, "accepted");
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn a_refunded_charge_counts_once_it_lists_its_refunds(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    register(&app).await;
    let mut charge = json!({"id": "ch_1", "object": "charge", "payment_intent": "pi_1", "amount_refunded": 10_000});
    let answer = received(app.post_webhook(&event("evt_1", "charge.refunded", &charge)).await).await;
    assert_eq!(answer["outcome"], "looking_up");
    assert_eq!(reversals(&app).await, [[0; 0], []]);

    charge["refunds"] = json!({"object": "list", "data": [refund()]});
    assert_eq!(outcome(&app, &event("evt_2", "charge.refunded", &charge)).await, "accepted");
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn a_refund_with_expanded_objects_is_accepted(app: TestApp) {
    register(&app).await;
    let mut refund = refund();
    refund["payment_intent"] = json!({"id": "pi_1", "object": "payment_intent"});
    refund["charge"] = json!({"id": "ch_1", "object": "charge"});
    assert_eq!(outcome(&app, &event("evt_1", "refund.created", &refund)).await, "accepted");
    assert_eq!(reversals(&app).await, [[6_000], [3_000]]);
}

async fn a_refund_whose_transfer_stripe_has_reversed_creates_no_reversal(app: TestApp) {
    register(&app).await;
    let mut refund = refund();
    refund["transfer_reversal"] = json!("trr_1");
    assert_eq!(outcome(&app, &event("evt_1", "refund.created", &refund)).await, "ignored");
    assert_eq!(reversals(&app).await, [[0; 0], []]);
}

async fn another_method_is_refused_with_the_one_that_is_taken(app: TestApp) {
    let response = request(&app, Method::GET).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    problem(response, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed").await;
}

async fn without_a_secret_the_endpoint_is_not_there(app: TestApp) {
    let address = serve(ingress_state(&app, None)).await;
    let problem = problem(post_to(&app, address, "").await, StatusCode::NOT_FOUND, "switched-off").await;
    assert!(problem["detail"].as_str().unwrap().contains("STRIPE_WEBHOOK_SECRET"), "{problem}");
}

async fn without_its_database_the_sender_is_asked_to_try_again(app: TestApp) {
    let secret = "whsec_of_a_server_without_a_database";
    let ledger = app.ledger().clone();
    ledger.clone().close().await.unwrap();
    let state = IngressState { ledger, ..ingress_state(&app, Some(secret)) };
    let address = serve(state).await;
    let response = post_to(&app, address, secret).await;
    assert_eq!(response.headers()["retry-after"], "5");
    problem(response, StatusCode::SERVICE_UNAVAILABLE, "unavailable").await;
}

fn ingress_state(app: &TestApp, secret: Option<&str>) -> IngressState {
    let stripe_webhook_secret = secret.map(Into::into);
    IngressState {
        ledger: app.ledger().clone(),
        stripe_webhook_secret,
        stripe_livemode: None,
        hyperswitch_webhook_secret: None,
    }
}

/// Serves the webhooks alone; the server ends with the test's runtime.
async fn serve(state: IngressState) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, webhooks::routes(state)).into_future());
    address
}

/// Posts a refund, signed with `secret`.
async fn post_to(app: &TestApp, address: SocketAddr, secret: &str) -> Response {
    let body = event("evt_1", "refund.created", &refund());
    let header = header(secret, Utc::now().timestamp(), &body);
    let request = app.http.post(format!("http://{address}/webhooks/stripe"));
    request.header("stripe-signature", header).body(body).send().await.unwrap()
}

fn request(app: &TestApp, method: Method) -> RequestBuilder {
    app.http.request(method, format!("{}/webhooks/stripe", app.base_url))
}
