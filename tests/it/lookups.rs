//! What an event leaves out is read at Stripe, by a job like every other: in whichever shape an endpoint's events come, a
//! refund counts once.

use std::time::Duration;

use clawback::ledger::{EventContent, Found, LedgerError, Note, TryOutcome};
use serde_json::{Value, json};
use stripe_sim::{Capture, Endpoint, Fault, NewDispute, NewPayment, NewRefund, RefundStatus};

use crate::support::{DEADLINE, NO_SWEEPER, Process, TestApp, both_databases, eventually, two_sellers};
use crate::ui::Pages;

/// Lists no refunds with a charge, and has no events of their own for those of cards.
const WITHOUT_REFUND_EVENTS: &str = "2023-10-16";

both_databases! {
    a_charge_that_lists_no_refunds_has_them_looked_up_at_each_of_its_events,
    a_refund_that_fails_later_is_looked_up_too,
    what_was_never_captured_is_told_by_a_look_up_of_either_kind,
    snapshot_and_thin_events_of_one_refund_count_once,
    every_shape_of_events_takes_the_same_back,
    events_of_connected_accounts_and_of_the_other_mode_take_nothing_and_are_counted,
    a_thin_event_of_a_dispute_is_read_and_taken_in,
    many_refunds_of_one_charge_are_read_page_by_page,
    a_list_that_lags_is_read_again,
    a_list_that_lags_behind_a_failed_refund_of_the_same_amount_is_read_again,
    a_worker_that_is_killed_while_it_reads_leaves_the_look_up_to_the_next,
    a_look_up_whose_job_is_lost_is_swept,
    a_key_that_may_not_read_parks_the_look_up_alone_and_a_replay_reads_it,
    a_look_up_that_failed_is_listed_and_replayed_at_every_door,
    what_happens_while_stripe_is_read_is_read_again,
    a_trace_shows_what_was_looked_up,
}

/// A payment of two sellers, here and at Stripe.
async fn paid(app: &TestApp) {
    let ids = (Some("pi_1".to_owned()), Some("ch_1".to_owned()));
    app.sim.pay(NewPayment { payment_intent: ids.0, charge: ids.1, ..NewPayment::new(10_000, "eur") });
    let registered = app.register(two_sellers("pi_1")).await;
    assert_eq!(registered.status(), 201);
}

fn endpoint(app: &TestApp) -> Endpoint {
    Endpoint::new("", &app.webhook_secret)
}

/// Posts what such an endpoint is told of refunds, disputes and charges, and returns the outcomes.
async fn tell(app: &TestApp, endpoint: &Endpoint) -> Vec<Value> {
    let mut outcomes = Vec::new();
    for webhook in app.sim.webhooks(endpoint) {
        if webhook.kind.contains("refund") || webhook.kind.contains("dispute") {
            let answer = app.post_signed(&webhook.body, &webhook.signature).await;
            assert_eq!(answer.status(), 200, "{}", webhook.body);
            outcomes.push(answer.json::<Value>().await.unwrap());
        }
    }
    outcomes
}

fn refund(id: &str, amount: i64) -> NewRefund {
    NewRefund { id: Some(id.to_owned()), ..NewRefund::part("ch_1", amount) }
}

/// Waits until the look-ups have ended, and returns their states.
async fn looked_up(app: &TestApp) -> Vec<String> {
    eventually("the look-ups end", || async {
        let open = app.db.count("calls WHERE kind = 'look_up' AND state = 'open'").await;
        (open == 0).then_some(())
    })
    .await;
    let rows = app.db.query("SELECT state FROM calls WHERE kind = 'look_up' ORDER BY id").await;
    rows.iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
}

async fn both_have_given(app: &TestApp, first: i64, second: i64) {
    for (index, id, amount) in [(0, "tr_1", first), (1, "tr_2", second)] {
        eventually(&format!("{id} has given {amount} back"), || async {
            let transfer = app.payment("pi_1").await["transfers"][index].clone();
            (transfer["amount_reversed"] == amount && transfer["status"] != "reversal_pending").then_some(())
        })
        .await;
        assert_eq!(app.reversed_at_stripe(id), amount, "{id}");
    }
}

