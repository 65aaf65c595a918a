//! Reports are guarded by what their worker had read: of two workers with the same job, one counts.

use std::time::Duration;

use chrono::{SubsecRound, TimeDelta, Utc};
use clawback::ledger::{
    CallKind, CallState, Failure, LedgerError, Note, Postponement, Remainder, Retries, Task, TryOutcome,
};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{NO_SWEEPER, TestApp, both_databases, to_create, two_sellers};

/// Calls whose reports share a transaction.
const CALLS: usize = 40;

both_databases! {
    of_two_workers_that_postpone_the_same_try_one_counts,
    of_two_workers_that_begin_a_generation_one_does,
    of_two_workers_that_replay_the_same_call_one_does,
    a_report_at_an_old_version_is_stale,
    a_call_that_is_done_takes_no_more_reports,
    a_second_reversal_at_stripe_is_told_and_changes_nothing,
    a_success_counts_after_a_permanent_failure,
    whoever_read_a_reversal_before_its_replay_does_not_end_it,
    whoever_read_a_transfer_before_its_retry_does_not_end_it,
    a_definite_answer_gives_the_retries_back_and_outdates_earlier_reports,
    nobody_reverses_with_a_row_that_is_no_longer_as_it_was_read,
    nobody_creates_with_a_row_that_is_no_longer_as_it_was_read,
    in_a_batch_each_report_gets_its_own_answer,
    in_a_batch_that_the_database_refuses_each_report_gets_its_own_answer,
    a_report_with_what_the_database_can_not_hold_fails_alone,
}

async fn of_two_workers_that_postpone_the_same_try_one_counts(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    app.ledger().report(&task, later(Remainder::NewKey), note()).await.unwrap();
    is_stale(app.ledger().report(&task, later(Remainder::NewKey), note()).await, "the other one was first");
    let now = read(&app, &task).await.call;
    assert_eq!((now.attempts, now.generation), (0, 1));
}

async fn of_two_workers_that_begin_a_generation_one_does(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    let begun = app.ledger().report(&task, TryOutcome::NewGeneration, note()).await.unwrap();
    assert_eq!(begun.call.generation, 1);
    // The first is ahead by one more; the second must not take the generation back, and with it an old key.
    app.ledger().report(&begun, TryOutcome::NewGeneration, note()).await.unwrap();
    is_stale(app.ledger().report(&task, TryOutcome::NewGeneration, note()).await, "the other one is ahead");
    assert_eq!(read(&app, &task).await.call.generation, 2);
}

async fn of_two_workers_that_replay_the_same_call_one_does(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    let ledger = app.ledger();
    let failed = ledger.report(&task, failed(), note()).await.unwrap();
    let replayed = ledger.replay_held(&failed.call, &note()).await.unwrap();
    assert_eq!((replayed.state, replayed.generation), (CallState::Open, 0));
    is_stale(ledger.replay_held(&failed.call, &note()).await, "the other one has replayed it");
    // Nor does its old message count once it has failed again.
    let replayed = Task { call: replayed, ..task };
    ledger.report(&replayed, TryOutcome::Failed(failure()), note()).await.unwrap();
    is_stale(ledger.replay_held(&failed.call, &note()).await, "it has failed again since");
    assert_eq!(read(&app, &replayed).await.call.generation, 0, "its key may still be in somebody's hand");
    assert_eq!(app.db.count("outbox").await, 2, "who holds the job needs no other");
}

async fn a_report_at_an_old_version_is_stale(mut app: TestApp) {
    let creation = open_creation(&mut app).await;
    let (app, reversal) = open_reversal_of(app, "pi_2").await;
    for old in [reversal, creation] {
        // The row is as it was, but for its version.
        app.ledger().authorize(old.clone()).await.unwrap();
        let before = read(&app, &old).await.call;
        assert_eq!((before.version, before.state), (old.call.version + 1, CallState::Open));
        for outcome in [
            failed(),
            TryOutcome::Ended(failure()),
            TryOutcome::NewGeneration,
            later(Remainder::SameKey),
            later(Remainder::NewKey),
            later(Remainder::Unknown),
            later(Remainder::Absent),
            later(Remainder::Accepted { id: "trr_1".into() }),
        ] {
            is_stale(app.ledger().report(&old, outcome, note()).await, "the version is old");
        }
        is_stale(app.ledger().authorize(old.clone()).await, "the version is old");
        assert_eq!(read(&app, &old).await.call, before);
    }
    assert_eq!(app.db.count("history WHERE reason = 'a test'").await, 0);
}

