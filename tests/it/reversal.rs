//! The way of a reversal: each of its ends, and what leads there.

use chrono::{DateTime, TimeDelta, Utc};
use clawback::ledger::CallKind;
use clawback::stripe::ReverseTransfer;
use serde_json::Value;
use stripe_sim::{Fault, Target};

use crate::support::{NO_SWEEPER, TestApp, both_databases, refund_event, two_sellers};

both_databases! {
    a_refund_reverses_every_transfer_at_stripe,
    a_transfer_that_somebody_else_reversed_ends_reversed_and_flagged,
    a_transfer_that_stripe_does_not_know_is_given_up_and_parked,
    a_503_counts_a_retry_says_when_the_next_try_is_and_then_goes_well,
    the_delay_is_capped,
    retries_are_exhausted_after_the_configured_number,
    a_legacy_transfer_without_a_stripe_id_is_given_up_without_calling_stripe,
    only_pending_reversals_are_picked_up,
    a_next_try_in_the_future_is_respected,
    a_duplicate_webhook_reverses_once,
    two_webhooks_at_the_same_moment_reverse_once,
    a_refund_before_its_payment_waits_for_it,
    partial_refunds_add_up_to_the_whole,
    a_500_that_was_applied_is_found_and_not_repeated,
    a_500_that_was_not_applied_is_called_again_under_a_new_key_once_the_old_one_is_burnt,
    an_answer_that_is_lost_is_asked_for_again_under_the_same_key,
    a_short_balance_waits_without_using_up_retries,
    a_wrong_api_key_uses_up_no_retries,
    a_parked_message_that_is_moved_back_is_a_replay,
    a_payment_and_its_refund_at_the_same_moment_always_meet,
    stopping_in_the_middle_of_a_call_finishes_it,
}

async fn a_refund_reverses_every_transfer_at_stripe(app: TestApp) {
    app.refund(10_000).await;
    for (index, id, amount) in [(0, "tr_1", 6_000), (1, "tr_2", 3_000)] {
        let transfer = app.transfer_becomes(index, "reversed").await;
        assert_eq!(transfer["amount_reversed"], amount);
        let ours = &transfer["reversals"][0];
        let ledger = app.sim.ledger();
        let theirs = &ledger.reversals(id)[0];
        assert_eq!((theirs.amount, ledger.reversals(id).len()), (amount, 1));
        assert_eq!(ours["stripe_reversal_id"], theirs.id.as_str());
        assert_eq!(theirs.metadata["clawback_claim"], "stripe:re_1");
        let (transfer_id, currency, claim) = (id.to_owned(), "eur".to_owned(), "stripe:re_1".to_owned());
        let command =
            ReverseTransfer { transfer_id, amount, currency, claim, refund_application_fee: false, generation: 0 };
        assert_eq!(theirs.idempotency_key, Some(command.idempotency_key()));
    }
    let statuses = "SELECT from_status, to_status FROM history WHERE entity = 'transfer' ORDER BY entity_id, id";
    let steps: Vec<Value> = app.db.query(statuses).await.iter().map(|row| row["to_status"].clone()).collect();
    assert_eq!(steps, ["completed", "reversal_pending", "reversed", "completed", "reversal_pending", "reversed"]);
    let request_ids = app.db.count("history WHERE to_status = 'reversed' AND stripe_request_id LIKE 'req_%'").await;
    assert_eq!(request_ids, 4, "each transfer's and each reversal's last row names Stripe's request");
}

async fn a_transfer_that_somebody_else_reversed_ends_reversed_and_flagged(app: TestApp) {
    app.sim.reverse_from_elsewhere("tr_1", None);
    app.refund(10_000).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    let foreign = app.sim.ledger().reversals("tr_1")[0].id.clone();
    assert_eq!(transfer["reversals"][0]["externally_reversed"], true);
    assert_eq!(transfer["reversals"][0]["stripe_reversal_id"], foreign);
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
    let other = app.transfer_becomes(1, "reversed").await;
    assert_eq!(other["reversals"][0]["externally_reversed"], false);
}

