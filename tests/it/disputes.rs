//! Disputes: what each `DISPUTE_POLICY` takes for them, in whatever order their events come.

use serde_json::{Value, json};
use stripe_sim::{DisputeStatus, Endpoint, NewDispute, NewPayment, Webhook};

use crate::support::{TestApp, both_databases, clawback, eventually, refund_event, two_sellers};

both_databases! {
    a_lost_dispute_takes_what_its_sellers_got_and_a_refund_takes_no_more,
    in_every_order_and_repeated_the_events_have_the_same_end,
    with_the_policy_off_a_dispute_is_held_until_an_operator_accepts_it,
    an_event_that_is_sent_again_makes_a_held_dispute_follow_the_new_policy,
    what_was_taken_for_withdrawn_funds_is_to_be_paid_back_when_they_are_reinstated,
    a_dispute_of_which_a_part_is_reinstated_takes_and_says_which_part,
    what_stripe_was_not_asked_for_is_called_off_when_a_dispute_is_won,
    what_a_won_dispute_took_is_to_be_paid_back_once_the_refund_beside_it_fails,
    a_dispute_takes_what_a_failing_refund_had_left_it,
    an_inquiry_and_a_dispute_that_a_refund_settles_take_nothing,
    a_dispute_that_comes_before_its_payment_waits_for_it,
}