async fn a_charge_that_lists_no_refunds_has_them_looked_up_at_each_of_its_events(app: TestApp) {
    paid(&app).await;
    let endpoint = endpoint(&app).version(WITHOUT_REFUND_EVENTS);
    app.sim.refund(refund("re_1", 5_000));
    assert!(tell(&app, &endpoint).await.contains(&json!({"received": true, "outcome": "looking_up"})));
    both_have_given(&app, 3_000, 1_500).await;
    app.sim.refund(refund("re_2", 2_000));
    tell(&app, &endpoint).await;
    both_have_given(&app, 4_200, 2_100).await;
    assert_eq!(looked_up(&app).await, ["done"], "one row for one charge");
    assert_eq!(app.db.count("claims").await, 2);
    assert_eq!(app.db.count("webhook_events WHERE outcome = 'looking_up'").await, 2);
}

async fn a_refund_that_fails_later_is_looked_up_too(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    paid(&app).await;
    let thin = Endpoint { thin: true, ..endpoint(&app) };
    app.sim.refund(refund("re_1", 5_000));
    app.sim.move_refund("re_1", RefundStatus::Failed);
    tell(&app, &thin).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    looked_up(&app).await;
    // Whichever event is worked on first: Stripe shows the refund as it is now.
    assert_eq!(app.refund_view("re_1").await["status"], "failed");
    assert_eq!(app.db.count("reversals").await, 0);
}

/// Of what was authorized 4,000 were not captured: their release is shown as a refund.
async fn what_was_never_captured_is_told_by_a_look_up_of_either_kind(app: TestApp) {
    let ids = (Some("pi_1".to_owned()), Some("ch_1".to_owned()));
    let capture = Capture::Part(10_000);
    app.sim.pay(NewPayment { payment_intent: ids.0, charge: ids.1, capture, ..NewPayment::new(14_000, "eur") });
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    for endpoint in [endpoint(&app).version(WITHOUT_REFUND_EVENTS), Endpoint { thin: true, ..endpoint(&app) }] {
        tell(&app, &endpoint).await;
        looked_up(&app).await;
        let claims = app.db.query("SELECT status, attention FROM claims").await;
        assert_eq!((claims.len(), &claims[0]["status"]), (1, &json!("nothing_to_reverse")), "{claims:?}");
        assert!(claims[0]["attention"].as_str().unwrap().contains("of 14000 eur authorized 10000"), "{claims:?}");
        assert_eq!(app.db.count("reversals").await, 0);
        app.db.execute("DELETE FROM claims").await;
    }
}

async fn snapshot_and_thin_events_of_one_refund_count_once(app: TestApp) {
    paid(&app).await;
    app.sim.refund(refund("re_1", 5_000));
    let snapshot = endpoint(&app);
    let thin = Endpoint { thin: true, ..endpoint(&app) };
    tell(&app, &thin).await;
    tell(&app, &snapshot).await;
    tell(&app, &thin).await;
    both_have_given(&app, 3_000, 1_500).await;
    assert!(looked_up(&app).await.iter().all(|state| state == "done"));
    assert_eq!((app.db.count("claims").await, app.db.count("reversals").await), (1, 2));
}

async fn every_shape_of_events_takes_the_same_back(app: TestApp) {
    paid(&app).await;
    let versions = ["2020-08-27", WITHOUT_REFUND_EVENTS, "2024-10-28.acacia", stripe_sim::API_VERSION];
    let mut endpoints = vec![Endpoint { thin: true, ..endpoint(&app) }, Endpoint { expanded: true, ..endpoint(&app) }];
    endpoints.extend(versions.iter().map(|version| endpoint(&app).version(version)));
    for (n, endpoint) in (1..).zip(&endpoints) {
        app.sim.refund(refund(&format!("re_{n}"), 1_000));
        tell(&app, endpoint).await;
        both_have_given(&app, 600 * n, 300 * n).await;
        assert_eq!(app.db.count("claims WHERE status = 'matched'").await, n, "{endpoint:?}");
        // One that is open yet would find the next refund, too.
        looked_up(&app).await;
    }
}