async fn a_transfer_that_stripe_does_not_know_is_given_up_and_parked(app: TestApp) {
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["stripe_transfer_id"] = "tr_unknown".into();
    assert_eq!(app.register(payment).await.status(), 201);
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;

    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    let reversal = &transfer["reversals"][0];
    assert_eq!(reversal["status"], "permanently_failed");
    assert_eq!(reversal["failure_code"], "resource_missing");
    assert_eq!(reversal["retry_count"], 0);
    let parked = app.vhost.take("reversals.parked").await;
    let headers = &parked["properties"]["headers"];
    assert!(headers["parked-reason"].as_str().unwrap().starts_with("resource_missing"), "{headers}");
    assert!(parked["payload"].as_str().unwrap().contains(reversal["id"].as_str().unwrap()));
    app.transfer_becomes(1, "reversed").await;
}

async fn a_503_counts_a_retry_says_when_the_next_try_is_and_then_goes_well(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_BACKOFF_BASE", "500ms"), ("REVERSAL_BACKOFF_MAX", "2s")]).await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 2);
    let before = Utc::now();
    app.refund(10_000).await;
    let first = app.reversal_when(0, "the first retry", |reversal| reversal["retry_count"] == 1).await;
    assert_eq!(first["status"], "pending");
    assert_eq!(first["failure_code"], "unavailable");
    assert!(time(&first["next_retry_at"]) >= before + TimeDelta::milliseconds(500), "{first}");
    let second = app.reversal_when(0, "the second retry", |reversal| reversal["retry_count"] == 2).await;
    assert!(time(&second["next_retry_at"]) - time(&first["next_retry_at"]) >= TimeDelta::seconds(1), "{second}");

    let done = app.transfer_becomes(0, "reversed").await;
    assert_eq!(done["reversals"][0]["retry_count"], 2);
    assert_eq!(done["reversals"][0]["next_retry_at"], Value::Null);
    assert_eq!(done["reversals"][0]["failure_code"], Value::Null);
    let ledger = app.sim.ledger();
    let posts: Vec<_> = ledger.reversal_posts("tr_1").collect();
    assert_eq!(posts.len(), 3);
    assert!(posts.iter().all(|post| post.body == posts[0].body && post.idempotency_key == posts[0].idempotency_key));
    for pair in posts.windows(2) {
        assert!(pair[1].at - pair[0].at >= TimeDelta::milliseconds(500), "a retry came too early");
    }
}

async fn the_delay_is_capped(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_BACKOFF_BASE", "1s"), ("REVERSAL_BACKOFF_MAX", "10s")]).await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 100);
    app.refund(10_000).await;
    app.reversal_when(0, "the first retry", |reversal| reversal["retry_count"] == 1).await;
    app.db.execute("UPDATE calls SET attempts = 4 WHERE attempts = 1").await;
    let before = Utc::now();
    let last = app.reversal_when(0, "the fifth retry", |reversal| reversal["retry_count"] == 5).await;
    let delay = time(&last["next_retry_at"]) - before;
    assert!(delay > TimeDelta::seconds(9) && delay < TimeDelta::seconds(14), "{delay}");
}

async fn retries_are_exhausted_after_the_configured_number(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_MAX_RETRIES", "2")]).await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 100);
    app.refund(10_000).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    let reversal = &transfer["reversals"][0];
    assert_eq!((&reversal["status"], &reversal["retry_count"]), (&"permanently_failed".into(), &2.into()));
    assert!(reversal["failure_message"].as_str().unwrap().contains("exhausted"), "{reversal}");
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 3);
    let parked = app.vhost.take("reversals.parked").await;
    assert_eq!(parked["properties"]["headers"]["attempt"], 3);
}

