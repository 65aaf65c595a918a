//! What operators do about rows and parked messages, with the real binary: nothing lost, nothing twice, and who and why
//! is in the history.

use clawback::ledger::CallKind;
use serde_json::{Value, json};
use stripe_sim::{Fault, Target};

use crate::support::{Process, TestApp, both_databases, eventually, to_create};

both_databases! {
    a_reversal_that_was_given_up_is_replayed,
    what_stripe_had_done_when_it_was_given_up_is_not_done_again,
    a_parked_message_that_is_lost_is_no_obstacle,
    a_broker_that_is_away_is_a_warning,
    only_what_was_given_up_is_replayed,
    the_list_says_what_each_message_is_about_and_how_that_stands,
    a_filter_selects_and_a_dry_run_changes_nothing,
    a_message_whose_row_moved_on_before_it_was_moved_does_no_harm,
    what_replays_over_http_and_operations_supersede_is_dropped_soon,
    a_replay_that_is_killed_on_its_way_is_run_again,
    a_discarded_message_is_gone_and_its_row_stays_given_up,
    what_is_no_job_of_the_ledger_can_be_discarded_and_not_replayed,
    a_creation_that_was_given_up_is_tried_again,
}

async fn a_reversal_that_was_given_up_is_replayed(mut app: TestApp) {
    let reversal = give_up(&mut app, 1).await[0].clone();
    let run = app.cli(&["reversals", "replay", &reversal, "--reason", "the seller paid in"]).await;
    assert!(run.table().contains(&format!("clawback trace {reversal}")), "{run:?}");
    assert!(run.words().contains("parked message is taken away"), "{run:?}");
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
    assert_eq!(app.cli(&["parked", "list"]).await.table(), "Nothing is parked.\n");
    let rows = app.db.query("SELECT entity, reason FROM history WHERE actor = 'ada' ORDER BY id").await;
    assert_eq!(rows.len(), 2, "the reversal's and the transfer's: {rows:?}");
    assert!(rows.iter().all(|row| row["reason"] == "the seller paid in"), "{rows:?}");
}

