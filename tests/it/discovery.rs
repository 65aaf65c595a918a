//! A payment that nobody registered is found at Stripe, if it is clear which transfers belong to it.

use serde_json::{Value, json};
use stripe_sim::{Capture, Endpoint, Fault, NewPayment, NewRefund, PaymentTransfer, Target};

use crate::support::{DEADLINE, NO_SWEEPER, Process, TestApp, both_databases, eventually, refund_event, two_sellers};

both_databases! {
    a_destination_charge_is_found_and_taken_back_without_any_registration,
    separate_transfers_of_a_group_are_found_and_taken_back,
    transfers_from_the_charge_are_found_and_taken_back,
    a_refund_that_is_reported_over_the_api_finds_its_payment_too,
    every_refund_of_a_payment_waits_for_one_look_up,
    a_claim_that_knows_the_charge_alone_meets_the_one_that_knows_the_payment_intent,
    what_is_not_clear_needs_attention_with_what_was_found,
    what_others_have_reversed_needs_attention,
    what_clawback_reversed_before_its_ledger_was_lost_counts_and_is_not_taken_again,
    beside_what_others_have_reversed_what_clawback_did_needs_attention_too,
    a_payment_that_stripe_does_not_know_needs_attention_until_it_is_registered,
    a_payment_without_transfers_has_nothing_to_reverse_until_it_is_registered,
    a_registration_while_stripe_is_read_wins,
    a_registration_that_names_more_than_was_found_adds_it,
    a_registration_names_the_sellers_of_what_was_found,
    a_registration_under_the_other_name_wins_and_a_difference_needs_attention,
    a_worker_killed_in_the_middle_of_discovery_registers_once,
    a_transfer_that_is_created_registers_its_payment_and_those_that_follow_are_added,
    a_transfer_that_follows_a_refund_owes_its_part,
    a_transfer_that_may_be_of_several_charges_needs_attention,
    a_later_transfer_that_is_not_clear_is_told_at_the_refunds_that_were_shared_out_without_it,
    a_later_transfer_that_is_not_clear_parks_its_look_up_where_nothing_was_refunded,
    a_transfer_that_clawback_is_creating_is_not_found_as_another_one,
    a_held_claim_that_is_accepted_later_has_its_payment_looked_up_again,
    switched_off_it_asks_nothing,
}

async fn on(mut app: TestApp) -> TestApp {
    app.restart_with(&[("STRIPE_DISCOVERY", "on")]).await;
    app
}

fn payment(amount: i64) -> NewPayment {
    let (payment_intent, charge) = (Some("pi_d".to_owned()), Some("ch_d".to_owned()));
    NewPayment { payment_intent, charge, ..NewPayment::new(amount, "eur") }
}

fn grouped(amount: i64, transfers: &[(&str, i64)]) -> NewPayment {
    let transfers = transfers.iter().map(|(id, amount)| PaymentTransfer {
        id: Some((*id).to_owned()),
        amount: *amount,
        currency: None,
        destination: "acct_7".to_owned(),
        from_charge: false,
    });
    NewPayment { transfer_group: Some("order_7".to_owned()), transfers: transfers.collect(), ..payment(amount) }
}

