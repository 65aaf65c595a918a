//! The door's part for payments, refunds, disputes and webhooks.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Caller, Got, got};

async fn post(caller: &Caller, path: &str, body: Value) -> Got {
    got(caller.request(Method::POST, &format!("/_sim/{path}")).json(&body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_payments_whole_life_is_behind_the_door() {
    let caller = Caller::new();
    let payment = json!({
        "charge": "ch_1", "payment_intent": "pi_1", "amount": 1_000, "currency": "eur", "capture": "later",
        "transfer_group": "g", "transfers": [{"id": "tr_2", "amount": 500, "destination": "acct_2"}],
    });
    assert_eq!(post(&caller, "payments", payment).await.body["payment_intent"], "pi_1");
    assert_eq!(post(&caller, "charges/ch_1/capture", json!({"amount": 900})).await.status, 200);
    let refund = json!({"charge": "ch_1", "id": "re_1", "amount": 100, "status": "pending"});
    assert_eq!(post(&caller, "refunds", refund).await.body["status"], "pending");
    let failed = json!({"status": "failed", "failure_reason": "lost_or_stolen_card"});
    assert_eq!(post(&caller, "refunds/re_1/status", failed).await.status, 200);
    assert_eq!(caller.get("/v1/refunds/re_1").await.body["failure_reason"], "lost_or_stolen_card");
    assert_eq!(post(&caller, "refunds/re_1/reference", json!({"reference": "7"})).await.status, 200);
    let dispute = json!({"charge": "ch_1", "id": "du_1", "amount": 300});
    assert_eq!(post(&caller, "disputes", dispute).await.body["status"], "needs_response");
    assert_eq!(post(&caller, "disputes/du_1/status", json!({"status": "lost"})).await.status, 200);
    assert_eq!(post(&caller, "settings", json!({"null_metadata": true})).await.status, 200);
    assert_eq!(caller.reverse("k", "1").await.body["metadata"], Value::Null);

    let other = json!({"charge": "ch_2", "amount": 5, "currency": "eur", "capture": "later"});
    assert_eq!(post(&caller, "payments", other).await.status, 200);
    assert_eq!(post(&caller, "charges/ch_2/void", Value::Null).await.status, 200);
    let part = json!({"charge": "ch_3", "amount": 5, "currency": "eur", "capture": {"part": 4}});
    assert_eq!(post(&caller, "payments", part).await.body["amount_captured"], 4);

    let events = got(caller.request(Method::GET, "/_sim/events").send().await.unwrap()).await.body;
    assert!(events.as_array().unwrap().iter().any(|event| event["type"] == "refund.failed"), "{events}");
    let webhooks = post(&caller, "webhooks", json!({"secret": "whsec_1", "api_version": "2020-08-27"})).await.body;
    assert!(webhooks[0]["signature"].as_str().unwrap().starts_with("t="), "{webhooks}");
}

#[tokio::test]
async fn endpoints_are_added_and_served_behind_the_door() {
    let caller = Caller::new();
    let endpoint = json!({"url": "http://127.0.0.1:1/", "secret": "whsec_1", "enabled_events": ["transfer.updated"]});
    let id = post(&caller, "webhook_endpoints", endpoint).await.body["id"].as_str().unwrap().to_owned();
    let event = post(&caller, "events", json!({"type": "transfer.updated", "object": "tr_1"})).await.body;
    let delivered = post(&caller, &format!("webhook_endpoints/{id}/deliver"), Value::Null).await.body;
    assert_eq!(delivered["deliveries"][0]["webhook"]["event"], event["id"]);
}

#[tokio::test]
async fn the_door_says_what_is_wrong_with_a_payment() {
    let caller = Caller::new();
    let pay = json!({"charge": "ch_1", "amount": 10, "currency": "eur"});
    assert_eq!(post(&caller, "payments", pay).await.status, 200);
    for (path, body, says) in [
        ("payments", json!({"charge": "ch_1", "amount": 10, "currency": "eur"}), "id must be new (got \\\"ch_1\\\")"),
        ("payments", json!({"charge": "x", "amount": 10, "currency": "eur"}), "id must be ch_ or py_"),
        ("payments", json!({"amount": 0, "currency": "eur"}), "amount must be a positive integer"),
        ("payments", json!({"amount": 10, "currency": "xyz"}), "currency must be one that Stripe supports"),
        ("payments", json!({"amount": 10, "currency": "eur", "destination": "x"}), "destination must be acct_"),
        (
            "payments",
            json!({"amount": 10, "currency": "eur", "application_fee_amount": 1}),
            "must come with a destination",
        ),
        ("refunds", json!({"charge": "ch_9"}), "charge must exist (got \\\"ch_9\\\")"),
        ("refunds", json!({"charge": "ch_1", "amount": 11}), "amount must be from 1 to 10"),
        ("refunds", json!({"charge": "ch_1", "reverse_transfer": true}), "reverse_transfer must be false"),
        ("refunds", json!({"charge": "ch_1", "nonsense": true}), "nonsense"),
        ("disputes", json!({"charge": "ch_1", "status": "won"}), "status must be needs_response or"),
        ("disputes/du_9/status", json!({"status": "won"}), "dispute must exist"),
        ("events", json!({"type": "x", "object": "re_9"}), "object must be a charge"),
        ("webhook_endpoints/we_9/deliver", Value::Null, "endpoint must exist"),
    ] {
        let got = post(&caller, path, body.clone()).await;
        assert!(matches!(got.status, 400 | 422), "{path} {body}: {}", got.status);
        assert!(got.body.to_string().contains(says), "{path} {body}: {}", got.body);
    }
}
