//! `clawback payments import`, the real binary, with every kind of file that somebody might have.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::{DEADLINE, Finished, TestApp, both_databases, clawback, clawback_reading, command, eventually};

const HEADER: &str =
    "payment_ref,payment_amount,payment_currency,seller_id,stripe_transfer_id,destination,amount,currency\n";

both_databases! {
    payments_of_a_csv_file_are_registered_once_however_often_it_is_imported,
    a_byte_order_mark_crlf_quotes_blanks_and_another_order_of_columns_are_understood,
    each_bad_line_is_told_and_refuses_its_payment_and_no_other,
    a_row_that_can_not_be_read_refuses_the_payments_on_both_sides,
    json_lines_are_what_the_api_takes,
    a_transfer_without_an_id_is_refused_unless_it_is_meant,
    what_was_reversed_before_and_the_application_fee_have_columns,
    transfers_of_more_than_their_payment_are_refused_unless_they_are_meant,
    a_dry_run_says_what_would_be_and_changes_nothing,
    a_refund_that_came_before_is_reversed_after_the_import,
    payments_that_want_the_same_transfers_are_told_and_stop_nothing,
    told_to_stop_it_says_how_far_it_came_and_the_rest_can_be_imported,
    a_file_that_can_not_be_imported_at_all_is_explained_and_nothing_is_registered,
    a_line_of_ten_megabytes_is_skipped,
    output_that_nobody_reads_stops_nothing,
}

async fn payments_of_a_csv_file_are_registered_once_however_often_it_is_imported(app: TestApp) {
    let file = File::new(
        "csv",
        &csv(&[
            "pi_1,10000,eur,s1,tr_1,acct_1,6000,eur",
            "pi_1,10000,eur,s2,tr_2,acct_2,3000,eur",
            "pi_2,500,USD,s1,tr_3,acct_1,500,usd",
        ]),
    );
    let run = import(&app, &file, &[]).await;
    insta::assert_snapshot!("import_new", run.shown(&[]));
    let payment = app.payment("pi_1").await;
    let transfers = payment["transfers"].as_array().unwrap();
    let ids: Vec<_> = transfers.iter().map(|transfer| transfer["stripe_transfer_id"].clone()).collect();
    assert_eq!(
        (ids, &transfers[1]["amount"]),
        (vec![json!("tr_1"), json!("tr_2")], &json!(3000)),
        "in the file's order"
    );
    assert_eq!(app.payment("pi_2").await["currency"], "usd");
    let actors = app.db.query("SELECT DISTINCT actor FROM history").await;
    assert_eq!(actors, [json!({"actor": "import"})]);

    let again = import(&app, &file, &["--format", "json"]).await;
    let summary = json!({"complete": true, "dry_run": false, "new": 0, "already_there": 2, "conflicting": 0,
        "refused": 0, "bad_lines": 0, "last_line": 4});
    assert_eq!((again.code, again.json()), (0, json!({"bad_lines": [], "summary": summary})), "{again:?}");
    assert_eq!(app.db.count("seller_transfers").await, 3);

    let changed =
        File::new("csv", &csv(&["pi_1,10000,eur,s1,tr_1,acct_1,6000,eur", "pi_3,5,eur,s1,tr_4,acct_1,5,eur"]));
    let run = import(&app, &changed, &[]).await;
    insta::assert_snapshot!("import_conflicting", run.shown(&[]));
    assert_eq!(app.payment("pi_1").await, payment, "nothing of it changed");
    assert_eq!(app.db.count("payments").await, 3, "the other one is imported all the same");
}