/// The buyer gets `amount` back, and Stripe says so.
async fn refund(app: &TestApp, id: &str, amount: i64) -> Value {
    app.sim.refund(NewRefund { id: Some(id.to_owned()), ..NewRefund::part("ch_d", amount) });
    let webhooks = app.sim.webhooks(&Endpoint::new("", &app.webhook_secret));
    let webhook = webhooks.iter().rfind(|webhook| webhook.kind == "refund.created").unwrap();
    let answer = app.post_signed(&webhook.body, &webhook.signature).await;
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn refund_becomes(app: &TestApp, id: &str, status: &str) -> Value {
    eventually(&format!("{id} becomes {status}"), || async {
        let refund = app.refund_view(id).await;
        (refund["status"] == status).then_some(refund)
    })
    .await
}

async fn needs_attention(app: &TestApp, id: &str, why: &str) {
    let refund = eventually(&format!("{id} needs attention"), || async {
        let refund = app.refund_view(id).await;
        refund["attention"].is_string().then_some(refund)
    })
    .await;
    assert!(refund["attention"].as_str().unwrap().contains(why), "{refund}");
}

async fn has_given(app: &TestApp, transfer: &str, amount: i64) {
    eventually(&format!("{transfer} gives {amount} back"), || async {
        let sql = format!("seller_transfers WHERE stripe_transfer_id = '{transfer}' AND amount_reversed = {amount}");
        (app.db.count(&sql).await == 1).then_some(())
    })
    .await;
    assert_eq!(app.reversed_at_stripe(transfer), amount);
}

async fn a_destination_charge_is_found_and_taken_back_without_any_registration(app: TestApp) {
    let app = on(app).await;
    let destination = Some("acct_7".to_owned());
    app.sim.pay(NewPayment { destination, transfer: Some("tr_d".to_owned()), ..payment(10_000) });
    assert_eq!(refund(&app, "re_1", 5_000).await["outcome"], "unmatched");
    has_given(&app, "tr_d", 5_000).await;
    let found = app.payment("pi_d").await;
    assert_eq!((&found["amount"], &found["currency"]), (&json!(10_000), &json!("eur")));
    assert_eq!(found["transfers"][0]["seller_id"], "acct_7");
    let by_stripe = "history WHERE entity = 'payment' AND actor = 'stripe' AND reason = 'found at Stripe'";
    assert_eq!(app.db.count(by_stripe).await, 1);
    // From now on it is a payment like any other.
    assert_eq!(refund(&app, "re_2", 2_000).await["outcome"], "accepted");
    has_given(&app, "tr_d", 7_000).await;
}

async fn separate_transfers_of_a_group_are_found_and_taken_back(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 3_000)]));
    refund(&app, "re_1", 5_000).await;
    has_given(&app, "tr_a", 3_000).await;
    has_given(&app, "tr_b", 1_500).await;
    let transfers = app.payment("pi_d").await["transfers"].clone();
    assert_eq!((&transfers[0]["stripe_transfer_id"], transfers.as_array().unwrap().len()), (&json!("tr_a"), 2));
}

async fn transfers_from_the_charge_are_found_and_taken_back(app: TestApp) {
    let app = on(app).await;
    let mut new = grouped(10_000, &[("tr_a", 8_000)]);
    (new.transfer_group, new.transfers[0].from_charge) = (None, true);
    app.sim.pay(new);
    refund(&app, "re_1", 10_000).await;
    has_given(&app, "tr_a", 8_000).await;
}

async fn a_refund_that_is_reported_over_the_api_finds_its_payment_too(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    let refund =
        json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "ch_d", "amount": 5_000, "currency": "eur"});
    assert_eq!(app.report(&refund).await.status(), 201);
    has_given(&app, "tr_a", 3_000).await;
    // An id that is no id of Stripe's can't be asked about.
    let other =
        json!({"source": "stripe", "refund_ref": "re_2", "payment_ref": "order-1", "amount": 5_000, "currency": "eur"});
    assert_eq!(app.report(&other).await.status(), 201);
    assert_eq!(app.db.count("lookups").await, 1);
}

async fn every_refund_of_a_payment_waits_for_one_look_up(app: TestApp) {
    let mut app = on(app).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    for n in 1..=3 {
        refund(&app, &format!("re_{n}"), 1_000).await;
    }
    assert_eq!(app.db.count("lookups").await, 1);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    has_given(&app, "tr_a", 1_800).await;
    assert_eq!(app.db.count("reversals").await, 3);
}

async fn a_claim_that_knows_the_charge_alone_meets_the_one_that_knows_the_payment_intent(app: TestApp) {
    let mut app = on(app).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    for (refund_ref, payment_ref) in [("re_1", "pi_d"), ("re_2", "ch_d")] {
        let refund = json!({"source": "stripe", "refund_ref": refund_ref, "payment_ref": payment_ref, "amount": 1_000, "currency": "eur"});
        assert_eq!(app.report(&refund).await.status(), 201);
    }
    assert_eq!(app.db.count("lookups").await, 2);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    has_given(&app, "tr_a", 1_200).await;
    assert_eq!(app.db.count("payments").await, 1);
    assert_eq!(app.db.count("claims WHERE status = 'matched' AND attention IS NULL").await, 2);
}

