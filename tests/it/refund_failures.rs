//! A refund that fails after it had succeeded: what Stripe was not asked for is called off, and of the rest the operator is
//! told. In whatever order the events and the worker's steps come.

mod given_up;
mod reversed_by_provider;

use clawback::ledger::{CallKind, CallState, Failure, Ledger, LedgerError, Note, Task, TryOutcome};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use serde_json::{Value, json};
use stripe_sim::Fault;
use uuid::Uuid;

use crate::support::{
    Backend, DEADLINE, NO_SWEEPER, TestApp, both_databases, eventually, hyperswitch_event, refund_event, rows,
    two_sellers,
};

/// The history without the sweeper's remarks on jobs, which come when they come.
const BUT_FOR_JOBS: &str = "history WHERE actor <> 'sweeper'";

both_databases! {
    what_a_later_refund_can_not_take_beside_its_own_reversal_needs_an_operator,
    what_a_later_refund_left_to_a_failed_one_is_owed_by_the_later_once_stripe_has_not_done_it,
    what_a_later_refund_left_to_a_failed_one_is_owed_by_the_later_once_it_has_failed_permanently,
    whether_what_failed_permanently_was_taken_is_asked_of_an_operator_where_a_later_refund_counted_on_it,
    what_stripe_was_not_asked_for_is_called_off_and_its_job_is_acknowledged,
    what_stripe_has_done_stays_and_the_operator_is_told_what_to_do,
    of_what_stripe_was_asked_for_and_what_not_each_goes_its_way,
    a_reversal_that_waits_for_balance_is_called_off_when_its_refund_fails,
    what_stripe_had_done_of_a_failed_refund_is_found_by_a_look,
    a_failure_that_is_told_again_changes_nothing,
    a_failure_that_comes_before_the_success_is_remembered,
    a_refund_that_fails_before_its_payment_is_registered_is_never_matched,
    a_refund_whose_transfer_the_provider_had_reversed_is_left_to_the_operator,
    a_refund_of_hyperswitchs_that_fails_is_called_off_too,
    the_transfer_follows_from_the_reversals_that_are_left,
    what_was_called_off_is_asked_for_by_the_next_refund_and_what_was_taken_is_not,
    a_refund_that_fails_before_its_transfer_is_created_takes_nothing_from_it,
    a_refund_that_fails_after_its_transfer_failed_permanently_takes_nothing_if_that_is_created_after_all,
    a_called_off_reversal_is_not_replayed,
    a_parked_message_of_a_called_off_reversal_is_no_replay,
    what_stripe_has_done_of_what_was_called_off_is_told_to_the_operator_once,
    a_failure_in_the_middle_of_the_work_leaves_each_reversal_either_done_or_called_off,
}

/// The event that the refund number `n` of `pi_1` has failed.
fn failure(event_id: &str, n: usize, amount: i64) -> String {
    let mut event = refund_event(event_id, &format!("re_{n}"), "pi_1", amount);
    event["type"] = json!("refund.failed");
    event["data"]["object"]["status"] = json!("failed");
    event.to_string()
}

async fn fails(app: &TestApp, n: usize, amount: i64) -> Value {
    answered(app.post_webhook(&failure(&format!("evt_failed_{n}"), n, amount)).await).await
}