async fn a_lost_dispute_takes_what_its_sellers_got_and_a_refund_takes_no_more(app: TestApp) {
    let app = disputed(app, "lost", NewDispute::of("ch_1")).await;
    app.sim.move_dispute("du_1", DisputeStatus::UnderReview);
    post(&app, false).await;
    let open = dispute(&app).await;
    assert_eq!((&open["status"], &open["stage"]), (&json!("held"), &json!("withdrawn")), "{open}");
    assert_eq!(app.db.count("reversals").await, 0);
    app.sim.move_dispute("du_1", DisputeStatus::Lost);
    post(&app, false).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let lost = dispute(&app).await;
    assert_eq!((&lost["status"], &lost["stage"]), (&json!("matched"), &json!("lost")), "{lost}");
    assert_eq!(lost["reversals"][0]["refund_ref"], "du_1");
    let metadata = app.sim.ledger().reversals("tr_1")[0].metadata.clone();
    assert_eq!(metadata.get("clawback_claim").map(String::as_str), Some("stripe:du_1"), "{metadata:?}");

    app.refund_of(10_000, 1).await;
    assert_eq!(app.refund_view("re_1").await["reversals"], json!([]));
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn in_every_order_and_repeated_the_events_have_the_same_end(mut app: TestApp) {
    app.restart_with(&[("DISPUTE_POLICY", "withdrawn"), ("REVERSAL_WORKER_ENABLED", "false")]).await;
    let orders: [(DisputeStatus, &[usize]); 6] = [
        (DisputeStatus::Lost, &[0, 1, 2, 3]),
        (DisputeStatus::Lost, &[3, 2, 1, 0]),
        (DisputeStatus::Lost, &[2, 0, 3, 1]),
        (DisputeStatus::Won, &[0, 1, 2, 3, 4]),
        (DisputeStatus::Won, &[4, 3, 2, 1, 0]),
        (DisputeStatus::Won, &[1, 4, 0, 3, 2]),
    ];
    for (n, (ending, order)) in orders.into_iter().enumerate() {
        let (charge, payment, id) = (format!("ch_{n}"), format!("pi_{n}"), format!("du_{n}"));
        pay(&app, &charge, &payment);
        let mut registered = two_sellers(&payment);
        for transfer in registered["transfers"].as_array_mut().unwrap() {
            let name = format!("{}_{n}", transfer["stripe_transfer_id"].as_str().unwrap());
            transfer["stripe_transfer_id"] = json!(name);
        }
        assert_eq!(app.register(registered).await.status(), 201);
        app.sim.dispute(NewDispute { id: Some(id.clone()), amount: Some(5_000), ..NewDispute::of(&charge) });
        app.sim.move_dispute(&id, DisputeStatus::UnderReview);
        app.sim.move_dispute(&id, ending);
        let events = webhooks(&app, n % 2 == 1);
        let events: Vec<&Webhook> = events.iter().filter(|event| event.body.contains(&id)).collect();
        assert_eq!(events.len(), order.len(), "{ending:?}");
        for at in order.iter().chain(order) {
            answered(app.post_signed(&events[*at].body, &events[*at].signature).await).await;
        }
        let shown: Value = get(&app, &format!("/v1/disputes/{id}")).await;
        let owed = shown["reversals"].as_array().unwrap().iter().filter(|row| row["status"] == "pending");
        let amounts: Vec<i64> = owed.map(|row| row["amount"].as_i64().unwrap()).collect();
        let expected = if ending == DisputeStatus::Lost { ("matched", vec![3_000, 1_500]) } else { ("failed", vec![]) };
        assert_eq!((shown["status"].as_str().unwrap(), amounts), expected, "{ending:?} {order:?}: {shown}");
        assert_eq!(shown["attention"], Value::Null, "{shown}");
    }
}

async fn with_the_policy_off_a_dispute_is_held_until_an_operator_accepts_it(app: TestApp) {
    let app = disputed(app, "off", NewDispute { amount: Some(5_000), ..NewDispute::of("ch_1") }).await;
    app.sim.move_dispute("du_1", DisputeStatus::Lost);
    post(&app, true).await;
    let held = dispute(&app).await;
    assert_eq!((&held["status"], &held["stage"]), (&json!("held"), &json!("lost")), "{held}");
    assert!(held["status_reason"].as_str().unwrap().contains("DISPUTE_POLICY is off"), "{held}");
    let doctor = app.cli(&["doctor", "--format", "json"]).await.json();
    let checks = doctor["checks"].as_array().unwrap();
    let finding = checks.iter().find(|finding| finding["check"] == "held disputes").unwrap();
    assert!(finding["message"].as_str().unwrap().starts_with("1 (5000 eur; the oldest "), "{finding}");
    assert_eq!(finding["status"], "warning");
    assert!(finding["remedy"].as_str().unwrap().contains("clawback disputes list --status held"), "{finding}");
    assert_eq!(app.cli(&["doctor", "--strict"]).await.code, 3);
    // A policy that would take it comes too late for it.
    let lost = app.settings_with(&[("DISPUTE_POLICY", "lost")]);
    let doctor = clawback(&["doctor", "--strict"], &lost).await;
    assert_eq!(
        (doctor.code, doctor.words().contains("some came before DISPUTE_POLICY took such")),
        (3, true),
        "{doctor:?}"
    );

    let accepted = app.cli(&["disputes", "accept", "du_1", "--reason", "the seller agreed"]).await;
    assert!(accepted.table().starts_with("Accepted.\n"), "{accepted:?}");
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (3_000, 1_500));
    let history = app.db.query("SELECT entity, reason FROM history WHERE actor = 'ada' ORDER BY id").await;
    assert_eq!(history[0], json!({"entity": "dispute", "reason": "accepted: the seller agreed"}), "{history:?}");
    let again = app.cli(&["disputes", "accept", "du_1", "--reason", "again"]).await;
    assert_eq!(
        (again.code, again.stderr.contains("is matched; only a held or conflicting one")),
        (1, true),
        "{again:?}"
    );
}

async fn an_event_that_is_sent_again_makes_a_held_dispute_follow_the_new_policy(app: TestApp) {
    let mut app = disputed(app, "off", NewDispute { amount: Some(5_000), ..NewDispute::of("ch_1") }).await;
    app.sim.move_dispute("du_1", DisputeStatus::Lost);
    post(&app, false).await;
    assert_eq!(dispute(&app).await["status"], "held");
    let again = post(&app, false).await;
    assert!(again.iter().all(|answer| answer["outcome"] == "duplicate"), "nothing has changed: {again:?}");
    app.restart_with(&[("DISPUTE_POLICY", "lost")]).await;
    let again = post(&app, false).await;
    assert!(again.iter().any(|answer| answer["outcome"] == "accepted"), "{again:?}");
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (3_000, 1_500));
    let inbox = app.db.query("SELECT DISTINCT outcome FROM webhook_events ORDER BY outcome").await;
    assert!(inbox.contains(&json!({"outcome": "accepted"})), "{inbox:?}");
}

