//! Refunds of transfers that Clawback creates, in every order of events: what was not paid is not taken back, and what was
//! paid is, once.

use clawback::ledger::{CallKind, Failure, LedgerError, Note, Postponement, Remainder, Retries, Task, TryOutcome};
use serde_json::{Value, json};
use stripe_sim::Fault;
use uuid::Uuid;

use crate::support::{TestApp, both_databases, eventually, to_create};

both_databases! {
    a_refund_before_the_transfer_exists_waits_and_then_takes_it_back,
    a_refund_before_stripe_is_asked_is_withheld_and_the_seller_is_not_paid,
    a_refund_before_the_payment_is_registered_is_withheld_too,
    a_part_that_is_refunded_before_stripe_is_asked_is_never_paid,
    a_refund_after_a_definite_refusal_is_withheld_with_what_waited,
    a_worker_that_has_read_the_whole_amount_reads_again,
    a_refund_while_creating_it_has_failed_waits_and_then_takes_it_back,
    a_refund_during_the_call_takes_back_what_the_call_creates,
    partial_refunds_before_and_after_the_creation_add_up,
    a_creation_that_fails_permanently_leaves_nothing_owed,
    a_refund_after_a_creation_failed_permanently_owes_nothing_and_parks_no_job,
    a_retry_that_creates_it_after_all_takes_back_what_was_refunded_meanwhile,
    an_answer_that_comes_after_it_failed_permanently_counts_with_all_that_follows,
    what_was_never_created_is_not_replayed,
    a_second_transfer_for_one_row_is_told_and_changes_nothing,
    of_two_workers_that_report_on_the_same_try_one_counts,
    what_is_found_while_a_refund_withholds_a_part_is_looked_at_again,
    an_id_that_another_payment_was_registered_with_is_not_taken,
    a_reversal_that_stripe_ended_is_called_anew_on_a_replay,
}

async fn a_refund_before_the_transfer_exists_waits_and_then_takes_it_back(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    register_asked(&app).await;
    app.refund_of(5_000, 1).await;
    app.refund_of(5_000, 2).await;
    for index in [0, 1] {
        let transfer = app.payment("pi_1").await["transfers"][index].clone();
        assert_eq!(transfer["status"], "pending", "{transfer}");
        assert_eq!(
            (&transfer["reversals"][0]["status"], &transfer["reversals"][1]["status"]),
            (&json!("pending"), &json!("pending"))
        );
    }
    app.db.execute("UPDATE calls SET sweep_after = created_at").await;
    assert_eq!(app.ledger().sweep(CallKind::Reverse, 100).await.unwrap().jobs, 0, "nothing can be reversed yet");
    assert_eq!(reversals_with_a_job(&app).await, 0);

    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    all_is_back(&app).await;
    assert_eq!(reversals_with_a_job(&app).await, 4, "the creation brings a job for each");
    let steps = "SELECT to_status FROM history WHERE entity_id =
        (SELECT id FROM seller_transfers WHERE destination = 'acct_3')
        AND (from_status IS NULL OR from_status <> to_status) ORDER BY id";
    let steps: Vec<Value> = app.db.query(steps).await.iter().map(|row| row["to_status"].clone()).collect();
    assert_eq!(steps, ["pending", "completed", "reversal_pending", "reversed"]);
}

async fn a_refund_before_stripe_is_asked_is_withheld_and_the_seller_is_not_paid(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    register(&app).await;
    app.refund_of(10_000, 1).await;
    nobody_is_paid(&app).await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    eventually("the jobs of the creations are done", || async {
        let queues = app.vhost.queues().await;
        let left: i64 = queues.iter().filter_map(|queue| queue["messages"].as_i64()).sum();
        (left == 0 && app.db.count("outbox WHERE published_at IS NULL").await == 0).then_some(())
    })
    .await;
    nobody_is_paid(&app).await;
    assert!(app.sim.ledger().requests.is_empty(), "Stripe was asked");
    let told = "history WHERE entity = 'transfer' AND reason LIKE '%re_1%withheld%not created%'";
    assert_eq!(app.db.count(told).await, 2);
}