async fn answered(response: reqwest::Response) -> Value {
    let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Nobody works on reversals, and the sweeper makes no second jobs for them meanwhile.
async fn without_worker(mut app: TestApp) -> TestApp {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), ("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    app
}

async fn with_worker(app: &mut TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
}

async fn statuses(app: &TestApp) -> [String; 2] {
    let payment = app.payment("pi_1").await;
    [0, 1].map(|index| payment["transfers"][index]["status"].as_str().unwrap().to_owned())
}

/// The id of the reversal number `nth` of the transfer `index` of `pi_1`.
async fn reversal_id(app: &TestApp, index: usize, nth: usize) -> Uuid {
    let payment = app.payment("pi_1").await;
    payment["transfers"][index]["reversals"][nth]["id"].as_str().unwrap().parse().unwrap()
}

/// Records that Stripe is about to be asked, as the worker does.
async fn stripe_is_asked(app: &TestApp, id: Uuid) {
    app.ledger().authorize(task(app, id).await).await.unwrap();
}

async fn task(app: &TestApp, id: Uuid) -> Task {
    app.ledger().task(id).await.unwrap().unwrap()
}

/// The worker reports that the call has failed permanently.
async fn fails_permanently(app: &TestApp, id: Uuid) {
    let outcome = TryOutcome::Failed(Failure { code: "rejected".into(), message: "no".into() });
    app.ledger().report(&task(app, id).await, outcome, Note::new("worker", "a test")).await.unwrap();
}

/// Has the worker do all jobs that wait, and stops it in order.
async fn all_jobs_are_settled(app: &mut TestApp) {
    with_worker(app).await;
    // The job of a refund that came later.
    app.sim.add_transfer("tr_later", 100, "eur", "acct_1");
    let mut payment = two_sellers("pi_later");
    payment["transfers"] = json!([{
        "seller_id": "s1", "stripe_transfer_id": "tr_later", "destination": "acct_1", "amount": 100, "currency": "eur",
    }]);
    app.register(payment).await;
    let later = refund_event("evt_later", "re_later", "pi_later", 10_000).to_string();
    answered(app.post_webhook(&later).await).await;
    eventually("the later job is done", || async { (app.reversed_at_stripe("tr_later") == 100).then_some(()) }).await;
    eventually("no job waits, first for its retry, then for the worker", || async {
        for queue in app.vhost.queues().await {
            let name = queue["name"].as_str()?;
            if name.starts_with("reversals.retry.") && !app.vhost.is_empty(name).await {
                return None;
            }
        }
        app.vhost.is_empty("reversals").await.then_some(())
    })
    .await;
    app.stop().await;
    assert!(app.vhost.is_empty("reversals.parked").await);
}

async fn what_stripe_was_not_asked_for_is_called_off_and_its_job_is_acknowledged(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(10_000).await;
    app.published(2).await;
    let answer = fails(&app, 1, 10_000).await;
    assert_eq!(answer, json!({"received": true, "outcome": "failed", "called_off": 2}));

    assert_eq!(statuses(&app).await, ["completed", "completed"]);
    let refund = app.refund_view("re_1").await;
    assert_eq!(refund["status"], "failed");
    assert!(refund["failed_at"].is_string() && refund["attention"].is_null(), "{refund}");
    for reversal in refund["reversals"].as_array().unwrap() {
        assert_eq!((&reversal["status"], &reversal["failure_code"]), (&json!("called_off"), &json!("refund_failed")));
        assert!(reversal["failure_message"].as_str().unwrap().contains("re_1"), "{reversal}");
    }

    all_jobs_are_settled(&mut app).await;
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count() + app.sim.ledger().reversal_posts("tr_2").count(), 0);
}

async fn what_stripe_has_done_stays_and_the_operator_is_told_what_to_do(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let answer = fails(&app, 1, 10_000).await;
    assert_eq!((&answer["outcome"], &answer["called_off"]), (&json!("failed"), &json!(0)));
    assert_eq!(statuses(&app).await, ["reversed", "reversed"]);
    let refund = app.refund_view("re_1").await;
    let attention = refund["attention"].as_str().unwrap();
    let trr = app.sim.ledger().reversals("tr_1")[0].id.clone();
    for words in ["0 of its 2", "6000 eur", "tr_1", "3000 eur", "tr_2", "next refund", "new transfer", trr.as_str()] {
        assert!(attention.contains(words), "{words:?} is not in: {attention}");
    }
    assert_eq!(answer["attention"], attention);
    assert_eq!(app.db.count("webhook_events WHERE detail LIKE '%6000 eur%'").await, 1);
}

