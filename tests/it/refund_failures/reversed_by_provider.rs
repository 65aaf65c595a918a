//! The provider has reversed the transfer together with the refund, and says so when the refund is recorded already: what
//! Stripe was not asked for is called off, and of the rest the operator is told.

use clawback::ledger::{CallKind, Note};
use serde_json::{Value, json};

use super::{
    BUT_FOR_JOBS, all_jobs_are_settled, answered, fails, fails_permanently, reversal_id, statuses, stripe_is_asked,
    with_worker, without_worker,
};
use crate::support::{TestApp, both_databases, hyperswitch_event, refund_event, two_sellers};

both_databases! {
    what_the_provider_has_reversed_is_called_off_though_the_refund_was_reported_without_that,
    what_stripe_was_asked_for_by_then_counts_until_a_look_has_not_found_it,
    a_refund_that_waits_for_its_payment_is_never_matched,
    hyperswitch_says_so_in_a_later_event,
    a_report_over_the_api_says_so_too,
    what_was_given_up_by_then_is_not_replayed_and_a_failure_adds_to_the_attention,
}

/// The event that the refund `re_1` of `pi_1` has succeeded, and that Stripe has reversed the transfer with it.
async fn stripe_has_reversed(app: &TestApp, event_id: &str, amount: i64) -> Value {
    let mut event = refund_event(event_id, "re_1", "pi_1", amount);
    event["data"]["object"]["transfer_reversal"] = json!("trr_of_stripe");
    answered(app.post_webhook(&event.to_string()).await).await
}

async fn asked(app: &TestApp, index: usize) -> Vec<i64> {
    let payment = app.payment("pi_1").await;
    let reversals = payment["transfers"][index]["reversals"].as_array().unwrap();
    reversals.iter().map(|reversal| reversal["amount"].as_i64().unwrap()).collect()
}

async fn what_the_provider_has_reversed_is_called_off_though_the_refund_was_reported_without_that(app: TestApp) {
    let mut app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let report =
        json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 10_000, "currency": "eur"});
    assert_eq!(app.report(&report).await.status(), 201);
    app.published(2).await;
    let answer = stripe_has_reversed(&app, "evt_1", 10_000).await;
    assert_eq!(answer["outcome"], "ignored");
    assert!(answer["reason"].as_str().unwrap().contains("2 reversals were called off"), "{answer}");
    let refund = app.refund_view("re_1").await;
    assert_eq!(refund["status"], "nothing_to_reverse");
    assert!(refund["attention"].as_str().unwrap().contains("one of the 2 transfers"), "{refund}");
    for reversal in refund["reversals"].as_array().unwrap() {
        let state = (&reversal["status"], &reversal["failure_code"]);
        assert_eq!(state, (&json!("called_off"), &json!("reversed_by_provider")), "{reversal}");
    }
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
    let (refund, history) = (app.refund_view("re_1").await, app.db.count(BUT_FOR_JOBS).await);
    assert_eq!(stripe_has_reversed(&app, "evt_2", 10_000).await["outcome"], "duplicate");
    assert_eq!((app.refund_view("re_1").await, app.db.count(BUT_FOR_JOBS).await), (refund, history));

    all_jobs_are_settled(&mut app).await;
    assert_eq!(app.sim.ledger().reversal_posts("tr_1").count() + app.sim.ledger().reversal_posts("tr_2").count(), 0);
}

async fn what_stripe_was_asked_for_by_then_counts_until_a_look_has_not_found_it(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(5_000).await;
    stripe_is_asked(&app, reversal_id(&app, 0, 0).await).await;
    let answer = stripe_has_reversed(&app, "evt_again", 5_000).await;
    assert!(answer["reason"].as_str().unwrap().contains("1 reversals were called off"), "{answer}");
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    for words in ["the provider had reversed", "1 of its 2", "3000 eur may be taken back from transfer tr_1"] {
        assert!(attention.contains(words), "{words:?} is not in: {attention}");
    }
    // Of 3,000 and 1,500 the first may have been taken a second time, and the next refund takes that much less.
    app.refund_of(3_000, 2).await;
    assert_eq!((asked(&app, 0).await, asked(&app, 1).await), (vec![3_000], vec![1_500, 900]));
    with_worker(&mut app).await;
    // It was not: that refund takes its part after all.
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (1_800, 900));
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap_or_default().to_owned();
    assert!(!attention.contains("counted for refunds"), "{attention}");
    app.refund_of(2_000, 3).await;
    let taken = || async { (app.reversed_at_stripe("tr_1") == 3_000).then_some(()) };
    crate::support::eventually("the next one takes its own part", taken).await;
}

async fn a_refund_that_waits_for_its_payment_is_never_matched(app: TestApp) {
    app.refund_of(10_000, 1).await;
    assert_eq!(app.refund_view("re_1").await["status"], "unmatched");
    assert_eq!(stripe_has_reversed(&app, "evt_again", 10_000).await["outcome"], "ignored");
    app.register(two_sellers("pi_1")).await;
    assert_eq!(app.refund_view("re_1").await["status"], "nothing_to_reverse");
    assert_eq!(app.db.count("reversals").await, 0);
}

async fn hyperswitch_says_so_in_a_later_event(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let mut event = hyperswitch_event("evt_1", "ref_1", "pi_1", 10_000);
    answered(app.post_hyperswitch(&event.to_string()).await).await;
    event["event_id"] = json!("evt_2");
    event["content"]["object"]["split_refunds"] = json!({"stripe_split_refund": {"revert_transfer": true}});
    let answer = answered(app.post_hyperswitch(&event.to_string()).await).await;
    assert!(answer["reason"].as_str().unwrap().contains("2 reversals were called off"), "{answer}");
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
}

async fn a_report_over_the_api_says_so_too(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let mut report =
        json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 5_000, "currency": "eur"});
    assert_eq!(app.report(&report).await.status(), 201);
    assert_eq!(statuses(&app).await, ["reversal_pending", "reversal_pending"]);
    report["transfer_already_reversed"] = json!(true);
    assert_eq!(app.report(&report).await.status(), 200, "said later");
    report["refund_ref"] = json!("re_2");
    assert_eq!(app.report(&report).await.status(), 201, "said at once");
    assert_eq!(app.db.count("claims WHERE status = 'nothing_to_reverse'").await, 2);
    assert_eq!(app.db.count("reversals WHERE status <> 'called_off'").await, 0);
    assert_eq!(statuses(&app).await, ["completed", "completed"]);
}

async fn what_was_given_up_by_then_is_not_replayed_and_a_failure_adds_to_the_attention(app: TestApp) {
    let app = without_worker(app).await;
    app.refund(10_000).await;
    let id = reversal_id(&app, 0, 0).await;
    stripe_is_asked(&app, id).await;
    fails_permanently(&app, id).await;
    stripe_has_reversed(&app, "evt_again", 10_000).await;
    let note = Note::new("ada", "a test");
    let refused = app.ledger().replay(CallKind::Reverse, &id.to_string(), &note).await.unwrap_err().to_string();
    assert!(refused.contains("nothing is owed") && refused.contains("the provider reversed"), "{refused}");
    fails(&app, 1, 10_000).await;
    let attention = app.refund_view("re_1").await["attention"].as_str().unwrap().to_owned();
    assert!(
        attention.contains("failed permanently (rejected)") && attention.contains("has the money again"),
        "{attention}"
    );
}