async fn a_byte_order_mark_crlf_quotes_blanks_and_another_order_of_columns_are_understood(app: TestApp) {
    let text = "\u{feff}currency,amount,destination,stripe_transfer_id,seller_id,payment_currency,payment_amount,payment_ref\r\n\
                eur,1,acct_1,tr_1,\"seller,\"\"one\"\"\",eur,3,pi_1\r\n\r\n eur , 2 ,\"acct_2\",tr_2,s2,EUR,3,\"pi_1\"";
    let run = import(&app, &File::new("csv", text), &[]).await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    let payment = app.payment("pi_1").await;
    assert_eq!(payment["transfers"][0]["seller_id"], "seller,\"one\"");
    assert_eq!(payment["transfers"][1]["amount"], 2);
}

async fn each_bad_line_is_told_and_refuses_its_payment_and_no_other(app: TestApp) {
    let file = File::new(
        "csv",
        &csv(&[
            "pi_good,1,eur,s1,tr_good,acct_1,1,eur",
            "pi_1,10,eur,s1,tr_1,acct_1,ten,eur",
            "pi_1,10,eur,s2,tr_2,acct_1,1.50,eur",
            "pi_2,10,eur,s1,tr_3,acct_1,1,eur",
            "pi_2,10,eur,s1,tr_4,acct_1,1,euro",
            "pi_3,0,eur,s1,tr_5,acct_1,1,eur",
            "pi_4,10,eur,,tr_6,acct_1,1,eur",
            "pi_5,10,eur,s1,tr_7,acct 1,1,eur",
            "pi_6,10,eur,s1,tr_8,acct_1,1,eur",
            "pi_6,11,eur,s1,tr_9,acct_1,1,eur",
            "pi_6,10,usd,s1,tr_10,acct_1,1,eur",
            "pi_7,10,eur,s1,tr_11,acct_1,1,eur",
            "pi_7,10,eur,s2,tr_11,acct_1,1,eur",
            ",10,eur,s1,tr_12,acct_1,1,eur",
            "pi_8,10,eur,s1,tr_13,acct_1,-1,eur",
            "pi_9,99999999999999999999,eur,s1,tr_14,acct_1,1,eur",
            "pi_last,1,eur,s1,tr_last,acct_1,1,eur",
        ]),
    );
    let run = import(&app, &file, &[]).await;
    insta::assert_snapshot!("import_bad_lines", run.shown(&[]));
    let registered = app.db.query("SELECT payment_ref FROM payments ORDER BY id").await;
    assert_eq!(registered.len(), 2, "{registered:?}");
    assert_eq!(app.db.count("seller_transfers").await, 2);

    let run = import(&app, &file, &["--format", "json"]).await;
    assert_eq!(
        run.json()["bad_lines"][0],
        json!({"line": 3, "field": "amount",
        "problem": "must be a whole number of minor units, like 1999 for 19.99 EUR (got \"ten\")"})
    );
    assert_eq!(run.json()["bad_lines"].as_array().unwrap().len() as u64, run.json()["summary"]["bad_lines"]);
}

async fn a_row_that_can_not_be_read_refuses_the_payments_on_both_sides(app: TestApp) {
    let mut text = csv(&[
        "pi_1,10,eur,s1,tr_1,acct_1,1,eur",
        "pi_1,10,eur,s1,tr_2,acct_1",
        "pi_2,10,eur,s1,tr_3,acct_1,1,eur",
        "pi_3,10,eur,s1,tr_4,acct_1,1,eur",
        "pi_3,10,eur,\"s1,tr_5,acct_1,1,eur",
        "pi_3,10,eur,s1,tr_6,acct_1,1,eur",
        "pi_4,10,eur,s1,tr_7,acct_1,1,eur",
        "pi_5,10,eur,s1,tr_8,acct_1,1,eur,and more",
    ])
    .into_bytes();
    text.extend_from_slice(b"\xff\xfe\npi_6,10,eur,s1,tr_9,acct_1,1,eur\npi_7,10,eur,s1,tr_10,acct_1,1,eur\n");
    let run = import(&app, &File::of_bytes("csv", &text), &[]).await;
    insta::assert_snapshot!("import_unreadable_rows", run.shown(&[]));
    let registered = app.db.query("SELECT payment_ref FROM payments ORDER BY id").await;
    assert_eq!(registered, [json!({"payment_ref": "pi_7"})]);
}