async fn what_is_not_clear_needs_attention_with_what_was_found(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    let other = Some("ch_other".to_owned());
    app.sim.pay(NewPayment { charge: other, payment_intent: None, ..grouped(500, &[]) });
    refund(&app, "re_1", 1_000).await;
    needs_attention(&app, "re_1", "ch_other").await;
    assert_eq!(app.db.count("payments").await, 0);
    let doctor = app.cli(&["doctor"]).await;
    assert!(doctor.stdout.contains("re_1"), "{doctor:?}");
    // Somebody knows better.
    let registered = json!({"payment_ref": "pi_d", "amount": 10_000, "currency": "eur", "transfers": [
        {"seller_id": "s", "stripe_transfer_id": "tr_a", "destination": "acct_7", "amount": 6_000, "currency": "eur"}]});
    assert_eq!(app.register(registered).await.status(), 201);
    has_given(&app, "tr_a", 600).await;
    assert_eq!(app.refund_view("re_1").await["attention"], Value::Null);
}

async fn what_others_have_reversed_needs_attention(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 1_000)]));
    app.sim.reverse_from_elsewhere("tr_a", Some(600));
    refund(&app, "re_1", 1_000).await;
    needs_attention(&app, "re_1", "tr_a of payment pi_d is reversed already").await;
    assert_eq!((app.db.count("payments").await, app.reversed_at_stripe("tr_b")), (0, 0));
}

/// As a backup would leave it, from before anything was known.
async fn the_database_forgets(app: &TestApp) {
    for table in ["outbox", "calls", "reversals", "lookups", "claims", "webhook_events", "seller_transfers", "payments"]
    {
        app.db.execute(&format!("DELETE FROM {table}")).await;
    }
}

/// So many refunds have taken from both transfers.
async fn all_taken(app: &TestApp, refunds: i64) {
    eventually(&format!("{refunds} refunds have taken"), || async {
        let reversed = app.db.count("reversals WHERE status = 'reversed'").await;
        (reversed == 2 * refunds && app.db.count("reversals").await == reversed).then_some(())
    })
    .await;
    let ledger = app.sim.ledger();
    for transfer in ["tr_a", "tr_b"] {
        let at_stripe = ledger.reversals(transfer).iter().map(|reversal| reversal.amount);
        assert_eq!((at_stripe.clone().count() as i64, app.db.count("claims").await), (refunds, refunds), "{transfer}");
        let sum: i64 = at_stripe.sum();
        let said = format!("seller_transfers WHERE stripe_transfer_id = '{transfer}' AND amount_reversed = {sum}");
        assert_eq!(app.db.count(&said).await, 1, "{transfer}: {sum}");
    }
    assert_eq!(app.db.count("claims WHERE status = 'matched' AND attention IS NULL").await, refunds);
}

async fn what_clawback_reversed_before_its_ledger_was_lost_counts_and_is_not_taken_again(app: TestApp) {
    let mut app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 3_000)]));
    // Amounts that can't be shared out evenly: in another order each would ask for others.
    refund(&app, "re_1", 3_333).await;
    all_taken(&app, 1).await;
    refund(&app, "re_2", 1_111).await;
    all_taken(&app, 2).await;
    let webhooks = app.sim.webhooks(&Endpoint::new("", &app.webhook_secret));
    // A new refund is the first that is heard of the payment.
    the_database_forgets(&app).await;
    refund(&app, "re_3", 2_222).await;
    all_taken(&app, 3).await;
    // Everything is sent again, the other way round, to a ledger that holds whatever is that old.
    the_database_forgets(&app).await;
    app.restart_with(&[("REFUNDS_SINCE", &(chrono::Utc::now() + chrono::TimeDelta::hours(1)).to_rfc3339())]).await;
    for webhook in webhooks.iter().rev().filter(|webhook| webhook.kind == "refund.created") {
        assert_eq!(app.post_signed(&webhook.body, &webhook.signature).await.status(), 200);
    }
    assert_eq!(app.db.count("claims WHERE status = 'held'").await, 2);
    app.sim.refund(NewRefund { id: Some("re_4".to_owned()), ..NewRefund::part("ch_d", 3_334) });
    let mut last = refund_event("evt_4", "re_4", "pi_d", 3_334);
    last["data"]["object"]["charge"] = json!("ch_d");
    last["data"]["object"]["created"] = json!((chrono::Utc::now() + chrono::TimeDelta::hours(2)).timestamp());
    assert_eq!(app.post_webhook(&last.to_string()).await.status(), 200);
    all_taken(&app, 4).await;
    assert_eq!((app.reversed_at_stripe("tr_a"), app.reversed_at_stripe("tr_b")), (6_000, 3_000));
}