async fn a_call_that_is_done_takes_no_more_reports(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    let ledger = app.ledger();
    let ended = ledger.report(&task, done("trr_1"), note()).await.unwrap();
    for read in [&task, &ended] {
        for outcome in [failed(), TryOutcome::Ended(failure()), TryOutcome::NewGeneration, later(Remainder::SameKey)] {
            is_stale(ledger.report(read, outcome, note()).await, "it is done");
        }
        is_stale(ledger.authorize(read.clone()).await, "it is done");
    }
    is_stale(ledger.replay_held(&task.call, &note()).await, "it is done");
    let replayed = ledger.replay_held(&ended.call, &note()).await;
    assert!(matches!(replayed, Err(LedgerError::Conflict(_))), "{replayed:?}");
    assert_eq!(read(&app, &task).await.call, ended.call);
    assert_eq!(app.payment("pi_1").await["transfers"][0]["reversals"][0]["stripe_reversal_id"], "trr_1");
}

async fn a_second_reversal_at_stripe_is_told_and_changes_nothing(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    let first = app.ledger().report(&task, done("trr_1"), note()).await.unwrap();
    let told = "history WHERE reason = 'reversed twice: Stripe has trr_2 beside trr_1' AND to_status = 'reversed'";
    // The same answer once more, and somebody else's reversal, are no second one of ours.
    for (id, externally, expected) in [("trr_1", false, 0), ("trr_9", true, 0), ("trr_2", false, 1)] {
        let again = TryOutcome::Done { stripe_id: id.into(), externally };
        let again = app.ledger().report(&task, again, note()).await.unwrap();
        assert_eq!(again.call, first.call, "{id}");
        assert_eq!(app.db.count(told).await, expected, "{id}");
    }
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!(
        (&transfer["amount_reversed"], &transfer["reversals"][0]["stripe_reversal_id"]),
        (&6_000.into(), &"trr_1".into())
    );
}

async fn a_success_counts_after_a_permanent_failure(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    let ledger = app.ledger();
    ledger.report(&task, failed(), note()).await.unwrap();
    assert_eq!(app.payment("pi_1").await["transfers"][0]["reversals"][0]["status"], "permanently_failed");
    // A worker that read it before the failure has done it.
    let after = ledger.report(&task, done("trr_1"), note()).await.unwrap().call;
    assert_eq!((after.state, &after.failure_code, &after.failure_message), (CallState::Done, &None, &None));
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!((&transfer["status"], &transfer["amount_reversed"]), (&json!("reversed"), &json!(6_000)));
    let reversal = &transfer["reversals"][0];
    let stripe_id = &reversal["stripe_reversal_id"];
    assert_eq!(
        (&reversal["status"], stripe_id, &reversal["failure_code"]),
        (&json!("reversed"), &json!("trr_1"), &Value::Null)
    );
    let id = app.db.id(&task.call.id.to_string());
    let steps = format!("SELECT to_status FROM history WHERE entity_id = {id} ORDER BY id");
    let steps: Vec<Value> = app.db.query(&steps).await.iter().map(|row| row["to_status"].clone()).collect();
    assert_eq!(steps, ["pending", "permanently_failed", "pending", "reversed"], "the history tells what was believed");

    // One that takes back the rest of a transfer whose other reversal still waits for an operator leaves it so.
    let (app, task) = open_reversal_of(app, "pi_2").await;
    app.post_webhook(&crate::support::refund_event("evt_3", "re_3", "pi_2", 2_000).to_string()).await;
    let second: Uuid =
        app.payment("pi_2").await["transfers"][0]["reversals"][1]["id"].as_str().unwrap().parse().unwrap();
    let second = app.ledger().task(second).await.unwrap().unwrap();
    app.ledger().report(&task, failed(), note()).await.unwrap();
    app.ledger().report(&second, failed(), note()).await.unwrap();
    app.ledger().report(&task, done("trr_2"), note()).await.unwrap();
    let transfer = app.payment("pi_2").await["transfers"][0].clone();
    let statuses = [&transfer["reversals"][0]["status"], &transfer["reversals"][1]["status"]];
    assert_eq!(
        (&transfer["status"], statuses),
        (&json!("permanently_failed"), [&json!("reversed"), &json!("permanently_failed")])
    );
    assert_eq!(transfer["amount_reversed"], transfer["reversals"][0]["amount"]);
}

