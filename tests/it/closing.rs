//! Debts that are settled elsewhere, wholly or in part, and rows that are replayed in bulk.

use clawback::ledger::CallKind;
use reqwest::StatusCode;
use serde_json::{Value, json};
use stripe_sim::Fault;

use crate::support::{TestApp, both_databases, eventually, refund_event, to_create, two_sellers};

both_databases! {
    a_closed_reversal_is_no_failure_and_its_message_is_taken_away,
    a_closed_reversal_holds_no_later_refund,
    a_closed_reversal_is_not_asked_for_by_the_next_refund,
    what_is_closed_is_not_replayed_by_its_parked_message,
    only_what_failed_permanently_is_closed,
    what_is_left_is_taken_and_the_rest_is_remembered,
    a_part_is_taken_of_a_transfer_that_stripe_did_not_know_before,
    a_part_is_taken_over_http,
    rows_are_replayed_in_bulk_without_their_messages,
    creations_are_retried_in_bulk_by_seller,
    a_bulk_discard_asks,
    what_is_closed_in_bulk_is_not_tried_again_meanwhile,
}

async fn post(app: &TestApp, path: &str, body: &Value) -> (StatusCode, Value) {
    let request = app.http.post(format!("{}{path}", app.base_url)).bearer_auth(&app.api_token);
    let response = request.json(body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn ada(reason: &str) -> Value {
    json!({"operator": "ada", "reason": reason})
}

/// Whether nothing failed permanently, by every count.
async fn nothing_has_failed(app: &TestApp) {
    assert_eq!(app.ledger().backlog().await.unwrap().reversals_given_up, 0);
    for table in ["reversals", "seller_transfers"] {
        assert_eq!(app.db.count(&format!("{table} WHERE status = 'permanently_failed'")).await, 0, "{table}");
    }
}

/// `pi_1` with a transfer that Stripe does not know, of which `amount` is refunded: its reversal fails, the other is done.
async fn one_has_failed(app: &mut TestApp, amount: i64) -> String {
    // Nothing is swept meanwhile: a second job would park a second message.
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["stripe_transfer_id"] = "tr_late".into();
    assert_eq!(app.register(payment).await.status(), 201);
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", amount).to_string()).await;
    let failed = app.transfer_becomes(0, "permanently_failed").await;
    is_parked(app, 1).await;
    app.transfer_becomes(1, if amount == 10_000 { "reversed" } else { "partially_reversed" }).await;
    failed["reversals"][0]["id"].as_str().unwrap().to_owned()
}

async fn is_parked(app: &TestApp, count: usize) {
    eventually(&format!("{count} messages are parked"), || async {
        let list = app.cli(&["parked", "list", "--format", "json"]).await.json()["parked"].clone();
        (list.as_array()?.len() == count).then_some(())
    })
    .await;
}

async fn a_closed_reversal_is_no_failure_and_its_message_is_taken_away(mut app: TestApp) {
    let id = one_has_failed(&mut app, 10_000).await;
    let run = app.cli(&["reversals", "close", &id, "--reason", "paid by invoice 4711", "--operator", "grace"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.words().contains(&format!("Reversal {id} is closed (6000 eur in minor units).")), "{run:?}");
    assert!(run.words().contains("Its parked message is taken away."), "{run:?}");
    is_parked(&app, 0).await;
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!((&transfer["status"], &transfer["reversals"][0]["status"]), (&json!("completed"), &json!("closed")));
    nothing_has_failed(&app).await;
    let said = app.db.query("SELECT DISTINCT reason FROM history WHERE actor = 'grace'").await;
    assert_eq!(said, [json!({"reason": "settled elsewhere: paid by invoice 4711"})]);
    let again = app.cli(&["reversals", "close", &id, "--reason", "again"]).await;
    assert!(again.code == 1 && again.stderr.contains("is closed; only a permanently_failed one"), "{again:?}");
    let (status, problem) = post(&app, &format!("/v1/reversals/{id}/replay"), &ada("again")).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
}

async fn a_closed_reversal_holds_no_later_refund(mut app: TestApp) {
    let id = one_has_failed(&mut app, 5_000).await;
    app.refund_of(5_000, 2).await;
    is_parked(&app, 2).await;
    app.sim.add_transfer("tr_late", 6_000, "eur", "acct_1");
    let (status, closed) = post(&app, &format!("/v1/reversals/{id}/close"), &ada("written off")).await;
    assert_eq!((status, &closed["status"]), (StatusCode::OK, &json!("closed")), "{closed}");
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(transfer["amount_reversed"], 3_000);
    assert_eq!(app.reversed_at_stripe("tr_late"), 3_000, "the second refund's part, once");
    nothing_has_failed(&app).await;
    // What is left on the broker says nothing any more.
    let run = app.cli(&["parked", "replay", "--all", "--reason", "tidy up"]).await;
    assert_eq!(run.code, 3, "nothing matched: {run:?}");
    is_parked(&app, 0).await;
    assert_eq!(app.reversed_at_stripe("tr_late"), 3_000);
}

async fn a_closed_reversal_is_not_asked_for_by_the_next_refund(mut app: TestApp) {
    let id = one_has_failed(&mut app, 5_000).await;
    app.sim.add_transfer("tr_late", 6_000, "eur", "acct_1");
    assert_eq!(post(&app, &format!("/v1/reversals/{id}/close"), &ada("written off")).await.0, StatusCode::OK);
    app.refund_of(5_000, 2).await;
    app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_late"), 3_000);
}

async fn what_is_closed_is_not_replayed_by_its_parked_message(mut app: TestApp) {
    let id = one_has_failed(&mut app, 10_000).await;
    app.sim.add_transfer("tr_late", 6_000, "eur", "acct_1");
    // As "Move messages" in RabbitMQ's UI does.
    let mut message = app.vhost.take("reversals.parked").await;
    assert_eq!(post(&app, &format!("/v1/reversals/{id}/close"), &ada("written off")).await.0, StatusCode::OK);
    message["properties"].as_object_mut().unwrap().remove("expiration");
    app.vhost.put("reversals", &message).await;
    eventually("the message is acknowledged", || async { app.vhost.is_empty("reversals").await.then_some(()) }).await;
    assert_eq!(app.payment("pi_1").await["transfers"][0]["reversals"][0]["status"], "closed");
    assert_eq!(app.reversed_at_stripe("tr_late"), 0);
}

async fn only_what_failed_permanently_is_closed(app: TestApp) {
    app.refund(10_000).await;
    let done = app.transfer_becomes(0, "reversed").await["reversals"][0].clone();
    for id in [&done["id"], &done["stripe_reversal_id"]] {
        let (status, problem) =
            post(&app, &format!("/v1/reversals/{}/close", id.as_str().unwrap()), &ada("why not")).await;
        assert_eq!(status, StatusCode::CONFLICT, "{problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains("is reversed; only a permanently_failed one"),
            "{problem}"
        );
    }
    let (status, _) = post(&app, "/v1/reversals/trr_none/close", &ada("why not")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, problem) = post(&app, "/v1/reversals/trr_none/close", &ada(" ")).await;
    assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("reason")));
    app.db.no_table_was_read_as_a_whole().await;
}

/// A refund of all of `pi_1`, of whose first transfer another program has taken back 5,400 of 6,000.
async fn less_is_left(app: &TestApp) -> String {
    let url = format!("{}/v1/transfers/tr_1/reversals", app.sim.base_url());
    let request = app.http.post(url).bearer_auth("sk_test_of_the_tests").form(&[("amount", "5400")]);
    assert_eq!(request.send().await.unwrap().status(), 200);
    app.refund(10_000).await;
    let failed = app.reversal_when(0, "it fails", |it| it["status"] == "permanently_failed").await;
    assert_eq!(failed["failure_code"], "more_than_left");
    failed["id"].as_str().unwrap().to_owned()
}

async fn what_is_left_is_taken_and_the_rest_is_remembered(app: TestApp) {
    let id = less_is_left(&app).await;
    let run = app.cli(&["reversals", "replay", &id, "--amount", "left", "--reason", "reversed by hand"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    let done = app.reversal_when(0, "it is reversed", |it| it["status"] == "reversed").await;
    assert_eq!((&done["amount"], &done["amount_closed"]), (&json!(600), &json!(5_400)));
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000, "5400 by the other program");
    let said = "history WHERE reason = '600 of 6000 eur are taken, 5400 were settled elsewhere: reversed by hand'";
    assert!(app.db.count(said).await > 0);
    nothing_has_failed(&app).await;
    let run = app.cli(&["reversals", "replay", &id, "--amount", "left", "--reason", "again"]).await;
    assert_eq!(run.code, 1, "{run:?}");
}

async fn a_part_is_taken_of_a_transfer_that_stripe_did_not_know_before(app: TestApp) {
    app.sim.reset();
    app.refund(10_000).await;
    let failed = app.reversal_when(0, "it fails", |it| it["status"] == "permanently_failed").await;
    assert_eq!(failed["failure_code"], "resource_missing");
    app.sim.add_transfer("tr_1", 6_000, "eur", "acct_1");
    let id = failed["id"].as_str().unwrap();
    let run =
        app.cli(&["reversals", "replay", id, "--amount", "400", "--reason", "the key was of another account"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    // Stripe has saved the refusal of the whole amount under the first key.
    let done = app.reversal_when(0, "it is reversed", |it| it["status"] == "reversed").await;
    assert_eq!((&done["amount"], &done["amount_closed"]), (&json!(400), &json!(5_600)));
    assert_eq!(app.reversed_at_stripe("tr_1"), 400);
}

async fn a_part_is_taken_over_http(app: TestApp) {
    let id = less_is_left(&app).await;
    let path = format!("/v1/reversals/{id}/replay");
    let with = |amount: Value| json!({"operator": "ada", "reason": "the rest is settled", "amount": amount});
    for bad in [json!(0), json!(6_001), json!(1.5), json!("rest"), json!(true)] {
        let (status, problem) = post(&app, &path, &with(bad.clone())).await;
        assert_eq!(
            (status, &problem["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!("amount")),
            "{bad}: {problem}"
        );
    }
    let (status, pending) = post(&app, &path, &with(json!("left"))).await;
    assert_eq!(
        (status, &pending["amount"], &pending["amount_closed"]),
        (StatusCode::ACCEPTED, &json!(600), &json!(5_400))
    );
    app.reversal_when(0, "it is reversed", |it| it["status"] == "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
    // What was settled elsewhere is not asked for again.
    assert_eq!(app.payment("pi_1").await["transfers"][0]["amount_reversed"], 600);
    let (status, problem) = post(&app, &path, &with(json!("left"))).await;
    assert_eq!(
        (status, problem["detail"].as_str().unwrap().contains("nothing is left of tr_1")),
        (StatusCode::CONFLICT, true)
    );
}

/// The reversals of both transfers fail, since Stripe is away, and their messages are lost.
async fn both_have_failed(app: &mut TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0"), ("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    app.stripe_answers().await;
    for transfer in ["tr_1", "tr_2"] {
        app.sim.fault(transfer, Fault::UnavailableHtml, 1_000);
    }
    app.refund(10_000).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "permanently_failed").await;
    is_parked(app, 2).await;
    app.sim.clear_faults();
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1s")]).await;
}

async fn rows_are_replayed_in_bulk_without_their_messages(mut app: TestApp) {
    both_have_failed(&mut app).await;
    app.vhost.purge("reversals.parked").await;
    let replay = |more: &[&'static str]| [&["reversals", "replay", "--reason", "Stripe is back"], more].concat();
    // Nobody is there to be asked.
    let run = app.cli(&replay(&["--all"])).await;
    assert!(run.code == 1 && run.stderr.contains("Replay 2 reversals (9000 eur in minor units)? Add --yes"), "{run:?}");
    for none in [&["--failure-code", "other"][..], &["--seller", "s9"], &["--seller", "s1", "--failure-code", "other"]]
    {
        let run = app.cli(&replay(&[none, &["--yes"]].concat())).await;
        assert_eq!(run.code, 3, "{run:?}");
        assert_eq!(run.stdout, "No reversal that failed permanently matches.\n");
    }
    for wrong in [&[][..], &["--yes"], &["some-id", "--all"], &["--all", "--amount", "left"]] {
        assert_eq!(app.cli(&replay(wrong)).await.code, 2, "{wrong:?}");
    }
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 2);

    let one = app.cli(&replay(&["--seller", "s1", "--failure-code", "unavailable", "--since", "1h", "--yes"])).await;
    assert!(one.code == 0 && one.table().starts_with("1 replayed, 0 skipped."), "{one:?}");
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.payment("pi_1").await["transfers"][1]["status"], "permanently_failed");
    let other = app.cli(&replay(&["--all", "--yes", "--format", "json"])).await;
    assert_eq!(other.json()["replayed"].as_array().unwrap().len(), 1, "{other:?}");
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn creations_are_retried_in_bulk_by_seller(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "0"), ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")]).await;
    let message = "The account may not receive transfers yet.".to_owned();
    app.sim.fault(stripe_sim::Target::Any, Fault::Refused { status: 400, code: None, message }, 1_000);
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "permanently_failed").await;
    is_parked(&app, 2).await;
    app.sim.clear_faults();
    app.restart_with(&[("TRANSFER_RETRY_CHECK_INTERVAL", "1s")]).await;
    let run = app.cli(&["transfers", "retry", "--seller", "s4", "--yes", "--reason", "verified"]).await;
    assert!(
        run.code == 0 && run.words().contains("1 replayed, 0 skipped. 1 parked messages were taken away."),
        "{run:?}"
    );
    app.transfer_becomes(1, "completed").await;
    is_parked(&app, 1).await;
    let left = app.ledger().failed_calls(CallKind::Create, &Default::default()).await.unwrap();
    assert_eq!((left.len(), left[0].amount), (1, 6_000));
    assert_eq!(app.sim.ledger().transfers_to("acct_3").len(), 0);
}

async fn a_bulk_discard_asks(mut app: TestApp) {
    both_have_failed(&mut app).await;
    let discard = |more: &[&'static str]| [&["parked", "discard", "--reason", "settled"], more].concat();
    for selection in [&["--all"][..], &["--kind", "reverse_transfer"]] {
        let run = app.cli(&discard(selection)).await;
        assert!(run.code == 1 && run.stderr.contains("Discard 2 parked messages? Add --yes"), "{run:?}");
    }
    is_parked(&app, 2).await;
    assert_eq!(app.cli(&discard(&["--all", "--yes"])).await.code, 0);
    is_parked(&app, 0).await;
}

async fn what_is_closed_in_bulk_is_not_tried_again_meanwhile(mut app: TestApp) {
    one_has_failed(&mut app, 5_000).await;
    app.refund_of(5_000, 2).await;
    is_parked(&app, 2).await;
    app.transfer_becomes(1, "reversed").await;
    // Stripe could reverse it now. The seller has paid all of it by invoice.
    app.sim.add_transfer("tr_late", 6_000, "eur", "acct_1");
    let (status, preview) =
        post(&app, "/v1/operations", &json!({"action": "close_reversals", "filter": {"seller": "s1"}})).await;
    assert_eq!((status, &preview["items"]), (StatusCode::CREATED, &json!(2)), "{preview}");
    let id = preview["id"].as_str().unwrap();
    let (status, started) = post(&app, &format!("/v1/operations/{id}/start"), &ada("paid by invoice")).await;
    assert!(status.is_success(), "{started}");
    let done = eventually("both are closed", || async {
        let operation = app.http.get(format!("{}/v1/operations/{id}", app.base_url)).bearer_auth(&app.api_token);
        let operation: Value = operation.send().await.unwrap().json().await.unwrap();
        (operation["state"] == "done").then_some(operation)
    })
    .await;
    assert_eq!(done["progress"], json!({"done": 2, "pending": 0, "refused": 0}), "{done}");
    assert_eq!(app.db.count("reversals WHERE status = 'closed'").await, 2);
    assert_eq!(app.reversed_at_stripe("tr_late"), 0);
}
