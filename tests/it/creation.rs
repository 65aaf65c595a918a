//! Transfers that Clawback creates: each of their ends, and what leads there. Refunds of them: `creation_and_refunds`.

use std::time::Duration;

use clawback::ledger::CallKind;
use serde_json::{Value, json};
use stripe_sim::{Fault, PLATFORM, Target};

use crate::support::{DEADLINE, NO_SWEEPER, TestApp, both_databases, eventually, to_create, two_sellers};

both_databases! {
    a_transfer_without_a_stripe_id_is_created_at_stripe,
    registering_it_again_with_or_without_its_id_creates_nothing_more,
    a_503_counts_a_retry_and_then_it_is_created_under_the_same_key,
    a_refusal_at_the_first_try_goes_through_failed_and_is_parked,
    retries_of_a_creation_are_exhausted_after_the_configured_number,
    a_500_that_created_it_is_found_and_not_repeated,
    a_500_that_did_not_create_it_is_called_again_under_a_new_key,
    a_lost_answer_is_asked_for_again_under_the_same_key,
    a_key_that_stripe_may_have_forgotten_creates_nothing_twice,
    a_transfer_from_a_charge_is_found_though_stripe_chooses_its_group,
    a_platform_short_of_balance_waits_without_using_up_retries,
    a_platform_that_stays_short_fails_permanently_at_the_deadline,
    a_refused_key_pauses_both_consumers_and_uses_up_no_retries,
    creating_goes_on_only_where_it_is_switched_on,
    duplicates_of_the_job_and_two_workers_create_once,
    lost_jobs_of_creations_come_back,
    a_parked_creation_that_is_moved_back_is_a_retry,
    an_operators_retry_creates_it_after_all,
    only_what_failed_permanently_is_retried,
    a_stripe_that_fails_at_random_creates_everything_once,
}

async fn a_transfer_without_a_stripe_id_is_created_at_stripe(app: TestApp) {
    let mut payment = two_sellers("pi_1");
    payment["transfers"][1] = to_create("pi_1")["transfers"][1].clone();
    let registered = app.register(payment).await;
    assert_eq!(registered.status(), 201);
    let registered: Value = registered.json().await.unwrap();
    let statuses = [&registered["transfers"][0]["status"], &registered["transfers"][1]["status"]];
    assert_eq!(statuses, ["completed", "pending"]);

    let transfer = app.transfer_becomes(1, "completed").await;
    let ledger = app.sim.ledger();
    let [theirs] = ledger.transfers_to("acct_4")[..] else { panic!("not one transfer: {:?}", ledger.transfers) };
    assert_eq!(transfer["stripe_transfer_id"], theirs.id.as_str());
    assert_eq!((theirs.amount, theirs.currency.as_str()), (3_000, "eur"));
    assert_eq!((theirs.transfer_group.as_deref(), &theirs.source_transaction), (Some("pi_1"), &None));
    assert_eq!(theirs.metadata["clawback_transfer"], "acct_4:3000eur:0");
    assert_eq!(theirs.metadata["payment_ref"], "pi_1");
    let keys = keys(&app, "acct_4");
    let is_the_first = |key: &String| *key == keys[0] && key.starts_with("clawback-") && key.ends_with("-0");
    assert!(keys.iter().all(is_the_first), "{keys:?}");
    assert_eq!(ledger.creation_posts("acct_1").count(), 0, "the transfer with a Stripe id needs no call");
    let steps = steps(&app, "acct_4").await;
    assert_eq!((steps.first(), steps.last()), (Some(&json!("pending")), Some(&json!("completed"))));
    let named = app.db.count("history WHERE to_status = 'completed' AND stripe_request_id LIKE 'req_%'").await;
    assert_eq!(named, 1, "the history names Stripe's request");
}

async fn registering_it_again_with_or_without_its_id_creates_nothing_more(app: TestApp) {
    register(&app).await;
    assert_eq!(app.register(to_create("pi_1")).await.status(), 200);
    both_are(&app, "completed").await;
    assert_eq!(app.register(to_create("pi_1")).await.status(), 200);
    let mut named = to_create("pi_1");
    for index in [0, 1] {
        named["transfers"][index]["stripe_transfer_id"] =
            app.payment("pi_1").await["transfers"][index]["stripe_transfer_id"].clone();
        named["transfers"][index]["create"] = false.into();
    }
    assert_eq!(app.register(named.clone()).await.status(), 200);
    named["transfers"][0]["stripe_transfer_id"] = "tr_another".into();
    assert_eq!(app.register(named).await.status(), 409);
    assert_eq!(app.db.count("seller_transfers").await, 2);
    created_once(&app);
}

