//! What Stripe does beside yes, no and not now: balances, pending reversals, other hands, old keys, and its rate limit.

use std::time::Duration;

use clawback::stripe::{Client, Meaning, ReverseTransfer};
use serde_json::Value;
use stripe_sim::Fault;

use crate::support::{Backend, DEADLINE, NO_SWEEPER, TestApp, both_databases, eventually, refund_event};

both_databases! {
    a_pending_reversal_is_looked_up_again_and_never_called_again,
    a_pending_reversal_that_stripe_gives_up_is_given_up,
    each_try_against_a_short_balance_has_a_new_key,
    a_balance_that_stays_short_is_given_up_at_its_deadline,
    the_balance_deadline_counts_from_the_first_refusal_since_a_replay,
    what_was_accepted_and_is_never_shown_fails_visibly_after_46_days,
    a_transfer_that_is_not_as_registered_is_held_and_both_values_are_named,
    calls_about_one_transfer_are_made_one_after_the_other,
    a_lock_and_a_key_in_use_use_up_no_retry,
    what_went_wrong_before_a_definite_answer_counts_no_more,
    the_amount_never_shrinks_to_what_somebody_else_left,
    what_other_claims_have_taken_completely_fails_at_once,
    while_nothing_shows_who_took_a_transfer_its_reversal_waits,
    less_than_is_asked_by_another_program_does_not_count_as_reversed,
    a_key_that_stripe_may_have_forgotten_is_not_used_again,
    a_partly_reversed_transfer_gives_back_what_is_asked,
    a_stripe_that_fails_at_random_reverses_everything_once,
}

async fn a_pending_reversal_is_looked_up_again_and_never_called_again(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::Pending, 1);
    app.refund(4_000).await;
    let waits = |reversal: &Value| reversal["failure_code"] == "pending_at_stripe";
    let waiting = app.reversal_when(0, "it is pending at Stripe", waits).await;
    assert_eq!((&waiting["status"], &waiting["retry_count"]), (&"pending".into(), &0.into()));
    let looked = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(|call| call.method == "GET").count() >= 4;
    app.sim.wait_for(looked, DEADLINE).await.unwrap();
    let reversal = app.sim.ledger().reversals("tr_1")[0].id.clone();
    app.sim.settle(&reversal, "succeeded");
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(transfer["reversals"][0]["stripe_reversal_id"], reversal);
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1);
}

async fn a_pending_reversal_that_stripe_gives_up_is_given_up(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::Pending, 1);
    app.refund(4_000).await;
    app.reversal_when(0, "it is pending at Stripe", |reversal| reversal["failure_code"] == "pending_at_stripe").await;
    let reversal = app.sim.ledger().reversals("tr_1")[0].id.clone();
    app.sim.settle(&reversal, "failed");
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!(transfer["reversals"][0]["failure_code"], "reversal_ended");
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1);
}

async fn each_try_against_a_short_balance_has_a_new_key(app: TestApp) {
    app.sim.set_balance("acct_1", Some(0));
    app.refund(10_000).await;
    let tried = |ledger: &stripe_sim::Ledger| ledger.reversal_posts("tr_1").count() >= 3;
    let ledger = app.sim.wait_for(tried, DEADLINE).await.unwrap();
    let keys: Vec<_> = ledger.reversal_posts("tr_1").map(|post| post.idempotency_key.clone().unwrap()).collect();
    for (generation, key) in keys.iter().enumerate() {
        assert!(key.ends_with(&format!("-{generation}")), "{keys:?}");
    }
    assert!(ledger.reversal_posts("tr_1").all(|post| !post.replayed), "a saved refusal was replayed");
}