async fn a_refund_before_the_payment_is_registered_is_withheld_too(app: TestApp) {
    app.refund_of(10_000, 1).await;
    register(&app).await;
    nobody_is_paid(&app).await;
    assert!(app.sim.ledger().transfers_to("acct_3").is_empty(), "the seller was paid");
}

/// All is refunded, and nothing was transferred or is owed.
async fn nobody_is_paid(app: &TestApp) {
    for (transfer, amount) in app.payment("pi_1").await["transfers"].as_array().unwrap().iter().zip([6_000, 3_000]) {
        assert_eq!((&transfer["status"], &transfer["stripe_transfer_id"]), (&json!("reversed"), &Value::Null));
        assert_eq!((&transfer["amount_reversed"], &transfer["withheld"]), (&json!(amount), &json!(amount)));
        assert_eq!(transfer["reversals"][0]["status"], "closed", "{transfer}");
    }
}

async fn a_part_that_is_refunded_before_stripe_is_asked_is_never_paid(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    register(&app).await;
    app.refund_of(2_000, 1).await;
    app.refund_of(1_000, 2).await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!((&transfer["amount_reversed"], &transfer["withheld"]), (&json!(1_800), &json!(1_800)));
    let paid = |app: &TestApp| {
        let ledger = app.sim.ledger();
        let [theirs] = ledger.transfers_to("acct_3")[..] else { panic!("acct_3 was not paid once") };
        (theirs.amount, theirs.amount_reversed())
    };
    assert_eq!(paid(&app), (4_200, 0));
    // What is refunded later is taken back from what was paid, and no more.
    app.refund_of(7_000, 3).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    assert_eq!((&transfer["amount_reversed"], &transfer["withheld"]), (&json!(6_000), &json!(1_800)));
    assert_eq!(paid(&app), (4_200, 4_200));
    let compared = app.cli(&["reconcile"]).await;
    assert_eq!(compared.code, 0, "{compared:?}");
}

async fn a_refund_after_a_definite_refusal_is_withheld_with_what_waited(app: TestApp) {
    app.sim.set_balance(stripe_sim::PLATFORM, Some(0));
    app.sim.fault("acct_3", Fault::Slow { delay_ms: 1_000 }, 1);
    register(&app).await;
    let called = |ledger: &stripe_sim::Ledger| ledger.creation_posts("acct_3").count() == 1;
    app.sim.wait_for(called, crate::support::DEADLINE).await.expect("Stripe is called");
    app.refund_of(5_000, 1).await;
    assert_eq!(
        app.payment("pi_1").await["transfers"][0]["reversals"][0]["status"],
        "pending",
        "Stripe may be doing it"
    );
    app.reversal_when(0, "Stripe has refused", |reversal| reversal["status"] == "closed").await;
    app.refund_of(5_000, 2).await;
    app.sim.set_balance(stripe_sim::PLATFORM, None);
    nobody_is_paid(&app).await;
    assert!(app.sim.ledger().transfers_to("acct_3").is_empty(), "the seller was paid");
}

async fn a_worker_that_has_read_the_whole_amount_reads_again(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    app.refund_of(5_000, 1).await;
    let authorized = app.ledger().authorize(task.clone()).await;
    assert!(matches!(authorized, Err(LedgerError::Stale { .. })), "it would pay too much: {authorized:?}");
    let again = app.ledger().task(task.call.id).await.unwrap().unwrap();
    let clawback::ledger::Target::Creation(target) = &again.target else { panic!("{again:?}") };
    assert_eq!(target.amount, 3_000);
    app.ledger().authorize(again).await.unwrap();
}

async fn a_refund_while_creating_it_has_failed_waits_and_then_takes_it_back(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "90")]).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, u32::MAX);
    register(&app).await;
    app.transfer_becomes(0, "failed").await;
    app.refund_of(10_000, 1).await;
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!((&transfer["status"], &transfer["reversals"][0]["status"]), (&json!("failed"), &json!("pending")));
    app.sim.clear_faults();
    all_is_back(&app).await;
}