async fn json_lines_are_what_the_api_takes(app: TestApp) {
    let line = |payment: &str, transfer: &str| {
        json!({"payment_ref": payment, "amount": 100, "currency": "eur", "transfers": [
            {"seller_id": "s1", "stripe_transfer_id": transfer, "destination": "acct_1", "amount": 90, "currency": "eur"},
        ]})
        .to_string()
    };
    let lines = [
        line("pi_1", "tr_1"),
        String::new(),
        line("pi_1", "tr_1"),
        "{\"payment_ref\":".to_owned(),
        "[]".to_owned(),
        line("pi_2", "tr_2").replace("\"amount\":90", "\"amount\":\"90\""),
        line("pi_3", "tr_3").replace("\"seller_id\"", "\"seller\""),
        line("pi_4", "tr_4") + " x",
        String::new(),
        line("pi_6", "tr_6").replace("eur", "e"),
        line("pi_7", "tr_7"),
    ];
    let run = reading(&app, &["--input", "jsonl"], (lines.join("\r\n") + "\n").as_bytes()).await;
    insta::assert_snapshot!("import_json_lines", run.shown(&[]));
    assert_eq!(app.db.count("payments").await, 2);
    assert_eq!(app.payment("pi_7").await["transfers"][0]["stripe_transfer_id"], "tr_7");
    let run = reading(&app, &["--input", "jsonl"], line("pi_5", "tr_1").as_bytes()).await;
    assert_eq!((run.code, run.stderr.as_str()), (3, "line 1: transfer tr_1 is registered with another payment\n"));
}

async fn a_transfer_without_an_id_is_refused_unless_it_is_meant(app: TestApp) {
    let file = File::new("csv", &csv(&["pi_1,10,eur,s1,,acct_1,1,eur", "pi_2,10,eur,s1,tr_2,acct_1,1,eur"]));
    let run = import(&app, &file, &[]).await;
    insta::assert_snapshot!("import_without_transfer_id", run.shown(&[]));
    let without = json!({"payment_ref": "pi_3", "amount": 100, "currency": "eur", "transfers": [
        {"seller_id": "s1", "destination": "acct_1", "amount": 90, "currency": "eur"}]});
    let run = reading(&app, &["--input", "jsonl"], without.to_string().as_bytes()).await;
    assert!(run.code == 3 && run.stderr.starts_with("line 1: transfers[0].stripe_transfer_id is empty: "), "{run:?}");
    assert_eq!(app.db.count("payments").await, 1);
    assert_eq!(app.sim.ledger().requests.len(), 0, "somebody was paid");
    let mut meant = without;
    meant["transfers"][0]["create"] = true.into();
    let run = reading(&app, &["--input", "jsonl"], meant.to_string().as_bytes()).await;
    assert_eq!(run.code, 3, "a file of past payments says it by the flag alone: {run:?}");
    let run = reading(&app, &["--input", "jsonl", "--create-missing"], meant.to_string().as_bytes()).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(import(&app, &file, &["--create-missing"]).await.code, 0);
    assert_eq!(app.db.count("seller_transfers WHERE created_by_us").await, 2);
}

