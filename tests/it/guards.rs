//! Reports are guarded by what their worker had read: of two workers with the same job, one counts.

use std::time::Duration;

use clawback::ledger::{
    Aftermath, CreationTask, Failure, LedgerError, Note, Postponement, ReversalStatus, ReversalTask,
};
use uuid::Uuid;

use crate::support::{TestApp, both_databases, to_create};

both_databases! {
    of_two_workers_that_postpone_the_same_try_one_counts,
    of_two_workers_that_begin_an_epoch_one_does,
    a_reversal_that_has_ended_takes_no_more_reports,
    a_second_reversal_at_stripe_is_told_and_changes_nothing,
    whoever_read_a_reversal_before_its_replay_does_not_end_it,
    whoever_read_a_transfer_before_its_retry_does_not_end_it,
    a_definite_answer_gives_the_retries_back_and_outdates_earlier_reports,
    nobody_calls_with_a_row_that_is_no_longer_as_it_was_read,
    nobody_creates_with_a_row_that_is_no_longer_as_it_was_read,
}

async fn of_two_workers_that_postpone_the_same_try_one_counts(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    app.ledger().postpone(&task, &retry(Aftermath::NewEpoch), &note()).await.unwrap();
    let second = app.ledger().postpone(&task, &retry(Aftermath::NewEpoch), &note()).await;
    assert!(matches!(second, Err(LedgerError::Stale { .. })), "{second:?}");
    let now = app.ledger().reversal_task(task.id).await.unwrap().unwrap();
    assert_eq!((now.retry_count, now.epoch), (0, 1));
}

async fn of_two_workers_that_begin_an_epoch_one_does(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    let begun = app.ledger().begin_epoch(&task, &note()).await.unwrap();
    assert_eq!(begun.epoch, 1);
    // The first is ahead by one more; the second must not take the epoch back, and with it an old key.
    app.ledger().begin_epoch(&begun, &note()).await.unwrap();
    let second = app.ledger().begin_epoch(&task, &note()).await;
    assert!(matches!(second, Err(LedgerError::Stale { .. })), "{second:?}");
    assert_eq!(app.ledger().reversal_task(task.id).await.unwrap().unwrap().epoch, 2);
}

async fn a_reversal_that_has_ended_takes_no_more_reports(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    app.ledger().succeed(&task, "trr_1", false, &note()).await.unwrap();
    let failure = Failure { code: "late".into(), message: "late".into() };
    for late in [
        app.ledger().succeed(&task, "trr_2", false, &note()).await,
        app.ledger().fail(&task, &failure, &note()).await,
        app.ledger().postpone(&task, &retry(Aftermath::SameEpoch), &note()).await,
        app.ledger().replay(&task, &note()).await.map(drop),
    ] {
        assert!(matches!(late, Err(LedgerError::Stale { .. })), "{late:?}");
    }
    assert_eq!(app.payment("pi_1").await["transfers"][0]["reversals"][0]["stripe_reversal_id"], "trr_1");
}

async fn a_second_reversal_at_stripe_is_told_and_changes_nothing(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    app.ledger().succeed(&task, "trr_1", false, &note()).await.unwrap();
    let told = "history WHERE reason = 'reversed twice: Stripe has trr_2 beside trr_1' AND to_status = 'reversed'";
    // The same answer once more, and somebody else's reversal, are no second one of ours.
    for (id, externally, expected) in [("trr_1", false, 0), ("trr_9", true, 0), ("trr_2", false, 1)] {
        let again = app.ledger().succeed(&task, id, externally, &note()).await;
        assert!(matches!(again, Err(LedgerError::Stale { .. })), "{again:?}");
        assert_eq!(app.db.count(told).await, expected, "{id}");
    }
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!(
        (&transfer["amount_reversed"], &transfer["reversals"][0]["stripe_reversal_id"]),
        (&6_000.into(), &"trr_1".into())
    );
}

