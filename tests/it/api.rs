//! The API over real HTTP: who may do what, what is registered, what is refused, and health.

use std::net::SocketAddr;

use clawback::http::{self, ApiState, Tokens};
use clawback::ledger::Ledger;
use clawback::telemetry::Recorder;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{TestApp, both_databases, two_sellers};

both_databases! {
    every_route_under_v1_asks_for_a_token,
    the_reading_token_reads_and_does_not_write,
    a_payment_is_registered_and_shown_with_its_transfers,
    the_same_registration_again_is_answered_like_the_first_and_changes_nothing,
    two_registrations_of_one_payment_at_once_make_one,
    of_payments_that_want_the_same_transfers_at_once_one_gets_them,
    a_contradicting_registration_is_refused_and_changes_nothing,
    each_unusable_field_is_refused_by_its_path_and_nothing_is_registered,
    every_wrong_field_is_told_at_once_in_plain_words,
    a_body_that_is_no_json_is_refused_with_line_and_column,
    a_body_of_another_type_is_refused,
    a_body_of_more_than_one_mebibyte_is_refused,
    transfers_and_refunds_are_shown_by_their_ids,
    what_is_not_there_is_not_found,
    an_unknown_route_and_a_wrong_method_are_problems_too,
    health_is_open_and_says_how_each_part_is,
    without_its_database_the_process_lives_and_is_not_ready,
    without_any_token_configured_the_api_is_not_there,
}

/// The payment with the value at a JSON pointer replaced.
fn payment_with(pointer: &str, value: Value) -> Value {
    let mut payment = two_sellers("pi_1");
    *payment.pointer_mut(pointer).unwrap() = value;
    payment
}

fn request(app: &TestApp, method: Method, path: &str) -> RequestBuilder {
    app.http.request(method, format!("{}{path}", app.base_url))
}

async fn get(app: &TestApp, path: &str) -> Response {
    request(app, Method::GET, path).bearer_auth(&app.read_token).send().await.unwrap()
}

/// Posts a payment as raw text.
async fn post(app: &TestApp, content_type: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = request(app, Method::POST, "/v1/payments").bearer_auth(&app.api_token);
    request.header("content-type", content_type).body(body).send().await.unwrap()
}

async fn json(response: Response) -> Value {
    response.json().await.unwrap()
}

/// The problem that a request must end in.
async fn problem(response: Response, status: StatusCode, slug: &str) -> Value {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let answered = response.status();
    let problem = json(response).await;
    assert_eq!((answered, problem["type"].as_str().unwrap()), (status, &*format!("/problems/{slug}")), "{problem}");
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{problem}");
    problem
}

async fn payment_now(app: &TestApp) -> Value {
    json(get(app, "/v1/payments/pi_1").await).await
}

async fn is_registered(app: &TestApp) -> bool {
    app.ledger().payment("pi_1").await.unwrap().is_some()
}

async fn every_route_under_v1_asks_for_a_token(app: TestApp) {
    let routes = [
        (Method::POST, "/v1/payments"),
        (Method::GET, "/v1/payments/pi_1"),
        (Method::GET, "/v1/transfers/00000000-0000-7000-8000-000000000000"),
        (Method::POST, "/v1/transfers/tr_1/retry"),
        (Method::GET, "/v1/refunds/re_1"),
        (Method::GET, "/v1/reversals"),
        (Method::GET, "/v1/reversals/trr_1"),
        (Method::POST, "/v1/reversals/00000000-0000-7000-8000-000000000000/replay"),
        (Method::GET, "/metrics"),
    ];
    for (method, path) in routes {
        let without = request(&app, method.clone(), path).json(&two_sellers("pi_1")).send().await.unwrap();
        assert_eq!(without.headers()["www-authenticate"], "Bearer realm=\"clawback\"");
        problem(without, StatusCode::UNAUTHORIZED, "unauthorized").await;
        for token in ["wrong", &app.api_token[1..], &format!("{}x", app.api_token)] {
            let wrong =
                request(&app, method.clone(), path).bearer_auth(token).json(&two_sellers("pi_1")).send().await.unwrap();
            problem(wrong, StatusCode::UNAUTHORIZED, "unauthorized").await;
        }
    }
    assert!(!is_registered(&app).await);
}

async fn the_reading_token_reads_and_does_not_write(app: TestApp) {
    let writing = request(&app, Method::POST, "/v1/payments").bearer_auth(&app.read_token).json(&two_sellers("pi_1"));
    problem(writing.send().await.unwrap(), StatusCode::FORBIDDEN, "forbidden").await;
    assert!(!is_registered(&app).await);

    assert_eq!(app.register(two_sellers("pi_1")).await.status(), StatusCode::CREATED);
    for token in [&app.read_token, &app.api_token] {
        let reading = request(&app, Method::GET, "/v1/payments/pi_1").bearer_auth(token).send().await.unwrap();
        assert_eq!(reading.status(), StatusCode::OK);
    }
}