async fn what_was_reversed_before_and_the_application_fee_have_columns(app: TestApp) {
    let header = HEADER.replace("currency\n", "currency,amount_reversed,refund_application_fee\n");
    let rows = "pi_1,10,eur,s1,tr_1,acct_1,6,eur,2,true\npi_1,10,eur,s2,tr_2,acct_1,3,eur,,\n\
                pi_2,10,eur,s1,tr_3,acct_1,6,eur,7,\npi_3,10,eur,s1,tr_4,acct_1,6,eur,0,yes\n";
    let run = import(&app, &File::new("csv", &(header + rows)), &[]).await;
    assert_eq!(run.code, 3, "{run:?}");
    let told = "line 4: amount_reversed must be from 0 to 6, the transfer's amount (got 7)\n\
                line 5: refund_application_fee must be true or false (got \"yes\")\n";
    assert_eq!(run.stderr, told);
    let transfers = app.payment("pi_1").await["transfers"].clone();
    let of = |at: usize| {
        [&transfers[at]["amount_reversed"], &transfers[at]["refund_application_fee"], &transfers[at]["status"]]
    };
    assert_eq!(of(0), [&json!(2), &json!(true), &json!("partially_reversed")]);
    assert_eq!(of(1), [&json!(0), &json!(false), &json!("completed")]);
    assert_eq!(app.db.count("payments").await, 1);
}

async fn transfers_of_more_than_their_payment_are_refused_unless_they_are_meant(app: TestApp) {
    let file = File::new("csv", &csv(&["pi_1,100,eur,s1,tr_1,acct_1,60,eur", "pi_1,100,eur,s2,tr_2,acct_1,41,eur"]));
    let run = import(&app, &file, &[]).await;
    assert!(run.code == 3 && run.stderr.starts_with("line 2: transfers must add up to at most"), "{run:?}");
    assert!(run.stderr.contains("100 eur (got 101)"), "{run:?}");
    assert_eq!(app.db.count("payments").await, 0);
    assert_eq!(import(&app, &file, &["--allow-excess"]).await.code, 0);
    assert_eq!(app.db.count("seller_transfers").await, 2);
}

async fn a_dry_run_says_what_would_be_and_changes_nothing(app: TestApp) {
    let known = File::new("csv", &csv(&["pi_1,10,eur,s1,tr_1,acct_1,1,eur", "pi_2,10,eur,s1,tr_2,acct_1,1,eur"]));
    assert_eq!(import(&app, &known, &[]).await.code, 0);
    let before = app.db.count("history").await;
    let file = File::new(
        "csv",
        &csv(&[
            "pi_1,10,eur,s1,tr_1,acct_1,1,eur",
            "pi_2,11,eur,s1,tr_2,acct_1,1,eur",
            "pi_3,10,eur,s1,tr_3,acct_1,1,eur",
            "pi_4,10,eur,s1,tr_1,acct_1,1,eur",
            "pi_5,10,eur,s1,tr_5,acct_1,0,eur",
        ]),
    );
    let run = import(&app, &file, &["--dry-run"]).await;
    insta::assert_snapshot!("import_dry_run", run.shown(&[]));
    assert_eq!((app.db.count("payments").await, app.db.count("history").await), (2, before));
}