async fn a_503_counts_a_retry_and_then_it_is_created_under_the_same_key(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_BACKOFF_BASE", "500ms"), ("TRANSFER_RETRY_MAX_RETRIES", "90")]).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, u32::MAX);
    let before = chrono::Utc::now();
    register(&app).await;
    let failed = app.transfer_becomes(0, "failed").await;
    assert!(failed["retry_count"].as_i64().unwrap() >= 1, "{failed}");
    assert_eq!((&failed["failure_code"], &failed["stripe_transfer_id"]), (&json!("unavailable"), &Value::Null));
    assert!(failed["failure_message"].is_string(), "{failed}");
    let next: chrono::DateTime<chrono::Utc> = failed["next_retry_at"].as_str().unwrap().parse().unwrap();
    assert!(next >= before + chrono::TimeDelta::milliseconds(500), "{failed}");
    app.sim.clear_faults();
    let done = app.transfer_becomes(0, "completed").await;
    assert_eq!((&done["next_retry_at"], &done["failure_code"]), (&Value::Null, &Value::Null));
    let ledger = app.sim.ledger();
    let posts: Vec<_> = ledger.creation_posts("acct_3").collect();
    assert!(posts.iter().all(|post| post.body == posts[0].body && post.idempotency_key == posts[0].idempotency_key));
    let steps = steps(&app, "acct_3").await;
    assert_eq!((&steps[0], &steps[1], steps.last()), (&json!("pending"), &json!("failed"), Some(&json!("completed"))));
    created_once(&app);
}

async fn a_refusal_at_the_first_try_goes_through_failed_and_is_parked(app: TestApp) {
    let mut payment = to_create("pi_1");
    payment["transfers"][0]["destination"] = "acct_nobody".into();
    let (code, message) = (Some("resource_missing".to_owned()), "No such destination: 'acct_nobody'".to_owned());
    app.sim.fault("acct_nobody", Fault::Refused { status: 400, code, message }, u32::MAX);
    assert_eq!(app.register(payment).await.status(), 201);
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!((&transfer["failure_code"], &transfer["retry_count"]), (&json!("resource_missing"), &json!(0)));
    assert_eq!(steps(&app, "acct_nobody").await, ["pending", "failed", "permanently_failed"]);
    let parked = app.vhost.take("transfers.parked").await;
    let reason = parked["properties"]["headers"]["parked-reason"].as_str().unwrap();
    assert!(reason.starts_with("resource_missing"), "{reason}");
    assert!(parked["payload"].as_str().unwrap().contains(transfer["id"].as_str().unwrap()));
    app.transfer_becomes(1, "completed").await;
}

async fn retries_of_a_creation_are_exhausted_after_the_configured_number(mut app: TestApp) {
    let no_sweeper = ("TRANSFER_RETRY_CHECK_INTERVAL", "1h");
    app.restart_with(&[no_sweeper, ("TRANSFER_RETRY_MAX_RETRIES", "2"), ("REVERSAL_MAX_RETRIES", "9")]).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, 100);
    register(&app).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!(transfer["retry_count"], 2);
    assert!(transfer["failure_message"].as_str().unwrap().contains("exhausted after 3"), "{transfer}");
    assert_eq!(app.sim.ledger().creation_posts("acct_3").count(), 3);
    let parked = app.vhost.take("transfers.parked").await;
    assert_eq!(parked["properties"]["headers"]["attempt"], 3);
}

async fn a_500_that_created_it_is_found_and_not_repeated(app: TestApp) {
    app.sim.fault("acct_3", Fault::ServerErrorApplied, 1);
    register(&app).await;
    both_are(&app, "completed").await;
    assert_eq!(app.sim.ledger().transfers_to("acct_3").len(), 1);
    assert!(keys(&app, "acct_3").iter().all(|key| key.ends_with("-0")), "{:?}", keys(&app, "acct_3"));
    let untold = "history WHERE entity = 'transfer' AND to_status = 'completed' AND from_status <> to_status
        AND stripe_request_id IS NULL";
    assert_eq!(app.db.count(untold).await, 0, "what a look has found names its request, too");
}

