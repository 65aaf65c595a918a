//! The database forgets what Stripe did: a failover loses the last commits, or a backup is restored. What is reported again is
//! not taken again, and nobody is paid again.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use stripe_sim::PLATFORM;

use crate::support::{DEADLINE, TestApp, both_databases, eventually, refund_event, to_create, two_sellers};

both_databases! {
    a_refund_that_the_ledger_forgot_within_a_day_is_answered_by_the_same_key,
    a_refund_that_the_ledger_forgot_long_ago_is_found_in_stripes_list,
    a_reversal_of_a_later_generation_is_found_behind_a_replayed_refusal,
    a_young_refund_that_the_ledger_knows_is_reversed_without_a_look,
    a_claim_without_a_time_is_looked_for_first,
    a_forgotten_creation_pays_nobody_twice_within_a_day_or_later,
    a_forgotten_creation_from_a_charge_pays_nobody_twice,
    creations_that_are_registered_again_in_another_order_pay_nobody_twice,
    a_forgotten_creation_with_another_amount_pays_nobody_and_says_both,
    a_forgotten_creation_that_stripe_was_read_for_first_pays_nobody_twice,
    a_forgotten_creation_that_is_withheld_this_time_is_told_by_reconcile,
    a_forgotten_refund_of_another_amount_takes_nothing_and_says_both,
}

/// As a backup would leave it, from before anything was registered.
async fn the_database_forgets(app: &TestApp) {
    for table in ["outbox", "calls", "reversals", "claims", "webhook_events", "seller_transfers", "payments"] {
        app.db.execute(&format!("DELETE FROM {table}")).await;
    }
}

/// The second event about a refund that its provider created at that time.
async fn reported_again(app: &TestApp, created: chrono::DateTime<Utc>) {
    let mut event = refund_event("evt_again", "re_1", "pi_1", 4_000);
    event["data"]["object"]["created"] = json!(created.timestamp());
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
}

fn reversed_once(app: &TestApp) {
    let ledger = app.sim.ledger();
    for (transfer, amount) in [("tr_1", 2_400), ("tr_2", 1_200)] {
        let amounts: Vec<_> = ledger.reversals(transfer).iter().map(|reversal| reversal.amount).collect();
        assert_eq!(amounts, [amount], "{transfer} was reversed twice");
    }
}

async fn a_refund_that_the_ledger_forgot_within_a_day_is_answered_by_the_same_key(app: TestApp) {
    app.refund(4_000).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    the_database_forgets(&app).await;
    app.sim.advance(Duration::from_secs(22 * 60 * 60));
    reported_again(&app, Utc::now() - TimeDelta::hours(22)).await;
    reversed_once(&app);
    let replayed = app.sim.ledger().reversal_posts("tr_1").filter(|post| post.replayed).count();
    assert_eq!(replayed, 1, "Stripe answers what it has saved");
}

async fn a_refund_that_the_ledger_forgot_long_ago_is_found_in_stripes_list(app: TestApp) {
    app.refund(4_000).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    the_database_forgets(&app).await;
    app.sim.advance(Duration::from_secs(25 * 60 * 60));
    reported_again(&app, Utc::now() - TimeDelta::hours(25)).await;
    reversed_once(&app);
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1, "the look alone settles it");
}

/// The first key was refused, and a later one was used: all that within a day.
async fn a_reversal_of_a_later_generation_is_found_behind_a_replayed_refusal(app: TestApp) {
    app.sim.set_balance("acct_1", Some(0));
    app.refund(4_000).await;
    let refused = |ledger: &stripe_sim::Ledger| ledger.reversal_posts("tr_1").count() >= 2;
    app.sim.wait_for(refused, DEADLINE).await.unwrap();
    app.sim.set_balance("acct_1", None);
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    let posts = app.sim.ledger().reversal_posts("tr_1").count();
    the_database_forgets(&app).await;
    reported_again(&app, Utc::now()).await;
    reversed_once(&app);
    let again = app.sim.ledger().reversal_posts("tr_1").count() - posts;
    assert_eq!(again, 1, "one replayed refusal is enough to look");
}

