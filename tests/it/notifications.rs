//! What another system is told: signed, at least once, under one id, and in the transaction of what it tells of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use stripe_sim::Fault;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::{DEADLINE, TestApp, both_databases, clawback, eventually, refund_event, two_sellers};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

both_databases! {
    a_refund_is_told_of_as_it_goes_on_and_each_signature_is_right,
    what_is_not_taken_is_told_again_under_its_id_and_in_the_end_parked,
    what_needs_an_operator_is_told_once,
    a_debt_that_begins_as_failed_is_told_of_and_so_is_one_that_begins_as_reversed,
    the_breaker_is_told_of_while_it_is_open,
    what_was_taken_long_ago_is_deleted,
}

/// Another system: takes events, verifies them, and answers with a status.
struct Receiver {
    url: String,
    status: Arc<AtomicU16>,
    events: UnboundedReceiver<(String, Value)>,
}

type Shared = (Arc<AtomicU16>, UnboundedSender<(String, Value)>);

impl Receiver {
    async fn start() -> Self {
        let (status, (events, received)) = (Arc::new(AtomicU16::new(204)), unbounded_channel());
        let routes = axum::Router::new().route("/told", post(Self::take)).with_state((Arc::clone(&status), events));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://ann:hush@{}/told", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { url, status, events: received }
    }

    async fn take(State((status, events)): State<Shared>, headers: HeaderMap, body: String) -> StatusCode {
        Webhook::new(SECRET).unwrap().verify(body.as_bytes(), &headers).expect("the signature is right");
        let id = headers["webhook-id"].to_str().unwrap().to_owned();
        let _ = events.send((id, serde_json::from_str(&body).unwrap()));
        StatusCode::from_u16(status.load(Ordering::Relaxed)).unwrap()
    }

    /// The next event, with its id.
    async fn next(&mut self) -> (String, Value) {
        tokio::time::timeout(DEADLINE, self.events.recv()).await.expect("an event comes").unwrap()
    }

    /// The next event of this type.
    async fn next_of(&mut self, topic: &str) -> (String, Value) {
        loop {
            let (id, event) = self.next().await;
            if event["type"] == topic {
                return (id, event["data"].clone());
            }
        }
    }
}

async fn told(app: &mut TestApp, changes: &[(&str, &str)]) -> Receiver {
    let receiver = Receiver::start().await;
    let events = [("EVENTS_URL", receiver.url.as_str()), ("EVENTS_SECRET", SECRET)];
    app.restart_with(&[&events, changes].concat()).await;
    receiver
}

async fn a_refund_is_told_of_as_it_goes_on_and_each_signature_is_right(mut app: TestApp) {
    let mut receiver = told(&mut app, &[]).await;
    app.sim.set_balance("acct_1", Some(0));
    app.refund(10_000).await;
    let (_, waiting) = receiver.next_of("reversal.waiting_for_balance").await;
    assert_eq!((&waiting["status"], &waiting["failure_code"]), (&json!("pending"), &json!("balance_insufficient")));
    app.sim.set_balance("acct_1", None);
    let done = loop {
        let (_, done) = receiver.next_of("reversal.reversed").await;
        if done["stripe_transfer_id"] == "tr_1" {
            break done;
        }
    };
    let reversal = app.transfer_becomes(0, "reversed").await["reversals"][0].clone();
    assert_eq!(done["reversal_id"], reversal["id"]);
    assert_eq!(done["stripe_reversal_id"], reversal["stripe_reversal_id"]);
    let facts =
        ["amount", "currency", "stripe_transfer_id", "destination", "seller_id", "status"].map(|fact| &done[fact]);
    let expected =
        [json!(6_000), json!("eur"), json!("tr_1"), json!("acct_1"), done["seller_id"].clone(), json!("reversed")];
    assert_eq!(facts.map(Clone::clone), expected);
    let claim = ["kind", "source", "reference", "payment_ref", "amount"].map(|fact| done["claim"][fact].clone());
    assert_eq!(claim, [json!("refund"), json!("stripe"), json!("re_1"), json!("pi_1"), json!(10_000)]);
    assert!(done["version"].as_i64() > waiting["version"].as_i64(), "of two the later one has the larger version");
}

async fn what_is_not_taken_is_told_again_under_its_id_and_in_the_end_parked(mut app: TestApp) {
    let mut receiver = told(&mut app, &[("REVERSAL_BACKOFF_BASE", "1ms"), ("REVERSAL_BACKOFF_MAX", "1ms")]).await;
    receiver.status.store(500, Ordering::Relaxed);
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 1_000).to_string()).await;
    app.transfer_becomes(0, "partially_reversed").await;
    let (first, event) = receiver.next().await;
    let mut times = 1;
    while times < 31 {
        let (id, again) = receiver.next().await;
        if id == first {
            assert_eq!(again, event);
            times += 1;
        }
    }
    eventually("both are parked", || async {
        let queues = app.vhost.queues().await;
        let parked = queues.into_iter().find(|queue| queue["name"] == "events.parked")?;
        (parked["messages"].as_i64() == Some(2)).then_some(())
    })
    .await;
    assert_eq!(app.db.count("calls WHERE kind = 'notify' AND state = 'failed'").await, 2);
    let shown = app.cli(&["parked", "list", "--kind", "notify"]).await;
    assert!(shown.stdout.contains("EVENTS_URL answered 500") && !shown.stdout.contains("hush"), "{shown:?}");
    let failed = app.cli(&["calls", "list", "--kind", "notify", "--format", "json"]).await.json();
    let subjects: Vec<_> = failed["calls"].as_array().unwrap().iter().map(|call| call["subject"].clone()).collect();
    assert_eq!(subjects, ["reversal.reversed"; 2], "{failed}");
    receiver.status.store(200, Ordering::Relaxed);
    let reason = ["--operator", "ada", "--reason", "the shop is back"];
    let replayed = app.cli(&[&["parked", "replay", "--all"][..], &reason].concat()).await;
    assert_eq!(replayed.code, 0, "{replayed:?}");
    eventually("both are taken", || async {
        (app.db.count("calls WHERE kind = 'notify' AND state = 'done'").await == 2).then_some(())
    })
    .await;
    assert_eq!(app.db.count("history WHERE entity = 'event' AND actor = 'ada'").await, 2);
}