async fn of_what_stripe_was_asked_for_and_what_not_each_goes_its_way(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(10_000).await;
    stripe_is_asked(&app, reversal_id(&app, 0, 0).await).await;
    assert_eq!(fails(&app, 1, 10_000).await["called_off"], 1);
    assert_eq!(statuses(&app).await, ["reversal_pending", "completed"]);
    let refund = app.refund_view("re_1").await;
    let attention = refund["attention"].as_str().unwrap();
    assert!(attention.contains("6000 eur may be taken back from transfer tr_1"), "{attention}");
    assert!(!attention.contains("tr_2"), "{attention}");

    // Looked for twice, not there, and never asked for again.
    with_worker(&mut app).await;
    app.transfer_becomes(0, "completed").await;
    let refund = app.refund_view("re_1").await;
    assert_eq!((&refund["reversals"][0]["status"], &refund["attention"]), (&json!("called_off"), &Value::Null));
    let requests = app.sim.ledger().requests;
    assert!(requests.iter().all(|request| request.method == "GET"), "Stripe was asked for what was not owed any more");
    let looks = requests.iter().filter(|request| request.path.ends_with("/reversals")).count();
    assert_eq!(looks, 2, "one more after the settling time");
}

async fn a_reversal_that_waits_for_balance_is_called_off_when_its_refund_fails(app: TestApp) {
    app.sim.set_balance("acct_1", Some(0));
    app.refund(10_000).await;
    app.reversal_when(0, "it waits for balance", |row| row["failure_code"] == "balance_insufficient").await;
    app.transfer_becomes(1, "reversed").await;
    let mut app = without_worker(app).await;
    assert_eq!(fails(&app, 1, 10_000).await["called_off"], 1, "Stripe has refused, so nothing is in doubt");
    assert_eq!(statuses(&app).await, ["completed", "reversed"]);
    app.sim.set_balance("acct_1", None);
    all_jobs_are_settled(&mut app).await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 0, "money was taken for a refund that has failed");
}

async fn what_stripe_had_done_of_a_failed_refund_is_found_by_a_look(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_BACKOFF_BASE", "2s"), ("REVERSAL_BACKOFF_MAX", "2s"), NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::ApplyThenDropConnection, 1);
    app.refund(10_000).await;
    app.reversal_when(0, "the answer is lost", |row| row["retry_count"] == 1).await;
    fails(&app, 1, 10_000).await;
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1, "looked for, not asked for again");
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    assert!(attention.contains("6000 eur were taken back from transfer tr_1"), "{attention}");
}

async fn a_failure_that_is_told_again_changes_nothing(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(10_000).await;
    stripe_is_asked(&app, reversal_id(&app, 0, 0).await).await;
    fails(&app, 1, 10_000).await;
    let (before, history) = (app.refund_view("re_1").await, app.db.count(BUT_FOR_JOBS).await);
    let again = failure("evt_failed_1", 1, 10_000);
    let other_event = failure("evt_other", 1, 10_000);
    let other_type = failure("evt_updated", 1, 10_000).replace("refund.failed", "charge.refund.updated");
    for body in [again, other_event, other_type] {
        assert_eq!(answered(app.post_webhook(&body).await).await["outcome"], "duplicate");
    }
    let succeeded = refund_event("evt_late", "re_1", "pi_1", 10_000).to_string();
    let answer = answered(app.post_webhook(&succeeded).await).await;
    assert_eq!(answer["outcome"], "ignored");
    assert!(answer["reason"].as_str().unwrap().contains("failed"), "{answer}");
    assert_eq!((app.refund_view("re_1").await, app.db.count(BUT_FOR_JOBS).await), (before, history));
}