async fn whoever_read_a_reversal_before_its_replay_does_not_end_it(app: TestApp) {
    let (app, late) = open_reversal(app).await;
    let ledger = app.ledger();
    // One that failed at its first try has used no retries up: the row looks as it did.
    ledger.report(&late, failed(), note()).await.unwrap();
    ledger.replay(CallKind::Reverse, &late.call.id.to_string(), &note()).await.unwrap();
    is_stale(ledger.report(&late, failed(), note()).await, "it was replayed");
    is_stale(ledger.report(&late, later(Remainder::SameKey), note()).await, "it was replayed");
    is_stale(ledger.authorize(late.clone()).await, "it was replayed");
    let replayed = read(&app, &late).await;
    let call = &replayed.call;
    assert_eq!((call.state, call.attempts, call.generation), (CallState::Open, 0, 0));
    assert!(call.outcome_unknown_since.is_some(), "Stripe's list is to be read before the key is used");
    assert_eq!(app.payment("pi_1").await["transfers"][0]["reversals"][0]["status"], "pending");

    // Another retry, too, is another worker's report.
    ledger.report(&replayed, later(Remainder::SameKey), note()).await.unwrap();
    is_stale(ledger.report(&replayed, failed(), note()).await, "another worker has used up a retry");
    let current = read(&app, &late).await;
    let failed_again = ledger.report(&current, failed(), note()).await.unwrap();
    let call = ledger.replay_held(&failed_again.call, &note()).await.unwrap();
    ledger.report(&Task { call, ..late }, failed(), note()).await.unwrap();
}

async fn whoever_read_a_transfer_before_its_retry_does_not_end_it(mut app: TestApp) {
    let late = open_creation(&mut app).await;
    let ledger = app.ledger();
    ledger.report(&late, failed(), note()).await.unwrap();
    ledger.replay(CallKind::Create, &late.call.id.to_string(), &note()).await.unwrap();
    is_stale(ledger.report(&late, failed(), note()).await, "it was retried");
    is_stale(ledger.report(&late, later(Remainder::SameKey), note()).await, "it was retried");
    is_stale(ledger.authorize(late.clone()).await, "it was retried");
    let retried = read(&app, &late).await;
    let call = &retried.call;
    assert_eq!((call.state, call.generation, call.outcome_unknown_since.is_some()), (CallState::Open, 0, true));
    assert_eq!(app.payment("pi_1").await["transfers"][0]["status"], "pending");
    let failed_again = ledger.report(&retried, failed(), note()).await.unwrap();
    let call = ledger.replay_held(&failed_again.call, &note()).await.unwrap();
    ledger.report(&Task { call, ..late }, failed(), note()).await.unwrap();
}

async fn a_definite_answer_gives_the_retries_back_and_outdates_earlier_reports(app: TestApp) {
    let (app, first) = open_reversal(app).await;
    let ledger = app.ledger();
    let accepted = || Remainder::Accepted { id: "trr_1".into() };
    for (answer, generation) in [(Remainder::NewKey, 1), (accepted(), 1), (accepted(), 1)] {
        let early = read(&app, &first).await;
        let retried = ledger.report(&early, later(Remainder::SameKey), note()).await.unwrap();
        assert_eq!(retried.call.attempts, 1);
        let waits = TryOutcome::Later(Postponement { retries: Retries::Kept, ..postponement(answer) });
        let now = ledger.report(&retried, waits.clone(), note()).await.unwrap();
        assert_eq!((now.call.attempts, now.call.generation), (0, generation), "{waits:?}");
        is_stale(ledger.report(&early, later(Remainder::Unknown), note()).await, "Stripe has answered since");
        is_stale(ledger.authorize(early).await, "Stripe has answered since");
    }
    is_stale(ledger.authorize(read(&app, &first).await).await, "Stripe has accepted it, and is not asked twice");
}