async fn a_legacy_transfer_without_a_stripe_id_is_given_up_without_calling_stripe(app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.db.execute("UPDATE seller_transfers SET stripe_transfer_id = NULL WHERE stripe_transfer_id = 'tr_1'").await;
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    let transfer = app.transfer_becomes(0, "permanently_failed").await;
    assert_eq!(transfer["reversals"][0]["failure_code"], "no_stripe_transfer_id");
    app.transfer_becomes(1, "reversed").await;
    assert!(app.sim.ledger().requests.iter().all(|request| request.path.contains("tr_2")));
}

async fn only_pending_reversals_are_picked_up(mut app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let calls = app.sim.ledger().requests.len();
    // The same jobs once more, and rows that look long overdue.
    app.db.execute("UPDATE calls SET sweep_after = '2020-05-01 00:00:00+00:00'").await;
    app.db.execute("UPDATE outbox SET published_at = NULL, claimed_until = NULL").await;
    app.restart_with(&[]).await;
    let queue_is_empty = || async {
        let unpublished = app.db.count("outbox WHERE published_at IS NULL").await;
        let waiting: i64 = app.vhost.queues().await.iter().filter_map(|queue| queue["messages"].as_i64()).sum();
        (unpublished == 0 && waiting == 0).then_some(())
    };
    crate::support::eventually("the duplicates are handled", queue_is_empty).await;
    assert_eq!(app.ledger().sweep(CallKind::Reverse, 100).await.unwrap().jobs, 0, "nothing is left to sweep");
    assert_eq!(app.sim.ledger().requests.len(), calls, "Stripe was called for what was done already");
}

async fn a_next_try_in_the_future_is_respected(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    let ahead = (Utc::now() + TimeDelta::seconds(3)).to_rfc3339();
    app.db.execute(&format!("UPDATE calls SET next_attempt_at = '{ahead}'")).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "reversed").await;
    let ledger = app.sim.ledger();
    assert!(
        ledger.requests.iter().all(|request| request.at >= time(&ahead.clone().into()) - TimeDelta::milliseconds(50))
    );
}

async fn a_duplicate_webhook_reverses_once(app: TestApp) {
    app.refund(10_000).await;
    let again = app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    assert_eq!(again.status(), 200);
    let other_event = app.post_webhook(&refund_event("evt_2", "re_1", "pi_1", 10_000).to_string()).await;
    assert_eq!(other_event.status(), 200);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.db.count("reversals").await, 2);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn two_webhooks_at_the_same_moment_reverse_once(app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let bodies: Vec<String> =
        (0..8).map(|n| refund_event(&format!("evt_{}", n / 2), "re_1", "pi_1", 10_000).to_string()).collect();
    let answers = futures_util::future::join_all(bodies.iter().map(|body| app.post_webhook(body))).await;
    assert!(answers.iter().all(|answer| answer.status() == 200));
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.db.count("claims").await, 1);
    assert_eq!(app.db.count("webhook_events").await, 4);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn a_refund_before_its_payment_waits_for_it(app: TestApp) {
    let answer = app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["outcome"], "unmatched");
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
}

async fn partial_refunds_add_up_to_the_whole(app: TestApp) {
    app.refund(3_333).await;
    app.transfer_becomes(0, "partially_reversed").await;
    for (n, amount) in [(2, 3_333), (3, 3_334)] {
        let event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_1", amount).to_string();
        assert_eq!(app.post_webhook(&event).await.status(), 200);
    }
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, 6);
}

async fn a_500_that_was_applied_is_found_and_not_repeated(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::ServerErrorApplied, 1);
    app.refund(4_000).await;
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1);
    assert_eq!(app.reversed_at_stripe("tr_1"), transfer["amount_reversed"].as_i64().unwrap());
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count(), 1);
    let untold = "history WHERE entity = 'reversal' AND to_status = 'reversed' AND from_status <> to_status
        AND stripe_request_id IS NULL";
    assert_eq!(app.db.count(untold).await, 0, "what a look has found names its request, too");
}