async fn beside_what_others_have_reversed_what_clawback_did_needs_attention_too(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 3_000)]));
    refund(&app, "re_1", 1_000).await;
    all_taken(&app, 1).await;
    app.sim.reverse_from_elsewhere("tr_b", Some(600));
    the_database_forgets(&app).await;
    refund(&app, "re_2", 1_000).await;
    needs_attention(&app, "re_2", "tr_b of payment pi_d is reversed already").await;
    assert_eq!((app.db.count("payments").await, app.reversed_at_stripe("tr_a")), (0, 600));
}

async fn a_payment_that_stripe_does_not_know_needs_attention_until_it_is_registered(app: TestApp) {
    let app = on(app).await;
    app.refund_of(10_000, 1).await;
    needs_attention(&app, "re_1", "Stripe does not know it").await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    has_given(&app, "tr_1", 6_000).await;
    assert_eq!(app.refund_view("re_1").await["attention"], Value::Null);
}

async fn a_payment_without_transfers_has_nothing_to_reverse_until_it_is_registered(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(payment(10_000));
    refund(&app, "re_1", 10_000).await;
    let refund = refund_becomes(&app, "re_1", "nothing_to_reverse").await;
    assert!(refund["status_reason"].as_str().unwrap().contains("ch_d has no transfers"), "{refund}");
    assert_eq!(refund["attention"], Value::Null);
    // Its transfers have nothing in common with it at Stripe.
    assert_eq!(app.register(two_sellers("pi_d")).await.status(), 201);
    has_given(&app, "tr_1", 6_000).await;
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
}

async fn a_registration_while_stripe_is_read_wins(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 3_000)]));
    app.sim.fault_reads("ch_d", Fault::Slow { delay_ms: 1_500 }, 1);
    refund(&app, "re_1", 10_000).await;
    let reading = |ledger: &stripe_sim::Ledger| ledger.requests.iter().any(|request| request.path.ends_with("ch_d"));
    app.sim.wait_for(reading, DEADLINE).await.expect("Stripe is read");
    let mine = json!({"payment_ref": "pi_d", "amount": 10_000, "currency": "eur", "transfers": [
        {"seller_id": "mine", "stripe_transfer_id": "tr_a", "destination": "acct_7", "amount": 6_000, "currency": "eur"}]});
    assert_eq!(app.register(mine).await.status(), 201);
    has_given(&app, "tr_a", 6_000).await;
    eventually("the look-up ends", || async {
        (app.db.count("calls WHERE kind = 'look_up' AND state = 'called_off'").await == 1).then_some(())
    })
    .await;
    assert_eq!(app.payment("pi_d").await["transfers"].as_array().unwrap().len(), 1);
    assert_eq!(app.reversed_at_stripe("tr_b"), 0);
}

async fn a_registration_under_the_other_name_wins_and_a_difference_needs_attention(app: TestApp) {
    let mut app = on(app).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 3_000)]));
    let refund =
        json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_d", "amount": 10_000, "currency": "eur"});
    assert_eq!(app.report(&refund).await.status(), 201);
    let mine = json!({"payment_ref": "ch_d", "amount": 10_000, "currency": "eur", "transfers": [
        {"seller_id": "mine", "stripe_transfer_id": "tr_a", "destination": "acct_7", "amount": 6_000, "currency": "eur"}]});
    assert_eq!(app.register(mine).await.status(), 201);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    has_given(&app, "tr_a", 6_000).await;
    needs_attention(&app, "re_1", "Stripe shows it otherwise").await;
    assert_eq!((app.db.count("payments").await, app.reversed_at_stripe("tr_b")), (1, 0));
}

