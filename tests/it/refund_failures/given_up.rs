//! A refund that fails after a reversal of it was given up: nothing is owed for that one any more. The payment's next refund
//! asks for the money instead, and a replay would take it twice.

use clawback::ledger::{CallKind, CallState, LedgerError, Note, TryOutcome};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    all_jobs_are_settled, fails, fails_permanently, reversal_id, statuses, stripe_is_asked, task, with_worker,
    without_worker,
};
use crate::support::{TestApp, both_databases, two_sellers};

both_databases! {
    the_next_refund_asks_for_what_a_failed_refund_had_given_up,
    what_is_owed_stands_in_the_way_until_the_last_one_is_called_off,
    a_replay_is_refused_whoever_asks_for_it,
    a_parked_message_that_is_moved_back_begins_nothing_anew,
    a_parked_message_that_is_moved_back_records_what_stripe_had_done_all_the_same,
    what_is_given_up_after_its_refund_has_failed_is_not_owed_either,
    what_stripe_had_done_all_the_same_is_recorded_and_counts,
}

fn note() -> Note {
    Note::new("ada", "a test")
}

/// The worker has asked Stripe for a reversal, and gives it up.
async fn is_given_up(app: &TestApp, id: Uuid) {
    stripe_is_asked(app, id).await;
    fails_permanently(app, id).await;
}

/// What the transfer `index` of `pi_1` was asked for, refund by refund.
async fn asked(app: &TestApp, index: usize) -> Vec<i64> {
    let payment = app.payment("pi_1").await;
    let reversals = payment["transfers"][index]["reversals"].as_array().unwrap();
    reversals.iter().map(|reversal| reversal["amount"].as_i64().unwrap()).collect()
}