async fn a_500_that_did_not_create_it_is_called_again_under_a_new_key(app: TestApp) {
    app.sim.fault("acct_3", Fault::ServerError, 1);
    register(&app).await;
    both_are(&app, "completed").await;
    created_once(&app);
    let ledger = app.sim.ledger();
    let calls = &ledger.requests;
    let anew = calls.iter().position(|call| call.idempotency_key.as_ref().is_some_and(|key| key.ends_with("-1")));
    let looks: Vec<_> =
        calls.iter().take(anew.expect("a call under a new key")).filter(|call| call.method == "GET").collect();
    // What a list that lags does not show yet, it shows after the settling time.
    let settled = looks.iter().any(|look| look.at - looks[0].at >= chrono::TimeDelta::milliseconds(200));
    assert!(settled, "called anew without a second look: {:?}", keys(&app, "acct_3"));
}

async fn a_lost_answer_is_asked_for_again_under_the_same_key(app: TestApp) {
    app.sim.fault("acct_3", Fault::ApplyThenDropConnection, 2);
    register(&app).await;
    let transfer = app.transfer_becomes(0, "completed").await;
    app.transfer_becomes(1, "completed").await;
    created_once(&app);
    assert_eq!(transfer["stripe_transfer_id"], app.sim.ledger().transfers_to("acct_3")[0].id);
    assert!(keys(&app, "acct_3").iter().all(|key| key.ends_with("-0")));
}

async fn a_key_that_stripe_may_have_forgotten_creates_nothing_twice(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "90")]).await;
    app.sim.fault("acct_3", Fault::ApplyThenDropConnection, u32::MAX);
    register(&app).await;
    app.transfer_becomes(0, "failed").await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    app.sim.clear_faults();
    let called = app.sim.ledger().creation_posts("acct_3").count();
    app.sim.advance(Duration::from_secs(25 * 60 * 60));
    let yesterday = (chrono::Utc::now() - chrono::TimeDelta::hours(25)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET generation_started_at = '{yesterday}'")).await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    both_are(&app, "completed").await;
    created_once(&app);
    assert_eq!(app.sim.ledger().creation_posts("acct_3").count(), called, "the old key was used again");
}

async fn a_transfer_from_a_charge_is_found_though_stripe_chooses_its_group(app: TestApp) {
    app.sim.set_balance(PLATFORM, Some(0)); // The money comes from the charge.
    app.sim.fault("acct_3", Fault::ServerErrorApplied, 1);
    assert_eq!(app.register(to_create("ch_1")).await.status(), 201);
    eventually("both are created", || async {
        (app.db.count("seller_transfers WHERE status = 'completed'").await == 2).then_some(())
    })
    .await;
    created_once(&app);
    let ledger = app.sim.ledger();
    assert_eq!(ledger.transfers_to("acct_3")[0].source_transaction.as_deref(), Some("ch_1"));
}

async fn a_platform_short_of_balance_waits_without_using_up_retries(app: TestApp) {
    app.sim.set_balance(PLATFORM, Some(0));
    register(&app).await;
    let waiting = app.transfer_becomes(0, "failed").await;
    assert_eq!((&waiting["failure_code"], &waiting["retry_count"]), (&json!("balance_insufficient"), &json!(0)));
    let tried = |ledger: &stripe_sim::Ledger| ledger.creation_posts("acct_3").count() >= 3;
    app.sim.wait_for(tried, DEADLINE).await.unwrap();
    app.sim.set_balance(PLATFORM, Some(9_000));
    both_are(&app, "completed").await;
    created_once(&app);
    for (generation, key) in keys(&app, "acct_3").iter().enumerate() {
        assert!(key.ends_with(&format!("-{generation}")), "each try has a key of its own: {:?}", keys(&app, "acct_3"));
    }
}