async fn what_stripe_had_done_when_it_was_given_up_is_not_done_again(mut app: TestApp) {
    let reversals = give_up(&mut app, 2).await;
    for (transfer, amount) in [("tr_1", 6_000), ("tr_2", 3_000)] {
        reverse_at_stripe(&app, transfer, amount).await;
    }
    let posted = posts(&app);
    let one = app.cli(&["reversals", "replay", &reversals[0], "--reason", "it may be done", "--format", "json"]).await;
    assert_eq!((one.code, one.json()["parked_messages_removed"].clone()), (0, json!(1)), "{one:?}");
    let other = app.cli(&["parked", "replay", "--all", "--reason", "it may be done"]).await;
    assert!(other.table().contains("1 replayed, 0 skipped."), "{other:?}");
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(posts(&app), posted, "Stripe's list was enough");
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn a_parked_message_that_is_lost_is_no_obstacle(mut app: TestApp) {
    let reversal = give_up(&mut app, 1).await[0].clone();
    app.vhost.purge("reversals.parked").await;
    let run = app.cli(&["parked", "replay", &reversal, "--reason", "try again"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("clawback reversals replay"), "{run:?}");
    let run = app.cli(&["reversals", "replay", &reversal, "--reason", "try again"]).await;
    assert!(run.words().contains("had no parked message"), "{run:?}");
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
}

async fn a_broker_that_is_away_is_a_warning(mut app: TestApp) {
    let reversal = give_up(&mut app, 1).await[0].clone();
    let mut settings = app.settings();
    settings.retain(|(name, _)| name != "AMQP_URL");
    settings.push(("AMQP_URL".to_owned(), "amqp://guest:secret@127.0.0.1:1/%2f".to_owned()));
    let arguments = ["reversals", "replay", &reversal, "--reason", "try again"];
    let run = crate::support::clawback(&arguments, &settings).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.words().contains("warning: its parked message, if it has one, is still there"), "{run:?}");
    assert!(!format!("{run:?}").contains("secret"), "{run:?}");
    app.transfer_becomes(0, "reversed").await;
    app.vhost.has("reversals.parked", 1).await;
    // It is not shown, and a look leaves it; it is dropped when an operator acts.
    assert_eq!(app.cli(&["parked", "list"]).await.table(), "Nothing is parked.\n");
    app.vhost.has("reversals.parked", 1).await;
    let doctor = app.cli(&["doctor", "--format", "json"]).await.json();
    let found = doctor["checks"].as_array().unwrap().iter().find(|check| check["check"] == "reversals.parked");
    let outdated = json!("nothing is parked; outdated messages, which the next replay drops: 1");
    assert_eq!(found.map(|found| (&found["status"], &found["message"])), Some((&json!("ok"), &outdated)));
    let tidied = app.cli(&["parked", "replay", "--all", "--reason", "what is left"]).await;
    assert_eq!(tidied.code, 3, "nothing matched: {tidied:?}");
    assert!(app.vhost.is_empty("reversals.parked").await);
}

async fn only_what_was_given_up_is_replayed(app: TestApp) {
    app.refund(10_000).await;
    let done = app.transfer_becomes(0, "reversed").await["reversals"][0].clone();
    let (ours, theirs) = (done["id"].as_str().unwrap(), done["stripe_reversal_id"].as_str().unwrap());
    for id in [ours, theirs] {
        let run = app.cli(&["reversals", "replay", id, "--reason", "again"]).await;
        assert_eq!(run.code, 1, "{run:?}");
        assert!(run.stderr.contains("is reversed; only a permanently_failed one"), "{run:?}");
    }
    let run = app.cli(&["reversals", "replay", "trr_nobody", "--reason", "again"]).await;
    assert_eq!((run.code, run.stderr.contains("\"trr_nobody\"")), (1, true), "{run:?}");
    for bad in [&["reversals", "replay", ours][..], &["reversals", "replay", ours, "--reason", " "]] {
        let run = app.cli(bad).await;
        assert_eq!((run.code, run.stderr.contains("--reason")), (2, true), "{run:?}");
    }
}

async fn the_list_says_what_each_message_is_about_and_how_that_stands(mut app: TestApp) {
    let reversals = give_up(&mut app, 2).await;
    let list = parked(&app, 2).await;
    for message in &list {
        let about = message["entity_id"].as_str().unwrap().to_owned();
        assert!(reversals.contains(&about), "{message}");
        assert_eq!(
            (&message["entity"], &message["kind"], &message["queue"], &message["row_status"], &message["settled"]),
            (
                &json!("reversal"),
                &json!("reverse_transfer"),
                &json!("reversals.parked"),
                &json!("permanently_failed"),
                &json!(false)
            )
        );
        assert!(message["reason"].as_str().unwrap().contains("retries exhausted"), "{message}");
        assert!(message["parked_at"].is_string(), "{message}");
    }
    let table = app.cli(&["parked", "list"]).await;
    assert!(table.table().contains(&format!("reversal {}: permanently_failed", reversals[0])), "{table:?}");
    assert_eq!(app.cli(&["parked", "list", "--limit", "1", "--format", "json"]).await.json()["parked"][0], list[0]);

    for id in [list[1]["id"].as_str().unwrap(), list[1]["entity_id"].as_str().unwrap()] {
        let shown = app.cli(&["parked", "show", id, "--format", "json"]).await.json();
        assert_eq!(shown["parked"][0]["payload"]["call_id"], list[1]["entity_id"]);
        assert_eq!(shown["parked"][0]["correlation_id"], list[1]["entity_id"]);
        let headers = shown["parked"][0]["headers"].as_object().unwrap();
        assert!(headers["parked-reason"].as_str().unwrap().contains("retries exhausted"), "{headers:?}");
        assert!(headers.contains_key("attempt") && headers.contains_key("last-error"), "{headers:?}");
        let table = app.cli(&["parked", "show", id]).await;
        assert!(table.table().contains("  parked-reason: "), "{table:?}");
    }
    let run = app.cli(&["parked", "show", "nothing"]).await;
    assert_eq!((run.code, run.stderr.contains("\"nothing\"")), (1, true), "{run:?}");
}

async fn a_filter_selects_and_a_dry_run_changes_nothing(mut app: TestApp) {
    give_up(&mut app, 2).await;
    let list = parked(&app, 2).await;
    let before = app.db.query("SELECT id FROM history ORDER BY id").await;
    for nothing in [
        &["parked", "replay", "--reason-contains", "no such words", "--dry-run"][..],
        &["parked", "replay", "--kind", "create_transfer", "--dry-run"],
        &["parked", "replay", "--kind", "create_transfer", "--reason", "why"],
        &["parked", "discard", "--kind", "create_transfer", "--reason", "why", "--yes"],
    ] {
        let run = app.cli(nothing).await;
        assert_eq!((run.code, run.stdout.as_str()), (3, "Nothing that is parked matches.\n"), "{run:?}");
    }
    let all = ["parked", "replay", "--reason-contains", "retries exhausted", "--dry-run", "--format", "json"];
    let dry = app.cli(&all).await.json();
    assert_eq!((dry["dry_run"].as_bool(), dry["handled"].as_array().unwrap().len()), (Some(true), 2));
    let dry = app.cli(&["parked", "discard", "--all", "--dry-run"]).await;
    assert!(dry.table().contains("2 would be discarded, 0 skipped. Nothing was changed."), "{dry:?}");
    assert_eq!(parked(&app, 2).await, list);
    assert_eq!(app.db.query("SELECT id FROM history ORDER BY id").await, before);

    let one = ["parked", "replay", "--kind", "reverse_transfer", "--limit", "1", "--reason", "one first"];
    let one = app.cli(&one).await;
    assert!(one.table().contains("1 replayed, 0 skipped."), "{one:?}");
    eventually("the first is reversed", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
    assert_eq!(parked(&app, 1).await, list[1..]);
    for wrong in [
        &["parked", "replay", "--all"][..],
        &["parked", "replay", "--reason", "why"],
        &["parked", "discard", "x", "--all"],
    ] {
        let run = app.cli(wrong).await;
        assert_eq!(run.code, 2, "{run:?}");
    }
}

/// As after a death between the ledger's commit and the message's move.
async fn a_message_whose_row_moved_on_before_it_was_moved_does_no_harm(mut app: TestApp) {
    let reversals = give_up(&mut app, 2).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await; // The broker counts parking in seconds.
    let note = clawback::ledger::Note::new("ada", "died after the commit");
    app.ledger().replay(CallKind::Reverse, &reversals[0], &note).await.unwrap();
    app.transfer_becomes(0, "reversed").await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.ledger().replay(CallKind::Reverse, &reversals[1], &note).await.unwrap();

    let again = app.cli(&["parked", "replay", "--all", "--reason", "run again", "--format", "json"]).await;
    assert_eq!((again.code, &again.json()["handled"]), (3, &json!([])), "{again:?}");
    assert!(app.vhost.is_empty("reversals.parked").await);
    assert_eq!(
        app.db.count("history WHERE reason LIKE '%run again%'").await,
        0,
        "what is superseded is dropped silently"
    );
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.sim.ledger().reversals("tr_2").len(), 1, "though two jobs were about it");
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn what_replays_over_http_and_operations_supersede_is_dropped_soon(mut app: TestApp) {
    let reversal = give_up(&mut app, 1).await[0].clone();
    let old = parked(&app, 1).await[0].clone();
    // It fails again, and its new job is parked as well: one row, one message.
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0"), ("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    let message = "The account was closed.".to_owned();
    app.sim.fault("tr_1", Fault::Refused { status: 400, code: None, message }, 1_000);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await; // The broker counts parking in seconds.
    let replay = app.http.post(format!("{}/v1/reversals/{reversal}/replay", app.base_url)).bearer_auth(&app.api_token);
    let replay = replay.json(&json!({"operator": "ada", "reason": "try again"})).send().await.unwrap();
    assert_eq!(replay.status(), 202);
    let list = eventually("the new job is parked", || async {
        let list = parked(&app, 1).await;
        (list[0]["id"] != old["id"]).then_some(list)
    })
    .await;
    app.vhost.has("reversals.parked", 1).await;
    assert_eq!(parked(&app, 1).await, list, "the new one stays");
    app.sim.clear_faults();
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1s")]).await;
    let post = async |path: &str, body: Value| -> Value {
        let request = app.http.post(format!("{}/v1/operations{path}", app.base_url)).bearer_auth(&app.api_token);
        request.json(&body).send().await.unwrap().error_for_status().unwrap().json().await.unwrap()
    };
    let preview = post("", json!({"action": "replay_reversals", "filter": {"ids": [reversal]}})).await;
    let start = format!("/{}/start", preview["id"].as_str().unwrap());
    post(&start, json!({"operator": "ada", "reason": "Stripe is back"})).await;
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000);
    eventually("the message is dropped", || async { app.vhost.is_empty("reversals.parked").await.then_some(()) }).await;
}

async fn a_replay_that_is_killed_on_its_way_is_run_again(mut app: TestApp) {
    give_up(&mut app, 2).await;
    let list = parked(&app, 2).await;
    let slowly = ["parked", "replay", "--all", "--spread", "1h", "--reason", "slowly"];
    let running = Process::start_with(&slowly, &app.settings());
    // Beside the one that Stripe answered before.
    eventually("the first is reversed", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 1, "the other has its time");
    running.kill().await;
    // The first message has left, or has come back as settled: its acknowledgement may have died with the process.
    let left = eventually("what was held comes back", || async {
        let left = app.cli(&["parked", "list", "--format", "json"]).await.json()["parked"].clone();
        left.as_array().unwrap().iter().any(|message| message["id"] == list[1]["id"]).then_some(left)
    })
    .await;
    assert!(left.as_array().unwrap().iter().all(|it| it["id"] == list[1]["id"] || it["settled"] == true), "{left}");
    assert_eq!(app.cli(&["parked", "replay", "--all", "--reason", "the rest"]).await.code, 0);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn a_discarded_message_is_gone_and_its_row_stays_given_up(mut app: TestApp) {
    let reversal = give_up(&mut app, 1).await[0].clone();
    let message = parked(&app, 1).await[0]["id"].as_str().unwrap().to_owned();
    let discard = ["parked", "discard", &message, "--reason", "settled by invoice 4711", "--operator", "grace"];
    let run = app.cli(&discard).await;
    assert!(run.table().contains("1 discarded, 0 skipped."), "{run:?}");
    parked(&app, 0).await;
    let row = app.db.query("SELECT from_status, to_status, reason FROM history WHERE actor = 'grace'").await;
    assert_eq!(row.len(), 1, "{row:?}");
    assert_eq!((&row[0]["from_status"], &row[0]["to_status"]), (&row[0]["to_status"], &json!("permanently_failed")));
    assert!(row[0]["reason"].as_str().unwrap().contains("settled by invoice 4711"), "{row:?}");
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 1);
    // It is still owed, and can still be tried again.
    assert_eq!(app.cli(&["reversals", "replay", &reversal, "--reason", "changed our mind"]).await.code, 0);
    app.transfer_becomes(0, "reversed").await;
}

async fn what_is_no_job_of_the_ledger_can_be_discarded_and_not_replayed(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    let foreign = json!({"properties": {"message_id": "theirs", "type": "bake_bread", "delivery_mode": 2},
        "payload": "{\"loaves\":3}", "payload_encoding": "string"});
    app.vhost.put("reversals.parked", &foreign).await;
    let list = parked(&app, 1).await;
    assert_eq!(
        (&list[0]["entity"], &list[0]["row_status"], &list[0]["kind"]),
        (&Value::Null, &Value::Null, &json!("bake_bread"))
    );
    let run = app.cli(&["parked", "replay", "theirs", "--reason", "why not"]).await;
    assert_eq!(run.code, 3, "{run:?}");
    assert!(run.stdout.contains("0 replayed, 1 skipped."), "{run:?}");
    parked(&app, 1).await;
    assert_eq!(app.cli(&["parked", "discard", "theirs", "--reason", "not ours"]).await.code, 0);
    parked(&app, 0).await;
}

async fn a_creation_that_was_given_up_is_tried_again(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_MAX_RETRIES", "0"), ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")]).await;
    let message = "The account may not receive transfers yet.".to_owned();
    app.sim.fault(Target::Any, Fault::Refused { status: 400, code: None, message }, 1_000);
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    let ids = [0, 1].map(async |index| app.transfer_becomes(index, "permanently_failed").await["id"].clone());
    let ids = futures_util::future::join_all(ids).await;
    let list = parked(&app, 2).await;
    for message in &list {
        assert_eq!((&message["queue"], &message["entity"]), (&json!("transfers.parked"), &json!("transfer")));
        assert_eq!(message["row_status"], "permanently_failed");
    }
    app.sim.clear_faults();
    app.restart_with(&[("TRANSFER_RETRY_CHECK_INTERVAL", "1s")]).await;

    let id = ids[0].as_str().unwrap();
    let run = app.cli(&["transfers", "retry", id, "--reason", "the account is verified"]).await;
    assert!(run.table().contains(&format!("clawback trace {id}")), "{run:?}");
    assert!(run.words().contains("parked message is taken away"), "{run:?}");
    app.transfer_becomes(0, "completed").await;
    let run = app.cli(&["parked", "replay", "--kind", "create_transfer", "--reason", "Stripe is back"]).await;
    assert!(run.table().contains("1 replayed, 0 skipped."), "{run:?}");
    app.transfer_becomes(1, "completed").await;
    parked(&app, 0).await;
    let ledger = app.sim.ledger();
    assert_eq!((ledger.transfers_to("acct_3").len(), ledger.transfers_to("acct_4").len()), (1, 1));
    let asked = "history WHERE actor = 'ada' AND from_status = 'permanently_failed' AND to_status = 'pending'";
    assert_eq!(app.db.count(asked).await, 2);
    let run = app.cli(&["transfers", "retry", id, "--reason", "once more"]).await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains(id), "{run:?}");
}