async fn replayed_over_http(app: &TestApp, id: Uuid) -> (u16, Value) {
    let request = app.http.post(format!("{}/v1/reversals/{id}/replay", app.base_url)).bearer_auth(&app.api_token);
    let answer = request.json(&json!({"operator": "ada", "reason": "a test"})).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn the_next_refund_asks_for_what_a_failed_refund_had_given_up(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(10_000).await;
    is_given_up(&app, reversal_id(&app, 0, 0).await).await;
    assert_eq!(fails(&app, 1, 10_000).await["called_off"], 1);
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    for words in ["1 of its 2", "6000 eur of transfer tr_1 had failed permanently (rejected)", "replay is refused"] {
        assert!(attention.contains(words), "{words:?} is not in: {attention}");
    }

    // What nobody owes any more stands in no later refund's way.
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
    assert_eq!(app.ledger().backlog().await.unwrap().reversals_given_up, 0);
    app.refund_of(10_000, 2).await;
    assert_eq!((asked(&app, 0).await, asked(&app, 1).await), (vec![6_000, 6_000], vec![3_000, 3_000]));
    assert_eq!(statuses(&app).await, ["reversal_pending", "reversal_pending"]);
    with_worker(&mut app).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

/// Registers a payment, and refunds all of it. Stripe does not know its first transfer, so that its reversal is given up.
async fn refunded_in_part(mut app: TestApp) -> TestApp {
    // The sweeper makes no second jobs, so that one message is parked.
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["stripe_transfer_id"] = json!("tr_gone");
    app.register(payment).await;
    app.refund_of(10_000, 1).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "reversed").await;
    app
}

async fn a_replay_is_refused_whoever_asks_for_it(app: TestApp) {
    let app = without_worker(refunded_in_part(app).await).await;
    fails(&app, 1, 10_000).await;
    let id = reversal_id(&app, 0, 0).await;

    let (status, problem) = replayed_over_http(&app, id).await;
    assert_eq!((status, problem["type"].as_str()), (409, Some("/problems/conflict")), "{problem}");
    let run = app.cli(&["reversals", "replay", &id.to_string(), "--reason", "again"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    for told in [problem["detail"].as_str().unwrap(), &run.stderr] {
        assert!(told.contains("nothing is owed") && told.contains("refund re_1: failed"), "{told}");
    }
    let run = app.cli(&["parked", "replay", "--all", "--reason", "again"]).await;
    assert!(run.words().contains("0 replayed, 1 skipped") && run.words().contains("nothing is owed"), "{run:?}");
    let held = app.ledger().replay_held(&task(&app, id).await.call, &note()).await;
    assert!(matches!(held, Err(LedgerError::Conflict(_))), "{held:?}");
    assert_eq!(statuses(&app).await, ["completed", "reversed"]);
    assert_eq!(app.db.count("outbox").await, 2);
}

async fn a_parked_message_that_is_moved_back_begins_nothing_anew(app: TestApp) {
    let mut app = refunded_in_part(app).await;
    let parked = app.vhost.take("reversals.parked").await;
    app = without_worker(app).await;
    fails(&app, 1, 10_000).await;
    // Now Stripe would do it.
    app.sim.add_transfer("tr_gone", 6_000, "eur", "acct_1");
    app.vhost.put("reversals", &parked).await;
    let id = reversal_id(&app, 0, 0).await;
    all_jobs_are_settled(&mut app).await;
    assert_eq!(task(&app, id).await.call.state, CallState::Failed);
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 1);
    assert_eq!(app.reversed_at_stripe("tr_gone"), 0);
}

async fn a_parked_message_that_is_moved_back_records_what_stripe_had_done_all_the_same(app: TestApp) {
    let mut app = refunded_in_part(app).await;
    let parked = app.vhost.take("reversals.parked").await;
    app = without_worker(app).await;
    fails(&app, 1, 10_000).await;
    app.sim.add_transfer("tr_gone", 6_000, "eur", "acct_1");
    let url = format!("{}/v1/transfers/tr_gone/reversals", app.sim.base_url());
    let form = [("amount", "6000"), ("metadata[clawback_claim]", "stripe:re_1")];
    let answer = app.http.post(url).bearer_auth("sk_test_of_the_tests").form(&form).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    app.vhost.put("reversals", &parked).await;
    with_worker(&mut app).await;
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_gone"), 6_000);
}

async fn what_is_owed_stands_in_the_way_until_the_last_one_is_called_off(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(2_000).await;
    is_given_up(&app, reversal_id(&app, 0, 0).await).await;
    app.refund_of(2_000, 2).await;
    assert_eq!(statuses(&app).await, ["permanently_failed", "reversal_pending"]);
    // Born parked: the first one is owed.
    assert_eq!(app.payment("pi_1").await["transfers"][0]["reversals"][1]["status"], "permanently_failed");
    fails(&app, 1, 2_000).await;
    assert_eq!(statuses(&app).await, ["permanently_failed", "reversal_pending"], "the second one is");
    fails(&app, 2, 2_000).await;
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
}

async fn what_is_given_up_after_its_refund_has_failed_is_not_owed_either(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(10_000).await;
    let first = reversal_id(&app, 0, 0).await;
    stripe_is_asked(&app, first).await;
    fails(&app, 1, 10_000).await;
    fails_permanently(&app, first).await;
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
    assert_eq!(replayed_over_http(&app, first).await.0, 409);

    app.refund_of(10_000, 2).await;
    assert_eq!(asked(&app, 0).await, [6_000, 6_000]);
    with_worker(&mut app).await;
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
}

/// An answer of Stripe's comes when the reversal was given up and its refund has failed.
async fn what_stripe_had_done_all_the_same_is_recorded_and_counts(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(5_000).await;
    let id = reversal_id(&app, 0, 0).await;
    is_given_up(&app, id).await;
    fails(&app, 1, 5_000).await;
    match app.ledger().replay(CallKind::Reverse, &id.to_string(), &note()).await {
        Err(LedgerError::Conflict(why)) => assert!(why.contains("nothing is owed"), "{why}"),
        other => panic!("{other:?}"),
    }
    let outcome = TryOutcome::Done { stripe_id: "trr_1".into(), externally: false };
    app.ledger().report(&task(&app, id).await, outcome, note()).await.unwrap();
    assert_eq!(statuses(&app).await, ["partially_reversed", "completed"]);
    app.refund_of(8_000, 2).await;
    assert_eq!((asked(&app, 0).await, asked(&app, 1).await), (vec![3_000, 1_800], vec![1_500, 2_400]));
}