async fn a_failure_that_comes_before_the_success_is_remembered(app: TestApp) {
    app.register(two_sellers("pi_1")).await;
    assert_eq!(fails(&app, 1, 10_000).await["outcome"], "ignored");
    let succeeded = refund_event("evt_1", "re_1", "pi_1", 10_000).to_string();
    assert_eq!(answered(app.post_webhook(&succeeded).await).await["outcome"], "ignored");
    let refund = app.refund_view("re_1").await;
    assert!(refund["failed_at"].is_string() && refund["attention"].is_null(), "{refund}");
    assert_eq!(app.db.count("reversals").await, 0);
    // The refund that the marketplace makes instead is none of that one's business.
    app.refund_of(10_000, 2).await;
    assert_eq!(app.db.count("reversals").await, 2);
}

async fn a_refund_that_fails_before_its_payment_is_registered_is_never_matched(app: TestApp) {
    app.refund_of(10_000, 1).await;
    assert_eq!(fails(&app, 1, 10_000).await["called_off"], 0);
    app.register(two_sellers("pi_1")).await;
    let refund = app.refund_view("re_1").await;
    assert_eq!(refund["status"], "failed");
    assert!(refund["status_reason"].as_str().unwrap().contains("failed"), "{refund}");
    assert_eq!(app.db.count("reversals").await, 0);
}

async fn a_refund_whose_transfer_the_provider_had_reversed_is_left_to_the_operator(app: TestApp) {
    app.register(two_sellers("pi_1")).await;
    let mut event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    event["data"]["object"]["transfer_reversal"] = json!("trr_1");
    assert_eq!(answered(app.post_webhook(&event.to_string()).await).await["outcome"], "ignored");
    fails(&app, 1, 10_000).await;
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    assert!(attention.contains("re_1") && attention.contains("new transfer"), "{attention}");
}

async fn a_refund_of_hyperswitchs_that_fails_is_called_off_too(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let mut event = hyperswitch_event("evt_1", "ref_1", "pi_1", 10_000);
    answered(app.post_hyperswitch(&event.to_string()).await).await;
    event["event_id"] = json!("evt_2");
    event["event_type"] = json!("refund_failed");
    event["content"]["object"]["status"] = json!("failed");
    assert_eq!(answered(app.post_hyperswitch(&event.to_string()).await).await["called_off"], 2);
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
}

async fn the_transfer_follows_from_the_reversals_that_are_left(app: TestApp) {
    // One part is back, and the other is called off.
    app.refund(2_000).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    let app = without_worker(app).await;
    app.refund_of(2_000, 2).await;
    assert_eq!(statuses(&app).await, ["reversal_pending", "reversal_pending"]);
    fails(&app, 2, 2_000).await;
    assert_eq!(statuses(&app).await, ["partially_reversed", "partially_reversed"]);

    // One is called off, and another is still pending.
    app.refund_of(2_000, 3).await;
    app.refund_of(2_000, 4).await;
    fails(&app, 3, 2_000).await;
    assert_eq!(statuses(&app).await, ["reversal_pending", "reversal_pending"]);

    // The other fails permanently, on one of the two.
    app.refund_of(2_000, 5).await;
    let id = reversal_id(&app, 0, 3).await;
    stripe_is_asked(&app, id).await;
    fails_permanently(&app, id).await;
    assert_eq!(statuses(&app).await, ["reversal_pending", "reversal_pending"]);
    fails(&app, 5, 2_000).await;
    assert_eq!(statuses(&app).await, ["permanently_failed", "reversal_pending"]);
    fails(&app, 4, 2_000).await;
    assert_eq!(statuses(&app).await, ["partially_reversed", "partially_reversed"], "nothing is owed any more");
    let attention = app.refund_view("re_4").await["attention"].as_str().unwrap().to_owned();
    assert!(attention.contains("failed permanently (rejected)") && attention.contains(&id.to_string()), "{attention}");
}