async fn whoever_read_a_reversal_before_its_replay_does_not_end_it(app: TestApp) {
    let (app, late) = open_reversal(app).await;
    let (ledger, failure) = (app.ledger(), Failure { code: "late".into(), message: "late".into() });
    // One that failed at its first try has used no retries up: the row looks as it did.
    ledger.fail(&late, &failure, &note()).await.unwrap();
    ledger.replay_reversal(late.id, &note()).await.unwrap();
    is_stale(ledger.fail(&late, &failure, &note()).await, "it was replayed");
    is_stale(ledger.postpone(&late, &retry(Aftermath::SameEpoch), &note()).await, "it was replayed");
    is_stale(ledger.begin_calling(&late, late.epoch_started_at).await, "it was replayed");
    let replayed = ledger.reversal_task(late.id).await.unwrap().unwrap();
    assert_eq!((replayed.status, replayed.retry_count, replayed.epoch), (ReversalStatus::Pending, 0, 1));
    assert!(replayed.doubtful_since.is_some(), "Stripe's list is to be read before the new key is used");

    // Another retry, too, is another worker's report.
    ledger.postpone(&replayed, &retry(Aftermath::SameEpoch), &note()).await.unwrap();
    is_stale(ledger.fail(&replayed, &failure, &note()).await, "another worker has used up a retry");
    let current = ledger.reversal_task(late.id).await.unwrap().unwrap();
    ledger.fail(&current, &failure, &note()).await.unwrap();
    let replayed = ledger.replay(&current, &note()).await.unwrap();
    ledger.fail(&replayed, &failure, &note()).await.unwrap();
}

async fn whoever_read_a_transfer_before_its_retry_does_not_end_it(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    let registered: serde_json::Value = app.register(to_create("pi_1")).await.json().await.unwrap();
    let id: Uuid = registered["transfers"][0]["id"].as_str().unwrap().parse().unwrap();
    let (ledger, failure) = (app.ledger(), Failure { code: "late".into(), message: "late".into() });
    let late = ledger.creation_task(id).await.unwrap().unwrap();
    ledger.fail_creation(&late, &failure, &note()).await.unwrap();
    ledger.retry_transfer(id, &note()).await.unwrap();
    is_stale(ledger.fail_creation(&late, &failure, &note()).await, "it was retried");
    is_stale(ledger.postpone_creation(&late, &retry(Aftermath::SameEpoch), &note()).await, "it was retried");
    let retried = ledger.creation_task(id).await.unwrap().unwrap();
    assert_eq!((retried.epoch, retried.doubtful_since.is_some()), (1, true));
    ledger.fail_creation(&retried, &failure, &note()).await.unwrap();
    let given_up = ledger.creation_task(id).await.unwrap().unwrap();
    let retried = ledger.replay_creation(&given_up, &note()).await.unwrap();
    ledger.fail_creation(&retried, &failure, &note()).await.unwrap();
}

async fn a_definite_answer_gives_the_retries_back_and_outdates_earlier_reports(app: TestApp) {
    let (app, first) = open_reversal(app).await;
    let ledger = app.ledger();
    let read = || async { ledger.reversal_task(first.id).await.unwrap().unwrap() };
    let accepted = || Aftermath::AcceptedByStripe { reversal_id: "trr_1".into() };
    for (answer, epoch) in [(Aftermath::NewEpoch, 1), (accepted(), 1), (accepted(), 1)] {
        let early = read().await;
        ledger.postpone(&early, &retry(Aftermath::SameEpoch), &note()).await.unwrap();
        let waits = Postponement { counted: false, ..retry(answer) };
        ledger.postpone(&read().await, &waits, &note()).await.unwrap();
        let now = read().await;
        assert_eq!((now.retry_count, now.epoch), (0, epoch), "{waits:?}");
        if now.pending_reversal_id != early.pending_reversal_id || now.epoch != early.epoch {
            is_stale(ledger.postpone(&early, &retry(Aftermath::Doubtful), &note()).await, "Stripe has answered since");
        }
        is_stale(ledger.begin_calling(&early, early.epoch_started_at).await, "Stripe has answered since");
    }
}