async fn what_was_taken_for_withdrawn_funds_is_to_be_paid_back_when_they_are_reinstated(app: TestApp) {
    let app = disputed(app, "withdrawn", NewDispute::of("ch_1")).await;
    post(&app, false).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    app.sim.move_dispute("du_1", DisputeStatus::Won);
    post(&app, false).await;
    let won = dispute(&app).await;
    assert_eq!((&won["status"], &won["stage"]), (&json!("failed"), &json!("won")), "{won}");
    let attention = won["attention"].as_str().unwrap();
    for words in ["0 of its 2", "6000 eur for transfer tr_1 (seller s1)", "3000 eur for transfer tr_2 (seller s2)"] {
        assert!(attention.contains(words), "{words}: {attention}");
    }
    let doctor = app.cli(&["doctor"]).await;
    assert!(doctor.words().contains("attention: needed by 1 (10000 eur"), "{doctor:?}");
    assert!(doctor.words().contains("clawback disputes acknowledge"), "{doctor:?}");

    let body = json!({"operator": "grace", "reason": "paid back with tr_8 and tr_9"});
    let (status, answer) = act(&app, "/v1/disputes/du_1/acknowledge", &body).await;
    assert_eq!((status, &answer["attention"]), (200, &Value::Null), "{answer}");
    assert!(answer["acknowledged_at"].is_string(), "{answer}");
    let doctor = app.cli(&["doctor"]).await;
    assert!(doctor.words().contains("attention: no refund and no dispute needs it"), "{doctor:?}");
    let history = app.db.query("SELECT reason FROM history WHERE actor = 'grace'").await;
    assert!(history[0]["reason"].as_str().unwrap().starts_with("acknowledged: paid back with tr_8 and tr_9 (it said:"));
    let (status, problem) = act(&app, "/v1/disputes/du_1/acknowledge", &body).await;
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/conflict")), "{problem}");
}

async fn a_dispute_of_which_a_part_is_reinstated_takes_and_says_which_part(app: TestApp) {
    let app = disputed(app, "lost", NewDispute::of("ch_1")).await;
    app.sim.reinstate("du_1", 3_000);
    post(&app, false).await;
    let open = dispute(&app).await;
    assert_eq!((&open["status"], &open["stage"]), (&json!("held"), &json!("withdrawn")), "{open}");
    app.sim.move_dispute("du_1", DisputeStatus::Lost);
    post(&app, false).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let lost = dispute(&app).await;
    assert_eq!((&lost["status"], &lost["stage"]), (&json!("matched"), &json!("lost")), "{lost}");
    let attention = lost["attention"].as_str().unwrap_or_default();
    assert!(attention.contains("3000 eur of the 10000 eur in dispute were reinstated"), "{lost}");
}

async fn what_stripe_was_not_asked_for_is_called_off_when_a_dispute_is_won(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    let app = disputed(app, "withdrawn", NewDispute::of("ch_1")).await;
    post(&app, false).await;
    assert_eq!(app.db.count("reversals WHERE status = 'pending'").await, 2);
    app.sim.move_dispute("du_1", DisputeStatus::Won);
    let answers = post(&app, false).await;
    assert!(answers.contains(&json!({"received": true, "outcome": "failed", "called_off": 2})), "{answers:?}");
    assert_eq!(app.db.count("reversals WHERE status = 'called_off'").await, 2);
    let transfers = app.payment("pi_1").await["transfers"].clone();
    assert!(transfers.as_array().unwrap().iter().all(|transfer| transfer["status"] == "completed"), "{transfers}");
    assert_eq!(dispute(&app).await["attention"], Value::Null);
}

async fn what_a_won_dispute_took_is_to_be_paid_back_once_the_refund_beside_it_fails(app: TestApp) {
    let app = disputed(app, "withdrawn", NewDispute::of("ch_1")).await;
    post(&app, false).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    app.refund_of(10_000, 1).await;
    app.sim.move_dispute("du_1", DisputeStatus::Won);
    post(&app, false).await;
    assert_eq!(dispute(&app).await["attention"], Value::Null, "the refund would have taken as much");
    fails(&app, 10_000).await;
    let attention = dispute(&app).await["attention"].clone();
    for words in ["6000 eur for transfer tr_1 (seller s1)", "3000 eur for transfer tr_2 (seller s2)"] {
        assert!(attention.as_str().is_some_and(|attention| attention.contains(words)), "{words}: {attention}");
    }
}