async fn a_platform_that_stays_short_fails_permanently_at_the_deadline(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_BALANCE_DEADLINE", "1h"), ("TRANSFER_RETRY_MAX_RETRIES", "0")]).await;
    app.sim.set_balance(PLATFORM, Some(0));
    register(&app).await;
    app.transfer_becomes(0, "failed").await;
    let earlier = (chrono::Utc::now() - chrono::TimeDelta::hours(2)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET refused_since = '{earlier}'")).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!((&transfer["failure_code"], &transfer["retry_count"]), (&json!("balance_insufficient"), &json!(0)));
}

async fn a_refused_key_pauses_both_consumers_and_uses_up_no_retries(mut app: TestApp) {
    let retries = [("TRANSFER_RETRY_MAX_RETRIES", "0"), ("REVERSAL_MAX_RETRIES", "0")];
    let sweeps = [("TRANSFER_RETRY_CHECK_INTERVAL", "1h"), NO_SWEEPER];
    app.restart_with(&[retries, sweeps].concat()).await;
    app.sim.allow_keys(["sk_test_another"]);
    register(&app).await;
    // Nothing was ever reversed or created: Stripe is probed with a list.
    let probed = |ledger: &stripe_sim::Ledger| {
        ledger.requests.iter().filter(|call| call.method == "GET" && call.path == "/v1/transfers").count() >= 2
    };
    app.sim.wait_for(probed, DEADLINE).await.expect("Stripe is probed");
    // The reversals' consumer has met nothing itself, and is paused all the same.
    assert_eq!(app.register(two_sellers("pi_2")).await.status(), 201);
    app.post_webhook(&crate::support::refund_event("evt_1", "re_1", "pi_2", 10_000).to_string()).await;
    app.published(4).await;
    let seen = app.sim.ledger().requests.len();
    app.sim.wait_for(|ledger| ledger.requests.len() >= seen + 3, DEADLINE).await.expect("it is probed on");
    let posts = app.sim.ledger().requests.iter().filter(|call| call.method == "POST").count();
    assert!(posts <= 2, "{posts} calls although the key is refused");
    // A consumer that is not paused gives its messages back again and again, until the broker parks them.
    assert!(app.vhost.is_empty("reversals.parked").await, "the reversals' consumer was not paused");

    app.sim.allow_keys(["sk_test_of_the_tests"]);
    both_are(&app, "completed").await;
    eventually("the other payment is reversed", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
    assert_eq!(app.db.count("calls WHERE attempts > 0").await, 0);
}

async fn creating_goes_on_only_where_it_is_switched_on(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    register(&app).await;
    app.published(2).await;
    assert_eq!(app.register(two_sellers("pi_2")).await.status(), 201);
    app.post_webhook(&crate::support::refund_event("evt_1", "re_1", "pi_2", 10_000).to_string()).await;
    eventually("reversals go on", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
    both_are(&app, "pending").await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true"), ("REVERSAL_WORKER_ENABLED", "false")]).await;
    both_are(&app, "completed").await;
    created_once(&app);
}

async fn duplicates_of_the_job_and_two_workers_create_once(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")]).await;
    register(&app).await;
    app.published(2).await;
    let copy = "INSERT INTO outbox (id, kind, payload, entity_id, created_at, attempts)
        SELECT entity_id, kind, payload, entity_id, created_at, 0 FROM outbox";
    app.db.execute(copy).await;
    app.restart_with(&[]).await; // Its relay looks at once.
    app.published(4).await;
    app.sim.fault("acct_3", Fault::Slow { delay_ms: 300 }, 1);
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    let other = app.another().await;
    both_are(&app, "completed").await;
    eventually("all copies are dealt with", || async {
        let waiting: i64 = app.vhost.queues().await.iter().filter_map(|queue| queue["messages"].as_i64()).sum();
        (waiting == 0).then_some(())
    })
    .await;
    other.stop().await;
    created_once(&app);
}

async fn lost_jobs_of_creations_come_back(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    register(&app).await;
    app.published(2).await;
    app.vhost.purge("transfers").await;
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    both_are(&app, "completed").await;
    assert!(app.db.count("history WHERE actor = 'sweeper' AND entity = 'transfer'").await >= 2);
    created_once(&app);
    app.db.execute("UPDATE calls SET sweep_after = created_at").await;
    assert_eq!(app.ledger().sweep(CallKind::Create, 100).await.unwrap().jobs, 0, "what is created needs no job");
}

async fn a_parked_creation_that_is_moved_back_is_a_retry(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false"), ("TRANSFER_RETRY_MAX_RETRIES", "0")]).await;
    register(&app).await;
    // The look before the first call is over.
    for transfer in app.payment("pi_1").await["transfers"].as_array().unwrap() {
        let id = transfer["id"].as_str().unwrap().parse().unwrap();
        app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    }
    app.sim.fault("acct_3", Fault::ServerErrorApplied, 1);
    app.sim.fault_reads(Target::Any, Fault::UnavailableHtml, u32::MAX);
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.sim.clear_faults();
    let parked = app.vhost.take("transfers.parked").await;
    app.vhost.put("transfers", &parked).await;
    both_are(&app, "completed").await;
    created_once(&app);
    assert_eq!(app.db.count("history WHERE actor = 'operator'").await, 1);
}

async fn an_operators_retry_creates_it_after_all(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "0")]).await;
    app.sim.fault("acct_3", Fault::UnavailableHtml, u32::MAX);
    register(&app).await;
    let id = app.transfer_becomes(0, "permanently_failed").await["id"].as_str().unwrap().to_owned();
    app.sim.clear_faults();
    let answer = retry(&app, &id, &json!({"operator": "ada", "reason": "Stripe is back"})).await;
    assert_eq!(answer.status(), 202);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["id"], &answer["status"], &answer["retry_count"]), (&json!(id), &json!("pending"), &json!(0)));
    both_are(&app, "completed").await;
    created_once(&app);
    let asked = "history WHERE actor = 'ada' AND reason = 'Stripe is back' AND from_status = 'permanently_failed'
        AND to_status = 'pending'";
    assert_eq!(app.db.count(asked).await, 1);
    assert!(keys(&app, "acct_3").iter().all(|key| key.ends_with("-0")), "Stripe never executed it: the key stays");
}

