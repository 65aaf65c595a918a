//! A worker that is held up between reading its row and calling Stripe: another one may have gone on with the job, and the
//! key that was right when the row was read may run a second time.

use std::sync::Arc;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use clawback::ledger::{CallJob, Note, TryOutcome};
use clawback::stripe::Client;
use clawback::worker::{Caller, CircuitBreaker, CreateTransfer, Limiter, ReverseTransfer, Timing};
use queues::{Delivery, Handler, KeyPermits, Outcome, RetryPolicy};
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
    looked_for_in_vain(&app).await;
    let (worker, job) = (slow_worker(&app), ReverseTransfer(CallJob { call_id: reversal_id }));
    let held_up = tokio::spawn(async move { worker.handle(job, Delivery::new("m", "reverse_transfer")).await });

    // It begins a generation, and then has to wait for its turn.
    let waiting = eventually("it is about to call under a new key", || async {
        app.ledger().task(reversal_id).await.unwrap().filter(|task| task.call.generation == 1)
    })
    .await;
    app.ledger().report(&waiting, TryOutcome::NewGeneration, Note::new("worker", "the other one")).await.unwrap();
    assert_eq!(held_up.await.unwrap(), Outcome::Done);
    assert_eq!(generations(&app), ["2"], "the old key was used");
}

async fn a_creation_that_another_worker_went_on_with_is_not_called_under_the_old_key(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")]).await;
    let registered: Value = app.register(to_create("pi_1")).await.json().await.unwrap();
    let transfer_id = id(&registered["transfers"][0]);
    looked_for_in_vain(&app).await;
    let (worker, job) = (slow_worker(&app), CreateTransfer(CallJob { call_id: transfer_id }));
    let held_up = tokio::spawn(async move { worker.handle(job, Delivery::new("m", "create_transfer")).await });

    let waiting = eventually("it is about to call under a new key", || async {
        app.ledger().task(transfer_id).await.unwrap().filter(|task| task.call.generation == 1)
    })
    .await;
    app.ledger().report(&waiting, TryOutcome::NewGeneration, Note::new("worker", "the other one")).await.unwrap();
    assert_eq!(held_up.await.unwrap(), Outcome::Done);
    assert_eq!(generations(&app), ["2"], "the old key was used");
}

async fn a_key_that_grows_too_old_while_its_worker_waits_is_not_used(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(4_000).await;
    let reversal_id = id(&app.payment("pi_1").await["transfers"][0]["reversals"][0]);
    let worker = slow_worker(&app);
    // The next turn is eight seconds away; the key is trusted for three more.
    worker.limiter.turn().await;
    let began = (Utc::now() - TimeDelta::hours(23) + TimeDelta::seconds(3)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET generation_started_at = '{began}'")).await;
    let job = ReverseTransfer(CallJob { call_id: reversal_id });
    let outcome = worker.handle(job, Delivery::new("m", "reverse_transfer")).await;
    assert!(matches!(outcome, Outcome::Snooze { .. }), "{outcome:?}");
    assert!(generations(&app).is_empty(), "the old key was used");
    assert!(app.sim.ledger().requests.iter().any(|request| request.method == "GET"), "Stripe's list is read instead");
}

async fn a_turn_that_is_far_away_is_not_waited_for_and_costs_no_retry(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(4_000).await;
    let reversal_id = id(&app.payment("pi_1").await["transfers"][0]["reversals"][0]);
    let worker = slow_worker(&app);
    // As after a 429 that says so.
    worker.limiter.halve(Some(Duration::from_secs(600)));
    let before = app.ledger().task(reversal_id).await.unwrap().unwrap().call;
    let job = ReverseTransfer(CallJob { call_id: reversal_id });
    let handled = worker.handle(job, Delivery::new("m", "reverse_transfer"));
    let outcome = tokio::time::timeout(DEADLINE, handled).await.expect("it does not wait for its turn");
    let Outcome::Snooze { delay, reason } = outcome else { panic!("{outcome:?}") };
    assert!((Duration::from_secs(500)..=Duration::from_secs(600)).contains(&delay), "{delay:?}");
    assert!(reason.contains("slowed down"), "{reason}");
    let after = app.ledger().task(reversal_id).await.unwrap().unwrap().call;
    assert_eq!(after, before, "no retry is used up");
    assert!(app.sim.ledger().requests.is_empty(), "Stripe was called out of turn");
}

/// A worker whose second call comes eight seconds after its first.
fn slow_worker(app: &TestApp) -> Caller {
    let key = secrecy::SecretString::from("sk_test_of_the_tests");
    let stripe = Client::new(app.sim.base_url().parse().unwrap(), key, None).unwrap();
    let limiter = Limiter::new(1);
    limiter.halve(None);
    Caller {
        ledger: app.ledger().clone(),
        stripe,
        limiter: Arc::new(limiter),
        breaker: Arc::new(CircuitBreaker::new()),
        transfers: KeyPermits::new(1),
        sellers: KeyPermits::new(8),
        policy: RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(800), 5),
        timing: Timing {
            balance_deadline: Duration::from_secs(3600),
            settling: Duration::from_millis(200),
            turn: Duration::from_secs(30),
        },
        parse: clawback::http::webhooks::stripe::content_of,
        notifier: None,
    }
}

/// As after a 500 that Stripe had saved, and a first look that found nothing.
async fn looked_for_in_vain(app: &TestApp) {
    let earlier = (Utc::now() - TimeDelta::hours(1)).to_rfc3339();
    let seen = format!(
        "UPDATE calls SET outcome_unknown_since = '{earlier}', absent_since = '{earlier}', key_burnt_at = '{earlier}'"
    );
    app.db.execute(&seen).await;
}

fn id(view: &Value) -> Uuid {
    view["id"].as_str().unwrap().parse().unwrap()
}

/// The generations in the idempotency keys of all calls that move money, in their order.
fn generations(app: &TestApp) -> Vec<String> {
    let posts = app.sim.ledger().requests.into_iter().filter(|request| request.method == "POST");
    let keys = posts.filter_map(|post| post.idempotency_key);
    keys.map(|key| key.rsplit('-').next().unwrap().to_owned()).collect()
}