async fn a_refund_during_the_call_takes_back_what_the_call_creates(app: TestApp) {
    app.sim.fault("acct_3", Fault::Slow { delay_ms: 1_000 }, 1);
    register(&app).await;
    // Of both sellers: whom Stripe was not yet asked about when the refund comes is never paid.
    let called = |ledger: &stripe_sim::Ledger| {
        ["acct_3", "acct_4"].iter().all(|seller| ledger.creation_posts(seller).count() == 1)
    };
    app.sim.wait_for(called, crate::support::DEADLINE).await.expect("Stripe is called for both");
    app.refund_of(10_000, 1).await;
    all_is_back(&app).await;
}

async fn partial_refunds_before_and_after_the_creation_add_up(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    register_asked(&app).await;
    app.refund_of(3_333, 1).await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.refund_of(3_333, 2).await;
    app.refund_of(3_334, 3).await;
    all_is_back(&app).await;
}

async fn a_creation_that_fails_permanently_leaves_nothing_owed(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("TRANSFER_RETRY_MAX_RETRIES", "0")]).await;
    register_asked(&app).await;
    app.refund_of(10_000, 1).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, u32::MAX);
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    owes_nothing(&app, &transfer["reversals"][0]).await;
    assert_eq!(app.transfer_becomes(1, "reversed").await["amount_reversed"], 3_000);
    app.vhost.take("transfers.parked").await;
    assert!(app.vhost.is_empty("reversals.parked").await, "a job was parked for what nobody owes");
}

async fn a_refund_after_a_creation_failed_permanently_owes_nothing_and_parks_no_job(mut app: TestApp) {
    fail_the_first(&mut app).await;
    app.refund_of(10_000, 1).await;
    app.transfer_becomes(1, "reversed").await;
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!(transfer["status"], "permanently_failed");
    owes_nothing(&app, &transfer["reversals"][0]).await;
    assert_eq!(reversals_with_a_job(&app).await, 1, "a job for the other transfer alone");
    assert!(app.vhost.is_empty("reversals.parked").await, "a job was parked for what nobody owes");
}

async fn a_retry_that_creates_it_after_all_takes_back_what_was_refunded_meanwhile(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("TRANSFER_RETRY_MAX_RETRIES", "0")]).await;
    register_asked(&app).await;
    app.refund_of(2_000, 1).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, u32::MAX);
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    let id = app.transfer_becomes(0, "permanently_failed").await["id"].as_str().unwrap().to_owned();
    app.refund_of(3_000, 2).await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    app.ledger().replay(CallKind::Create, &id, &Note::new("ada", "Stripe is back")).await.unwrap();
    // A third, between the retry and the creation.
    app.refund_of(5_000, 3).await;
    let statuses = app.payment("pi_1").await["transfers"][0]["reversals"].clone();
    let statuses: Vec<_> = statuses.as_array().unwrap().iter().map(|reversal| reversal["status"].clone()).collect();
    assert_eq!(statuses, ["called_off", "called_off", "pending"]);
    app.sim.clear_faults();
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    all_is_back(&app).await;
    assert_eq!(app.sim.ledger().transfers_to("acct_3")[0].reversals.len(), 3);
    assert_eq!(app.db.count("calls WHERE failure_code IS NOT NULL").await, 0);
}

async fn an_answer_that_comes_after_it_failed_permanently_counts_with_all_that_follows(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    let task = app.ledger().authorize(task).await.unwrap();
    app.refund_of(10_000, 1).await;
    let why = Failure { code: "unavailable".into(), message: "HTTP 503".into() };
    app.ledger().report(&task, TryOutcome::Failed(why), note()).await.unwrap();
    owes_nothing(&app, &app.payment("pi_1").await["transfers"][0]["reversals"][0]).await;
    app.ledger().report(&task, created("tr_late"), note()).await.unwrap();
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!((&transfer["status"], &transfer["stripe_transfer_id"]), (&json!("reversal_pending"), &json!("tr_late")));
    assert_eq!((&transfer["failure_code"], &transfer["reversals"][0]["status"]), (&Value::Null, &json!("pending")));
    assert_eq!(reversals_with_a_job(&app).await, 1);
    // The same answer once more, from another worker.
    app.ledger().report(&task, created("tr_late"), note()).await.unwrap();
    let steps = app.db.count("history WHERE entity = 'transfer' AND to_status = 'completed'").await;
    assert_eq!((steps, app.payment("pi_1").await["transfers"][0].clone()), (1, transfer));
}

