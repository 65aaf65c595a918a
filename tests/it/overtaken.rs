//! A worker that is held up between reading its row and calling Stripe: another one may have gone on with the job, and the
//! key that was right when the row was read may run a second time.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use clawback::ledger::{CreateTransferJob, Note, ReverseTransferJob};
use clawback::stripe::Client;
use clawback::worker::{CreateTransfer, JobContext, KillSwitch, Limiter, ReverseTransfer, Timing};
use queues::{Delivery, Handler, Outcome, RetryPolicy};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{DEADLINE, NO_SWEEPER, TestApp, both_databases, eventually, to_create};

both_databases! {
    a_reversal_that_another_worker_went_on_with_is_not_called_under_the_old_key,
    a_creation_that_another_worker_went_on_with_is_not_called_under_the_old_key,
    a_key_that_grows_too_old_while_its_worker_waits_is_not_used,
    a_turn_that_is_far_away_is_not_waited_for_and_costs_no_retry,
}

async fn a_reversal_that_another_worker_went_on_with_is_not_called_under_the_old_key(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(4_000).await;
    let reversal_id = id(&app.payment("pi_1").await["transfers"][0]["reversals"][0]);
    looked_for_in_vain(&app, "reversals").await;
    let handler = ReverseTransfer::new(slow_worker(&app));
    let job = ReverseTransferJob { reversal_id };
    let held_up = tokio::spawn(async move { handler.handle(job, Delivery::new("m", "reverse_transfer")).await });

    // It begins an epoch, and then has to wait for its turn.
    let waiting = eventually("it is about to call under a new key", || async {
        app.ledger().reversal_task(reversal_id).await.unwrap().filter(|task| task.epoch == 1)
    })
    .await;
    app.ledger().begin_epoch(&waiting, &Note::new("worker", "the other one")).await.unwrap();
    assert_eq!(held_up.await.unwrap(), Outcome::Done);
    assert_eq!(keys(&app), [format!("clawback-{reversal_id}-2")], "the old key was used");
}

async fn a_creation_that_another_worker_went_on_with_is_not_called_under_the_old_key(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")]).await;
    let registered: Value = app.register(to_create("pi_1")).await.json().await.unwrap();
    let transfer_id = id(&registered["transfers"][0]);
    looked_for_in_vain(&app, "seller_transfers").await;
    let handler = CreateTransfer::new(slow_worker(&app));
    let job = CreateTransferJob { transfer_id };
    let held_up = tokio::spawn(async move { handler.handle(job, Delivery::new("m", "create_transfer")).await });

    let waiting = eventually("it is about to call under a new key", || async {
        app.ledger().creation_task(transfer_id).await.unwrap().filter(|task| task.epoch == 1)
    })
    .await;
    app.ledger().begin_creation_epoch(&waiting, &Note::new("worker", "the other one")).await.unwrap();
    assert_eq!(held_up.await.unwrap(), Outcome::Done);
    assert_eq!(keys(&app), [format!("clawback-transfer-{transfer_id}-2")], "the old key was used");
}

async fn a_key_that_grows_too_old_while_its_worker_waits_is_not_used(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(4_000).await;
    let reversal_id = id(&app.payment("pi_1").await["transfers"][0]["reversals"][0]);
    let worker = slow_worker(&app);
    // The next turn is eight seconds away; the key is trusted for three more.
    worker.limiter.turn().await;
    let began = (Utc::now() - TimeDelta::hours(23) + TimeDelta::seconds(3)).to_rfc3339();
    app.db.execute(&format!("UPDATE reversals SET epoch_started_at = '{began}'")).await;
    let job = ReverseTransferJob { reversal_id };
    let outcome = ReverseTransfer::new(worker).handle(job, Delivery::new("m", "reverse_transfer")).await;
    assert!(matches!(outcome, Outcome::Snooze { .. }), "{outcome:?}");
    assert!(keys(&app).is_empty(), "the old key was used");
    assert!(app.sim.ledger().requests.iter().any(|request| request.method == "GET"), "Stripe's list is read instead");
}

async fn a_turn_that_is_far_away_is_not_waited_for_and_costs_no_retry(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(4_000).await;
    let reversal_id = id(&app.payment("pi_1").await["transfers"][0]["reversals"][0]);
    let worker = slow_worker(&app);
    // As after a 429 that says so.
    worker.limiter.halve(Some(Duration::from_secs(600)));
    let before = app.ledger().reversal_task(reversal_id).await.unwrap().unwrap();
    let handler = ReverseTransfer::new(worker);
    let handled = handler.handle(ReverseTransferJob { reversal_id }, Delivery::new("m", "reverse_transfer"));
    let outcome = tokio::time::timeout(DEADLINE, handled).await.expect("it does not wait for its turn");
    let Outcome::Snooze { delay, reason } = outcome else { panic!("{outcome:?}") };
    assert!((Duration::from_secs(500)..=Duration::from_secs(600)).contains(&delay), "{delay:?}");
    assert!(reason.contains("slowed down"), "{reason}");
    let after = app.ledger().reversal_task(reversal_id).await.unwrap().unwrap();
    assert_eq!((after.retry_count, after.updated_at), (before.retry_count, before.updated_at));
    assert!(app.sim.ledger().requests.is_empty(), "Stripe was called out of turn");
}

/// A worker whose second call comes eight seconds after its first.
fn slow_worker(app: &TestApp) -> JobContext {
    let key = secrecy::SecretString::from("sk_test_of_the_tests");
    let stripe = Client::new(app.sim.base_url().parse().unwrap(), key).unwrap();
    let limiter = Limiter::new(1);
    limiter.halve(None);
    JobContext {
        ledger: app.ledger().clone(),
        stripe,
        limiter: Arc::new(limiter),
        kill_switch: Arc::new(KillSwitch::new()),
        policy: RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(800), 5),
        timing: Timing { balance_deadline: Duration::from_secs(3600), settling: Duration::from_millis(200) },
    }
}

/// As after a 500, and a first look that found nothing.
async fn looked_for_in_vain(app: &TestApp, table: &str) {
    let earlier = (Utc::now() - TimeDelta::hours(1)).to_rfc3339();
    app.db.execute(&format!("UPDATE {table} SET doubtful_since = '{earlier}', absent_since = '{earlier}'")).await;
}

fn id(view: &Value) -> Uuid {
    view["id"].as_str().unwrap().parse().unwrap()
}

/// The idempotency keys of all calls that move money, in their order.
fn keys(app: &TestApp) -> Vec<String> {
    let posts = app.sim.ledger().requests.into_iter().filter(|request| request.method == "POST");
    posts.filter_map(|post| post.idempotency_key).collect()
}
