//! `clawback trace`: one timeline from the history alone, under every id that belongs to it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stripe_sim::Fault;

use crate::support::{NO_SWEEPER, TestApp, both_databases, eventually, redacted, refund_event, refund_webhook};

both_databases! {
    one_timeline_from_webhook_to_reversal_with_its_failures_and_its_replay,
    every_id_that_belongs_to_it_leads_to_it,
    a_refund_shows_its_own_reversals_and_a_payment_all,
    what_waits_says_for_what,
    a_job_that_the_broker_has_confirmed_is_in_the_trace,
    what_hangs_together_is_read_up_to_a_limit_and_the_trace_says_so,
    an_id_that_nothing_has_is_an_error_that_says_what_is_understood,
}

async fn one_timeline_from_webhook_to_reversal_with_its_failures_and_its_replay(mut app: TestApp) {
    let reversal = given_up_once(&mut app).await;
    let run = app.cli(&["parked", "discard", &reversal, "--reason", "looked at it first"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    let replay = ["reversals", "replay", &reversal, "--reason", "the seller paid in", "--operator", "grace"];
    app.stop().await;
    assert_eq!(app.cli(&replay).await.code, 0);
    app.start(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.published(2).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "reversed").await;

    let run = app.cli(&["trace", "re_1"]).await;
    insta::assert_snapshot!("trace_of_a_refund", redacted(run.table()));
    let run = app.cli(&["trace", "re_1", "--format", "json"]).await;
    insta::assert_snapshot!("trace_of_a_refund_as_json", redacted(&run.stdout));

    assert_eq!(app.read("/v1/trace/re_1").await, (200, run.json()));
    assert_eq!(app.read("/v1/trace/re_none").await.0, 404);

    let events = run.json()["events"].as_array().unwrap().clone();
    let by = |actor: &str| events.iter().filter(|event| event["actor"] == actor).cloned().collect::<Vec<_>>();
    assert_eq!(by("relay").len(), 2, "one for each job");
    assert!(by("grace").iter().all(|event| event["reason"] == "the seller paid in"));
    assert!(by("ada")[0]["reason"].as_str().unwrap().contains("looked at it first"));
    let answered = by("worker").iter().filter(|event| event["stripe_request_id"].is_string()).count();
    assert!(answered >= 2, "the failure and the success: {events:?}");
    assert!(events.windows(2).all(|pair| pair[0]["at"].as_str() <= pair[1]["at"].as_str()), "{events:?}");
}

async fn every_id_that_belongs_to_it_leads_to_it(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    let payment = json!({"payment_ref": "pi_1", "amount": 6_000, "currency": "eur", "transfers": [
        {"seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 6_000, "currency": "eur"}]});
    assert_eq!(app.register(payment).await.status(), 201);
    app.refund_of(6_000, 1).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    app.published(1).await;
    let reversal = &transfer["reversals"][0];
    let row = app.db.query("SELECT stripe_request_id FROM history WHERE to_status = 'reversed' LIMIT 1").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let by_refund = app.cli(&["trace", "re_1", "--format", "json"]).await.json();
    assert!(by_refund["events"].as_array().unwrap().len() >= 8, "{by_refund}");
    let ids = [
        "pi_1".to_owned(),
        "ch_of_pi_1".to_owned(),
        "tr_1".to_owned(),
        "evt_1".to_owned(),
        text(&reversal["stripe_reversal_id"]),
        text(&row[0]["stripe_request_id"]),
        text(&reversal["id"]),
        text(&reversal["refund_id"]),
        text(&transfer["id"]),
        text(&by_refund["payments"][0]["id"]),
    ];
    for id in ids {
        let run = app.cli(&["trace", &id, "--format", "json"]).await;
        assert_eq!((run.code, run.json()), (0, by_refund.clone()), "by {id}");
    }
}

async fn a_refund_shows_its_own_reversals_and_a_payment_all(app: TestApp) {
    app.refund(5_000).await;
    app.refund_of(5_000, 2).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let counts =
        |trace: &Value| ["refunds", "transfers", "reversals"].map(|name| trace[name].as_array().unwrap().len());
    assert_eq!(counts(&app.cli(&["trace", "re_2", "--format", "json"]).await.json()), [1, 2, 2]);
    assert_eq!(counts(&app.cli(&["trace", "tr_1", "--format", "json"]).await.json()), [2, 1, 2]);
    assert_eq!(counts(&app.cli(&["trace", "pi_1", "--format", "json"]).await.json()), [2, 2, 4]);
}

async fn what_waits_says_for_what(mut app: TestApp) {
    let early = refund_event("evt_early", "re_early", "pi_later", 100).to_string();
    assert_eq!(app.post_webhook(&early).await.status(), 200);
    let run = app.cli(&["trace", "evt_early"]).await;
    assert!(run.table().contains("re_early") && run.stdout.contains("unmatched"), "{run:?}");
    let irrelevant =
        json!({"id": "evt_other", "object": "event", "type": "customer.created", "data": {"object": {"id": "cus_1"}}});
    assert_eq!(app.post_webhook(&irrelevant.to_string()).await.status(), 200);
    let run = app.cli(&["trace", "evt_other"]).await;
    assert!(run.table().contains("webhook evt_other: ignored"), "{run:?}");

    app.sim.fault("tr_1", Fault::UnavailableHtml, 1_000);
    app.restart_with(&[("REVERSAL_BACKOFF_BASE", "1h"), ("REVERSAL_BACKOFF_MAX", "1h")]).await;
    app.refund(10_000).await;
    let waits = |reversal: &Value| reversal["next_retry_at"].is_string();
    app.reversal_when(0, "it waits for its retry", waits).await;
    let run = app.cli(&["trace", "tr_1"]).await;
    assert!(run.words().contains("1 retry used; next try"), "{run:?}");
    app.stop().await;
    // Nobody relays what is committed now.
    let amount = app.many_sellers("pi_2", 1).await;
    app.ledger().receive(refund_webhook("evt_2", "re_2", "pi_2", amount)).await.unwrap();
    let run = app.cli(&["trace", "re_2"]).await;
    assert!(run.words().contains("its job waits for the relay since"), "{run:?}");
}

async fn a_job_that_the_broker_has_confirmed_is_in_the_trace(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    let amount = app.many_sellers("pi_many", 20).await;
    let event = refund_event("evt_1", "re_1", "pi_many", amount).to_string();
    assert_eq!(app.post_webhook(&event).await.status(), 200);
    app.published(20).await;
    let trace = app.cli(&["trace", "re_1", "--format", "json"]).await.json();
    let events = trace["events"].as_array().unwrap();
    let by_relay: Vec<_> = events.iter().filter(|event| event["actor"] == "relay").collect();
    let confirmed = |event: &&&Value| {
        event["entity"] == "reversal" && event["reason"].as_str().unwrap().starts_with("the broker has confirmed")
    };
    assert_eq!((by_relay.len(), by_relay.iter().filter(confirmed).count()), (20, 20), "{trace}");
    let of_each: BTreeSet<_> = by_relay.iter().map(|event| event["entity_id"].to_string()).collect();
    assert_eq!(of_each.len(), 20);
}

async fn what_hangs_together_is_read_up_to_a_limit_and_the_trace_says_so(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    let amount = app.many_sellers("pi_1", 30).await;
    app.refund_of(amount, 1).await;
    let all = app.ledger().trace("pi_1", 30).await.unwrap().unwrap();
    assert_eq!((all.reversals.len(), all.transfers.len(), all.complete), (30, 30, true));
    let some = app.ledger().trace("pi_1", 10).await.unwrap().unwrap();
    assert!(!some.complete && some.reversals.len() <= 10, "{}", some.reversals.len());
    assert!(some.transfers.len() <= 20 && some.events.len() <= 300, "{} {}", some.transfers.len(), some.events.len());
    let one = app.ledger().trace(&some.reversals[0].reversal.id.to_string(), 10).await.unwrap().unwrap();
    assert!(one.complete && one.reversals.len() == 1, "what it says to trace instead is shown in full");
}

async fn an_id_that_nothing_has_is_an_error_that_says_what_is_understood(app: TestApp) {
    for id in ["re_nobody", "0199e2c4-0000-7000-8000-000000000000", "--"] {
        let run = app.cli(&["trace", "--", id]).await;
        assert_eq!((run.code, run.stdout.as_str()), (1, ""), "{run:?}");
        for kind in [id, "re_", "pi_", "ch_", "tr_", "trr_", "evt_", "req_"] {
            assert!(run.stderr.contains(kind), "{kind} in {run:?}");
        }
    }
}

/// One transfer's reversal, which failed twice and was given up; its message is parked.
async fn given_up_once(app: &mut TestApp) -> String {
    // Nothing is swept, and the worker works only after the relay has written, so that the order is always the same.
    let settings = [("REVERSAL_MAX_RETRIES", "1"), ("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER];
    app.restart_with(&settings).await;
    let payment = json!({"payment_ref": "pi_1", "amount": 6_000, "currency": "eur", "transfers": [
        {"seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 6_000, "currency": "eur"}]});
    assert_eq!(app.register(payment).await.status(), 201);
    app.refund_of(6_000, 1).await;
    app.published(1).await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 1_000);
    // Stripe answers another call first: otherwise no retry is used up.
    let later = (chrono::Utc::now() + chrono::TimeDelta::seconds(4)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET next_attempt_at = '{later}'")).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.stripe_answers().await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    app.sim.clear_faults();
    eventually("its message is parked", || async {
        let list = app.cli(&["parked", "list", "--format", "json"]).await.json();
        (list["parked"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
    transfer["reversals"][0]["id"].as_str().unwrap().to_owned()
}