async fn what_was_called_off_is_asked_for_by_the_next_refund_and_what_was_taken_is_not(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(5_000).await;
    stripe_is_asked(&app, reversal_id(&app, 0, 0).await).await;
    // Of 3,000 and 1,500 the first stays.
    fails(&app, 1, 5_000).await;
    let asked = |payment: Value| {
        [0, 1].map(|index: usize| {
            let reversals = payment["transfers"][index]["reversals"].as_array().unwrap().clone();
            reversals.iter().map(|reversal| reversal["amount"].as_i64().unwrap()).collect::<Vec<_>>()
        })
    };
    app.refund_of(2_000, 2).await;
    assert_eq!(asked(app.payment("pi_1").await), [vec![3_000], vec![1_500, 600]]);
    app.refund_of(8_000, 3).await;
    assert_eq!(asked(app.payment("pi_1").await), [vec![3_000, 3_000], vec![1_500, 600, 2_400]]);
}

/// Registers a payment with one transfer that Clawback creates, with nobody who does so yet.
async fn what_a_later_refund_left_to_a_failed_one_is_owed_by_the_later_once_stripe_has_not_done_it(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(5_000).await;
    stripe_is_asked(&app, reversal_id(&app, 0, 0).await).await;
    fails(&app, 1, 5_000).await;
    app.refund_of(5_000, 2).await;
    assert_eq!(app.db.count("reversals WHERE status = 'pending' AND amount = 3000").await, 1, "that of the failed one");
    with_worker(&mut app).await;
    for index in [0, 1] {
        app.transfer_becomes(index, "partially_reversed").await;
    }
    let failed = app.refund_view("re_1").await;
    assert_eq!((&failed["status"], &failed["attention"]), (&json!("failed"), &Value::Null), "{failed}");
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (3_000, 1_500), "once, for re_2");
    let claims: Vec<_> =
        app.sim.ledger().reversals("tr_1").iter().map(|it| it.metadata["clawback_claim"].clone()).collect();
    assert_eq!(claims, ["stripe:re_2"]);
}

async fn what_a_later_refund_left_to_a_failed_one_is_owed_by_the_later_once_it_has_failed_permanently(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(5_000).await;
    let id = reversal_id(&app, 0, 0).await;
    stripe_is_asked(&app, id).await;
    let while_it_stood = task(&app, id).await;
    fails(&app, 1, 5_000).await;
    app.refund_of(5_000, 2).await;
    let asked_of_tr_1 = || app.db.count("reversals WHERE status = 'pending' AND amount = 3000");
    assert_eq!(asked_of_tr_1().await, 1, "that of the failed one");
    let outcome = TryOutcome::Failed(Failure { code: "rejected".into(), message: "no".into() });
    let stale = app.ledger().report(&while_it_stood, outcome, Note::new("worker", "a test")).await;
    assert!(matches!(stale, Err(LedgerError::Stale { .. })), "re_2 was not in view: {stale:?}");
    let outcome = TryOutcome::Ended(Failure { code: "reversal_ended".into(), message: "no".into() });
    app.ledger().report(&task(&app, id).await, outcome, Note::new("worker", "a test")).await.unwrap();
    assert_eq!(asked_of_tr_1().await, 1, "that of re_2");
    let second = app.refund_view("re_2").await;
    assert_eq!(second["reversals"].as_array().unwrap().len(), 2, "{second}");
}

/// Stripe may have done it: it is not taken a second time.
async fn whether_what_failed_permanently_was_taken_is_asked_of_an_operator_where_a_later_refund_counted_on_it(
    app: TestApp,
) {
    let app = without_worker(app).await;
    app.refund(5_000).await;
    let id = reversal_id(&app, 0, 0).await;
    stripe_is_asked(&app, id).await;
    fails(&app, 1, 5_000).await;
    app.refund_of(5_000, 2).await;
    fails_permanently(&app, id).await;
    assert_eq!(app.db.count("reversals WHERE status = 'pending' AND amount = 3000").await, 0);
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    assert!(
        attention.contains("3000 eur of transfer tr_1 counted for claims that came meanwhile, and whether"),
        "{attention}"
    );
}