async fn what_needs_an_operator_is_told_once(mut app: TestApp) {
    let mut receiver = told(&mut app, &[("DISPUTE_POLICY", "lost")]).await;
    let message = "No such thing".to_owned();
    app.sim.fault("tr_1", Fault::Refused { status: 400, code: Some("odd".into()), message }, 1);
    app.refund(1_000).await;
    let (_, failed) = receiver.next_of("reversal.failed").await;
    assert_eq!((&failed["failure_code"], &failed["status"]), (&json!("odd"), &json!("permanently_failed")));
    app.post_webhook(&lost_dispute().to_string()).await;
    let (_, taken) = receiver.next_of("dispute.taken").await;
    assert_eq!((&taken["kind"], &taken["reference"]), (&json!("dispute"), &json!("du_1")), "{taken}");
    // More than the payment.
    app.refund_of(20_000, 2).await;
    let (_, attention) = receiver.next_of("refund.needs_attention").await;
    assert_eq!((&attention["reference"], &attention["status"]), (&json!("re_2"), &json!("conflicting")), "{attention}");
    assert!(attention["reason"].as_str().is_some_and(|reason| reason.contains("20000")), "{attention}");
    // Told by Stripe again, it is not told again.
    app.refund_of(20_000, 2).await;
    let told = app.db.query(r#"SELECT body FROM notifications WHERE body LIKE '%"reference":"re_2"%'"#).await;
    assert_eq!(told.len(), 1, "{told:?}");
}

fn lost_dispute() -> Value {
    json!({"id": "evt_du_1", "object": "event", "type": "charge.dispute.closed", "livemode": false, "data": {"object": {
        "id": "du_1", "object": "dispute", "amount": 100, "currency": "eur", "created": chrono::Utc::now().timestamp(),
        "charge": "ch_1", "payment_intent": "pi_1", "status": "lost", "reason": "fraudulent"}}})
}

async fn a_debt_that_begins_as_failed_is_told_of_and_so_is_one_that_begins_as_reversed(mut app: TestApp) {
    let mut receiver = told(&mut app, &[]).await;
    let refused = Fault::Refused { status: 400, code: Some("odd".into()), message: "No such thing".to_owned() };
    app.sim.fault("tr_1", refused, 1);
    app.refund(1_000).await;
    receiver.next_of("reversal.failed").await;
    app.refund_of(1_000, 2).await;
    let (_, failed) = receiver.next_of("reversal.failed").await;
    let facts = [&failed["claim"]["reference"], &failed["stripe_transfer_id"], &failed["failure_code"]];
    assert_eq!(facts, [&json!("re_2"), &json!("tr_1"), &json!("transfer_permanently_failed")]);
    // Stripe has reversed the charge's own transfer together with the refund.
    let mut event = refund_event("evt_3", "re_3", "pi_1", 1_000);
    event["data"]["object"]["transfer_reversal"] = json!({"id": "trr_own", "transfer": "tr_2"});
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    let reversed = loop {
        let (_, reversed) = receiver.next_of("reversal.reversed").await;
        if reversed["claim"]["reference"] == "re_3" {
            break reversed;
        }
    };
    assert_eq!(reversed["stripe_reversal_id"], "trr_own");
}

async fn the_breaker_is_told_of_while_it_is_open(mut app: TestApp) {
    let mut receiver = told(&mut app, &[]).await;
    app.sim.allow_keys(["sk_test_another"]);
    app.refund(10_000).await;
    let (_, opened) = receiver.next_of("breaker.opened").await;
    assert!(opened["reason"].as_str().is_some_and(|reason| reason.contains("refuses the API key")), "{opened}");
    app.sim.allow_keys(["sk_test_of_the_tests"]);
    let (_, closed) = receiver.next_of("breaker.closed").await;
    assert_eq!(closed["since"], opened["since"], "one outage");
}

async fn what_was_taken_long_ago_is_deleted(mut app: TestApp) {
    let mut receiver = told(&mut app, &[("INBOX_RETENTION", "1s")]).await;
    app.refund(10_000).await;
    receiver.next_of("reversal.reversed").await;
    receiver.next_of("reversal.reversed").await;
    eventually("they are deleted, with their calls", || async {
        let left = app.db.count("notifications").await + app.db.count("calls WHERE kind = 'notify'").await;
        (left == 0).then_some(())
    })
    .await;
    assert_eq!(app.db.count("calls WHERE kind = 'reverse' AND state = 'done'").await, 2);
}

#[tokio::test]
async fn events_without_a_secret_that_can_sign_do_not_start() {
    for (secret, said) in [("", "EVENTS_SECRET is missing"), ("whsec_short", "EVENTS_SECRET must be whsec_")] {
        let settings = [
            ("DATABASE_URL", "sqlite::memory:"),
            ("STRIPE_API_KEY", "sk_test_x"),
            ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
            ("EVENTS_URL", "http://127.0.0.1:1/"),
            ("EVENTS_SECRET", secret),
        ];
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let run = clawback(&["run"], &settings).await;
        assert!(run.code == 1 && run.stderr.contains(said), "{run:?}");
    }
}
