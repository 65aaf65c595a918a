//! `clawback reconcile`, the real binary, against a Stripe that has something else than the ledger.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use stripe_sim::{Fault, Ledger, Request};

use crate::support::{
    DEADLINE, Finished, Process, TestApp, both_databases, clawback, eventually, refund_event, to_create,
};

both_databases! {
    where_the_two_agree_it_says_so,
    what_is_on_its_way_is_no_difference,
    a_transfer_that_was_not_created_is_counted_and_only_looked_for,
    what_stripe_has_done_is_recorded_by_fix_and_only_by_fix,
    what_was_given_up_and_done_all_the_same_is_recorded_by_fix,
    what_stripe_is_not_done_with_is_not_recorded,
    everything_else_is_reported_and_not_touched,
    what_stripe_took_back_for_a_refund_that_is_known_is_no_difference,
    since_leaves_out_what_has_not_changed_here,
    a_difference_that_is_gone_at_the_second_look_is_none,
    a_list_that_lags_for_long_is_called_incomplete_and_nothing_missing,
    a_stripe_that_fails_now_and_then_is_asked_again,
    a_refused_key_is_a_failure_and_not_a_difference,
    a_key_of_another_account_is_noticed_at_once,
    it_never_calls_faster_than_the_limit,
    a_run_that_was_killed_goes_on_where_it_was_and_everything_it_found_is_kept,
}

async fn where_the_two_agree_it_says_so(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    app.sim.add_transfer("tr_untouched", 500, "eur", "acct_1");
    register(&app, "pi_untouched", &["tr_untouched"], 500).await;
    let before = app.sim.ledger().requests.len();

    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    let summary = json!({
        "complete": true, "since": null, "transfers": 3, "transfers_without_stripe_id": 0, "agreed": 2,
        "on_their_way": 0, "given_up": 0, "differences": 0, "repaired": 0,
    });
    let mut found = run.json();
    let id = found["summary"].as_object_mut().unwrap().remove("run").unwrap();
    assert_eq!(found, json!({"differences": [], "summary": summary}));
    let kept = app.cli(&["reconcile", "show", id.as_str().unwrap(), "--format", "json"]).await.json();
    assert_eq!((&kept["state"], &kept["transfers"], &kept["found"]), (&json!("done"), &json!(3), &json!([])), "{kept}");
    let calls = &app.sim.ledger().requests[before..];
    assert_eq!(calls.iter().filter(|call| call.path.contains("tr_1")).count(), 2, "the transfer, and its list");
    assert_eq!(calls.iter().filter(|call| call.path.contains("tr_untouched")).count(), 1, "there is nothing to list");
    assert!(calls.iter().all(|call| call.method == "GET"));

    let run = reconcile(&app, &[]).await;
    assert_eq!((run.code, run.stdout.ends_with("The ledger and Stripe agree.\n")), (0, true), "{run:?}");
    assert_eq!(run.stderr, "", "progress is for terminals");
}

async fn what_is_on_its_way_is_no_difference(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(run.json()["summary"]["on_their_way"], 2);
    assert_eq!(app.db.count("reversals WHERE status = 'pending'").await, 2);
}

async fn a_transfer_that_was_not_created_is_counted_and_only_looked_for(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    app.refund_of(10_000, 1).await;
    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    let summary = &run.json()["summary"];
    assert_eq!((&summary["transfers"], &summary["transfers_without_stripe_id"]), (&json!(0), &json!(2)));
    let asked = app.sim.ledger().requests;
    assert!(
        asked.iter().all(|request| request.query.contains("transfer_group=pi_1")),
        "only whether it is there: {asked:?}"
    );
}