async fn events_of_connected_accounts_and_of_the_other_mode_take_nothing_and_are_counted(app: TestApp) {
    paid(&app).await;
    let connected = Endpoint { account: Some("acct_1".to_owned()), ..endpoint(&app) };
    let others = [
        (connected.clone(), "connected account acct_1"),
        (Endpoint { thin: true, ..connected }, "connected account acct_1"),
        (Endpoint { livemode: true, ..endpoint(&app) }, "live mode"),
        (Endpoint { livemode: true, thin: true, ..endpoint(&app) }, "live mode"),
    ];
    app.sim.refund(refund("re_1", 5_000));
    for (endpoint, why) in others {
        // The same ids come again below, at an endpoint of ours.
        for webhook in app.sim.webhooks(&endpoint).into_iter().filter(|webhook| webhook.kind.contains("refund")) {
            let answer: Value = app.post_webhook(&webhook.body).await.json().await.unwrap();
            let reason = answer["reason"].as_str().unwrap_or_default();
            assert!(answer["outcome"] == "duplicate" || reason.contains(why), "{answer}");
        }
    }
    assert_eq!((app.db.count("claims").await, app.db.count("lookups").await), (0, 0));
    assert!(app.db.count("webhook_events WHERE outcome = 'ignored'").await >= 4);
    let request = app.http.get(format!("{}/metrics", app.base_url)).bearer_auth(&app.read_token);
    let metrics = request.send().await.unwrap().text().await.unwrap();
    for why in ["connected_account", "other_mode"] {
        assert!(metrics.contains(&format!("clawback_webhooks_not_ours_total{{why=\"{why}\"}}")), "{metrics}");
    }
    let doctor = async || app.cli(&["doctor"]).await.words();
    let is_named = |said: &str| said.contains("Stripe's events: each of the newest") && said.contains("is ignored");
    let said = doctor().await;
    assert!(is_named(&said), "nothing but what is ignored has come: {said}");
    tell(&app, &endpoint(&app)).await;
    both_have_given(&app, 3_000, 1_500).await;
    assert!(!is_named(&doctor().await), "something else has come");
    // Each reversal makes a refund in a seller's account.
    let connect = Endpoint { connect: true, ..endpoint(&app) };
    app.sim.add_endpoint(connect.clone());
    app.sim.reverse_from_elsewhere("tr_1", Some(1));
    let outcomes = tell(&app, &connect).await;
    assert!(!outcomes.is_empty() && outcomes.iter().all(|it| it["outcome"] == "ignored"), "{outcomes:?}");
    assert_eq!(app.db.count("claims").await, 1);
}

async fn a_thin_event_of_a_dispute_is_read_and_taken_in(app: TestApp) {
    paid(&app).await;
    app.sim.dispute(NewDispute::of("ch_1"));
    let outcomes = tell(&app, &Endpoint { thin: true, ..endpoint(&app) }).await;
    assert!(outcomes.iter().all(|outcome| outcome["outcome"] == "looking_up"), "{outcomes:?}");
    assert_eq!(looked_up(&app).await, ["done"]);
    assert_eq!(app.db.count("lookups WHERE subject = 'dispute' AND result IS NOT NULL").await, 1);
    assert_eq!(app.db.count("claims WHERE kind = 'dispute' AND status = 'held' AND stage = 'withdrawn'").await, 1);
}

async fn many_refunds_of_one_charge_are_read_page_by_page(app: TestApp) {
    app.sim.pay(NewPayment { charge: Some("ch_1".to_owned()), ..NewPayment::new(10_000, "eur") });
    (0..120).for_each(|_| drop(app.sim.refund(NewRefund::part("ch_1", 10))));
    let endpoint = endpoint(&app).version(WITHOUT_REFUND_EVENTS);
    let webhooks = app.sim.webhooks(&endpoint);
    let last = webhooks.iter().rfind(|webhook| webhook.kind == "charge.refunded").unwrap();
    app.post_signed(&last.body, &last.signature).await;
    assert_eq!(looked_up(&app).await, ["done"]);
    assert_eq!(app.db.count("claims WHERE status = 'unmatched'").await, 120);
    let pages = app.sim.ledger().requests;
    assert!(pages.iter().any(|page| page.path == "/v1/refunds" && page.query.contains("starting_after=re_")));
}

async fn a_list_that_lags_is_read_again(app: TestApp) {
    paid(&app).await;
    app.sim.set_list_lag(Duration::from_millis(300));
    app.sim.refund(refund("re_1", 5_000));
    tell(&app, &endpoint(&app).version(WITHOUT_REFUND_EVENTS)).await;
    both_have_given(&app, 3_000, 1_500).await;
    assert_eq!(looked_up(&app).await, ["done"]);
}

