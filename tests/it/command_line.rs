//! What the commands print: their help, their tables, their JSON, their exit codes. Snapshots are in `snapshots`;
//! `INSTA_UPDATE=always` accepts what the program says now.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{TestApp, both_databases, clawback, redacted, refund_event};

both_databases! {
    lists_and_details_of_a_seeded_ledger,
    long_values_fit_80_columns,
    a_reader_that_closes_the_pipe_is_no_error,
    a_wrong_value_is_answered_with_what_is_allowed,
}

#[tokio::test]
async fn every_command_explains_itself() {
    let commands: [&[&str]; 41] = [
        &[],
        &["transfers"],
        &["transfers", "list"],
        &["transfers", "show"],
        &["transfers", "retry"],
        &["reversals"],
        &["reversals", "list"],
        &["reversals", "show"],
        &["reversals", "replay"],
        &["reversals", "close"],
        &["refunds"],
        &["refunds", "list"],
        &["refunds", "show"],
        &["refunds", "accept"],
        &["calls"],
        &["calls", "list"],
        &["calls", "replay"],
        &["parked"],
        &["parked", "list"],
        &["parked", "show"],
        &["parked", "replay"],
        &["parked", "discard"],
        &["trace"],
        &["reversals", "groups"],
        &["transfers", "groups"],
        &["sellers"],
        &["sellers", "list"],
        &["sellers", "show"],
        &["summary"],
        &["history"],
        &["export"],
        &["operations"],
        &["operations", "list"],
        &["operations", "show"],
        &["operations", "preview"],
        &["operations", "start"],
        &["operations", "abort"],
        &["processes"],
        &["pause"],
        &["resume"],
        &["breaker", "probe"],
    ];
    for command in commands {
        let run = clawback(&[command, &["--help"]].concat(), &[]).await;
        assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
        for promised in ["Example", "Exit codes"] {
            assert!(run.stdout.contains(promised), "{promised} is missing in the help of {command:?}");
        }
        // The top level lists every command there is, and is not for this test to freeze.
        if !command.is_empty() {
            insta::assert_snapshot!(format!("help_{}", command.join("_")), run.stdout);
        }
    }
}

async fn lists_and_details_of_a_seeded_ledger(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    assert_eq!(app.cli(&["reversals", "list"]).await.table(), "No reversals.\n");
    assert_eq!(app.cli(&["transfers", "list"]).await.table(), "No transfers.\n");
    app.refund(10_000).await;
    let reversals = app.cli(&["reversals", "list", "--format", "json"]).await.json()["reversals"].clone();
    let (newest, oldest) = (&reversals[0], &reversals[1]);
    let set = async |table: &str, what: &str, row: &Value| {
        let id = app.db.id(row["id"].as_str().unwrap());
        app.db.execute(&format!("UPDATE {table} SET {what} WHERE id = {id}")).await;
    };
    let failed =
        "failure_code = 'balance_insufficient', failure_message = 'Insufficient funds in the seller''s account'";
    set("calls", &format!("attempts = 2, next_attempt_at = '2026-05-06 07:08:09+00:00', {failed}"), oldest).await;
    set("reversals", "status = 'permanently_failed'", newest).await;
    set("calls", &format!("state = 'failed', {failed}"), newest).await;

    insta::assert_snapshot!("reversals_list", redacted(app.cli(&["reversals", "list"]).await.table()));
    let id = oldest["id"].as_str().unwrap();
    insta::assert_snapshot!("reversals_show", redacted(app.cli(&["reversals", "show", id]).await.table()));
    let run = app.cli(&["reversals", "show", id, "--format", "json"]).await;
    insta::assert_snapshot!("reversals_show_as_json", redacted(&run.stdout));
    insta::assert_snapshot!("transfers_list", redacted(app.cli(&["transfers", "list"]).await.table()));
    insta::assert_snapshot!("transfers_show", redacted(app.cli(&["transfers", "show", "tr_1"]).await.table()));
    let run = app.cli(&["transfers", "show", "tr_1", "--format", "json"]).await;
    insta::assert_snapshot!("transfers_show_as_json", redacted(&run.stdout));

    let one = app.cli(&["reversals", "list", "--limit", "1"]).await;
    assert!(one.table().ends_with("These are the first 1; more with --limit.\n"), "{one:?}");
    let pending = app.cli(&["reversals", "list", "--status", "pending", "--format", "json"]).await.json();
    assert_eq!(pending["reversals"], json!([reversal_as_listed(&app, id).await]));
    let first = app.cli(&["reversals", "list", "--oldest", "--limit", "1", "--format", "json"]).await.json();
    assert_eq!(first["reversals"], pending["reversals"]);
    let none = app.cli(&["transfers", "list", "--status", "reversed"]).await;
    assert_eq!(none.table(), "No transfers.\n");
}