async fn a_dispute_takes_what_a_failing_refund_had_left_it(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    let mut app = disputed(app, "withdrawn", NewDispute { amount: Some(6_000), ..NewDispute::of("ch_1") }).await;
    app.refund_of(10_000, 1).await;
    post(&app, false).await;
    fails(&app, 10_000).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (3_600, 1_800));
}

/// The refund `re_1` of so much fails.
async fn fails(app: &TestApp, amount: i64) {
    let mut event = refund_event("evt_failed", "re_1", "pi_1", amount);
    event["type"] = json!("refund.failed");
    event["data"]["object"]["status"] = json!("failed");
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
}

async fn an_inquiry_and_a_dispute_that_a_refund_settles_take_nothing(app: TestApp) {
    let app = disputed(app, "withdrawn", NewDispute::inquiry("ch_1")).await;
    app.sim.move_dispute("du_1", DisputeStatus::WarningClosed);
    post(&app, false).await;
    let inquiry = dispute(&app).await;
    assert_eq!((&inquiry["status"], &inquiry["stage"]), (&json!("nothing_to_reverse"), &json!("inquiry")), "{inquiry}");
    assert!(inquiry["status_reason"].as_str().unwrap().contains("inquiry"), "{inquiry}");
    app.sim.dispute(NewDispute { id: Some("du_2".into()), ..NewDispute::inquiry("ch_1") });
    app.sim.move_dispute("du_2", DisputeStatus::ChargeRefunded);
    post(&app, false).await;
    let settled = get(&app, "/v1/disputes/du_2").await;
    assert_eq!((&settled["status"], &settled["stage"]), (&json!("failed"), &json!("settled")), "{settled}");
    assert_eq!((app.db.count("reversals").await, app.reversed_at_stripe("tr_1")), (0, 0));
}

async fn a_dispute_that_comes_before_its_payment_waits_for_it(mut app: TestApp) {
    app.restart_with(&[("DISPUTE_POLICY", "lost")]).await;
    pay(&app, "ch_1", "pi_1");
    app.sim.dispute(NewDispute { id: Some("du_1".into()), ..NewDispute::of("ch_1") });
    app.sim.move_dispute("du_1", DisputeStatus::Lost);
    post(&app, false).await;
    assert_eq!(dispute(&app).await["status"], "unmatched");
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "reversed").await;
    eventually("both are back", || async { (app.reversed_at_stripe("tr_2") == 3_000).then_some(()) }).await;
    let trace = app.cli(&["trace", "du_1"]).await;
    assert!(trace.table().contains("dispute du_1 ("), "{trace:?}");
}

/// With the payment `pi_1` registered, and this dispute of it, `du_1`.
async fn disputed(mut app: TestApp, policy: &str, dispute: NewDispute) -> TestApp {
    app.restart_with(&[("DISPUTE_POLICY", policy)]).await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    pay(&app, "ch_1", "pi_1");
    app.sim.dispute(NewDispute { id: Some("du_1".into()), ..dispute });
    app
}

fn pay(app: &TestApp, charge: &str, payment_intent: &str) {
    let (charge, payment_intent) = (Some(charge.to_owned()), Some(payment_intent.to_owned()));
    app.sim.pay(NewPayment { charge, payment_intent, ..NewPayment::new(10_000, "eur") });
}

/// What Stripe has to tell of disputes so far.
fn webhooks(app: &TestApp, expanded: bool) -> Vec<Webhook> {
    let endpoint = Endpoint { expanded, ..Endpoint::new("", &app.webhook_secret) };
    app.sim.webhooks(&endpoint).into_iter().filter(|event| event.kind.starts_with("charge.dispute.")).collect()
}

/// Posts all of that, and returns the answers.
async fn post(app: &TestApp, expanded: bool) -> Vec<Value> {
    let mut answers = Vec::new();
    for event in webhooks(app, expanded) {
        answers.push(answered(app.post_signed(&event.body, &event.signature).await).await);
    }
    answers
}

async fn answered(response: reqwest::Response) -> Value {
    let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn dispute(app: &TestApp) -> Value {
    get(app, "/v1/disputes/du_1").await
}

async fn get(app: &TestApp, path: &str) -> Value {
    let request = app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token);
    answered(request.send().await.unwrap()).await
}

async fn act(app: &TestApp, path: &str, body: &Value) -> (u16, Value) {
    let request = app.http.post(format!("{}{path}", app.base_url)).bearer_auth(&app.api_token);
    let response = request.json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}