async fn a_payment_is_registered_and_shown_with_its_transfers(app: TestApp) {
    let response = app.register(payment_with("/currency", json!("EUR"))).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let registered = json(response).await;
    assert_eq!(registered["payment_ref"], "pi_1");
    assert_eq!(registered["amount"], 10_000);
    assert_eq!(registered["currency"], "eur");
    assert!(registered["created_at"].is_string());
    let transfers = registered["transfers"].as_array().unwrap();
    for (transfer, given) in transfers.iter().zip(two_sellers("pi_1")["transfers"].as_array().unwrap()) {
        for (field, value) in given.as_object().unwrap() {
            assert_eq!(&transfer[field], value, "{field}");
        }
        assert_eq!(transfer["status"], "completed");
        assert_eq!(transfer["amount_reversed"], 0);
        assert_eq!(transfer["reversals"], json!([]));
    }
    assert_eq!(transfers.len(), 2);
    assert_eq!(json(get(&app, "/v1/payments/pi_1").await).await, registered);
}

async fn the_same_registration_again_is_answered_like_the_first_and_changes_nothing(app: TestApp) {
    let first = app.register(two_sellers("pi_1")).await;
    assert_eq!(first.status(), StatusCode::CREATED);
    let again = app.register(payment_with("/currency", json!("EUR"))).await;
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(json(first).await, json(again).await);
}

async fn two_registrations_of_one_payment_at_once_make_one(app: TestApp) {
    let (one, other) = tokio::join!(app.register(two_sellers("pi_1")), app.register(two_sellers("pi_1")));
    let mut statuses = [one.status(), other.status()];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CREATED]);
    assert_eq!(json(one).await, json(other).await);
}

/// In both orders, so that the database sees them lock each other out.
async fn of_payments_that_want_the_same_transfers_at_once_one_gets_them(app: TestApp) {
    for round in 0..5 {
        let requests = (0..8).map(|n| {
            let mut payment = two_sellers(&format!("pi_{round}_{n}"));
            for transfer in [0, 1] {
                payment["transfers"][transfer]["stripe_transfer_id"] =
                    json!(format!("tr_{round}_{}", (n + transfer) % 2));
            }
            app.register(payment)
        });
        let mut created = 0;
        for answer in futures_util::future::join_all(requests).await {
            if answer.status() == StatusCode::CREATED {
                created += 1;
            } else {
                let problem = problem(answer, StatusCode::CONFLICT, "conflict").await;
                assert!(problem["detail"].as_str().unwrap().contains("registered with another payment"), "{problem}");
            }
        }
        assert_eq!(created, 1, "round {round}");
    }
    assert_eq!((app.db.count("payments").await, app.db.count("seller_transfers").await), (5, 10));
}

async fn a_contradicting_registration_is_refused_and_changes_nothing(app: TestApp) {
    let registered = json(app.register(two_sellers("pi_1")).await).await;
    let mut contradictions = vec![
        payment_with("/amount", json!(10_001)),
        payment_with("/currency", json!("usd")),
        payment_with("/transfers/1/amount", json!(3_001)),
        payment_with("/transfers/1/seller_id", json!("s3")),
        payment_with("/transfers/1/destination", json!("acct_3")),
        payment_with("/transfers/1/stripe_transfer_id", json!("tr_3")),
        // A transfer belongs to one payment.
        payment_with("/payment_ref", json!("pi_2")),
    ];
    let mut fewer = two_sellers("pi_1");
    fewer["transfers"].as_array_mut().unwrap().pop();
    contradictions.push(fewer);
    for contradiction in contradictions {
        problem(app.register(contradiction).await, StatusCode::CONFLICT, "conflict").await;
    }
    assert_eq!(json(get(&app, "/v1/payments/pi_1").await).await, registered);
    problem(get(&app, "/v1/payments/pi_2").await, StatusCode::NOT_FOUND, "not-found").await;
}