/// Has that many reversals of a refund given up, waits until their messages are parked, and returns the reversals' ids.
async fn give_up(app: &mut TestApp, count: usize) -> Vec<String> {
    // Nothing is swept meanwhile: a second job would park a second message.
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0"), ("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    app.stripe_answers().await;
    for transfer in ["tr_1", "tr_2"].into_iter().take(count) {
        app.sim.fault(transfer, Fault::UnavailableHtml, 1_000);
    }
    app.refund(10_000).await;
    let mut ids = Vec::new();
    for index in 0..count {
        let transfer = app.transfer_becomes(index, "permanently_failed").await;
        ids.push(transfer["reversals"][0]["id"].as_str().unwrap().to_owned());
    }
    parked(app, count).await;
    app.sim.clear_faults();
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1s")]).await;
    ids
}

/// Waits until that many messages are parked, and returns them as the command lists them.
async fn parked(app: &TestApp, count: usize) -> Vec<Value> {
    eventually(&format!("{count} messages are parked"), || async {
        let list = app.cli(&["parked", "list", "--format", "json"]).await.json()["parked"].clone();
        list.as_array().filter(|list| list.len() == count).cloned()
    })
    .await
}

fn posts(app: &TestApp) -> usize {
    let ledger = app.sim.ledger();
    let of = |id: &str| ledger.reversal_posts(id).count();
    of("tr_1") + of("tr_2")
}

/// Has Stripe reverse for our claim, past our worker.
async fn reverse_at_stripe(app: &TestApp, transfer: &str, amount: i64) {
    let answer = app
        .http
        .post(format!("{}/v1/transfers/{transfer}/reversals", app.sim.base_url()))
        .bearer_auth("sk_test_of_the_tests")
        .form(&[("amount", amount.to_string()), ("metadata[clawback_claim]", "stripe:re_1".to_owned())])
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}