async fn what_a_later_refund_can_not_take_beside_its_own_reversal_needs_an_operator(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(5_000).await;
    stripe_is_asked(&app, reversal_id(&app, 0, 0).await).await;
    fails(&app, 1, 5_000).await;
    app.refund_of(8_000, 2).await;
    with_worker(&mut app).await;
    let needs = || async {
        let failed = app.refund_view("re_1").await;
        failed["attention"].as_str().is_some_and(|it| it.starts_with("3000 eur of transfer tr_1 counted")).then_some(())
    };
    eventually("what was not taken is named", needs).await;
    app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 1_800);
}

async fn to_be_created(mut app: TestApp) -> TestApp {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    let mut payment = two_sellers("pi_1");
    payment["transfers"] =
        json!([{"seller_id": "s1", "create": true, "destination": "acct_1", "amount": 6_000, "currency": "eur"}]);
    assert_eq!(app.register(payment).await.status(), 201);
    app
}

/// The transfer is created, and nothing is taken back from it.
async fn is_created_and_kept(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true"), ("TRANSFER_RETRY_ENABLED", "true")]).await;
    let transfer = app.transfer_becomes(0, "completed").await;
    assert_eq!(transfer["reversals"][0]["failure_code"], "refund_failed");
    app.stop().await;
    assert_eq!(app.reversed_at_stripe(transfer["stripe_transfer_id"].as_str().unwrap()), 0);
    assert!(app.vhost.is_empty("reversals").await, "a job came for what was called off");
}

async fn a_refund_that_fails_before_its_transfer_is_created_takes_nothing_from_it(app: TestApp) {
    let app = to_be_created(app).await;
    app.refund_of(10_000, 1).await;
    assert_eq!(app.payment("pi_1").await["transfers"][0]["status"], "reversed", "it is not created at all");
    assert_eq!(fails(&app, 1, 10_000).await["called_off"], 1);
    assert_eq!(app.payment("pi_1").await["transfers"][0]["status"], "pending");
    is_created_and_kept(app).await;
}

async fn a_refund_that_fails_after_its_transfer_failed_permanently_takes_nothing_if_that_is_created_after_all(
    app: TestApp,
) {
    let app = to_be_created(app).await;
    let transfer: Uuid = app.payment("pi_1").await["transfers"][0]["id"].as_str().unwrap().parse().unwrap();
    stripe_is_asked(&app, transfer).await;
    app.refund_of(10_000, 1).await;
    fails_permanently(&app, transfer).await;
    let answer = fails(&app, 1, 10_000).await;
    assert_eq!((&answer["called_off"], &answer["attention"]), (&json!(1), &Value::Null));
    let note = Note::new("an operator", "a test");
    app.ledger().replay(CallKind::Create, &transfer.to_string(), &note).await.unwrap();
    is_created_and_kept(app).await;
}