async fn each_unusable_field_is_refused_by_its_path_and_nothing_is_registered(app: TestApp) {
    for (pointer, value) in [
        ("/payment_ref", json!("")),
        ("/payment_ref", json!("pi\u{0}1")),
        ("/payment_ref", json!(1)),
        ("/amount", json!(0)),
        ("/amount", json!(-1)),
        ("/amount", json!(1.5)),
        ("/amount", json!("10000")),
        ("/amount", json!(9_223_372_036_854_775_808_u64)),
        ("/currency", json!("euro")),
        ("/currency", json!(null)),
        ("/transfers", json!([])),
        ("/transfers", json!("none")),
        ("/transfers/1/seller_id", json!("")),
        ("/transfers/1/destination", json!("")),
        ("/transfers/1/amount", json!(0)),
        ("/transfers/1/currency", json!("€")),
        ("/transfers/1/stripe_transfer_id", json!("tr_1")),
        ("/transfers/1/stripe_transfer_id", json!("")),
    ] {
        let field = pointer[1..].replace("/1/", "[1].");
        let response = app.register(payment_with(pointer, value.clone())).await;
        let problem = problem(response, StatusCode::UNPROCESSABLE_ENTITY, "invalid-field").await;
        assert_eq!(problem["field"], field, "{value}: {problem}");
        assert!(problem["detail"].as_str().unwrap().starts_with(&field), "{problem}");
    }
    let mut misspelt = two_sellers("pi_1");
    misspelt["transfers"][1]["ammount"] = json!(1);
    let problem = problem(app.register(misspelt).await, StatusCode::UNPROCESSABLE_ENTITY, "invalid-field").await;
    assert_eq!(problem["field"], "transfers[1].ammount");
    assert!(!is_registered(&app).await);
}

async fn every_wrong_field_is_told_at_once_in_plain_words(app: TestApp) {
    let mut payment = two_sellers("pi_1");
    payment["amout"] = payment.as_object_mut().unwrap().remove("amount").unwrap();
    payment["currency"] = json!("euro");
    payment["transfers"][0]["amount"] = json!(0);
    payment["transfers"][1]["amount"] = json!("12");
    payment["transfers"][1].as_object_mut().unwrap().remove("seller_id");
    let problem = problem(app.register(payment).await, StatusCode::UNPROCESSABLE_ENTITY, "invalid-field").await;
    let mut told: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|error| error["problem"].as_str().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "amount is required",
            "currency must be a three-letter ISO 4217 code (got \"euro\")",
            "transfers[0].amount must be a positive integer in minor units (got 0)",
            "transfers[1].amount must be an integer (got \"12\")",
            "transfers[1].seller_id is required",
            "unknown field \"amout\"; did you mean \"amount\"?",
        ]
    );
    for sentence in told {
        assert!(problem["detail"].as_str().unwrap().contains(sentence), "{problem}");
    }
    assert!(!is_registered(&app).await);
}

async fn a_body_that_is_no_json_is_refused_with_line_and_column(app: TestApp) {
    for body in ["", "{", "{\"payment_ref\":\"pi_1\",}", "{\"payment_ref\":\"pi_1\"} x"] {
        let response = post(&app, "application/json", body).await;
        let problem = problem(response, StatusCode::BAD_REQUEST, "malformed-body").await;
        assert!(problem["detail"].as_str().unwrap().contains("line 1 column"), "{problem}");
    }
    let trailing = post(&app, "application/json", format!("{} x", two_sellers("pi_1"))).await;
    problem(trailing, StatusCode::BAD_REQUEST, "malformed-body").await;
    assert!(!is_registered(&app).await);
}

async fn a_body_of_another_type_is_refused(app: TestApp) {
    let response = post(&app, "text/plain", two_sellers("pi_1").to_string()).await;
    problem(response, StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type").await;
    assert!(!is_registered(&app).await);
    let response = post(&app, "application/json; charset=utf-8", two_sellers("pi_1").to_string()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
}

async fn a_body_of_more_than_one_mebibyte_is_refused(app: TestApp) {
    let mut body = two_sellers("pi_1").to_string();
    body.push_str(&" ".repeat(1024 * 1024 + 1 - body.len()));
    let response = post(&app, "application/json", body).await;
    problem(response, StatusCode::PAYLOAD_TOO_LARGE, "body-too-large").await;
    assert!(!is_registered(&app).await);
}

async fn transfers_and_refunds_are_shown_by_their_ids(mut app: TestApp) {
    // Nothing changes between one look and the next.
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.register(two_sellers("pi_1")).await;
    let refund = json!({
        "id": "re_1", "object": "refund", "amount": 10_000, "currency": "eur", "status": "succeeded",
        "payment_intent": "pi_1", "charge": "ch_1",
    });
    let event = json!({"id": "evt_1", "object": "event", "type": "refund.created", "data": {"object": refund}});
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), StatusCode::OK);

    let payment = json(get(&app, "/v1/payments/pi_1").await).await;
    let id = payment["transfers"][0]["id"].as_str().unwrap();
    let transfer = json(get(&app, &format!("/v1/transfers/{id}")).await).await;
    assert_eq!((&transfer["id"], &transfer["stripe_transfer_id"]), (&json!(id), &json!("tr_1")));
    assert_eq!(transfer["reversals"][0]["amount"], 6_000);

    let refund = json(get(&app, "/v1/refunds/re_1").await).await;
    assert_eq!((&refund["refund_ref"], &refund["payment_ref"]), (&json!("re_1"), &json!("pi_1")));
    assert_eq!((&refund["source"], &refund["status"]), (&json!("stripe"), &json!("matched")));
    assert_eq!(refund["reversals"].as_array().unwrap().len(), 2);
    assert_eq!(refund["reversals"][0]["refund_id"], refund["id"]);
    let same = json(get(&app, &format!("/v1/refunds/{}", refund["id"].as_str().unwrap())).await).await;
    assert_eq!(same["refund_ref"], "re_1");

    let row = app.db.query("SELECT entity_id FROM history WHERE entity = 'payment'").await;
    let same = json(get(&app, &format!("/v1/payments/{}", row[0]["entity_id"].as_str().unwrap())).await).await;
    assert_eq!(same, payment_now(&app).await);
}