async fn nobody_reverses_with_a_row_that_is_no_longer_as_it_was_read(app: TestApp) {
    let (app, task) = open_reversal(app).await;
    nobody_calls_with_an_old_row(&app, task).await;
}

async fn nobody_creates_with_a_row_that_is_no_longer_as_it_was_read(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    nobody_calls_with_an_old_row(&app, task).await;
}

async fn nobody_calls_with_an_old_row(app: &TestApp, task: Task) {
    let ledger = app.ledger();
    let first = ledger.authorize(task.clone()).await.unwrap();
    assert!(task.call.requested_at.is_none() && first.call.requested_at.is_some(), "that Stripe is asked is committed");
    let again = ledger.authorize(first.clone()).await.unwrap();
    assert_eq!(again.call, first.call);
    // The row is the same; its key is too old.
    let began = |at: chrono::DateTime<Utc>| format!("UPDATE calls SET generation_started_at = '{}'", at.to_rfc3339());
    app.db.execute(&began(Utc::now() - TimeDelta::hours(23))).await;
    is_stale(ledger.authorize(first.clone()).await, "its key is too old");
    app.db.execute(&began(Utc::now())).await;
    ledger.authorize(first.clone()).await.unwrap();

    let doubtful = ledger.report(&first, later(Remainder::Unknown), note()).await.unwrap();
    is_stale(ledger.authorize(first).await, "another worker has used up a retry");
    // After a look, under the same key.
    let doubtful = ledger.authorize(doubtful).await.unwrap();
    let burnt = ledger.report(&doubtful, later(Remainder::Burnt), note()).await.unwrap();
    is_stale(ledger.authorize(burnt.clone()).await, "its key is burnt");
    let doubtful = burnt;
    let second = ledger.report(&doubtful, TryOutcome::NewGeneration, note()).await.unwrap();
    is_stale(ledger.authorize(doubtful).await, "another worker has begun a generation");
    let second = ledger.authorize(second).await.unwrap();
    let done = ledger.report(&second, done("at_stripe"), note()).await.unwrap();
    for late in [second, done] {
        is_stale(ledger.authorize(late).await, "Stripe has done it");
    }
}

async fn in_a_batch_each_report_gets_its_own_answer(mut app: TestApp) {
    let (stale, conflicting) = (11, 22);
    nobody_works(&mut app).await;
    assert_eq!(app.register(two_sellers("pi_other")).await.status(), 201);
    let transfers = (0..CALLS)
        .map(|n| json!({"seller_id": format!("s{n}"), "create": true, "destination": "acct_3", "amount": 100, "currency": "eur"}));
    let payment = json!({"payment_ref": "pi_1", "amount": 100 * CALLS, "currency": "eur", "transfers": transfers.collect::<Vec<_>>()});
    assert_eq!(app.register(payment).await.status(), 201);
    let payment = app.payment("pi_1").await;
    let tasks = tasks(&app, payment["transfers"].as_array().unwrap()).await;
    app.ledger().authorize(tasks[stale].clone()).await.unwrap();

    let outcome = |n: usize| match n {
        _ if n == stale => later(Remainder::SameKey),
        // The other payment's.
        _ if n == conflicting => done("tr_1"),
        _ if n.is_multiple_of(4) => later(Remainder::Unknown),
        _ if n % 4 == 1 => failed(),
        _ => done(&format!("tr_new_{n}")),
    };
    for (n, answer) in together(&app, &tasks, outcome).await.into_iter().enumerate() {
        if n == stale {
            is_stale(answer, "its version is old");
            continue;
        }
        if n == conflicting {
            assert!(matches!(&answer, Err(LedgerError::Conflict(problem)) if problem.contains("tr_1")), "{answer:?}");
            continue;
        }
        let call = answer.unwrap_or_else(|error| panic!("{n}: {error}")).call;
        assert_eq!((call.id, call.version), (tasks[n].call.id, 2), "{n}");
        let state = [CallState::Open, CallState::Failed, CallState::Done, CallState::Done][n % 4];
        assert_eq!((call.state, call.outcome_unknown_since.is_some()), (state, state == CallState::Open), "{n}");
        assert_eq!(read(&app, &tasks[n]).await.call, call, "what is answered is what is committed");
    }
    let payment = app.payment("pi_1").await;
    for (n, transfer) in payment["transfers"].as_array().unwrap().iter().enumerate() {
        let untouched = n == stale || n == conflicting;
        let status =
            if untouched { "pending" } else { ["failed", "permanently_failed", "completed", "completed"][n % 4] };
        let stripe_id = if status == "completed" { json!(format!("tr_new_{n}")) } else { Value::Null };
        assert_eq!((&transfer["status"], &transfer["stripe_transfer_id"]), (&json!(status), &stripe_id), "{n}");
    }
}