async fn a_refund_that_came_before_is_reversed_after_the_import(app: TestApp) {
    app.refund_of(10_000, 1).await;
    assert_eq!(app.db.count("claims WHERE status = 'unmatched'").await, 1);
    let rows = ["pi_1,10000,eur,s1,tr_1,acct_1,6000,eur", "pi_1,10000,eur,s2,tr_2,acct_2,3000,eur"];
    assert_eq!(import(&app, &File::new("csv", &csv(&rows)), &["--dry-run"]).await.code, 0);
    assert_eq!(app.db.count("reversals").await, 0, "a dry run owes nothing");
    assert_eq!(import(&app, &File::new("csv", &csv(&rows)), &[]).await.code, 0);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

/// Registered at the same time, in both orders, so that the database sees them lock each other out.
async fn payments_that_want_the_same_transfers_are_told_and_stop_nothing(app: TestApp) {
    let rows: Vec<String> = (0..40)
        .flat_map(|n| {
            let (one, other) = if n % 2 == 0 { ("tr_1", "tr_2") } else { ("tr_2", "tr_1") };
            [one, other].map(|id| format!("pi_{n},10,eur,s1,{id},acct_1,1,eur"))
        })
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    let run = import(&app, &File::new("csv", &csv(&rows)), &["--format", "json"]).await;
    let summary = &run.json()["summary"];
    assert_eq!((run.code, &summary["new"], &summary["conflicting"]), (3, &json!(1), &json!(39)), "{run:?}");
    assert_eq!((app.db.count("payments").await, app.db.count("seller_transfers").await), (1, 2));
}

async fn told_to_stop_it_says_how_far_it_came_and_the_rest_can_be_imported(app: TestApp) {
    let lines: Vec<String> = (0..30)
        .map(|n| {
            json!({"payment_ref": format!("pi_{n}"), "amount": 100, "currency": "eur", "transfers": [
                {"seller_id": "s1", "stripe_transfer_id": format!("tr_of_{n}"), "destination": "acct_1", "amount": 90,
                "currency": "eur"}]})
            .to_string()
                + "\n"
        })
        .collect();
    let arguments = ["payments", "import", "-", "--input", "jsonl"];
    let mut child = command(&arguments, &app.settings()).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines[..20].concat().as_bytes()).await.unwrap();
    eventually("the lines are imported", || async { (app.db.count("payments").await == 20).then_some(()) }).await;
    // Its input is still open, and it waits for more.
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("it does not stop").unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stdout}");
    insta::assert_snapshot!("import_stopped", stdout);

    // CSV is read to its end before anything is registered.
    let arguments = ["payments", "import", "-", "--input", "csv"];
    let mut child = command(&arguments, &app.settings()).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // Larger than a pipe holds: once it is written, somebody reads.
    stdin.write_all(&HEADER.as_bytes().repeat(3_000)).await.unwrap();
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await.expect("it does not stop").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), stderr.as_str()),
        (Some(1), "error: interrupted before anything was registered\n")
    );

    let run = reading(&app, &["--input", "jsonl"], lines.concat().as_bytes()).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.starts_with("Payments: 10 new, 20 already there"), "{run:?}");
}

async fn a_file_that_can_not_be_imported_at_all_is_explained_and_nothing_is_registered(app: TestApp) {
    let good = "pi_1,10,eur,s1,tr_1,acct_1,1,eur\n";
    let cases = [
        (File::new("csv", ""), "the file is empty; the header must have these columns, in any order: payment_ref,"),
        (File::new("csv", good), "the header has the unknown column \"pi_1\"; the header must have these columns"),
        (File::new("csv", &HEADER.replace("seller_id,", "")), "the header lacks the column seller_id"),
        (
            File::new("csv", &HEADER.replace("currency\n", "currency,note\n")),
            "the header has the unknown column \"note\"",
        ),
        (File::new("csv", &HEADER.replace("destination", "seller_id")), "the header has the column seller_id twice"),
        (File::new("csv", &HEADER.replace("currency\n", "currency,amount\n")), "has the column amount twice"),
        (File::new("csv", &HEADER.replace(',', ";")), "separated by commas"),
        (File::of_bytes("csv", b"\xff\xfep\0a\0y\0"), "line 1 is not UTF-8"),
        (
            File::new(
                "csv",
                &csv(&[good.trim(), "pi_2,10,eur,s1,tr_2,acct_1,1,eur", "pi_1,10,eur,s1,tr_3,acct_1,1,eur"]),
            ),
            "line 4: the rows of payment pi_1 are not together; sort the file by payment_ref",
        ),
        (File::new("txt", HEADER), "is unknown; add --input csv or --input jsonl"),
    ];
    for (file, expected) in &cases {
        let run = import(&app, file, &[]).await;
        assert!(run.code == 1 && run.stderr.contains(expected), "{expected}: {run:?}");
    }
    let run = clawback(&["payments", "import", "/no/such/file.csv"], &app.settings()).await;
    assert!(run.code == 1 && run.stderr.contains("/no/such/file.csv can't be opened"), "{run:?}");
    let run = reading(&app, &[], b"").await;
    assert!(run.code == 1 && run.stderr.contains("the format of stdin is unknown"), "{run:?}");
    assert_eq!(app.db.count("payments").await, 0);

    // No lines of payments are no mistake, and neither is an empty file of JSON lines.
    assert_eq!(import(&app, &File::new("csv", HEADER), &[]).await.code, 0);
    assert_eq!(import(&app, &File::new("jsonl", ""), &[]).await.code, 0);
    let run = reading(&app, &["--input", "csv"], csv(&[good.trim()]).as_bytes()).await;
    assert_eq!((run.code, app.db.count("payments").await), (0, 1), "CSV from stdin: {run:?}");
}