async fn what_was_never_created_is_not_replayed(mut app: TestApp) {
    fail_the_first(&mut app).await;
    app.refund_of(10_000, 1).await;
    let reversal = app.payment("pi_1").await["transfers"][0]["reversals"][0]["id"].as_str().unwrap().to_owned();
    let replayed = app.ledger().replay(CallKind::Reverse, &reversal, &Note::new("ada", "why not")).await;
    let Err(LedgerError::Conflict(problem)) = replayed else { panic!("{replayed:?}") };
    assert!(problem.contains("is called_off"), "{problem}");
    assert_eq!(app.payment("pi_1").await["transfers"][0]["status"], "permanently_failed");
}

async fn a_second_transfer_for_one_row_is_told_and_changes_nothing(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    app.ledger().report(&task, created("tr_first"), note()).await.unwrap();
    app.ledger().report(&task, created("tr_second"), note()).await.unwrap();
    assert_eq!(app.payment("pi_1").await["transfers"][0]["stripe_transfer_id"], "tr_first");
    assert_eq!(app.db.count("history WHERE reason LIKE 'paid twice%tr_second%tr_first%'").await, 1);
}

async fn of_two_workers_that_report_on_the_same_try_one_counts(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    let failure = Failure { code: "unavailable".into(), message: "HTTP 503".into() };
    let until = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let how = Postponement { until, retries: Retries::Used, remainder: Remainder::Unknown, failure: failure.clone() };
    let ledger = app.ledger();
    ledger.report(&task, TryOutcome::Later(how.clone()), note()).await.unwrap();
    for late in [TryOutcome::Later(how), TryOutcome::Failed(failure.clone()), TryOutcome::NewGeneration] {
        let report = ledger.report(&task, late.clone(), note()).await;
        assert!(matches!(report, Err(LedgerError::Stale { .. })), "{late:?}: {report:?}");
    }
    let now = ledger.task(task.call.id).await.unwrap().unwrap();
    let doubtful = now.call.outcome_unknown_since.is_some();
    assert_eq!((now.call.attempts, now.call.generation, doubtful), (1, 0, true));
    let begun = ledger.report(&now, TryOutcome::NewGeneration, note()).await.unwrap();
    let second = ledger.report(&now, TryOutcome::NewGeneration, note()).await;
    assert!(matches!(second, Err(LedgerError::Stale { .. })), "{second:?}");
    assert_eq!((begun.call.generation, begun.call.outcome_unknown_since), (1, None));
    let failed = ledger.report(&begun, TryOutcome::Failed(failure), note()).await.unwrap();
    ledger.replay_held(&failed.call, &note()).await.unwrap();
    let second = ledger.replay_held(&failed.call, &note()).await;
    assert!(matches!(second, Err(LedgerError::Stale { .. })), "{second:?}");
}

async fn what_is_found_while_a_refund_withholds_a_part_is_looked_at_again(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    let ledger = app.ledger();
    app.refund_of(5_000, 1).await;
    // Found at Stripe with all of its amount, by a look that began before the refund.
    let found = TryOutcome::Done { stripe_id: "tr_forgotten".into(), externally: false };
    let report = ledger.report(&task, found.clone(), note()).await;
    assert!(matches!(report, Err(LedgerError::Stale { .. })), "{report:?}");
    assert_eq!(app.db.count("seller_transfers WHERE stripe_transfer_id IS NOT NULL").await, 0);
    let now = ledger.task(task.call.id).await.unwrap().unwrap();
    ledger.report(&now, found, note()).await.unwrap();
    assert_eq!(app.db.count("seller_transfers WHERE stripe_transfer_id = 'tr_forgotten'").await, 1);
}

async fn an_id_that_another_payment_was_registered_with_is_not_taken(mut app: TestApp) {
    let task = open_creation(&mut app).await;
    assert_eq!(app.register(crate::support::two_sellers("pi_2")).await.status(), 201);
    let taken = app.ledger().report(&task, created("tr_1"), note()).await;
    assert!(matches!(&taken, Err(LedgerError::Conflict(problem)) if problem.contains("tr_1")), "{taken:?}");
}