async fn long_values_fit_80_columns(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    let long = |prefix: &str| format!("{prefix}{}", "x".repeat(250 - prefix.len()));
    let most = 99_999_999_999_999_i64;
    let payment = json!({"payment_ref": long("pi_"), "amount": most, "currency": "eur", "transfers": [{
        "seller_id": long("s"), "stripe_transfer_id": long("tr_"), "destination": long("acct_"), "amount": most,
        "currency": "eur"}]});
    let registered = app.register(payment).await;
    assert_eq!(registered.status(), 201, "{}", registered.text().await.unwrap());
    let mut event = refund_event(&long("evt_"), &long("re_"), &long("pi_"), most);
    event["data"]["object"]["charge"] = Value::Null;
    let answer = app.post_webhook(&event.to_string()).await;
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let words = "No such transfer ".repeat(30) + &"y".repeat(300) + "\u{1b}[31mred\nand a line";
    app.db.execute("UPDATE reversals SET status = 'permanently_failed'").await;
    let failed = format!("state = 'failed', failure_code = 'no', failure_message = '{words}'");
    app.db.execute(&format!("UPDATE calls SET {failed}")).await;
    let parked = json!({"properties": {"message_id": long("m"), "type": long("kind"), "delivery_mode": 2,
        "headers": {"parked-reason": words}}, "payload": "z".repeat(300), "payload_encoding": "string"});
    app.vhost.put("reversals.parked", &parked).await;
    let reversal = app.db.query("SELECT amount FROM reversals").await;
    assert_eq!(reversal[0]["amount"], most);

    let id = app.cli(&["reversals", "list", "--format", "json"]).await.json()["reversals"][0]["id"].clone();
    let (transfer, refund, message) = (long("tr_"), long("re_"), long("m"));
    let commands: [&[&str]; 10] = [
        &["refunds", "list"],
        &["refunds", "show", &refund],
        &["reversals", "list"],
        &["reversals", "show", id.as_str().unwrap()],
        &["transfers", "list"],
        &["transfers", "show", &transfer],
        &["trace", &refund],
        &["parked", "list"],
        &["parked", "show", &message],
        &["parked", "discard", &message, "--reason", "too long"],
    ];
    for command in commands {
        let run = app.cli(command).await;
        assert!(run.table().lines().count() > 1, "{run:?}");
    }
}

async fn a_reader_that_closes_the_pipe_is_no_error(app: TestApp) {
    app.refund(10_000).await;
    for command in ["reversals list", "transfers list --format json", "trace pi_1", "parked list", "migrate status"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_clawback"))
            .args(command.split(' '))
            .env_clear()
            .envs(app.settings())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().await.unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(0), ""),
            "{command}"
        );
    }
}

async fn a_wrong_value_is_answered_with_what_is_allowed(app: TestApp) {
    let wrong: [(&[&str], &str); 5] = [
        (
            &["reversals", "list", "--status", "done"],
            "[possible values: pending, reversed, permanently_failed, called_off, closed]",
        ),
        (&["transfers", "list", "--status", "done"], "partially_reversed"),
        (&["transfers", "list", "--limit", "0"], "1..=10000"),
        (&["parked", "replay", "--all", "--spread", "soon", "--reason", "x"], "--spread"),
        (&["parked", "replay", "--all", "--reason", "x", "--operator", ""], "--operator"),
    ];
    for (arguments, told) in wrong {
        let run = app.cli(arguments).await;
        assert_eq!((run.code, run.stdout.as_str()), (2, ""), "{run:?}");
        assert!(run.stderr.contains(told), "{told} in {run:?}");
    }
    for missing in [["reversals", "show", "trr_no"], ["transfers", "show", "tr_no"]] {
        let run = app.cli(&missing).await;
        assert_eq!((run.code, run.stderr.contains(missing[2])), (1, true), "{run:?}");
    }
}

async fn reversal_as_listed(app: &TestApp, id: &str) -> Value {
    let mut reversal = app.cli(&["reversals", "show", id, "--format", "json"]).await.json();
    let hangs_on = [("kind", "refund"), ("payment_ref", "pi_1"), ("seller_id", "s1"), ("stripe_transfer_id", "tr_1")];
    for (name, value) in hangs_on {
        reversal[name] = value.into();
    }
    reversal
}