async fn a_balance_that_stays_short_is_given_up_at_its_deadline(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_BALANCE_DEADLINE", "1h"), ("REVERSAL_MAX_RETRIES", "0")]).await;
    app.sim.set_balance("acct_1", Some(0));
    app.refund(10_000).await;
    let tried = |ledger: &stripe_sim::Ledger| ledger.reversal_posts("tr_1").count() > 1;
    app.sim.wait_for(tried, DEADLINE).await.unwrap();
    let earlier = (chrono::Utc::now() - chrono::TimeDelta::hours(2)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET refused_since = '{earlier}' WHERE refused_since IS NOT NULL")).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    let reversal = &transfer["reversals"][0];
    assert_eq!((&reversal["failure_code"], &reversal["retry_count"]), (&"balance_insufficient".into(), &0.into()));
    app.transfer_becomes(1, "reversed").await;
}

async fn the_balance_deadline_counts_from_the_first_refusal_since_a_replay(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_BALANCE_DEADLINE", "1h"), ("REVERSAL_MAX_RETRIES", "0")]).await;
    app.sim.set_balance("acct_1", Some(0));
    app.refund(10_000).await;
    let waits = |reversal: &Value| reversal["failure_code"] == "balance_insufficient";
    app.reversal_when(0, "it waits for balance", waits).await;
    let earlier = (chrono::Utc::now() - chrono::TimeDelta::hours(2)).to_rfc3339();
    app.db
        .execute(&format!(
            "UPDATE calls SET created_at = '{earlier}', refused_since = '{earlier}' WHERE refused_since IS NOT NULL"
        ))
        .await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    let id = transfer["reversals"][0]["id"].as_str().unwrap();
    let note = clawback::ledger::Note::new("ada", "the seller pays in");
    let tried = app.sim.ledger().reversal_posts("tr_1").count();
    app.ledger().replay(clawback::ledger::CallKind::Reverse, id, &note).await.unwrap();
    let again = |ledger: &stripe_sim::Ledger| ledger.reversal_posts("tr_1").count() >= tried + 3;
    app.sim.wait_for(again, DEADLINE).await.expect("it waits again");
    app.sim.set_balance("acct_1", None);
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
}

async fn what_was_accepted_and_is_never_shown_fails_visibly_after_46_days(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::Pending, 1);
    app.refund(4_000).await;
    app.reversal_when(0, "it is pending at Stripe", |reversal| reversal["failure_code"] == "pending_at_stripe").await;
    app.sim.set_list_lag(Duration::from_secs(3_600));
    let days = |days| (chrono::Utc::now() - chrono::TimeDelta::days(days)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET requested_at = '{}' WHERE accepted_id IS NOT NULL", days(45))).await;
    let looks = app.sim.ledger().requests.len();
    app.sim.wait_for(|ledger| ledger.requests.len() >= looks + 4, DEADLINE).await.unwrap();
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 0, "Stripe has 45 days");
    let later = format!("UPDATE calls SET requested_at = '{}' WHERE accepted_id IS NOT NULL", days(47));
    eventually("it fails permanently", || async {
        // A report of a look that has begun before writes over it.
        app.db.execute(&later).await;
        (app.db.count("reversals WHERE status = 'permanently_failed'").await == 1).then_some(())
    })
    .await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    let reversal = &transfer["reversals"][0];
    assert_eq!(reversal["failure_code"], "accepted_without_end");
    assert!(reversal["failure_message"].as_str().unwrap().contains("trr_"), "{reversal}");
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1);
}

/// Looked at because the refund is old: what Stripe has is compared with what was registered.
async fn a_transfer_that_is_not_as_registered_is_held_and_both_values_are_named(app: TestApp) {
    app.sim.add_transfer("tr_amount", 5_000, "eur", "acct_1");
    app.sim.add_transfer("tr_account", 2_000, "eur", "acct_2");
    let mut payment = crate::support::two_sellers("pi_1");
    for (index, id, amount) in [(0, "tr_amount", 6_000), (1, "tr_account", 2_000)] {
        payment["transfers"][index]["stripe_transfer_id"] = id.into();
        payment["transfers"][index]["destination"] = "acct_1".into();
        payment["transfers"][index]["amount"] = amount.into();
    }
    assert_eq!(app.register(payment).await.status(), 201);
    let mut event = refund_event("evt_1", "re_1", "pi_1", 4_000);
    event["data"]["object"]["created"] = (chrono::Utc::now() - chrono::TimeDelta::days(2)).timestamp().into();
    app.post_webhook(&event.to_string()).await;
    for (index, both) in [(0, ["5000 eur", "6000 eur"]), (1, ["acct_2", "acct_1"])] {
        let reversal = app.transfer_becomes(index, "permanently_failed").await["reversals"][0].clone();
        assert_eq!(reversal["failure_code"], "transfer_mismatch");
        let message = reversal["failure_message"].as_str().unwrap();
        assert!(both.iter().all(|value| message.contains(value)), "{message}");
    }
    assert!(app.sim.ledger().requests.iter().all(|request| request.method == "GET"), "money was taken");
}