async fn what_stripe_has_done_is_recorded_by_fix_and_only_by_fix(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    let reversal = app.payment("pi_1").await["transfers"][0]["reversals"][0]["id"].clone();
    let done = reverse_at_stripe(&app, "tr_1", 6_000, "stripe:re_1").await;

    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!(run.code, 3, "{run:?}");
    let found = &run.json()["differences"][0];
    assert_eq!((&found["kind"], &found["repair"]), (&json!("unrecorded"), &json!("possible")));
    assert_eq!((&found["reversal_id"], &found["stripe_reversal_id"]), (&reversal, &json!(done)));
    assert_eq!(app.db.count("reversals WHERE status = 'pending'").await, 2, "it changed something without --fix");

    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(
        (&run.json()["differences"][0]["repair"], &run.json()["summary"]["repaired"]),
        (&json!("done"), &json!(1))
    );
    let transfer = app.transfer_becomes(0, "reversed").await;
    assert_eq!(transfer["amount_reversed"], 6_000);
    assert_eq!(transfer["reversals"][0]["stripe_reversal_id"], json!(done));
    let rows = app.db.query("SELECT actor, reason FROM history WHERE to_status = 'reversed'").await;
    assert_eq!(rows.len(), 2, "the reversal's and the transfer's");
    assert!(rows.iter().all(|row| row["actor"] == "reconcile" && row["reason"].as_str().unwrap().contains(&done)));

    // The job is still there, and finds nothing to do.
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(reconcile(&app, &["--fix"]).await.code, 0);
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1);
}

async fn what_was_given_up_and_done_all_the_same_is_recorded_by_fix(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0")]).await;
    app.stripe_answers().await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 1);
    app.refund(10_000).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "reversed").await;
    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["given_up"]), (0, &json!(1)), "{run:?}");

    reverse_at_stripe(&app, "tr_1", 6_000, "stripe:re_1").await;
    let run = reconcile(&app, &["--fix"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert!(run.stdout.contains("recorded"), "{run:?}");
    app.transfer_becomes(0, "reversed").await;
    let steps = app.db.query("SELECT from_status, to_status FROM history WHERE actor = 'reconcile' ORDER BY id").await;
    let steps: Vec<_> = steps.iter().map(|row| (row["from_status"].clone(), row["to_status"].clone())).collect();
    let step = |from: &str, to: &str| (json!(from), json!(to));
    let expected = [
        step("permanently_failed", "pending"),
        step("permanently_failed", "reversal_pending"),
        step("pending", "reversed"),
        step("reversal_pending", "reversed"),
    ];
    assert_eq!(steps, expected);
}

async fn what_stripe_is_not_done_with_is_not_recorded(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0")]).await;
    app.stripe_answers().await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 1);
    app.refund(10_000).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "reversed").await;
    app.sim.fault("tr_1", Fault::Pending, 1);
    let id = reverse_at_stripe(&app, "tr_1", 6_000, "stripe:re_1").await;
    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    let found = &run.json()["differences"][0];
    assert_eq!((run.code, &found["kind"], &found["repair"]), (3, &json!("unrecorded"), &json!("by_hand")), "{run:?}");
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 1);

    app.sim.settle(&id, "succeeded");
    assert_eq!(reconcile(&app, &["--fix"]).await.code, 0);
    app.transfer_becomes(0, "reversed").await;
}

async fn everything_else_is_reported_and_not_touched(app: TestApp) {
    let ids = ["tr_dup", "tr_amount", "tr_external", "tr_orphan", "tr_missing"];
    for id in ids {
        app.sim.add_transfer(id, 1_000, "eur", "acct_1");
    }
    register(&app, "pi_5", &ids, 1_000).await;
    register(&app, "pi_unknown", &["tr_unknown"], 1_000).await;
    let event = refund_event("evt_5", "re_5", "pi_5", 2_500).to_string();
    assert_eq!(app.post_webhook(&event).await.status(), 200);
    let done = || async { (app.db.count("reversals WHERE status = 'reversed'").await == 5).then_some(()) };
    crate::support::eventually("all are reversed by half", done).await;

    let duplicate = reverse_at_stripe(&app, "tr_dup", 500, "stripe:re_5").await;
    app.sim.reverse_from_elsewhere("tr_external", Some(200));
    let orphan = reverse_at_stripe(&app, "tr_orphan", 100, "stripe:re_nobody").await;
    let of = |id: &str| format!("(SELECT id FROM seller_transfers WHERE stripe_transfer_id = '{id}')");
    app.db.execute(&format!("UPDATE reversals SET amount = 400 WHERE transfer_id = {}", of("tr_amount"))).await;
    app.db.execute("UPDATE seller_transfers SET amount_reversed = 400 WHERE stripe_transfer_id = 'tr_amount'").await;
    let gone = format!("UPDATE reversals SET stripe_reversal_id = 'trr_gone' WHERE transfer_id = {}", of("tr_missing"));
    app.db.execute(&gone).await;
    let before = contents(&app).await;
    let posts = |ledger: &Ledger| ledger.requests.iter().filter(|request| request.method == "POST").count();
    let posted = posts(&app.sim.ledger());

    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    assert_eq!(run.code, 3, "{run:?}");
    let json = run.json();
    let found = json["differences"].as_array().unwrap().iter();
    let found: BTreeSet<_> = found
        .map(|it| {
            assert_eq!((&it["repair"], &it["currency"]), (&json!("by_hand"), &json!("eur")));
            let text = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
            (text("stripe_transfer_id"), text("kind"), it["amount_in_ledger"].as_i64(), it["amount_at_stripe"].as_i64())
        })
        .collect();
    let expected = [
        ("tr_dup", "duplicate", Some(500), Some(500)),
        ("tr_amount", "wrong_amount", Some(400), Some(500)),
        ("tr_external", "externally_reversed", None, Some(200)),
        ("tr_orphan", "orphan", None, Some(100)),
        ("tr_missing", "missing", Some(500), None),
        ("tr_unknown", "unknown_transfer", Some(1_000), None),
    ];
    assert_eq!(found, expected.map(|(id, kind, ours, theirs)| (id.to_owned(), kind.to_owned(), ours, theirs)).into());

    let table = reconcile(&app, &["--fix"]).await;
    assert_eq!(table.code, 3, "{table:?}");
    for line in table.stdout.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for text in [duplicate.as_str(), orphan.as_str(), "trr_gone", "tr_unknown", "Not touched", "1 wrong_amount"] {
        assert!(table.stdout.contains(text), "{text} in\n{}", table.stdout);
    }
    assert_eq!(contents(&app).await, before, "--fix changed what it must not touch");
    assert_eq!(posts(&app.sim.ledger()), posted);
}

