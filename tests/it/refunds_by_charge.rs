//! A payment goes by two names at Stripe: its payment intent's and its charge's. It is registered under one of them, and
//! whoever tells of a refund may know the other. Sooner or later they meet.

use reqwest::StatusCode;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::support::{Backend, TestApp, both_databases, eventually, refund_event, rows, two_sellers};

both_databases! {
    a_refund_reported_under_the_payment_intent_is_matched_to_the_charges_registration,
    a_refund_reported_under_the_charge_is_matched_to_the_payment_intents_registration,
    what_a_webhook_adds_counts_when_the_payment_is_registered_later,
    a_webhook_of_another_payment_changes_nothing,
    a_conflict_is_settled_by_a_report_that_knows_the_other_name,
    a_conflict_that_has_passed_is_settled_by_the_same_report_again,
}

/// The charge that `refund_event` names beside `pi_1`.
const CHARGE: &str = "ch_of_pi_1";

async fn without_worker(mut app: TestApp) -> TestApp {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app
}

/// Reports `re_1`, all of the payment, and returns what it is then.
async fn reported(app: &TestApp, payment_ref: &str, transfers: Option<Value>) -> (StatusCode, Value) {
    let mut refund = json!({"refund_ref": "re_1", "payment_ref": payment_ref, "amount": 10_000, "currency": "eur"});
    if let Some(transfers) = transfers {
        refund["transfers"] = transfers;
    }
    let answer = app.report(&refund).await;
    (answer.status(), answer.json().await.unwrap())
}

async fn told(app: &TestApp, event: &Value) -> Value {
    let answer = app.post_webhook(&event.to_string()).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.unwrap()
}

async fn asked(app: &TestApp, payment_ref: &str) -> Vec<Vec<i64>> {
    let payment = app.ledger().payment(payment_ref).await.unwrap().unwrap();
    let amounts = payment.transfers.iter().map(|it| it.reversals.iter().map(|reversal| reversal.amount).collect());
    amounts.collect()
}

async fn a_refund_reported_under_the_payment_intent_is_matched_to_the_charges_registration(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers(CHARGE)).await;
    assert_eq!(reported(&app, "pi_1", None).await.1["status"], "unmatched");
    let event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    assert_eq!(told(&app, &event).await, json!({"received": true, "outcome": "accepted", "reversals": 2}));
    assert_eq!(asked(&app, CHARGE).await, [[6_000], [3_000]]);
    assert_eq!(told(&app, &refund_event("evt_2", "re_1", "pi_1", 10_000)).await["outcome"], "duplicate");
    // Whoever has reported it may do so again, under either name.
    for name in ["pi_1", CHARGE] {
        let (status, refund) = reported(&app, name, None).await;
        assert_eq!((status, &refund["status"]), (StatusCode::OK, &json!("matched")));
    }
    assert_eq!(app.db.count("reversals").await, 2);
}

async fn a_refund_reported_under_the_charge_is_matched_to_the_payment_intents_registration(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    assert_eq!(reported(&app, CHARGE, None).await.1["status"], "unmatched");
    assert_eq!(told(&app, &refund_event("evt_1", "re_1", "pi_1", 10_000)).await["outcome"], "accepted");
    assert_eq!(asked(&app, "pi_1").await, [[6_000], [3_000]]);
}

async fn what_a_webhook_adds_counts_when_the_payment_is_registered_later(app: TestApp) {
    let app = without_worker(app).await;
    assert_eq!(reported(&app, "pi_1", None).await.0, StatusCode::CREATED);
    assert_eq!(told(&app, &refund_event("evt_1", "re_1", "pi_1", 10_000)).await["outcome"], "duplicate");
    app.register(two_sellers(CHARGE)).await;
    assert_eq!(asked(&app, CHARGE).await, [[6_000], [3_000]]);
}

async fn a_webhook_of_another_payment_changes_nothing(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_2")).await;
    reported(&app, "pi_1", None).await;
    assert_eq!(told(&app, &refund_event("evt_1", "re_1", "pi_2", 10_000)).await["outcome"], "duplicate");
    let refund = app.refund_view("re_1").await;
    assert_eq!((&refund["status"], &refund["payment_ref"]), (&json!("unmatched"), &json!("pi_1")));
}

async fn a_conflict_is_settled_by_a_report_that_knows_the_other_name(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers(CHARGE)).await;
    let mut event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    event["data"]["object"]["metadata"] = json!({"clawback[tr_9]": "1"});
    told(&app, &event).await;
    assert_eq!(app.refund_view("re_1").await["status"], "conflicting");
    let fitting = json!([{"transfer_id": "tr_1", "amount": 4_500}]);
    let (status, refund) = reported(&app, "pi_1", Some(fitting)).await;
    assert_eq!((status, &refund["status"]), (StatusCode::OK, &json!("matched")), "{refund}");
    assert_eq!(asked(&app, CHARGE).await, [vec![4_500], vec![]]);
}

async fn a_conflict_that_has_passed_is_settled_by_the_same_report_again(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    // Another refund has asked for everything.
    told(&app, &refund_event("evt_2", "re_2", "pi_1", 10_000)).await;
    let mut event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    event["data"]["object"]["metadata"] = json!({"clawback[tr_1]": "4500"});
    told(&app, &event).await;
    let same = json!([{"transfer_id": "tr_1", "amount": 4_500}]);
    let (status, problem) = reported(&app, "pi_1", Some(same.clone())).await;
    assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("transfers[0].amount")));

    let mut failed = refund_event("evt_3", "re_2", "pi_1", 10_000);
    failed["type"] = json!("refund.failed");
    failed["data"]["object"]["status"] = json!("failed");
    assert_eq!(told(&app, &failed).await["called_off"], 2);
    let (status, refund) = reported(&app, "pi_1", Some(same)).await;
    assert_eq!((status, &refund["status"]), (StatusCode::OK, &json!("matched")), "{refund}");
    assert_eq!(asked(&app, "pi_1").await, [vec![6_000, 4_500], vec![3_000]]);
}

/// Somebody registers the payment under its charge, while a report names its payment intent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_report_waits_for_whoever_works_on_the_payment_under_its_other_name() {
    TestApp::run(Backend::Postgres, async |app: TestApp| {
        told(&app, &refund_event("evt_1", "re_1", "pi_1", 10_000)).await;
        // One connection in the pool, so that the transaction stays on it.
        let lock = app.db.connect().await;
        let sql = format!("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('{CHARGE}', 0))");
        lock.execute_unprepared(&sql).await.unwrap();
        let shares = json!([{"transfer_id": "tr_1", "amount": 1}]);
        let ((status, _), ()) = tokio::join!(reported(&app, "pi_1", Some(shares)), async {
            let look = app.db.connect().await;
            eventually("the report waits", || async {
                let sql =
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
                (rows(&look, sql).await.len() == 1).then_some(())
            })
            .await;
            look.close().await.unwrap();
            lock.execute_unprepared("ROLLBACK").await.unwrap();
            lock.close().await.unwrap();
        });
        assert_eq!(status, StatusCode::OK);
    })
    .await;
}