async fn only_what_failed_permanently_is_retried(app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let good = json!({"operator": "ada", "reason": "because"});
    let refused = async |id: &str, body: &Value, status: u16, words: &str| {
        let answer = retry(&app, id, body).await;
        let answered = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(answered, status, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    };
    refused("tr_unknown", &good, 404, "no transfer").await;
    refused("tr_1", &good, 409, "exists at Stripe as tr_1").await;
    refused("tr_1", &json!({"operator": "ada"}), 422, "reason").await;
    refused("tr_1", &json!({"operator": "ada", "reason": " "}), 422, "reason").await;
    refused("tr_1", &json!({"operator": "", "reason": "because"}), 422, "operator").await;
    // A row from before Clawback's time that has lost its id: to create it would be to pay the seller a second time.
    let id = app.payment("pi_1").await["transfers"][0]["id"].as_str().unwrap().to_owned();
    let lose = "UPDATE seller_transfers SET stripe_transfer_id = NULL, status = 'permanently_failed'
        WHERE stripe_transfer_id = 'tr_1'";
    app.db.execute(lose).await;
    refused(&id, &good, 409, "not registered to be created").await;
    assert_eq!(app.db.count("outbox").await, 0);
}

async fn a_stripe_that_fails_at_random_creates_everything_once(mut app: TestApp) {
    const PAYMENTS: i64 = 12;
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "40")]).await;
    app.sim.random_faults(11, 0.4);
    for n in 0..PAYMENTS {
        assert_eq!(app.register(to_create(&format!("pi_{n}"))).await.status(), 201);
    }
    eventually("all are created", || async {
        (app.db.count("seller_transfers WHERE status = 'completed'").await == 2 * PAYMENTS).then_some(())
    })
    .await;
    let ledger = app.sim.ledger();
    for account in ["acct_3", "acct_4"] {
        assert_eq!(ledger.transfers_to(account).len() as i64, PAYMENTS, "somebody was paid twice");
    }
}

async fn register(app: &TestApp) {
    let registered = app.register(to_create("pi_1")).await;
    assert_eq!(registered.status(), 201, "{}", registered.text().await.unwrap());
}

async fn both_are(app: &TestApp, status: &str) {
    app.transfer_becomes(0, status).await;
    app.transfer_becomes(1, status).await;
}

/// Each seller has been paid once, in full.
fn created_once(app: &TestApp) {
    let ledger = app.sim.ledger();
    for (account, amount) in [("acct_3", 6_000), ("acct_4", 3_000)] {
        let amounts: Vec<i64> = ledger.transfers_to(account).iter().map(|transfer| transfer.amount).collect();
        assert_eq!(amounts, [amount], "{account}");
    }
}

fn keys(app: &TestApp, account: &str) -> Vec<String> {
    app.sim.ledger().creation_posts(account).filter_map(|post| post.idempotency_key.clone()).collect()
}

/// The statuses that the transfer to that account has had, by its history. Relay and sweeper only make remarks.
async fn steps(app: &TestApp, account: &str) -> Vec<Value> {
    let sql = format!(
        "SELECT to_status FROM history WHERE entity_id = (SELECT id FROM seller_transfers WHERE destination = '{account}')
         AND (from_status IS NULL OR from_status <> to_status) ORDER BY id"
    );
    app.db.query(&sql).await.iter().map(|row| row["to_status"].clone()).collect()
}

async fn retry(app: &TestApp, id: &str, body: &Value) -> reqwest::Response {
    let request = app.http.post(format!("{}/v1/transfers/{id}/retry", app.base_url)).bearer_auth(&app.api_token);
    request.json(body).send().await.unwrap()
}
