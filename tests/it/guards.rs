//! Reports are guarded by what their worker had read: of two workers with the same job, one counts.

use std::time::Duration;

use clawback::ledger::{Aftermath, Failure, LedgerError, Note, Postponement, ReversalTask};
use uuid::Uuid;

use crate::support::{TestApp, both_databases};

both_databases! {
    of_two_workers_that_postpone_the_same_try_one_counts,
    of_two_workers_that_begin_an_epoch_one_does,
    a_reversal_that_has_ended_takes_no_more_reports,
}

async fn of_two_workers_that_postpone_the_same_try_one_counts(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    app.ledger().postpone(&task, &retry(Aftermath::NewEpoch), &note()).await.unwrap();
    let second = app.ledger().postpone(&task, &retry(Aftermath::NewEpoch), &note()).await;
    assert!(matches!(second, Err(LedgerError::Stale { .. })), "{second:?}");
    let now = app.ledger().reversal_task(task.id).await.unwrap().unwrap();
    assert_eq!((now.retry_count, now.epoch), (1, 1));
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
