//! A payment goes by two names at Stripe: its payment intent's and its charge's. It is registered under one of them, and
//! whoever tells of a refund may know the other. Sooner or later they meet.

use clawback::ledger::{ReversalStatus, TransferStatus};
use reqwest::StatusCode;
use sea_orm::ConnectionTrait;
use serde_json::{Value, json};

use crate::support::{Backend, TestApp, both_databases, eventually, refund_event, rows, two_sellers};

both_databases! {
    a_refund_reported_under_the_payment_intent_is_matched_to_the_charges_registration,
    a_refund_reported_under_the_charge_is_matched_to_the_payment_intents_registration,
    what_a_webhook_adds_counts_when_the_payment_is_registered_later,
    the_signed_word_replaces_what_a_report_got_wrong,
    the_signed_word_needs_an_operator_when_stripe_was_asked_for_the_report_already,
    a_known_id_with_another_payment_amount_or_currency_is_no_duplicate,
    a_refund_whose_names_find_two_payments_needs_an_operator,
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
    let mut refund = json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": payment_ref, "amount": 10_000, "currency": "eur"});
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

async fn the_signed_word_replaces_what_a_report_got_wrong(app: TestApp) {
    let app = without_worker(app).await;
    let mut other = two_sellers("pi_2");
    other["transfers"][0]["stripe_transfer_id"] = json!("tr_3");
    other["transfers"][1]["stripe_transfer_id"] = json!("tr_4");
    app.register(two_sellers("pi_1")).await;
    app.register(other).await;
    // All of another payment, was reported.
    assert_eq!(reported(&app, "pi_2", None).await.1["status"], "matched");
    let answer = told(&app, &refund_event("evt_1", "re_1", "pi_1", 5_000)).await;
    assert_eq!(answer, json!({"received": true, "outcome": "accepted", "reversals": 2}));
    let refund = app.refund_view("re_1").await;
    assert_eq!((&refund["payment_ref"], &refund["amount"]), (&json!("pi_1"), &json!(5_000)));
    assert_eq!(asked(&app, "pi_1").await, [[3_000], [1_500]]);
    let other = app.ledger().payment("pi_2").await.unwrap().unwrap();
    for transfer in other.transfers {
        assert_eq!(
            (transfer.status, transfer.reversals[0].status),
            (TransferStatus::Completed, ReversalStatus::CalledOff)
        );
    }
}

async fn the_signed_word_needs_an_operator_when_stripe_was_asked_for_the_report_already(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let refund = reported(&app, "pi_1", None).await.1;
    let id = refund["reversals"][0]["id"].as_str().unwrap().parse().unwrap();
    app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    let answer = told(&app, &refund_event("evt_1", "re_1", "pi_1", 5_000)).await;
    assert_eq!(answer["outcome"], "conflicting");
    let refund = app.refund_view("re_1").await;
    let attention = refund["attention"].as_str().unwrap();
    assert!(attention.contains("5000 eur") && attention.contains("10000 eur"), "{attention}");
    assert_eq!((&refund["status"], asked(&app, "pi_1").await), (&json!("matched"), vec![vec![6_000], vec![3_000]]));
    // Saying it again adds nothing.
    told(&app, &refund_event("evt_2", "re_1", "pi_1", 5_000)).await;
    assert_eq!(app.refund_view("re_1").await["attention"], attention);
}

async fn a_known_id_with_another_payment_amount_or_currency_is_no_duplicate(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    app.refund_of(1_000, 1).await;
    for (n, payment, amount, currency) in
        [(2, "pi_1", 1_001, "eur"), (3, "pi_2", 1_000, "eur"), (4, "pi_1", 1_000, "usd")]
    {
        let mut event = refund_event(&format!("evt_{n}"), "re_1", payment, amount);
        event["data"]["object"]["currency"] = json!(currency);
        let answer = told(&app, &event).await;
        assert_eq!(answer["outcome"], "conflicting", "{answer}");
        let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
        assert!(attention.contains(&format!("{amount} {currency} of payment {payment}")), "{attention}");
    }
    assert_eq!(asked(&app, "pi_1").await, [[600], [300]]);
}

async fn a_refund_whose_names_find_two_payments_needs_an_operator(app: TestApp) {
    let app = without_worker(app).await;
    let mut by_charge = two_sellers(CHARGE);
    by_charge["transfers"][0]["stripe_transfer_id"] = json!("tr_3");
    by_charge["transfers"][1]["stripe_transfer_id"] = json!("tr_4");
    app.register(two_sellers("pi_1")).await;
    app.register(by_charge).await;
    let answer = told(&app, &refund_event("evt_1", "re_1", "pi_1", 10_000)).await;
    assert_eq!(answer["outcome"], "conflicting");
    let refund = app.refund_view("re_1").await;
    let attention = refund["attention"].as_str().unwrap();
    assert!(attention.contains("pi_1 and ch_of_pi_1"), "{attention}");
    assert_eq!(app.db.count("reversals").await, 0);
}

async fn a_conflict_is_settled_by_a_report_that_knows_the_other_name(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers(CHARGE)).await;
    let mut event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    event["data"]["object"]["metadata"] = json!({"clawback_tr_9": "1"});
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
    event["data"]["object"]["metadata"] = json!({"clawback_tr_1": "4500"});
    told(&app, &event).await;
    let same = json!([{"transfer_id": "tr_1", "amount": 4_500}]);
    let (status, problem) = reported(&app, "pi_1", Some(same.clone())).await;
    assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("amount")));

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

/// Whatever the database's default isolation is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_waits_for_a_registration_sees_it() {
    TestApp::run(Backend::Postgres, async |mut app: TestApp| {
        let sql = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation TO %L',
            current_database(), 'repeatable read'); END $$";
        app.db.execute(sql).await;
        app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), ("REVERSAL_CHECK_INTERVAL", "1h")]).await;
        let lock = app.db.connect().await;
        lock.execute_unprepared("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('pi_1', 0))").await.unwrap();
        let event = refund_event("evt_1", "re_1", "pi_1", 10_000);
        let (answer, ()) = tokio::join!(told(&app, &event), async {
            let look = app.db.connect().await;
            eventually("the refund waits", || async {
                let sql =
                    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
                (rows(&look, sql).await.len() == 1).then_some(())
            })
            .await;
            look.close().await.unwrap();
            let payment = "INSERT INTO payments (id, payment_ref, amount, currency, created_at)
                VALUES (gen_random_uuid(), 'pi_1', 10000, 'eur', now()); COMMIT";
            lock.execute_unprepared(payment).await.unwrap();
            lock.close().await.unwrap();
        });
        assert_eq!(answer["outcome"], "accepted");
    })
    .await;
}