async fn in_a_batch_that_the_database_refuses_each_report_gets_its_own_answer(mut app: TestApp) {
    let (stale, conflicting) = (11, 22);
    let tasks = open_reversals(&mut app).await;
    app.ledger().authorize(tasks[stale].clone()).await.unwrap();

    let outcome = |n: usize| match n {
        _ if n == stale => failed(),
        // What only the database knows: one reversal at Stripe settles one row.
        _ if n == conflicting => done("trr_0"),
        _ => done(&format!("trr_{n}")),
    };
    for (n, answer) in together(&app, &tasks, outcome).await.into_iter().enumerate() {
        match n {
            _ if n == stale => is_stale(answer, "its version is old"),
            _ if n == conflicting => assert!(answer.is_err(), "{answer:?}"),
            _ => {
                let call = answer.unwrap_or_else(|error| panic!("{n}: {error}")).call;
                assert_eq!((call.id, call.state), (tasks[n].call.id, CallState::Done), "{n}");
            }
        }
    }
    let payment = app.payment("pi_1").await;
    for (n, transfer) in payment["transfers"].as_array().unwrap().iter().enumerate() {
        let untouched = n == stale || n == conflicting;
        let (status, taken) = if untouched { ("reversal_pending", 0) } else { ("reversed", 100) };
        assert_eq!((&transfer["status"], &transfer["amount_reversed"]), (&json!(status), &json!(taken)), "{n}");
        let stripe_id = if untouched { Value::Null } else { json!(format!("trr_{n}")) };
        assert_eq!(transfer["reversals"][0]["stripe_reversal_id"], stripe_id, "{n}");
    }
}

async fn a_report_with_what_the_database_can_not_hold_fails_alone(mut app: TestApp) {
    let bad = 7;
    let tasks = open_reversals(&mut app).await;
    let unstorable = || TryOutcome::Failed(Failure { code: "odd".into(), message: "PostgreSQL has no \u{0}".into() });
    let outcome = |n: usize| if n == bad { unstorable() } else { done(&format!("trr_{n}")) };
    for (n, answer) in together(&app, &tasks, outcome).await.into_iter().enumerate().filter(|(n, _)| *n != bad) {
        let call = answer.unwrap_or_else(|error| panic!("{n}: {error}")).call;
        assert_eq!((call.id, call.state), (tasks[n].call.id, CallState::Done), "{n}");
    }
}

/// Reports the outcomes while nothing can be committed, so they wait for each other, and returns the answers.
async fn together(
    app: &TestApp,
    tasks: &[Task],
    outcome: impl Fn(usize) -> TryOutcome,
) -> Vec<Result<Task, LedgerError>> {
    let lock = app.db.connect().await;
    hold_the_calls(&lock).await;
    let reports = tasks.iter().enumerate().map(|(n, task)| app.ledger().report(task, outcome(n), note()));
    // Joined in this order: all are reported before the lock is given back.
    let (answers, released) = tokio::join!(join_all(reports), lock.execute_unprepared("ROLLBACK"));
    released.unwrap();
    lock.close().await.unwrap();
    answers
}