async fn a_young_refund_that_the_ledger_knows_is_reversed_without_a_look(app: TestApp) {
    app.refund(4_000).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    assert!(app.sim.ledger().requests.iter().all(|request| request.method == "POST"));
}

async fn a_claim_without_a_time_is_looked_for_first(app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let report =
        json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 4_000, "currency": "eur"});
    assert_eq!(app.report(&report).await.status(), 201);
    app.transfer_becomes(0, "partially_reversed").await;
    let ledger = app.sim.ledger();
    let of_tr_1: Vec<_> = ledger.requests.iter().filter(|request| request.path.contains("tr_1")).collect();
    let methods: Vec<_> = of_tr_1.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["GET", "GET", "POST"], "looked at, and then called in the same turn");
}

async fn a_forgotten_creation_pays_nobody_twice_within_a_day_or_later(app: TestApp) {
    created(&app, "pi_1").await;
    for hours in [0, 60] {
        the_database_forgets(&app).await;
        app.sim.advance(Duration::from_secs(hours * 60 * 60));
        created(&app, "pi_1").await;
        paid_once(&app);
    }
}

async fn a_forgotten_creation_from_a_charge_pays_nobody_twice(app: TestApp) {
    app.sim.set_balance(PLATFORM, Some(0));
    created(&app, "ch_1").await;
    the_database_forgets(&app).await;
    app.sim.advance(Duration::from_secs(60 * 60 * 60));
    created(&app, "ch_1").await;
    paid_once(&app);
}

/// The place of a transfer in its payment is no part of its name, and two equal ones are two.
async fn creations_that_are_registered_again_in_another_order_pay_nobody_twice(app: TestApp) {
    let of = |account: &str, amount: i64| json!({"seller_id": account, "create": true, "destination": account, "amount": amount, "currency": "eur"});
    let register = async |transfers: &[Value]| {
        let mut payment = to_create("pi_1");
        payment["transfers"] = json!(transfers);
        assert_eq!(app.register(payment).await.status(), 201);
        eventually("all are created", || async {
            let completed = app.db.count("seller_transfers WHERE status = 'completed'").await;
            (completed == i64::try_from(transfers.len()).unwrap()).then_some(())
        })
        .await;
    };
    register(&[of("acct_3", 3_000), of("acct_3", 3_000), of("acct_4", 3_000)]).await;
    for hours in [0, 60] {
        the_database_forgets(&app).await;
        app.sim.advance(Duration::from_secs(hours * 60 * 60));
        register(&[of("acct_5", 500), of("acct_4", 3_000), of("acct_3", 3_000), of("acct_3", 3_000)]).await;
        let ledger = app.sim.ledger();
        let paid = ["acct_3", "acct_4", "acct_5"].map(|account| ledger.transfers_to(account).len());
        assert_eq!(paid, [2, 1, 1], "{:?}", ledger.transfers);
    }
}

async fn a_forgotten_creation_with_another_amount_pays_nobody_and_says_both(app: TestApp) {
    created(&app, "pi_1").await;
    the_database_forgets(&app).await;
    let mut payment = to_create("pi_1");
    payment["transfers"][0]["amount"] = json!(5_000);
    assert_eq!(app.register(payment).await.status(), 201);
    app.transfer_becomes(1, "completed").await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!(transfer["failure_code"], "transfer_mismatch");
    let message = transfer["failure_message"].as_str().unwrap();
    assert!(message.contains("6000 eur") && message.contains("5000 eur"), "{message}");
    paid_once(&app);
}