async fn what_is_not_there_is_not_found(app: TestApp) {
    let unknown = "01900000-0000-7000-8000-000000000000";
    // A NUL character and bytes that are not UTF-8 are ids that nothing has.
    for id in ["pi_9", unknown, "%00", "a%00b", "%ff", "%2F", "..%2f..", "'%20OR%201=1"] {
        for kind in ["payments", "transfers", "refunds", "reversals"] {
            let response = get(&app, &format!("/v1/{kind}/{id}")).await;
            problem(response, StatusCode::NOT_FOUND, "not-found").await;
        }
    }
}

async fn an_unknown_route_and_a_wrong_method_are_problems_too(app: TestApp) {
    for path in ["/", "/v1", "/v1/payment", "/v1/payments/pi_1/more", "/webhooks/other"] {
        let response = request(&app, Method::GET, path).send().await.unwrap();
        problem(response, StatusCode::NOT_FOUND, "not-found").await;
    }
    let response = request(&app, Method::DELETE, "/v1/payments").bearer_auth(&app.api_token).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST");
    problem(response, StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed").await;
}

async fn health_is_open_and_says_how_each_part_is(app: TestApp) {
    let live = request(&app, Method::GET, "/health/live").send().await.unwrap();
    assert_eq!(live.status(), StatusCode::OK);
    assert_eq!(json(live).await, json!({"status": "ok"}));

    let ready = request(&app, Method::GET, "/health/ready").send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    let ready = json(ready).await;
    for part in ["database", "migrations"] {
        assert_eq!(ready["parts"][part], json!({"status": "ok"}), "{ready}");
    }
}

async fn without_its_database_the_process_lives_and_is_not_ready(app: TestApp) {
    let ledger = app.ledger().clone();
    ledger.clone().close().await.unwrap();
    let address = serve(state(ledger)).await;
    let ready = app.http.get(format!("http://{address}/health/ready")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let ready = json(ready).await;
    assert_eq!(ready["status"], "unavailable");
    assert_eq!(ready["parts"]["database"]["status"], "unavailable");
    assert!(ready["parts"]["database"]["reason"].is_string(), "{ready}");
    let live = app.http.get(format!("http://{address}/health/live")).send().await.unwrap();
    assert_eq!(live.status(), StatusCode::OK);
}

async fn without_any_token_configured_the_api_is_not_there(app: TestApp) {
    let address = serve(state(app.ledger().clone())).await;
    let request = app.http.post(format!("http://{address}/v1/payments")).bearer_auth("").json(&two_sellers("pi_1"));
    let problem = problem(request.send().await.unwrap(), StatusCode::NOT_FOUND, "switched-off").await;
    assert!(problem["detail"].as_str().unwrap().contains("API_TOKEN"), "{problem}");
    assert!(!is_registered(&app).await);
}

/// An API without tokens, publisher, and worker.
fn state(ledger: Ledger) -> ApiState {
    let recorder = Recorder::installed().unwrap();
    ApiState {
        looks: None,
        figures: Default::default(),
        ledger,
        tokens: Tokens::new(None, None),
        broker: None,
        consumers: Vec::new(),
        stripe: None,
        limiter: None,
        stripe_now: None,
        recorder,
        leaving: Default::default(),
        database: Default::default(),
    }
}

/// Serves the API alone; the server ends with the test's runtime.
async fn serve(state: ApiState) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, http::routes(state)).into_future());
    address
}