async fn what_stripe_took_back_for_a_refund_that_is_known_is_no_difference(app: TestApp) {
    register(&app, "pi_1", &["tr_1"], 6_000).await;
    app.sim.reverse_for_refund("tr_1", 2_000, "re_of_stripe");
    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!((run.code, &run.json()["differences"][0]["kind"]), (3, &json!("externally_reversed")), "{run:?}");

    let mut event = refund_event("evt_1", "re_of_stripe", "pi_1", 2_000);
    event["data"]["object"]["transfer_reversal"] = "trr_of_stripe".into();
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!(run.code, 0, "{run:?}");
}

async fn since_leaves_out_what_has_not_changed_here(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    app.sim.reverse_from_elsewhere("tr_1", Some(100));
    let old = "'2020-05-01 00:00:00+00:00'";
    app.db.execute(&format!("UPDATE seller_transfers SET updated_at = {old}")).await;
    app.db.execute(&format!("UPDATE reversals SET updated_at = {old}")).await;
    app.db.execute(&format!("UPDATE calls SET updated_at = {old}")).await;
    let run = reconcile(&app, &["--since", "24h", "--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["transfers"]), (3, &json!(0)), "nothing says nothing: {run:?}");
    assert!(app.sim.ledger().requests.is_empty());

    let run = reconcile(&app, &["--since", "2020-04-30", "--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["transfers"]), (3, &json!(2)), "{run:?}");
    assert_eq!(run.json()["summary"]["since"], "2020-04-30T00:00:00Z");

    let now = chrono::Utc::now().to_rfc3339();
    let one = "id IN (SELECT id FROM reversals WHERE amount = 6000)";
    app.db.execute(&format!("UPDATE calls SET updated_at = '{now}' WHERE {one}")).await;
    let run = reconcile(&app, &["--since", "24h", "--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["transfers"]), (3, &json!(1)), "{run:?}");

    let run = reconcile(&app, &["--since", "yesterday"]).await;
    assert_eq!(run.code, 2, "{run:?}");
    assert!(run.stderr.contains("'yesterday'") && run.stderr.contains("24h"), "{run:?}");
}

async fn a_difference_that_is_gone_at_the_second_look_is_none(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    app.sim.set_list_lag(Duration::from_secs(3_600));
    let lists_seen = |ledger: &Ledger| {
        let is_list = |request: &&Request| request.method == "GET" && request.path.ends_with("/reversals");
        ledger.requests.iter().filter(is_list).filter(|request| request.status == Some(200)).count() == 2
    };
    let catch_up = async {
        app.sim.wait_for(lists_seen, DEADLINE).await.expect("both lists are read");
        app.sim.advance(Duration::from_secs(3_600));
    };
    let (run, ()) = tokio::join!(reconcile(&app, &["--format", "json"]), catch_up);
    assert_eq!((run.code, &run.json()["summary"]["agreed"]), (0, &json!(2)), "{run:?}");
    let lists = app.sim.ledger().requests.iter().filter(|request| request.path.ends_with("/reversals")).count();
    assert_eq!(lists, 2 + 2 + 2, "two to reverse, and two looks at two lists");
}

async fn a_list_that_lags_for_long_is_called_incomplete_and_nothing_missing(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    app.sim.set_list_lag(Duration::from_secs(3_600));
    let run = reconcile(&app, &["--fix", "--format", "json"]).await;
    assert_eq!(run.code, 3, "{run:?}");
    let json = run.json();
    let kinds: Vec<_> = json["differences"].as_array().unwrap().iter().map(|it| it["kind"].clone()).collect();
    assert_eq!(kinds, ["incomplete", "incomplete"]);
}

async fn a_stripe_that_fails_now_and_then_is_asked_again(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    app.sim.fault_reads("tr_1", Fault::UnavailableHtml, 1);
    app.sim.fault_reads("tr_1", Fault::RateLimited { retry_after: Some(1) }, 1);
    app.sim.fault_reads("tr_2", Fault::ServerError, 1);
    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["agreed"]), (0, &json!(2)), "{run:?}");
}

async fn a_refused_key_is_a_failure_and_not_a_difference(app: TestApp) {
    register(&app, "pi_1", &["tr_1"], 6_000).await;
    app.sim.allow_keys(["sk_test_another"]);
    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["complete"]), (1, &json!(false)), "{run:?}");
    assert!(run.stderr.contains("tr_1") && run.stderr.contains("check STRIPE_API_KEY"), "{run:?}");
    assert!(!format!("{run:?}").contains("sk_test_of_the_tests"), "{run:?}");
}

async fn a_key_of_another_account_is_noticed_at_once(app: TestApp) {
    let ids: Vec<String> = (0..12).map(|n| format!("tr_elsewhere_{n}")).collect();
    register(&app, "pi_1", &ids.iter().map(String::as_str).collect::<Vec<_>>(), 100).await;
    let run = reconcile(&app, &[]).await;
    assert_eq!(run.code, 1, "{run:?}");
    assert!(run.stderr.contains("none of the first 12 transfers"), "{run:?}");
    assert!(!run.stdout.contains("unknown_transfer"), "{run:?}");
}

async fn it_never_calls_faster_than_the_limit(mut app: TestApp) {
    // More than a page.
    let ids: Vec<String> = (0..70).map(|n| format!("tr_many_{n}")).collect();
    for id in &ids {
        app.sim.add_transfer(id, 100, "eur", "acct_1");
    }
    register(&app, "pi_1", &ids.iter().map(String::as_str).collect::<Vec<_>>(), 100).await;
    app.restart_with(&[("STRIPE_MAX_RPS", "160")]).await;
    // Its share is a quarter.
    let run = reconcile(&app, &["--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["transfers"]), (0, &json!(70)), "{run:?}");
    let ledger = app.sim.ledger();
    let calls: Vec<_> = ledger.requests.iter().map(|request| (request.path.as_str(), request.at)).collect();
    assert_eq!(calls.iter().map(|(path, _)| path).collect::<BTreeSet<_>>().len(), 70, "each transfer was asked for");
    assert_eq!(calls.len(), 70, "and once");
    let took = calls[69].1 - calls[0].1;
    // 69 spaces of 25 ms; calls that were sent in their turn may arrive a little closer together.
    assert!(took >= chrono::TimeDelta::milliseconds(69 * 25 - 200), "{took}");
}

async fn a_run_that_was_killed_goes_on_where_it_was_and_everything_it_found_is_kept(app: TestApp) {
    // Two pages; something is foreign on each.
    let ids: Vec<String> = (0..80).map(|n| format!("tr_many_{n}")).collect();
    for id in &ids {
        app.sim.add_transfer(id, 100, "eur", "acct_1");
    }
    register(&app, "pi_1", &ids.iter().map(String::as_str).collect::<Vec<_>>(), 100).await;
    for id in ["tr_many_3", "tr_many_70"] {
        app.sim.reverse_from_elsewhere(id, Some(40));
    }
    app.sim.fault_reads("tr_many_60", Fault::Slow { delay_ms: 60_000 }, 1);
    let settings = app.settings_with(&[("STRIPE_MAX_RPS", "4000")]);
    let killed = Process::start("reconcile", &settings);
    let first_page = || async { (app.db.count("reconcile_runs WHERE transfers = 50").await == 1).then_some(()) };
    eventually("the first page is recorded", first_page).await;
    killed.kill().await;
    let before = app.sim.ledger().requests.len();
    let unfinished = app.cli(&["reconcile", "list"]).await;
    assert!(
        unfinished.words().contains("running") && unfinished.words().contains("50 transfers compared"),
        "{unfinished:?}"
    );

    app.sim.clear_faults();
    let run = clawback(&["reconcile", "--resume", "--format", "json"], &settings).await;
    assert_eq!(run.code, 3, "{run:?}");
    let summary = &run.json()["summary"];
    assert_eq!(
        (&summary["transfers"], &summary["differences"], &summary["complete"]),
        (&json!(80), &json!(2), &json!(true))
    );
    let asked: BTreeSet<String> =
        app.sim.ledger().requests[before..].iter().map(|request| request.path.clone()).collect();
    assert!(!asked.contains("/v1/transfers/tr_many_3") && asked.contains("/v1/transfers/tr_many_70"), "{asked:?}");
    let get = async |path: &str| -> Value {
        let request = app.http.get(format!("{}/v1/reconcile/runs{path}", app.base_url)).bearer_auth(&app.read_token);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    };
    let runs = get("").await;
    let id = summary["run"].as_str().unwrap();
    assert_eq!((&runs["runs"][0]["id"], &runs["runs"][0]["state"]), (&json!(id), &json!("done")), "{runs}");
    let kept = get(&format!("/{id}")).await;
    let found: Vec<&Value> = kept["found"].as_array().unwrap().iter().map(|it| &it["stripe_transfer_id"]).collect();
    assert_eq!(found, ["tr_many_3", "tr_many_70"]);
    assert_eq!(
        (&kept["found"][0]["kind"], &kept["found"][0]["amount_at_stripe"]),
        (&json!("externally_reversed"), &json!(40))
    );
    let again = app.cli(&["reconcile", "--resume"]).await;
    assert!(again.code == 1 && again.stderr.contains("no run was interrupted"), "{again:?}");
}

pub(crate) async fn reconcile(app: &TestApp, arguments: &[&str]) -> Finished {
    app.cli(&[&["reconcile"], arguments].concat()).await
}

/// Registers a payment that was paid out in full, `each` to every transfer.
pub(crate) async fn register(app: &TestApp, payment_ref: &str, transfers: &[&str], each: i64) {
    let count = i64::try_from(transfers.len()).unwrap();
    let transfers: Vec<_> = transfers
        .iter()
        .map(|id| {
            json!({"seller_id": "s1", "stripe_transfer_id": id, "destination": "acct_1", "amount": each,
                "currency": "eur"})
        })
        .collect();
    let payment =
        json!({"payment_ref": payment_ref, "amount": each * count, "currency": "eur", "transfers": transfers});
    let answer = app.register(payment).await;
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

/// Has Stripe reverse for a claim, past our worker. Returns Stripe's id.
pub(crate) async fn reverse_at_stripe(app: &TestApp, transfer: &str, amount: i64, claim: &str) -> String {
    let answer = app
        .http
        .post(format!("{}/v1/transfers/{transfer}/reversals", app.sim.base_url()))
        .bearer_auth("sk_test_of_the_tests")
        .form(&[("amount", amount.to_string()), ("metadata[clawback_claim]", claim.to_owned())])
        .send()
        .await
        .unwrap();
    let reversal: Value = answer.json().await.unwrap();
    reversal["id"].as_str().unwrap_or_else(|| panic!("{reversal}")).to_owned()
}

/// What the ledger has, as text.
async fn contents(app: &TestApp) -> String {
    let mut all = String::new();
    for table in ["reversals", "calls", "seller_transfers", "history", "outbox"] {
        let columns = match table {
            "history" => "entity_id, from_status, to_status, actor",
            "outbox" => "entity_id",
            "reversals" => "id, amount, status, stripe_reversal_id",
            "calls" => "id, version, state, attempts, generation",
            _ => "id, amount, status, amount_reversed",
        };
        all += &format!("{:?}", app.db.query(&format!("SELECT {columns} FROM {table} ORDER BY id")).await);
    }
    all
}