/// Somebody who registers what discovery has found already would pay for it a second time.
async fn a_forgotten_creation_that_stripe_was_read_for_first_pays_nobody_twice(mut app: TestApp) {
    app.restart_with(&[("STRIPE_DISCOVERY", "on")]).await;
    let (payment_intent, transfer_group) = (Some("pi_1".to_owned()), Some("pi_1".to_owned()));
    app.sim.pay(stripe_sim::NewPayment {
        payment_intent,
        transfer_group,
        ..stripe_sim::NewPayment::new(20_000, "eur")
    });
    created(&app, "pi_1").await;
    the_database_forgets(&app).await;
    // It names its share: what is added owes nothing for it.
    let mut event = refund_event("evt_1", "re_1", "pi_1", 3_000);
    let share = format!("clawback_{}", app.sim.ledger().transfers_to("acct_3")[0].id);
    event["data"]["object"]["metadata"] = json!({share: "3000"});
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    eventually("what was found is reversed", || async {
        (app.db.count("seller_transfers WHERE amount_reversed = 3000 AND status = 'partially_reversed'").await == 1)
            .then_some(())
    })
    .await;
    let added = json!({"transfers": to_create("pi_1")["transfers"]});
    let request = app.http.post(format!("{}/v1/payments/pi_1/transfers", app.base_url)).bearer_auth(&app.api_token);
    let answer = request.json(&added).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    // What was found is what Clawback had created.
    assert_eq!(app.db.count("seller_transfers").await, 2);
    assert_eq!(app.db.count("calls WHERE kind = 'create'").await, 0);
    paid_once(&app);
}

/// Nobody is paid twice, but the refund takes nothing from what was paid: somebody has to know.
async fn a_forgotten_creation_that_is_withheld_this_time_is_told_by_reconcile(app: TestApp) {
    created(&app, "pi_1").await;
    the_database_forgets(&app).await;
    assert_eq!(app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await.status(), 200);
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "reversed").await;
    let run = app.cli(&["reconcile", "--format", "json"]).await;
    assert_eq!(run.code, 3, "{run:?}");
    for (told, account) in run.json()["differences"].as_array().unwrap().iter().zip(["acct_3", "acct_4"]) {
        let paid = app.sim.ledger().transfers_to(account)[0].clone();
        assert_eq!((&told["kind"], &told["stripe_transfer_id"]), (&json!("unrecorded_transfer"), &json!(paid.id)));
        assert_eq!((&told["amount_in_ledger"], &told["amount_at_stripe"]), (&json!(0), &json!(paid.amount)));
    }
    paid_once(&app);
}

async fn created(app: &TestApp, payment_ref: &str) {
    assert_eq!(app.register(to_create(payment_ref)).await.status(), 201);
    eventually("both are created", || async {
        (app.db.count("seller_transfers WHERE status = 'completed'").await == 2).then_some(())
    })
    .await;
}

fn paid_once(app: &TestApp) {
    let ledger = app.sim.ledger();
    assert_eq!((ledger.transfers_to("acct_3").len(), ledger.transfers_to("acct_4").len()), (1, 1), "paid twice");
}

async fn a_forgotten_refund_of_another_amount_takes_nothing_and_says_both(app: TestApp) {
    app.refund(4_000).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    the_database_forgets(&app).await;
    // Registered with another amount of the payment: the same claim asks for more now.
    let mut payment = two_sellers("pi_1");
    payment["amount"] = json!(9_000);
    assert_eq!(app.register(payment).await.status(), 201);
    assert_eq!(app.post_webhook(&refund_event("evt_2", "re_1", "pi_1", 4_000).to_string()).await.status(), 200);
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    let message = &transfer["reversals"][0]["failure_message"];
    let says = |words: &str| message.as_str().is_some_and(|message| message.contains(words));
    assert!(says("2400") && says("2667"), "{message}");
    assert_eq!(transfer["reversals"][0]["failure_code"], Value::from("amount_mismatch"));
    assert_eq!(app.reversed_at_stripe("tr_1"), 2_400);
}
