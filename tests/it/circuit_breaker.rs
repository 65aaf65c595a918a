//! Stripe can't be used, for every job alike: the worker takes no more of them, and their retries are spared.

use serde_json::Value;
use stripe_sim::{Fault, Target};

use crate::support::{NO_SWEEPER, TestApp, both_databases, eventually, refund_event};

both_databases! {
    a_refused_key_pauses_the_worker_until_stripe_takes_it_again,
    half_open_until_stripe_has_answered_a_call,
    an_outage_with_a_thousand_open_reversals_parks_none_of_them,
    an_outage_in_which_stripe_answers_reads_parks_nothing,
    an_outage_with_500s_lets_one_job_through_at_a_time_and_uses_up_no_retries,
    a_lone_job_has_its_retries_again_while_nobody_succeeds,
    a_refusal_of_every_job_in_the_same_words_parks_only_the_first,
    a_key_of_another_account_is_noticed_by_a_burst_of_unknown_transfers,
    one_sellers_forbidden_account_stops_no_other_seller,
    after_a_change_of_account_the_breaker_finds_what_the_new_one_has,
    while_stripe_asks_to_wait_the_jobs_stay_in_their_queue,
}

async fn a_refused_key_pauses_the_worker_until_stripe_takes_it_again(app: TestApp) {
    app.sim.allow_keys(["sk_test_another"]);
    app.refund(10_000).await;
    let stripe = stripe_is(&app, "degraded").await;
    assert!(stripe["reason"].as_str().unwrap().contains("the circuit breaker is open"), "{stripe}");
    // Probes go on, and jobs are not taken: the calls to reverse stay as few as were in flight.
    let probed = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(|call| call.method == "GET").count() >= 3;
    app.sim.wait_for(probed, crate::support::DEADLINE).await.unwrap();
    let posts = app.sim.ledger().requests.iter().filter(|call| call.method == "POST").count();
    assert!(posts <= 2, "{posts} calls although the key is refused");

    app.sim.allow_keys(["sk_test_of_the_tests"]);
    for index in [0, 1] {
        let transfer = app.transfer_becomes(index, "reversed").await;
        assert_eq!(transfer["reversals"][0]["retry_count"], 0);
    }
    stripe_is(&app, "ok").await;
}

async fn half_open_until_stripe_has_answered_a_call(app: TestApp) {
    app.sim.allow_keys(["sk_test_another"]);
    app.refund(10_000).await;
    let open = stripe_is(&app, "degraded").await;
    // The answers to the calls that try Stripe out take their time.
    for transfer in ["tr_1", "tr_2"] {
        app.sim.fault(transfer, Fault::Slow { delay_ms: 2_000 }, 1);
    }
    app.sim.allow_keys(["sk_test_of_the_tests"]);
    let half_open = eventually("readiness says that the breaker is half-open", || async {
        let stripe = stripe_is(&app, "degraded").await;
        stripe["reason"].as_str().unwrap().contains("the circuit breaker is half_open").then_some(stripe)
    })
    .await;
    let since = |part: &Value| part["reason"].as_str().unwrap().split_once("since ").unwrap().1.to_owned();
    assert_eq!(since(&half_open), since(&open), "one outage");
    stripe_is(&app, "ok").await;
    for index in [0, 1] {
        app.transfer_becomes(index, "reversed").await;
    }
}

/// A refund of `count` sellers' transfers, and no worker that takes up its reversals yet.
async fn many_are_open(app: &mut TestApp, count: i64) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    let amount = app.many_sellers("pi_big", count).await;
    let event = refund_event("evt_big", "re_big", "pi_big", amount).to_string();
    assert_eq!(app.post_webhook(&event).await.status(), 200);
}

async fn an_outage_with_a_thousand_open_reversals_parks_none_of_them(mut app: TestApp) {
    const OPEN: i64 = 1_000;
    many_are_open(&mut app, OPEN).await;

    app.sim.fault(Target::Any, Fault::UnavailableHtml, u32::MAX);
    app.sim.fault_reads(Target::Any, Fault::UnavailableHtml, u32::MAX);
    // One retry is all that a job has: whoever is tried three times during the outage is parked.
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true"), ("REVERSAL_MAX_RETRIES", "1")]).await;
    stripe_is(&app, "degraded").await;
    let probed = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(|call| call.method == "GET").count() >= 10;
    app.sim.wait_for(probed, crate::support::DEADLINE).await.unwrap();
    let retries = app.db.count("calls WHERE attempts > 0").await;
    assert!(retries <= 40, "{retries} jobs used up a retry, more than were in flight");

    app.sim.clear_faults();
    app.until_none_is_open().await;
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, OPEN);
    assert_eq!(app.db.count("seller_transfers WHERE status = 'reversed'").await, OPEN);
}