async fn a_reversal_that_stripe_ended_is_called_anew_on_a_replay(app: TestApp) {
    // One that Stripe accepts and ends later, and one that it ends at once.
    app.sim.fault("tr_1", Fault::Pending, 1);
    app.sim.fault("tr_2", Fault::Failed, 1);
    app.refund(10_000).await;
    app.reversal_when(0, "it is pending at Stripe", |reversal| reversal["failure_code"] == "pending_at_stripe").await;
    app.sim.settle(&app.sim.ledger().reversals("tr_1")[0].id, "failed");
    for index in [0, 1] {
        let transfer = app.transfer_becomes(index, "permanently_failed").await;
        let reversal = &transfer["reversals"][0];
        assert_eq!(reversal["failure_code"], "reversal_ended");
        let id = reversal["id"].as_str().unwrap();
        app.ledger().replay(CallKind::Reverse, id, &Note::new("ada", "the seller has paid in")).await.unwrap();
    }
    for (index, id) in [(0, "tr_1"), (1, "tr_2")] {
        app.transfer_becomes(index, "reversed").await;
        let ledger = app.sim.ledger();
        let counting: Vec<_> = ledger.reversals(id).iter().map(stripe_sim::Reversal::counts).collect();
        assert_eq!(counting, [false, true], "one that was ended, and one that was done");
    }
}

/// How many reversals have had a job. Under load the sweeper makes a second one, so jobs are not counted.
async fn reversals_with_a_job(app: &TestApp) -> i64 {
    app.db.count("reversals WHERE id IN (SELECT entity_id FROM outbox WHERE kind = 'reverse_transfer')").await
}

async fn register(app: &TestApp) {
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
}

/// Registers it, and records that Stripe is about to be asked, as the worker does.
async fn register_asked(app: &TestApp) {
    register(app).await;
    for transfer in app.payment("pi_1").await["transfers"].as_array().unwrap() {
        let id: Uuid = transfer["id"].as_str().unwrap().parse().unwrap();
        app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    }
}

/// Creates nothing for the first seller, and pays the second.
async fn fail_the_first(app: &mut TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "0")]).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, u32::MAX);
    register(app).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "completed").await;
    app.sim.clear_faults();
}

/// The transfer to `acct_3`, with nobody working on it.
async fn open_creation(app: &mut TestApp) -> Task {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("REVERSAL_WORKER_ENABLED", "false")]).await;
    register(app).await;
    let id: Uuid = app.payment("pi_1").await["transfers"][0]["id"].as_str().unwrap().parse().unwrap();
    app.ledger().task(id).await.unwrap().unwrap()
}

/// Each seller was paid once, and has given all of it back.
async fn all_is_back(app: &TestApp) {
    for (index, account, amount) in [(0, "acct_3", 6_000), (1, "acct_4", 3_000)] {
        let transfer = app.transfer_becomes(index, "reversed").await;
        assert_eq!(transfer["amount_reversed"], amount);
        let ledger = app.sim.ledger();
        let [theirs] = ledger.transfers_to(account)[..] else { panic!("{account} was not paid once") };
        assert_eq!((theirs.amount, theirs.amount_reversed()), (amount, amount));
        assert_eq!(transfer["stripe_transfer_id"], theirs.id.as_str());
    }
}

/// It is called off, and the history says why.
async fn owes_nothing(app: &TestApp, reversal: &Value) {
    assert_eq!((&reversal["status"], &reversal["failure_code"]), (&json!("called_off"), &Value::Null));
    let id = app.db.id(reversal["id"].as_str().unwrap());
    let told =
        format!("history WHERE entity_id = {id} AND to_status = 'called_off' AND reason LIKE '%nothing is owed%'");
    assert_eq!(app.db.count(&told).await, 1, "{reversal}");
}

fn created(stripe_id: &str) -> TryOutcome {
    TryOutcome::Done { stripe_id: stripe_id.into(), externally: false }
}

fn note() -> Note {
    Note::new("worker", "a test")
}