async fn a_line_of_ten_megabytes_is_skipped(app: TestApp) {
    let long = "x".repeat(10 << 20);
    let rows =
        ["pi_1,1,eur,s1,tr_1,acct_1,1,eur", "pi_2,1,eur,s1,tr_2,acct_1,1,eur", "pi_3,1,eur,s1,tr_3,acct_1,1,eur"];
    let text = format!("{HEADER}{}\npi_long,1,eur,{long},tr_4,acct_1,1,eur\n{}\n{}\n", rows[0], rows[1], rows[2]);
    let run = import(&app, &File::new("csv", &text), &[]).await;
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(run.stderr.contains("line 3: is longer than 65536 bytes") && run.stderr.len() < 1_000, "{}", run.stderr);
    assert_eq!(app.db.count("payments").await, 1, "its neighbours may be parts of it");

    let run = reading(&app, &["--input", "jsonl"], format!("{{\"payment_ref\":\"{long}\"}}\n").as_bytes()).await;
    assert!(run.code == 3 && run.stderr.contains("line 1: is longer than 1048576 bytes"), "{}", run.stderr);
}

async fn output_that_nobody_reads_stops_nothing(app: TestApp) {
    let rows = ["pi_1,1,eur,s1,tr_1,acct_1,0,eur", "pi_2,1,eur,s1,tr_2,acct_1,1,eur"];
    let file = File::new("csv", &csv(&rows));
    let arguments = ["payments", "import", file.path(), "--format", "json"];
    let mut child = command(&arguments, &app.settings()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let status = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it does not end").unwrap();
    assert_eq!(status.code(), Some(3));
    assert_eq!(app.db.count("payments").await, 1);
}

#[tokio::test]
async fn without_a_database_nothing_is_imported_and_the_error_says_what_to_check() {
    let file = File::new("csv", HEADER);
    let unreachable = crate::support::settings(&[("DATABASE_URL", "postgres://ann:hush@127.0.0.1:1/clawback")]);
    let run = clawback(&["payments", "import", file.path()], &unreachable).await;
    assert!(run.code == 1 && run.stderr.contains("check DATABASE_URL") && !run.stderr.contains("hush"), "{run:?}");
}

#[tokio::test]
async fn the_help_teaches_the_format_the_flags_and_the_exit_codes() {
    insta::assert_snapshot!(clawback(&["payments", "import", "--help"], &[]).await.stdout);
}

fn csv(rows: &[&str]) -> String {
    format!("{HEADER}{}\n", rows.join("\n"))
}

async fn import(app: &TestApp, file: &File, more: &[&str]) -> Finished {
    clawback(&[&["payments", "import", file.path()], more].concat(), &app.settings()).await
}

/// From stdin.
async fn reading(app: &TestApp, more: &[&str], input: &[u8]) -> Finished {
    clawback_reading(&[&["payments", "import", "-"], more].concat(), &app.settings(), input).await
}

/// A file that is gone with the test.
struct File(PathBuf);

impl File {
    fn new(extension: &str, text: &str) -> Self {
        Self::of_bytes(extension, text.as_bytes())
    }

    fn of_bytes(extension: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("clawback-{}.{extension}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