/// The charge's `amount_refunded` does not count the one that failed.
async fn a_list_that_lags_behind_a_failed_refund_of_the_same_amount_is_read_again(app: TestApp) {
    paid(&app).await;
    app.sim.refund(NewRefund { seconds_ago: 60, ..refund("re_1", 5_000) });
    app.sim.move_refund("re_1", RefundStatus::Failed);
    app.sim.set_list_lag(Duration::from_millis(300));
    app.sim.refund(refund("re_2", 5_000));
    tell(&app, &endpoint(&app).version(WITHOUT_REFUND_EVENTS)).await;
    assert_eq!(looked_up(&app).await, ["done"]);
    both_have_given(&app, 3_000, 1_500).await;
}

async fn a_worker_that_is_killed_while_it_reads_leaves_the_look_up_to_the_next(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    paid(&app).await;
    app.sim.refund(refund("re_1", 5_000));
    tell(&app, &endpoint(&app).version(WITHOUT_REFUND_EVENTS)).await;
    app.published(1).await;
    let settings = app.settings_with(&[("REVERSAL_WORKER_ENABLED", "true")]);
    for reading in ["/v1/charges/ch_1", "/v1/refunds"] {
        let seen = app.sim.ledger().requests.len();
        app.sim.fault_reads(stripe_sim::Target::Any, Fault::Slow { delay_ms: 700 }, 9);
        let process = Process::start("worker", &settings);
        let called = |ledger: &stripe_sim::Ledger| ledger.requests.iter().skip(seen).any(|it| it.path == reading);
        app.sim.wait_for(called, DEADLINE).await.expect("Stripe is read");
        process.kill().await;
        app.sim.clear_faults();
    }
    assert_eq!(app.db.count("claims").await, 0);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    both_have_given(&app, 3_000, 1_500).await;
    assert_eq!(app.db.count("claims").await, 1);
}

async fn a_look_up_whose_job_is_lost_is_swept(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    paid(&app).await;
    app.sim.refund(refund("re_1", 5_000));
    tell(&app, &endpoint(&app).version(WITHOUT_REFUND_EVENTS)).await;
    app.published(1).await;
    app.stop().await;
    app.vhost.delete_queue("lookups").await;
    app.start(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    both_have_given(&app, 3_000, 1_500).await;
    assert!(app.db.count("history WHERE entity = 'lookup' AND actor = 'sweeper'").await > 0);
}

async fn a_key_that_may_not_read_parks_the_look_up_alone_and_a_replay_reads_it(app: TestApp) {
    paid(&app).await;
    app.sim.fault_reads("re_1", Fault::PermissionDenied, 1);
    app.sim.refund(refund("re_1", 5_000));
    tell(&app, &Endpoint { thin: true, enabled_events: vec!["refund.created".to_owned()], ..endpoint(&app) }).await;
    assert_eq!(looked_up(&app).await, ["failed"]);
    let ready: Value =
        app.http.get(format!("{}/health/ready", app.base_url)).send().await.unwrap().json().await.unwrap();
    assert_eq!(ready["parts"]["stripe"]["status"], "ok", "a key without this permission stops no reversal");
    eventually("its message is parked", || async {
        let run = app.cli(&["parked", "list", "--kind", "look_up"]).await;
        run.stdout.contains("STRIPE_API_KEY may not read").then_some(())
    })
    .await;
    let replay = ["parked", "replay", "--all", "--reason", "the key may read now", "--operator", "ada"];
    let run = app.cli(&replay).await;
    assert_eq!(run.code, 0, "{run:?}");
    both_have_given(&app, 3_000, 1_500).await;
}

async fn a_look_up_that_failed_is_listed_and_replayed_at_every_door(app: TestApp) {
    paid(&app).await;
    let thin = Endpoint { thin: true, enabled_events: vec!["refund.created".to_owned()], ..endpoint(&app) };
    for n in 1..=3 {
        app.sim.fault_reads(&format!("re_{n}"), Fault::PermissionDenied, 1);
        app.sim.refund(refund(&format!("re_{n}"), 1_000));
    }
    tell(&app, &thin).await;
    assert_eq!(looked_up(&app).await, ["failed"; 3]);

    let (_, listed) = app.read("/v1/calls?kind=look_up&limit=2").await;
    let calls = listed["calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["subject"], &calls[0]["state"]), (2, &json!("refund"), &json!("failed")));
    assert!(calls[0]["failure_message"].as_str().unwrap().contains("STRIPE_API_KEY may not read"), "{listed}");
    let (_, rest) = app.read(&format!("/v1/calls?cursor={}", listed["next_cursor"].as_str().unwrap())).await;
    assert_eq!((rest["calls"].as_array().unwrap().len(), &rest["next_cursor"]), (1, &Value::Null), "{rest}");
    assert_eq!(app.read("/v1/calls?kind=notify").await.1["calls"], json!([]));
    assert_eq!(app.read("/v1/calls?kind=reverse").await.0, 400);
    let by_command = app.cli(&["calls", "list", "--format", "json"]).await.json();
    assert_eq!(by_command["calls"][0], calls[0]);
    let table = app.cli(&["calls", "list", "--kind", "look_up"]).await;
    assert!(table.words().contains("refund re_1: STRIPE_API_KEY may not read"), "{table:?}");

    let id = |call: &Value| call["id"].as_str().unwrap().to_owned();
    let pages = Pages::logged_in(&app, &app.api_token, "ada").await;
    let page = pages.page("/ui/parked").await;
    let by_page = id(&calls[0]);
    assert!(page.contains(&format!("href=\"/ui/act/replay?id={by_page}\"")), "{page}");
    assert!(pages.page(&format!("/ui/act/replay?id={by_page}")).await.contains("No money moves by it."));
    let done = pages.post("/ui/act/replay", &[("id", &by_page), ("reason", "the key may read now")]).await;
    assert_eq!(done.status, 200, "{}", done.html);
    let reason = ["--reason", "the key may read now", "--operator", "ada"];
    let run = app.cli(&[&["calls", "replay", &id(&calls[1])][..], &reason].concat()).await;
    assert!(run.code == 0 && run.words().contains("is open again"), "{run:?}");
    let by_api = format!("{}/v1/calls/{}/replay", app.base_url, id(&rest["calls"][0]));
    let body = json!({"operator": "ada", "reason": "the key may read now"});
    let replay = async || app.http.post(&by_api).bearer_auth(&app.api_token).json(&body).send().await.unwrap();
    let answer = replay().await;
    assert_eq!(
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap()["kind"].clone()),
        (202, json!("look_up"))
    );
    both_have_given(&app, 1_800, 900).await;
    assert_eq!(replay().await.status(), 409);
    let unknown = by_api.replace(&id(&rest["calls"][0]), "00000000-0000-7000-8000-000000000000");
    let answer = app.http.post(unknown).bearer_auth(&app.api_token).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 404);
    assert_eq!(app.cli(&["calls", "list"]).await.table(), "No look-up and no event has failed permanently.\n");
}