async fn hold_the_calls(connection: &DatabaseConnection) {
    // One connection in the pool, so that the transaction stays on it.
    let begin = match connection.get_database_backend() {
        DbBackend::Sqlite => "BEGIN IMMEDIATE",
        _ => "BEGIN; LOCK TABLE calls, seller_transfers IN SHARE MODE",
    };
    connection.execute_unprepared(begin).await.unwrap();
}

fn is_stale<T: std::fmt::Debug>(result: Result<T, LedgerError>, why: &str) {
    assert!(matches!(result, Err(LedgerError::Stale { .. })), "{why}: {result:?}");
}

async fn nobody_works(app: &mut TestApp) {
    let sweepers = [NO_SWEEPER, ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")];
    let workers = [("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")];
    app.restart_with(&[sweepers, workers].concat()).await;
}

/// As many reversals as a batch has, with nobody else working on them.
async fn open_reversals(app: &mut TestApp) -> Vec<Task> {
    nobody_works(app).await;
    let amount = app.many_sellers("pi_1", CALLS as i64).await;
    app.refund_of(amount, 1).await;
    let payment = app.payment("pi_1").await;
    let reversals = payment["transfers"].as_array().unwrap().iter().map(|transfer| transfer["reversals"][0].clone());
    tasks(app, &reversals.collect::<Vec<_>>()).await
}

/// The reversal of `tr_1`, with nobody else working on it.
async fn open_reversal(app: TestApp) -> (TestApp, Task) {
    open_reversal_of(app, "pi_1").await
}

/// The reversal of the first transfer of a payment that is registered and refunded, with nobody else working on it.
async fn open_reversal_of(mut app: TestApp, payment_ref: &str) -> (TestApp, Task) {
    nobody_works(&mut app).await;
    let (mut payment, mut amount) = (two_sellers(payment_ref), 10_000);
    if payment_ref != "pi_1" {
        // Stripe's ids are registered once; and something is left for another refund.
        amount = 8_000;
        for index in [0, 1] {
            payment["transfers"][index]["stripe_transfer_id"] = json!(format!("tr_of_{payment_ref}_{index}"));
        }
    }
    assert_eq!(app.register(payment).await.status(), 201);
    let event = crate::support::refund_event(
        &format!("evt_of_{payment_ref}"),
        &format!("re_of_{payment_ref}"),
        payment_ref,
        amount,
    );
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    let view = app.payment(payment_ref).await["transfers"][0]["reversals"][0].clone();
    let task = tasks(&app, &[view]).await.remove(0);
    (app, task)
}

/// The first transfer of `to_create("pi_1")`, with nobody working on it.
async fn open_creation(app: &mut TestApp) -> Task {
    nobody_works(app).await;
    let registered: Value = app.register(to_create("pi_1")).await.json().await.unwrap();
    tasks(app, &[registered["transfers"][0].clone()]).await.remove(0)
}

/// The tasks of what the API shows.
async fn tasks(app: &TestApp, views: &[Value]) -> Vec<Task> {
    let read = |view: &Value| app.ledger().task(view["id"].as_str().unwrap().parse().unwrap());
    join_all(views.iter().map(read)).await.into_iter().map(|task| task.unwrap().unwrap()).collect()
}

/// The task as it is now.
async fn read(app: &TestApp, task: &Task) -> Task {
    app.ledger().task(task.call.id).await.unwrap().unwrap()
}

fn postponement(remainder: Remainder) -> Postponement {
    // What both databases keep.
    let until = (Utc::now() + Duration::from_secs(60)).trunc_subsecs(6);
    let failure = Failure { code: "unavailable".into(), message: "HTTP 503".into() };
    Postponement { until, retries: Retries::Used, remainder, failure }
}

fn later(remainder: Remainder) -> TryOutcome {
    TryOutcome::Later(postponement(remainder))
}

fn done(stripe_id: &str) -> TryOutcome {
    TryOutcome::Done { stripe_id: stripe_id.into(), externally: false }
}

fn failed() -> TryOutcome {
    TryOutcome::Failed(failure())
}

fn failure() -> Failure {
    Failure { code: "late".into(), message: "late".into() }
}

fn note() -> Note {
    Note::new("worker", "a test")
}
