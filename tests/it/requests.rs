//! What holds for every request over real HTTP: ids, limits of size and of number.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{TestApp, both_databases};

both_databases! {
    every_answer_carries_a_request_id_and_a_problem_names_it,
    a_body_of_more_than_one_mebibyte_is_refused_by_every_route_that_takes_one,
    a_webhook_without_a_signature_is_refused_before_its_body_is_read,
    wrong_tokens_are_slowed_down_and_the_right_one_is_not,
    webhooks_have_no_limit_of_number,
}

async fn every_answer_carries_a_request_id_and_a_problem_names_it(app: TestApp) {
    for (method, path, status) in [
        (Method::GET, "/health/live", 200),
        (Method::GET, "/v1/payments/pi_9", 404),
        (Method::GET, "/nowhere", 404),
        (Method::DELETE, "/v1/payments", 405),
        (Method::POST, "/webhooks/stripe", 400),
    ] {
        for (given, is_kept) in [(Some("req-1.of:a/caller"), true), (Some("not plain"), false), (None, false)] {
            let mut request = app.http.request(method.clone(), format!("{}{path}", app.base_url));
            request = request.bearer_auth(&app.api_token);
            if let Some(given) = given {
                request = request.header("x-request-id", given);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{path}");
            let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
            assert_eq!(given == Some(&*id), is_kept, "{id}");
            assert!(is_kept || id.parse::<uuid::Uuid>().is_ok(), "{id}");
            let body: Value = response.json().await.unwrap();
            assert!(status == 200 || body["request_id"] == *id, "{id}: {body}");
        }
    }
}

async fn a_body_of_more_than_one_mebibyte_is_refused_by_every_route_that_takes_one(app: TestApp) {
    let document: Value =
        app.http.get(format!("{}/openapi.json", app.base_url)).send().await.unwrap().json().await.unwrap();
    let routes: Vec<&String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(path, item)| item["post"]["requestBody"].is_object().then_some(path))
        .collect();
    assert!(routes.len() >= 3, "{routes:?}");
    for path in routes {
        let path = path.replace("{id}", "00000000-0000-7000-8000-000000000000");
        let request = app.http.post(format!("{}{path}", app.base_url)).bearer_auth(&app.api_token);
        let request = request.header("content-type", "application/json").header("stripe-signature", "t=1,v1=00");
        let request = request.header("x-webhook-signature-512", "00");
        let response = request.body("1".repeat(1024 * 1024 + 1)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["type"], "/problems/body-too-large", "{path}");
    }
}

async fn a_webhook_without_a_signature_is_refused_before_its_body_is_read(app: TestApp) {
    for provider in ["stripe", "hyperswitch"] {
        let address = app.base_url.strip_prefix("http://").unwrap();
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        // The body never comes.
        let head = format!("POST /webhooks/{provider} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 1000\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        tokio::time::timeout(Duration::from_secs(20), connection.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400", "{provider}");
    }
}

async fn wrong_tokens_are_slowed_down_and_the_right_one_is_not(app: TestApp) {
    let url = format!("{}/v1/payments/pi_1", app.base_url);
    let guess = async |n: u32| app.http.get(&url).bearer_auth(format!("guess-{n}")).send().await.unwrap();
    let mut refused = None;
    for n in 0..1_000 {
        let answer = guess(n).await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    let refused = refused.expect("a thousand guesses were all answered with 401");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["type"], "/problems/too-many-requests", "{problem}");
    let right = app.http.get(&url).bearer_auth(&app.read_token).send().await.unwrap();
    assert_eq!(right.status(), StatusCode::NOT_FOUND);
}

async fn webhooks_have_no_limit_of_number(app: TestApp) {
    for _ in 0..100 {
        assert_eq!(app.post_signed("{}", "t=1,v1=00").await.status(), StatusCode::BAD_REQUEST);
    }
}