async fn what_happens_while_stripe_is_read_is_read_again(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    paid(&app).await;
    let endpoint = endpoint(&app).version(WITHOUT_REFUND_EVENTS);
    app.sim.refund(refund("re_1", 1_000));
    tell(&app, &endpoint).await;
    let id = app.ledger().trace("ch_1", 10).await.unwrap().unwrap().lookups[0].id;
    let read = app.ledger().task(id).await.unwrap().unwrap();
    // After this worker has read, and before it reports.
    app.sim.refund(refund("re_2", 1_000));
    tell(&app, &endpoint).await;
    let found = TryOutcome::Found(Box::new(Found::Content(EventContent::Refunds(Vec::new()))));
    let error = app.ledger().report(&read, found, Note::new("worker", "read")).await.unwrap_err();
    assert!(matches!(error, LedgerError::Stale { .. }), "{error}");
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    both_have_given(&app, 1_200, 600).await;
    assert_eq!(app.db.count("claims").await, 2);
}

async fn a_trace_shows_what_was_looked_up(app: TestApp) {
    paid(&app).await;
    app.sim.refund(refund("re_1", 5_000));
    tell(&app, &endpoint(&app).version(WITHOUT_REFUND_EVENTS)).await;
    both_have_given(&app, 3_000, 1_500).await;
    let trace = app.cli(&["trace", "re_1", "--format", "json"]).await.json();
    let lookup = &trace["lookups"][0];
    assert_eq!((&lookup["subject"], &lookup["reference"]), (&json!("refunds_of_charge"), &json!("ch_1")));
    assert_eq!(lookup["state"], "done");
    let events = trace["events"].as_array().unwrap();
    let read = events.iter().find(|event| event["entity"] == "lookup" && event["to"] == "done").unwrap();
    assert!(read["stripe_request_id"].is_string() && read["actor"] == "worker", "{read}");
    let by_request = app.cli(&["trace", read["stripe_request_id"].as_str().unwrap()]).await;
    assert!(by_request.stdout.contains("lookup refunds_of_charge ch_1"), "{by_request:?}");
}