async fn a_registration_that_names_more_than_was_found_adds_it(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    refund(&app, "re_1", 5_000).await;
    has_given(&app, "tr_a", 3_000).await;
    let transfer = |seller: &str, account: &str, amount: i64| json!({"seller_id": seller, "destination": account, "amount": amount, "currency": "eur", "create": true});
    let mut all = json!({"payment_ref": "pi_d", "amount": 10_000, "currency": "eur",
        "transfers": [transfer("grace", "acct_8", 3_000), transfer("ada", "acct_7", 6_000)]});
    let without_what_was_found = app.register(all.clone()).await;
    assert_eq!(without_what_was_found.status(), 409, "acct_7's transfer is to be created, too");
    all["transfers"][1]["create"] = json!(false);
    all["transfers"][1]["stripe_transfer_id"] = json!("tr_a");
    assert_eq!(app.register(all.clone()).await.status(), 201);
    assert_eq!(app.register(all.clone()).await.status(), 200, "the same again");
    // Half was refunded before it was paid.
    let paid = eventually("acct_8 is paid", || async {
        let paid = app.payment("pi_d").await["transfers"][1].clone();
        paid["stripe_transfer_id"].is_string().then_some(paid)
    })
    .await;
    assert_eq!((&paid["seller_id"], &paid["withheld"]), (&json!("grace"), &json!(1_500)), "{paid}");
    let sent: Vec<i64> = app.sim.ledger().transfers_to("acct_8").iter().map(|transfer| transfer.amount).collect();
    assert_eq!((sent, app.reversed_at_stripe("tr_a")), (vec![1_500], 3_000));
    refund(&app, "re_2", 5_000).await;
    has_given(&app, "tr_a", 6_000).await;
}

async fn a_registration_names_the_sellers_of_what_was_found(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    refund(&app, "re_1", 5_000).await;
    has_given(&app, "tr_a", 3_000).await;
    let found = "reversals r JOIN seller_transfers t ON t.id = r.transfer_id WHERE r.seller_id = t.seller_id";
    assert_eq!(app.db.count(&format!("{found} AND t.seller_id = 'acct_7'")).await, 1);
    let before = app.db.query("SELECT updated_at FROM reversals").await;
    let all = |seller: &str| {
        json!({"payment_ref": "pi_d", "amount": 10_000, "currency": "eur", "transfers": [{"seller_id": seller,
            "stripe_transfer_id": "tr_a", "destination": "acct_7", "amount": 6_000, "currency": "eur"}]})
    };
    assert_eq!(app.register(all("ada")).await.status(), 201);
    assert_eq!(app.db.count(&format!("{found} AND t.seller_id = 'ada'")).await, 1);
    assert_eq!(app.db.query("SELECT updated_at FROM reversals").await, before, "it was taken back when it was");
    assert_eq!(app.db.count("history WHERE reason = 'the seller acct_7 is ada'").await, 1);
    assert_eq!(app.register(all("ada")).await.status(), 200, "the same again");
    assert_eq!(app.register(all("grace")).await.status(), 409, "that is another seller");
}

async fn a_worker_killed_in_the_middle_of_discovery_registers_once(app: TestApp) {
    let mut app = on(app).await;
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000), ("tr_b", 3_000)]));
    refund(&app, "re_1", 5_000).await;
    app.published(1).await;
    let settings = app.settings_with(&[("REVERSAL_WORKER_ENABLED", "true")]);
    for reading in ["/v1/payment_intents/pi_d", "/v1/charges/ch_d", "/v1/transfers"] {
        let seen = app.sim.ledger().requests.len();
        app.sim.fault_reads(Target::Any, Fault::Slow { delay_ms: 500 }, 9);
        let process = Process::start("worker", &settings);
        let called = |ledger: &stripe_sim::Ledger| ledger.requests.iter().skip(seen).any(|it| it.path == reading);
        app.sim.wait_for(called, DEADLINE).await.expect("Stripe is read");
        process.kill().await;
        app.sim.clear_faults();
    }
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    has_given(&app, "tr_a", 3_000).await;
    has_given(&app, "tr_b", 1_500).await;
    assert_eq!((app.db.count("payments").await, app.db.count("reversals").await), (1, 2));
}

/// Posts what Stripe says of its newest transfers, `thin` or not.
async fn tell_of_transfers(app: &TestApp, thin: bool) {
    let endpoint = Endpoint { thin, ..Endpoint::new("", &app.webhook_secret) };
    for webhook in app.sim.webhooks(&endpoint).iter().filter(|webhook| webhook.kind.ends_with("transfer.created")) {
        assert_eq!(app.post_signed(&webhook.body, &webhook.signature).await.status(), 200);
    }
}