async fn calls_about_one_transfer_are_made_one_after_the_other(mut app: TestApp) {
    const REFUNDS: usize = 12;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(500).await;
    for n in 2..=REFUNDS {
        app.refund_of(500, n).await;
    }
    for transfer in ["tr_1", "tr_2"] {
        app.sim.fault(transfer, Fault::Slow { delay_ms: 50 }, u32::MAX);
    }
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true"), ("REVERSAL_CONCURRENCY", "8")]).await;
    app.until_none_is_open().await;
    let requests = app.sim.ledger().requests;
    assert_eq!(requests.iter().filter(|request| request.status == Some(429)).count(), 0, "two worked on one transfer");
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (3_600, 1_800));
}

async fn a_lock_and_a_key_in_use_use_up_no_retry(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_MAX_RETRIES", "0")]).await;
    app.sim.fault("tr_1", Fault::LockTimeout, 3);
    app.sim.fault("tr_2", Fault::Conflict409, 3);
    app.refund(10_000).await;
    for index in [0, 1] {
        assert_eq!(app.transfer_becomes(index, "reversed").await["reversals"][0]["retry_count"], 0);
    }
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 4);
}

async fn what_went_wrong_before_a_definite_answer_counts_no_more(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_MAX_RETRIES", "2")]).await;
    app.sim.set_balance("acct_1", Some(0));
    app.sim.fault("tr_1", Fault::UnavailableHtml, 2);
    app.refund(10_000).await;
    let waits = |reversal: &Value| reversal["failure_code"] == "balance_insufficient";
    let waiting = app.reversal_when(0, "it waits for balance, after two retries", waits).await;
    assert_eq!(waiting["retry_count"], 0);
    app.sim.fault("tr_1", Fault::UnavailableHtml, 2);
    app.sim.set_balance("acct_1", None);
    let transfer = app.transfer_becomes(0, "reversed").await;
    assert_eq!(transfer["reversals"][0]["retry_count"], 2);
}

async fn the_amount_never_shrinks_to_what_somebody_else_left(app: TestApp) {
    app.sim.reverse_from_elsewhere("tr_1", Some(2_500));
    app.refund(10_000).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!(transfer["amount_reversed"], 0);
    assert!(transfer["reversals"][0]["failure_message"].as_str().is_some_and(|message| !message.is_empty()));
    assert_eq!(app.reversed_at_stripe("tr_1"), 2_500);
}

/// As a ledger that was lost since had it done.
async fn taken_for_another_claim(app: &TestApp, amount: i64) {
    let key = secrecy::SecretString::from("sk_test_of_the_tests");
    let stripe = Client::new(app.sim.base_url().parse().unwrap(), key, None).unwrap();
    let (transfer_id, currency, claim) = ("tr_1".to_owned(), "eur".to_owned(), "stripe:re_0".to_owned());
    let command =
        ReverseTransfer { transfer_id, amount, currency, claim, refund_application_fee: false, generation: 0 };
    let answer = stripe.reverse_transfer(&command).await;
    assert!(matches!(answer.meaning, Meaning::Reversed { .. }), "{answer:?}");
}

async fn what_other_claims_have_taken_completely_fails_at_once(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    taken_for_another_claim(&app, 6_000).await;
    app.refund(10_000).await;
    let reversal = app.transfer_becomes(0, "permanently_failed").await["reversals"][0].clone();
    assert_eq!((&reversal["failure_code"], &reversal["retry_count"]), (&"already_reversed".into(), &0.into()));
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 2, "asked again, though nothing is left");
    app.transfer_becomes(1, "reversed").await;
}