/// In an outage that goes on: few jobs have used up a retry, and none its last. Once it ends, all `open` reversals are made.
async fn nothing_was_parked_and_all_is_reversed(app: &TestApp, open: i64) {
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 0);
    let retries = app.db.count("calls WHERE attempts > 0").await;
    assert!(retries <= 15, "{retries} jobs used up a retry, more than it takes to notice the outage");

    app.sim.clear_faults();
    app.until_none_is_open().await;
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, open);
    stripe_is(app, "ok").await;
}

async fn an_outage_in_which_stripe_answers_reads_parks_nothing(mut app: TestApp) {
    const OPEN: i64 = 60;
    many_are_open(&mut app, OPEN).await;
    app.sim.fault(Target::Any, Fault::UnavailableHtml, u32::MAX);
    let changes = [("REVERSAL_MAX_RETRIES", "1"), ("REVERSAL_CONCURRENCY", "4"), ("REVERSAL_PREFETCH", "8")];
    app.restart_with(&[&[("REVERSAL_WORKER_ENABLED", "true")], &changes[..]].concat()).await;
    // Every probe is answered, and lets jobs through whose calls fail.
    let tried = |ledger: &stripe_sim::Ledger| {
        let probed = ledger.requests.iter().rposition(|call| call.method == "GET").unwrap_or_default();
        let probes = ledger.requests.iter().filter(|call| call.method == "GET").count();
        probes >= 5 && ledger.requests[probed..].iter().any(|call| call.method == "POST")
    };
    app.sim.wait_for(tried, crate::support::DEADLINE).await.unwrap();
    nothing_was_parked_and_all_is_reversed(&app, OPEN).await;
}

async fn an_outage_with_500s_lets_one_job_through_at_a_time_and_uses_up_no_retries(mut app: TestApp) {
    const OPEN: i64 = 40;
    many_are_open(&mut app, OPEN).await;
    app.sim.fault(Target::Any, Fault::ServerErrorAtTheEdge, u32::MAX);
    let changes = [("REVERSAL_MAX_RETRIES", "1"), ("REVERSAL_CONCURRENCY", "8"), ("REVERSAL_PREFETCH", "16")];
    app.restart_with(&[&[("REVERSAL_WORKER_ENABLED", "true")], &changes[..]].concat()).await;
    // The first to read is the breaker, which always probes with the same transfer. It is answered, and lets jobs through
    // whose calls fail.
    let first_read = |ledger: &stripe_sim::Ledger| ledger.requests.iter().any(|request| request.method == "GET");
    let ledger = app.sim.wait_for(first_read, crate::support::DEADLINE).await.unwrap();
    let probe = ledger.requests.iter().find(|request| request.method == "GET").unwrap().path.clone();
    let is_probe = |request: &&stripe_sim::Request| request.path == probe;
    let probed = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(is_probe).count() >= 5;
    let ledger = app.sim.wait_for(probed, crate::support::DEADLINE).await.unwrap();
    let on_trial = ledger.requests.iter().skip_while(|request| !is_probe(request));
    let calls: Vec<_> = on_trial.filter(|request| request.method == "POST" || is_probe(request)).collect();
    assert!(calls.iter().any(|request| request.method == "POST"), "nothing was let through");
    for pair in calls.windows(2) {
        assert!(pair.iter().any(is_probe), "two jobs were let through after one probe");
    }
    nothing_was_parked_and_all_is_reversed(&app, OPEN).await;
}

async fn a_lone_job_has_its_retries_again_while_nobody_succeeds(mut app: TestApp) {
    many_are_open(&mut app, 1).await;
    app.sim.fault(Target::Any, Fault::UnavailableHtml, u32::MAX);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true"), ("REVERSAL_MAX_RETRIES", "1")]).await;
    let tried = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(|call| call.method == "POST").count() >= 5;
    app.sim.wait_for(tried, crate::support::DEADLINE).await.unwrap();
    assert_eq!(app.db.count("reversals WHERE status = 'pending'").await, 1, "it was parked for Stripe's outage");
    app.sim.clear_faults();
    app.until_none_is_open().await;
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, 1);
}

async fn a_refusal_of_every_job_in_the_same_words_parks_only_the_first(mut app: TestApp) {
    const OPEN: i64 = 40;
    many_are_open(&mut app, OPEN).await;
    let message = "This API call cannot be made with the settings of your account.".to_owned();
    app.sim.fault(Target::Any, Fault::Refused { status: 400, code: None, message }, u32::MAX);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true"), ("REVERSAL_CONCURRENCY", "2")]).await;
    let stripe = stripe_is(&app, "degraded").await;
    assert!(stripe["reason"].as_str().unwrap().contains("the circuit breaker is open"), "{stripe}");
    app.sim.clear_faults();
    app.until_none_is_open().await;
    let given_up = app.db.count("reversals WHERE status = 'permanently_failed'").await;
    assert!((5..15).contains(&given_up), "{given_up} failed permanently, more than it takes to notice");
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, OPEN - given_up);
}