async fn a_later_transfer(app: &TestApp, amount: i64) -> String {
    let request = app.http.post(format!("{}/v1/transfers", app.sim.base_url())).bearer_auth("sk_test_of_the_tests");
    let form = [
        ("amount", amount.to_string()),
        ("currency", "eur".into()),
        ("destination", "acct_7".into()),
        ("transfer_group", "order_7".into()),
    ];
    let transfer: Value = request.form(&form).send().await.unwrap().json().await.unwrap();
    transfer["id"].as_str().unwrap().to_owned()
}

async fn transfers_become(app: &TestApp, count: usize) {
    eventually(&format!("{count} transfers are registered"), || async {
        let transfers = app.payment("pi_d").await["transfers"].as_array().map_or(0, Vec::len);
        (transfers == count).then_some(())
    })
    .await;
}

async fn a_transfer_that_is_created_registers_its_payment_and_those_that_follow_are_added(app: TestApp) {
    let app = on(app).await;
    app.sim.add_endpoint(Endpoint::new("http://127.0.0.1:9/", "whsec_of_nobody"));
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    tell_of_transfers(&app, false).await;
    transfers_become(&app, 1).await;
    let second = a_later_transfer(&app, 3_000).await;
    tell_of_transfers(&app, true).await;
    transfers_become(&app, 2).await;
    refund(&app, "re_1", 5_000).await;
    has_given(&app, "tr_a", 3_000).await;
    has_given(&app, &second, 1_500).await;
}

async fn a_transfer_that_follows_a_refund_owes_its_part(app: TestApp) {
    let app = on(app).await;
    app.sim.add_endpoint(Endpoint::new("http://127.0.0.1:9/", "whsec_of_nobody"));
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    tell_of_transfers(&app, false).await;
    transfers_become(&app, 1).await;
    refund(&app, "re_1", 5_000).await;
    has_given(&app, "tr_a", 3_000).await;
    let second = a_later_transfer(&app, 3_000).await;
    tell_of_transfers(&app, false).await;
    has_given(&app, &second, 1_500).await;
    assert_eq!(app.reversed_at_stripe("tr_a"), 3_000);
}

async fn a_transfer_that_may_be_of_several_charges_needs_attention(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(grouped(10_000, &[]));
    refund(&app, "re_1", 5_000).await;
    refund_becomes(&app, "re_1", "nothing_to_reverse").await;
    // Authorized only: it may be captured yet.
    let (charge, capture) = (Some("ch_other".to_owned()), Capture::Later);
    app.sim.pay(NewPayment { charge, payment_intent: None, capture, ..grouped(500, &[]) });
    let transfer =
        PaymentTransfer { id: None, amount: 100, currency: None, destination: "acct_7".into(), from_charge: false };
    app.sim.transfer_of("ch_d", transfer);
    tell_of_transfers(&app, false).await;
    needs_attention(&app, "re_1", "may be of each of the charges").await;
    assert_eq!(app.db.count("payments").await, 0);
}

async fn a_held_claim_that_is_accepted_later_has_its_payment_looked_up_again(app: TestApp) {
    let app = on(app).await;
    app.sim.pay(payment(10_000));
    refund(&app, "re_1", 5_000).await;
    refund_becomes(&app, "re_1", "nothing_to_reverse").await;
    let mut old = refund_event("evt_old", "re_old", "pi_d", 1_000);
    old["data"]["object"]["created"] = json!(1_000_000_000);
    assert_eq!(app.post_webhook(&old.to_string()).await.status(), 200);
    assert_eq!(app.refund_view("re_old").await["status"], "held");
    let accepted = app.cli(&["refunds", "accept", "re_old", "--reason", "not taken back before"]).await;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    refund_becomes(&app, "re_old", "nothing_to_reverse").await;
}