async fn while_nothing_shows_who_took_a_transfer_its_reversal_waits(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.set_list_lag(Duration::from_secs(3_600));
    app.sim.reverse_from_elsewhere("tr_1", None);
    app.refund(10_000).await;
    let looked = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(|call| call.method == "GET").count() >= 6;
    app.sim.wait_for(looked, DEADLINE).await.unwrap();
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 0);
    app.sim.set_list_lag(Duration::ZERO);
    assert_eq!(app.transfer_becomes(0, "reversed").await["reversals"][0]["externally_reversed"], true);
}

async fn less_than_is_asked_by_another_program_does_not_count_as_reversed(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    taken_for_another_claim(&app, 5_900).await;
    app.sim.reverse_from_elsewhere("tr_1", None);
    app.refund(10_000).await;
    let reversal = app.transfer_becomes(0, "permanently_failed").await["reversals"][0].clone();
    assert_eq!(reversal["failure_code"], "already_reversed");
}

async fn a_key_that_stripe_may_have_forgotten_is_not_used_again(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_BACKOFF_BASE", "10s"), ("REVERSAL_BACKOFF_MAX", "10s")]).await;
    // Stripe does it, the answer is lost, and a day goes by: the same key would run again.
    app.sim.fault("tr_1", Fault::ApplyThenDropConnection, 1);
    app.refund(4_000).await;
    app.reversal_when(0, "the answer is lost", |reversal| reversal["retry_count"] == 1).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.sim.advance(Duration::from_secs(25 * 60 * 60));
    let yesterday = (chrono::Utc::now() - chrono::TimeDelta::hours(25)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET generation_started_at = '{yesterday}'")).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1, "it was reversed twice");
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1);
}

async fn a_partly_reversed_transfer_gives_back_what_is_asked(app: TestApp) {
    app.sim.reverse_from_elsewhere("tr_1", Some(1_000));
    app.refund(5_000).await;
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!((&transfer["amount_reversed"], app.reversed_at_stripe("tr_1")), (&3_000.into(), 4_000));
}

async fn a_stripe_that_fails_at_random_reverses_everything_once(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "30")]).await;
    app.sim.random_faults(7, 0.3);
    app.refund(1_000).await;
    for n in 2..=10 {
        app.refund_of(1_000, n).await;
    }
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_workers_share_stripes_limit_without_talking_to_each_other() {
    const OPEN: i64 = 500;
    TestApp::run(Backend::Postgres, |mut app: TestApp| async move {
        let limits = [("STRIPE_MAX_RPS", "20"), NO_SWEEPER, ("REVERSAL_CONCURRENCY", "8")];
        app.restart_with(&[limits[0], limits[1], limits[2], ("REVERSAL_WORKER_ENABLED", "false")]).await;
        let amount = app.many_sellers("pi_big", OPEN).await;
        app.sim.set_rate_limit(Some(25));
        app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
        let others = [app.another().await, app.another().await, app.another().await];
        app.post_webhook(&refund_event("evt_big", "re_big", "pi_big", amount).to_string()).await;
        eventually("all are reversed", || async {
            (app.db.count("reversals WHERE status = 'reversed'").await == OPEN).then_some(())
        })
        .await;
        for other in others {
            other.stop().await;
        }
        let calls = app.sim.ledger().requests;
        let refused = calls.iter().filter(|call| call.status == Some(429)).count();
        let (start, end) = (calls[0].at, calls[calls.len() - 1].at);
        // The settled state: without the first five seconds, in which the workers find each other.
        let settled = start + chrono::TimeDelta::seconds(5);
        let done = calls.iter().filter(|call| call.status == Some(200) && call.at > settled).count();
        let per_second = done as f64 / (end - settled).as_seconds_f64();
        println!("{per_second:.1} reversals/s of 25 allowed; {refused} of {} calls refused", calls.len());
        // Measured: 21 to 22 of 25, with 3 to 5 % refused. The bounds are wide, since a test machine may be slow.
        assert!((10.0..=30.0).contains(&per_second), "{per_second}/s");
        assert!(refused * 6 <= calls.len(), "{refused} of {} calls were refused", calls.len());
    })
    .await;
}
