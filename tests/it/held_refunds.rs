//! Refunds that take nothing for now: older than the ledger, or pending at Stripe. And those that an operator must look at.

use std::collections::BTreeSet;

use clawback::ledger::{LedgerError, Note};
use serde_json::{Value, json};

use crate::support::{TestApp, both_databases, eventually, refund_event, two_sellers};

both_databases! {
    a_refund_from_before_the_ledgers_set_up_takes_nothing_until_it_is_accepted,
    what_is_held_is_accepted_also_before_its_payment_is_registered,
    a_held_refund_that_fails_is_failed,
    refunds_since_decides_what_is_old,
    a_refund_that_waits_for_the_platforms_balance_is_held_until_it_has_succeeded,
    a_refund_that_waits_for_the_platforms_balance_takes_at_once_if_that_is_set,
    a_refund_that_is_not_matched_for_a_day_needs_an_operator,
    the_sweeper_matches_what_nobody_came_upon,
    a_conflict_that_has_passed_is_matched_by_the_sweeper,
}

fn note() -> Note {
    Note::new("ada", "it was not taken back by the old program")
}

/// The refund `re_1` of `pi_1`, made at a time in seconds since 1970.
fn made_at(event_id: &str, created: i64, status: &str) -> String {
    let mut event = refund_event(event_id, "re_1", "pi_1", 10_000);
    event["data"]["object"]["created"] = json!(created);
    event["data"]["object"]["status"] = json!(status);
    event.to_string()
}

fn awaiting_funds(event_id: &str) -> String {
    let mut event = refund_event(event_id, "re_1", "pi_1", 10_000);
    event["data"]["object"]["status"] = json!("pending");
    event["data"]["object"]["pending_reason"] = json!("insufficient_funds");
    event.to_string()
}