async fn switched_off_it_asks_nothing(app: TestApp) {
    app.sim.add_endpoint(Endpoint::new("http://127.0.0.1:9/", "whsec_of_nobody"));
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    tell_of_transfers(&app, false).await;
    tell_of_transfers(&app, true).await;
    assert_eq!(refund(&app, "re_1", 5_000).await["outcome"], "unmatched");
    assert_eq!(app.db.count("lookups").await, 0);
    assert_eq!(app.db.count("webhook_events WHERE detail = 'STRIPE_DISCOVERY is off'").await, 2);
}

/// A payment that was found with one transfer, and another one that somebody reversed before it could be found.
async fn one_found_and_one_not(app: &TestApp, refunded: i64) {
    app.sim.add_endpoint(Endpoint::new("http://127.0.0.1:9/", "whsec_of_nobody"));
    app.sim.pay(grouped(10_000, &[("tr_a", 6_000)]));
    tell_of_transfers(app, false).await;
    transfers_become(app, 1).await;
    if refunded > 0 {
        refund(app, "re_1", refunded).await;
        has_given(app, "tr_a", refunded * 6 / 10).await;
    }
    let second = a_later_transfer(app, 3_000).await;
    app.sim.reverse_from_elsewhere(&second, Some(100));
    tell_of_transfers(app, false).await;
}

async fn a_later_transfer_that_is_not_clear_is_told_at_the_refunds_that_were_shared_out_without_it(app: TestApp) {
    let app = on(app).await;
    one_found_and_one_not(&app, 5_000).await;
    needs_attention(&app, "re_1", "is reversed already, at least in part").await;
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
}

async fn a_later_transfer_that_is_not_clear_parks_its_look_up_where_nothing_was_refunded(app: TestApp) {
    let app = on(app).await;
    one_found_and_one_not(&app, 0).await;
    let parked = app.vhost.take("lookups.parked").await;
    let reason = format!("{parked:?}");
    assert!(reason.contains("is reversed already, at least in part"), "{reason}");
    assert_eq!(app.db.count("calls WHERE kind = 'look_up' AND state = 'failed'").await, 1);
}

async fn a_transfer_that_clawback_is_creating_is_not_found_as_another_one(app: TestApp) {
    let mut app = on(app).await;
    app.sim.add_endpoint(Endpoint::new("http://127.0.0.1:9/", "whsec_of_nobody"));
    // A marketplace whose group is the payment's id: what Clawback creates for it is of the same group.
    let transfer_group = Some("pi_d".to_owned());
    app.sim.pay(NewPayment { transfer_group, ..grouped(10_000, &[("tr_a", 6_000)]) });
    tell_of_transfers(&app, false).await;
    transfers_become(&app, 1).await;
    // Stripe creates it, and the worker hears nothing of that.
    app.sim.fault("acct_8", Fault::ApplyThenDropConnection, u32::MAX);
    app.sim.fault_reads("acct_8", Fault::UnavailableHtml, u32::MAX);
    let transfer = |id: Value, seller: &str, amount: i64| {
        json!({"seller_id": seller, "destination": seller, "amount": amount, "currency": "eur", "stripe_transfer_id": id,
            "create": id.is_null()})
    };
    let all = json!({"payment_ref": "pi_d", "amount": 10_000, "currency": "eur",
        "transfers": [transfer(json!("tr_a"), "acct_7", 6_000), transfer(Value::Null, "acct_8", 1_000)]});
    let answer = app.register(all).await;
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    app.sim.wait_for(|ledger| ledger.transfers_to("acct_8").len() == 1, DEADLINE).await.expect("it is created");
    app.restart_with(&[("STRIPE_DISCOVERY", "on"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    let request = app.http.post(format!("{}/v1/transfers", app.sim.base_url())).bearer_auth("sk_test_of_the_tests");
    let form = [("amount", "500"), ("currency", "eur"), ("destination", "acct_9"), ("transfer_group", "pi_d")];
    assert_eq!(request.form(&form).send().await.unwrap().status(), 200);
    tell_of_transfers(&app, false).await;
    eventually("the marketplace's own one is added", || async {
        (app.db.count("seller_transfers WHERE destination = 'acct_9'").await == 1).then_some(())
    })
    .await;
    assert_eq!(app.db.count("seller_transfers").await, 3, "what Clawback creates is there once");
    assert_eq!(app.db.count("seller_transfers WHERE destination = 'acct_8' AND stripe_transfer_id IS NULL").await, 1);
}