async fn nobody_calls_with_a_row_that_is_no_longer_as_it_was_read(app: TestApp) {
    let (app, first) = open_reversal(app).await;
    let ledger = app.ledger();
    let began = |task: &ReversalTask| task.epoch_started_at;
    ledger.begin_calling(&first, began(&first)).await.unwrap();
    ledger.begin_calling(&first, began(&first)).await.unwrap();
    is_stale(ledger.begin_calling(&first, began(&first) + Duration::from_secs(1)).await, "its epoch is too old");

    ledger.postpone(&first, &retry(Aftermath::Doubtful), &note()).await.unwrap();
    is_stale(ledger.begin_calling(&first, began(&first)).await, "another worker has used up a retry");
    let doubtful = ledger.reversal_task(first.id).await.unwrap().unwrap();
    is_stale(ledger.begin_calling(&doubtful, began(&doubtful)).await, "Stripe may have done it");
    let second = ledger.begin_epoch(&doubtful, &note()).await.unwrap();
    is_stale(ledger.begin_calling(&doubtful, began(&doubtful)).await, "another worker has begun an epoch");
    ledger.begin_calling(&second, began(&second)).await.unwrap();
}

async fn nobody_creates_with_a_row_that_is_no_longer_as_it_was_read(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    let registered: serde_json::Value = app.register(to_create("pi_1")).await.json().await.unwrap();
    let id: Uuid = registered["transfers"][0]["id"].as_str().unwrap().parse().unwrap();
    let ledger = app.ledger();
    let read = || async { ledger.creation_task(id).await.unwrap().unwrap() };
    let began = |task: &CreationTask| task.epoch_started_at;
    let first = read().await;
    ledger.begin_creating(&first, began(&first)).await.unwrap();
    is_stale(ledger.begin_creating(&first, began(&first) + Duration::from_secs(1)).await, "its epoch is too old");

    ledger.postpone_creation(&first, &retry(Aftermath::Doubtful), &note()).await.unwrap();
    is_stale(ledger.begin_creating(&first, began(&first)).await, "another worker has used up a retry");
    let doubtful = read().await;
    is_stale(ledger.begin_creating(&doubtful, began(&doubtful)).await, "Stripe may have done it");
    let second = ledger.begin_creation_epoch(&doubtful, &note()).await.unwrap();
    is_stale(ledger.begin_creating(&doubtful, began(&doubtful)).await, "another worker has begun an epoch");
    ledger.begin_creating(&second, began(&second)).await.unwrap();
    ledger.created(id, "tr_new", &note()).await.unwrap();
    is_stale(ledger.begin_creating(&second, began(&second)).await, "it is created");
}

fn is_stale(result: Result<(), LedgerError>, why: &str) {
    assert!(matches!(result, Err(LedgerError::Stale { .. })), "{why}: {result:?}");
}

/// The reversal of `tr_1`, with nobody else working on it.
async fn open_reversal(mut app: TestApp) -> (TestApp, ReversalTask) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    let reversal = app.payment("pi_1").await["transfers"][0]["reversals"][0].clone();
    let id: Uuid = reversal["id"].as_str().unwrap().parse().unwrap();
    let task = app.ledger().reversal_task(id).await.unwrap().unwrap();
    (app, task)
}

fn retry(aftermath: Aftermath) -> Postponement {
    let until = chrono::Utc::now() + Duration::from_secs(60);
    let failure = Failure { code: "unavailable".into(), message: "HTTP 503".into() };
    Postponement { until, counted: true, aftermath, failure }
}

fn note() -> Note {
    Note::new("worker", "a test")
}