async fn a_called_off_reversal_is_not_replayed(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(10_000).await;
    fails(&app, 1, 10_000).await;
    let id = reversal_id(&app, 0, 0).await;
    let note = Note::new("an operator", "a test");
    let call = task(&app, id).await.call;
    assert_eq!(call.state, CallState::CalledOff);
    for refused in [
        app.ledger().replay(CallKind::Reverse, &id.to_string(), &note).await.map(|_id| ()),
        app.ledger().replay_held(&call, &note).await.map(|_call| ()),
    ] {
        match refused {
            Err(LedgerError::Conflict(why)) => {
                assert!(why.contains("nothing is owed") && why.contains("refund re_1: failed"), "{why}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
}

async fn a_parked_message_of_a_called_off_reversal_is_no_replay(mut app: TestApp) {
    // Failed permanently before Stripe was asked, replayed, and called off, while its first message lies in the parking queue.
    app.register(two_sellers("pi_1")).await;
    app.db.execute("UPDATE seller_transfers SET stripe_transfer_id = NULL WHERE stripe_transfer_id = 'tr_1'").await;
    app.refund_of(10_000, 1).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "reversed").await;
    let parked = app.vhost.take("reversals.parked").await;
    app = without_worker(app).await;
    let id = reversal_id(&app, 0, 0).await;
    let note = Note::new("an operator", "a test");
    app.ledger().replay(CallKind::Reverse, &id.to_string(), &note).await.unwrap();
    assert_eq!(fails(&app, 1, 10_000).await["called_off"], 1);
    app.vhost.put("reversals", &parked).await;
    all_jobs_are_settled(&mut app).await;
    assert_eq!(task(&app, id).await.call.state, CallState::CalledOff);
}

/// As after a loss of the ledger's last commits: the row does not know that Stripe was asked.
async fn what_stripe_has_done_of_what_was_called_off_is_told_to_the_operator_once(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(10_000).await;
    fails(&app, 1, 10_000).await;
    let id = reversal_id(&app, 0, 0).await;
    let done = TryOutcome::Done { stripe_id: "trr_1".into(), externally: false };
    for _ in 0..2 {
        app.ledger().report(&task(&app, id).await, done.clone(), Note::new("worker", "a test")).await.unwrap();
    }
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    assert!(attention.contains("6000 eur") && attention.matches("trr_1").count() == 1, "{attention}");
    assert_eq!(app.db.count("history WHERE reason LIKE '%trr_1%'").await, 1);
    assert_eq!(
        (statuses(&app).await, task(&app, id).await.call.state),
        (["completed", "completed"].map(String::from), CallState::CalledOff)
    );
}

async fn a_failure_in_the_middle_of_the_work_leaves_each_reversal_either_done_or_called_off(mut app: TestApp) {
    let sellers = 40;
    app.restart_with(&[("REVERSAL_CONCURRENCY", "2"), ("REVERSAL_PREFETCH", "2")]).await;
    let amount = app.many_sellers("pi_1", sellers).await;
    for seller in 0..sellers {
        app.sim.fault(format!("tr_of_{seller}").as_str(), Fault::Slow { delay_ms: 100 }, 1);
    }
    app.refund_of(amount, 1).await;
    app.sim.wait_for(|ledger| ledger.requests.len() >= 3, DEADLINE).await.expect("Stripe is called");
    let answer = fails(&app, 1, amount).await;
    eventually("nothing is pending", || async {
        (app.db.count("reversals WHERE status = 'pending'").await == 0).then_some(())
    })
    .await;

    let payment = app.payment("pi_1").await;
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    let mut called_off = 0;
    for transfer in payment["transfers"].as_array().unwrap() {
        let (id, reversal) = (transfer["stripe_transfer_id"].as_str().unwrap(), &transfer["reversals"][0]);
        let told = attention.contains(&format!("transfer {id} ")) || attention.contains(&format!("transfer {id}:"));
        if reversal["status"] == "reversed" {
            assert_eq!((app.reversed_at_stripe(id), &transfer["status"]), (100, &json!("reversed")));
            assert!(told, "{id} is not in: {attention}");
        } else {
            assert_eq!(reversal["failure_code"], "refund_failed");
            assert_eq!((app.reversed_at_stripe(id), &transfer["status"]), (0, &json!("completed")));
            assert!(!told, "{id} is in: {attention}");
            called_off += 1;
        }
    }
    assert_eq!(answer["called_off"], called_off);
    assert!(called_off > 0 && called_off < sellers, "{called_off}: the failure was to come in the middle");
}

/// The worker has read its row and is about to call; the failure comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_between_the_workers_read_and_its_call_moves_no_money() {
    TestApp::run(Backend::Postgres, async |app: TestApp| {
        let app = without_worker(app).await;
        let amount = app.many_sellers("pi_1", 1).await;
        app.refund_of(amount, 1).await;
        app.published(1).await;
        let lock = hold_the_transfers(&app).await;
        // Those who wait for a row get it in the order in which they came.
        let (answer, worker) = tokio::join!(fails(&app, 1, amount), async {
            waiting(&app, 1).await;
            let worker = app.another_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
            waiting(&app, 2).await;
            assert!(app.sim.ledger().requests.is_empty(), "Stripe was asked before that was written down");
            release(lock).await;
            worker
        });
        assert_eq!((&answer["called_off"], &answer["attention"]), (&json!(1), &Value::Null));
        worker.stop().await;
        assert!(app.sim.ledger().requests.is_empty(), "Stripe was asked for what was called off");
        assert_eq!(app.transfer_becomes(0, "completed").await["reversals"][0]["failure_code"], "refund_failed");
    })
    .await;
}

/// The worker has written that it is about to call; the failure comes too late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_after_the_worker_has_begun_to_call_is_flagged_for_the_operator() {
    TestApp::run(Backend::Postgres, async |app: TestApp| {
        let app = without_worker(app).await;
        let amount = app.many_sellers("pi_1", 1).await;
        app.refund_of(amount, 1).await;
        app.published(1).await;
        let lock = hold_the_transfers(&app).await;
        let worker = app.another_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
        waiting(&app, 1).await;
        let (answer, ()) = tokio::join!(fails(&app, 1, amount), async {
            waiting(&app, 2).await;
            release(lock).await;
        });
        assert_eq!(answer["called_off"], 0);
        assert!(answer["attention"].as_str().unwrap().contains("transfer tr_of_0"), "{answer}");
        app.transfer_becomes(0, "reversed").await;
        worker.stop().await;
        assert_eq!(app.reversed_at_stripe("tr_of_0"), amount);
    })
    .await;
}

/// Keeps everybody else from changing the transfers and their calls, until released.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_processes_find_done_for_a_failed_refund_at_the_same_moment_is_told_of_both() {
    TestApp::run(Backend::Postgres, |app| async move {
        let app = without_worker(app).await;
        app.refund(10_000).await;
        // Read while the refund stood.
        let tasks = [0, 1].map(|index| {
            let app = &app;
            async move { task(app, reversal_id(app, index, 0).await).await }
        });
        let tasks = futures_util::future::join_all(tasks).await;
        fails(&app, 1, 10_000).await;
        let (one, other, held) = (app.ledger(), app.another_ledger().await, app.db.connect().await);
        held.execute_unprepared("BEGIN; LOCK TABLE claims IN SHARE MODE").await.unwrap();
        let report = |ledger: &Ledger, n: usize| {
            let done = TryOutcome::Done { stripe_id: format!("trr_{n}"), externally: false };
            let (ledger, task) = (ledger.clone(), tasks[n].clone());
            async move { ledger.report(&task, done, Note::new("worker", "a test")).await.unwrap() }
        };
        let both_wait = async {
            waiting(&app, 2).await;
            release(held).await;
        };
        tokio::join!(report(one, 0), report(&other, 1), both_wait);
        let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
        assert!(attention.contains("trr_0") && attention.contains("trr_1"), "{attention}");
    })
    .await;
}

async fn hold_the_transfers(app: &TestApp) -> DatabaseConnection {
    // One connection in the pool, so that the transaction stays on it.
    let connection = app.db.connect().await;
    connection.execute_unprepared("BEGIN; SELECT id FROM seller_transfers FOR UPDATE").await.unwrap();
    connection
}

async fn release(connection: DatabaseConnection) {
    connection.execute_unprepared("ROLLBACK").await.unwrap();
    connection.close().await.unwrap();
}

/// Waits until that many others wait for a lock.
async fn waiting(app: &TestApp, wanted: usize) {
    let look = app.db.connect().await;
    eventually("they wait for the rows", || async {
        let sql = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        (rows(&look, sql).await.len() == wanted).then_some(())
    })
    .await;
    look.close().await.unwrap();
}