async fn a_key_of_another_account_is_noticed_by_a_burst_of_unknown_transfers(mut app: TestApp) {
    const OPEN: i64 = 60;
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    many_are_open(&mut app, OPEN).await;

    // The other account has none of them, not even those that were reversed.
    app.sim.reset();
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    stripe_is(&app, "degraded").await;
    let probed = |ledger: &stripe_sim::Ledger| ledger.requests.iter().filter(|call| call.method == "GET").count() >= 3;
    app.sim.wait_for(probed, crate::support::DEADLINE).await.unwrap();
    for n in 0..OPEN {
        app.sim.add_transfer(&format!("tr_of_{n}"), 100, "eur", "acct_1");
    }
    app.sim.add_transfer("tr_1", 6_000, "eur", "acct_1");
    app.sim.add_transfer("tr_2", 3_000, "eur", "acct_2");
    stripe_is(&app, "ok").await;
    app.until_none_is_open().await;
    let given_up = app.db.count("reversals WHERE status = 'permanently_failed'").await;
    assert!((1..10).contains(&given_up), "{given_up} failed for good: the breaker opens at the tenth, which is spared");
}

async fn one_sellers_forbidden_account_stops_no_other_seller(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "2")]).await;
    let forbidden = |code: &str| Fault::Refused {
        status: 403,
        code: Some(code.into()),
        message: "The provided key does not have access to account 'acct_1' (or that account does not exist).".into(),
    };
    app.sim.fault("tr_1", forbidden("account_invalid"), u32::MAX);
    app.refund(1_000).await;
    app.transfer_becomes(1, "partially_reversed").await;
    // The others' debts go on meanwhile, so there is somebody to compare it with.
    for n in 2..20 {
        app.refund_of(100, n).await;
        app.transfer_becomes(1, "partially_reversed").await;
        if app.db.count("reversals WHERE status = 'permanently_failed'").await > 0 {
            break;
        }
    }
    let failed = app.transfer_becomes(0, "permanently_failed").await["reversals"][0].clone();
    assert_eq!((&failed["failure_code"], &failed["retry_count"]), (&"account_invalid".into(), &2.into()), "{failed}");
    assert_eq!(stripe_is(&app, "ok").await["status"], "ok");
}

async fn after_a_change_of_account_the_breaker_finds_what_the_new_one_has(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    // The new account has nothing of that.
    app.sim.reset();
    let amount = app.many_sellers("pi_new", 1).await;
    app.sim.allow_keys(["sk_test_another"]);
    let event = refund_event("evt_new", "re_new", "pi_new", amount).to_string();
    assert_eq!(app.post_webhook(&event).await.status(), 200);
    stripe_is(&app, "degraded").await;
    app.sim.allow_keys(["sk_test_of_the_tests"]);
    stripe_is(&app, "ok").await;
    app.until_none_is_open().await;
    assert_eq!(app.reversed_at_stripe("tr_of_0"), amount);
}

/// Else each of them would go through a retry queue, again and again.
async fn while_stripe_asks_to_wait_the_jobs_stay_in_their_queue(mut app: TestApp) {
    const OPEN: i64 = 60;
    many_are_open(&mut app, OPEN).await;
    app.published(OPEN).await;
    app.sim.fault(Target::Any, Fault::RateLimited { retry_after: Some(6) }, 1);
    let changes = [("REVERSAL_WORKER_ENABLED", "true"), ("REVERSAL_CONCURRENCY", "2"), ("REVERSAL_PREFETCH", "4")];
    app.restart_with(&changes).await;
    app.until_none_is_open().await;
    assert_eq!(app.db.count("calls WHERE attempts > 0").await, 0);
    let requests = app.sim.ledger().requests;
    let refused = requests.iter().find(|request| request.status == Some(429)).expect("it asks to wait").at;
    // Another call may have been on its way.
    let mut later = requests.iter().map(|request| request.at - refused).filter(|after| after.num_seconds() >= 1);
    let waited = later.next().unwrap();
    assert!(waited.num_seconds() >= 5, "called again after {waited}");
    let sent = |queue: &Value| queue["message_stats"]["publish"].as_i64().unwrap_or_default();
    let queues = app.vhost.queues().await;
    let delays = queues.iter().filter(|queue| queue["name"].as_str().is_some_and(|name| name.contains(".retry.")));
    let put_off: i64 = delays.map(sent).sum();
    assert!(put_off <= 10, "{put_off} jobs of {OPEN} were put off one by one");
}

/// Waits until the readiness says that of Stripe, and returns all that it says of it.
async fn stripe_is(app: &TestApp, status: &str) -> Value {
    eventually(&format!("readiness says that Stripe is {status}"), || async {
        let answer = app.http.get(format!("{}/health/ready", app.base_url)).send().await.unwrap();
        let health: Value = answer.json().await.unwrap();
        let stripe = &health["parts"]["stripe"];
        (stripe["status"] == status).then(|| stripe.clone())
    })
    .await
}