async fn told(app: &TestApp, body: &str) -> Value {
    let mut answer = app.post_webhook(body).await;
    // Not taken for now: the provider sends it again.
    while answer.status() == 503 {
        answer = app.post_webhook(body).await;
    }
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn with_default(app: &mut TestApp) {
    app.restart_with(&[("REFUNDS_SINCE", ""), ("REVERSAL_WORKER_ENABLED", "false")]).await;
}

async fn a_refund_from_before_the_ledgers_set_up_takes_nothing_until_it_is_accepted(mut app: TestApp) {
    with_default(&mut app).await;
    app.register(two_sellers("pi_1")).await;
    let yesterday = chrono::Utc::now().timestamp() - 86_400;
    let answer = told(&app, &made_at("evt_1", yesterday, "succeeded")).await;
    assert_eq!(answer["outcome"], "held");
    assert!(answer["reason"].as_str().unwrap().contains("REFUNDS_SINCE"), "{answer}");
    // Stripe tells of it again, because the bank's number is known.
    assert_eq!(told(&app, &made_at("evt_2", yesterday, "succeeded")).await["outcome"], "duplicate");
    let refund = app.refund_view("re_1").await;
    assert_eq!((&refund["status"], &refund["reversals"]), (&json!("held"), &json!([])));

    let id = app.ledger().accept_claim("re_1", note()).await.unwrap();
    let refund = app.refund_view(&id.to_string()).await;
    assert_eq!((&refund["status"], refund["reversals"].as_array().unwrap().len()), (&json!("matched"), 2));
    assert_eq!(app.db.count("history WHERE actor = 'ada' AND from_status = 'held'").await, 1);
    let again = app.ledger().accept_claim("re_1", note()).await.unwrap_err();
    assert!(matches!(&again, LedgerError::Conflict(why) if why.contains("is matched")), "{again}");
    let unknown = app.ledger().accept_claim("re_9", note()).await.unwrap_err();
    assert!(matches!(unknown, LedgerError::NotFound { .. }), "{unknown}");
    // What is made from now on is taken at once, and so is what does not say when it was made.
    let mut event = refund_event("evt_3", "re_3", "pi_2", 10);
    event["data"]["object"]["created"] = json!(chrono::Utc::now().timestamp());
    assert_eq!(told(&app, &event.to_string()).await["outcome"], "unmatched");
    assert_eq!(told(&app, &refund_event("evt_4", "re_4", "pi_2", 10).to_string()).await["outcome"], "unmatched");
}

async fn what_is_held_is_accepted_also_before_its_payment_is_registered(mut app: TestApp) {
    with_default(&mut app).await;
    told(&app, &made_at("evt_1", 1_600_000_000, "succeeded")).await;
    app.ledger().accept_claim("re_1", note()).await.unwrap();
    assert_eq!(app.refund_view("re_1").await["status"], "unmatched");
    told(&app, &made_at("evt_2", 1_600_000_000, "succeeded")).await;
    assert_eq!(app.refund_view("re_1").await["status"], "unmatched", "it is not held again");
    app.register(two_sellers("pi_1")).await;
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
}

async fn a_held_refund_that_fails_is_failed(mut app: TestApp) {
    with_default(&mut app).await;
    app.register(two_sellers("pi_1")).await;
    told(&app, &made_at("evt_1", 1_600_000_000, "succeeded")).await;
    assert_eq!(told(&app, &made_at("evt_2", 1_600_000_000, "failed")).await["outcome"], "failed");
    assert_eq!(app.refund_view("re_1").await["status"], "failed");
    assert!(app.ledger().accept_claim("re_1", note()).await.is_err());
    assert_eq!(app.db.count("reversals").await, 0);
}

async fn refunds_since_decides_what_is_old(mut app: TestApp) {
    app.restart_with(&[("REFUNDS_SINCE", "2026-03-01"), ("REVERSAL_WORKER_ENABLED", "false")]).await;
    let midnight = 1_772_323_200;
    assert_eq!(told(&app, &made_at("evt_1", midnight, "succeeded")).await["outcome"], "unmatched");
    let mut event = refund_event("evt_2", "re_2", "pi_1", 10);
    event["data"]["object"]["created"] = json!(midnight - 1);
    assert_eq!(told(&app, &event.to_string()).await["outcome"], "held");
}

async fn a_refund_that_waits_for_the_platforms_balance_is_held_until_it_has_succeeded(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.register(two_sellers("pi_1")).await;
    let answer = told(&app, &awaiting_funds("evt_1")).await;
    assert_eq!(answer["outcome"], "held");
    assert_eq!(told(&app, &awaiting_funds("evt_2")).await["outcome"], "duplicate");
    let refund = app.refund_view("re_1").await;
    assert_eq!(refund["status"], "held");
    assert!(refund["status_reason"].as_str().unwrap().contains("insufficient_funds"), "{refund}");
    let answer = told(&app, &refund_event("evt_3", "re_1", "pi_1", 10_000).to_string()).await;
    assert_eq!(answer, json!({"received": true, "outcome": "accepted", "reversals": 2}));
    // An older event that comes late does not hold it again.
    told(&app, &awaiting_funds("evt_4")).await;
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
}

async fn a_refund_that_waits_for_the_platforms_balance_takes_at_once_if_that_is_set(mut app: TestApp) {
    let on = ("REVERSE_ON_PENDING", "insufficient_funds");
    app.restart_with(&[on, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.register(two_sellers("pi_1")).await;
    assert_eq!(told(&app, &awaiting_funds("evt_1")).await["reversals"], 2);
    let mut failed = refund_event("evt_2", "re_1", "pi_1", 10_000);
    failed["type"] = json!("refund.failed");
    failed["data"]["object"]["status"] = json!("failed");
    assert_eq!(told(&app, &failed.to_string()).await["called_off"], 2);
}

async fn a_refund_that_is_not_matched_for_a_day_needs_an_operator(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.register(two_sellers("pi_1")).await;
    told(&app, &refund_event("evt_1", "re_1", "pi_9", 10).to_string()).await;
    told(&app, &refund_event("evt_2", "re_2", "pi_1", 10_001).to_string()).await;
    assert_eq!(needing(&app).await, ["re_2"]);
    let conflict = app.refund_view("re_2").await["attention"].to_string();
    assert!(conflict.contains("10001 eur") && conflict.contains("10000 eur"), "{conflict}");
    assert_eq!(app.refund_view("re_1").await["attention"], Value::Null);

    let old = (chrono::Utc::now() - chrono::TimeDelta::hours(25)).format("%Y-%m-%d %H:%M:%S+00:00");
    app.db.execute(&format!("UPDATE claims SET created_at = '{old}' WHERE reference = 're_1'")).await;
    assert_eq!(needing(&app).await, ["re_1", "re_2"]);
    let unmatched = app.refund_view("re_1").await["attention"].to_string();
    assert!(unmatched.contains("for 25 h") && unmatched.contains("pi_9"), "{unmatched}");
    let backlog = app.ledger().backlog().await.unwrap();
    assert_eq!(backlog.attention.iter().map(|group| group.number).sum::<i64>(), 2);
    let waiting = backlog.waiting;
    let statuses: BTreeSet<_> = waiting.iter().map(|group| (group.status.to_string(), group.number)).collect();
    assert_eq!(statuses, BTreeSet::from([("conflicting".to_owned(), 1), ("unmatched".to_owned(), 1)]));

    for id in ["re_1", "re_2"] {
        app.ledger().acknowledge_claim(id, note()).await.unwrap();
        assert_eq!(app.refund_view(id).await["attention"], Value::Null);
    }
    assert_eq!(needing(&app).await, [""; 0]);
    assert!(app.ledger().backlog().await.unwrap().attention.is_empty());
}

/// The ids of what an operator must look at.
async fn needing(app: &TestApp) -> Vec<String> {
    let backlog = app.ledger().backlog().await.unwrap();
    backlog.attention_shown.into_iter().map(|(_, reference)| reference).collect()
}

async fn the_sweeper_matches_what_nobody_came_upon(mut app: TestApp) {
    app.register(two_sellers("pi_1")).await;
    told(&app, &refund_event("evt_1", "re_1", "pi_9", 10_000).to_string()).await;
    // As if registration and refund had missed each other.
    app.db.execute("UPDATE claims SET payment_ref = 'pi_1', charge_ref = NULL").await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.db.count("history WHERE actor = 'sweeper' AND to_status = 'matched'").await, 1);
    app.stop().await;
}

async fn a_conflict_that_has_passed_is_matched_by_the_sweeper(app: TestApp) {
    app.refund(10_000).await;
    // It replaces the first, which fails only afterwards.
    app.refund_of(9_000, 2).await;
    assert_eq!(app.refund_view("re_2").await["status"], "conflicting");
    let mut failed = refund_event("evt_3", "re_1", "pi_1", 10_000);
    failed["data"]["object"]["status"] = json!("failed");
    told(&app, &failed.to_string()).await;
    eventually("the sweeper matches it", || async {
        (app.refund_view("re_2").await["status"] == "matched").then_some(())
    })
    .await;
}