async fn a_500_that_was_not_applied_is_called_again_under_a_new_key_once_the_old_one_is_burnt(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::ServerError, 1);
    app.refund(4_000).await;
    app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1);
    let keys: Vec<_> =
        app.sim.ledger().reversal_posts("tr_1").filter_map(|post| post.idempotency_key.clone()).collect();
    let generations: Vec<_> = keys.iter().map(|key| key.rsplit('-').next().unwrap()).collect();
    assert_eq!(generations, ["0", "0", "1"]);
}

async fn an_answer_that_is_lost_is_asked_for_again_under_the_same_key(app: TestApp) {
    app.sim.fault("tr_1", Fault::ApplyThenDropConnection, 1);
    app.refund(4_000).await;
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1);
    assert_eq!(app.reversed_at_stripe("tr_1"), transfer["amount_reversed"].as_i64().unwrap());
}

async fn a_short_balance_waits_without_using_up_retries(app: TestApp) {
    app.sim.set_balance("acct_1", Some(0));
    app.refund(10_000).await;
    let waits = |reversal: &Value| reversal["failure_code"] == "balance_insufficient";
    let waiting = app.reversal_when(0, "it waits for balance", waits).await;
    assert_eq!((&waiting["retry_count"], &waiting["status"]), (&0.into(), &"pending".into()));
    app.sim.set_balance("acct_1", Some(6_000));
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
}

async fn a_wrong_api_key_uses_up_no_retries(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0")]).await;
    app.sim.fault(Target::Any, Fault::Unauthorized, 4);
    app.refund(10_000).await;
    let done = app.transfer_becomes(0, "reversed").await;
    assert_eq!(done["reversals"][0]["retry_count"], 0);
    app.transfer_becomes(1, "reversed").await;
}

async fn a_parked_message_that_is_moved_back_is_a_replay(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0")]).await;
    app.stripe_answers().await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 1);
    app.refund(10_000).await;
    app.transfer_becomes(0, "permanently_failed").await;
    let parked = app.vhost.take("reversals.parked").await;
    app.vhost.put("reversals", &parked).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    assert_eq!(transfer["amount_reversed"], 6_000);
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
    assert_eq!(app.db.count("history WHERE actor = 'operator'").await, 2, "the reversal's row and the transfer's");
}

async fn a_payment_and_its_refund_at_the_same_moment_always_meet(app: TestApp) {
    for n in 0..20 {
        let payment_ref = format!("pi_{n}");
        let mut payment = two_sellers(&payment_ref);
        for (index, seller) in ["a", "b"].into_iter().enumerate() {
            payment["transfers"][index]["stripe_transfer_id"] = format!("tr_{n}_{seller}").into();
        }
        let event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), &payment_ref, 10_000).to_string();
        let (registered, received) = tokio::join!(app.register(payment), app.post_webhook(&event));
        assert_eq!((registered.status().as_u16(), received.status().as_u16()), (201, 200));
    }
    assert_eq!(app.db.count("claims WHERE status = 'unmatched'").await, 0);
    assert_eq!(app.db.count("reversals").await, 40);
}

async fn stopping_in_the_middle_of_a_call_finishes_it(mut app: TestApp) {
    app.sim.fault("tr_1", Fault::Slow { delay_ms: 1_500 }, 1);
    app.refund(10_000).await;
    let called = |ledger: &stripe_sim::Ledger| {
        ["tr_1", "tr_2"].iter().all(|transfer| ledger.reversal_posts(transfer).count() == 1)
    };
    app.sim.wait_for(called, crate::support::DEADLINE).await.expect("Stripe is called for both");
    app.stop().await;
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, 2);
    let posts: Vec<_> = app.sim.ledger().reversal_posts("tr_1").map(|post| post.status).collect();
    assert_eq!(posts, [Some(200)]);
}

fn time(value: &Value) -> DateTime<Utc> {
    value.as_str().expect("a time").parse().unwrap()
}
