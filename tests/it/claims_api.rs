//! Lists of refunds, and what operators decide about them, at every door.

use serde_json::{Value, json};

use crate::support::{TestApp, both_databases, redacted, refund_event, two_sellers};

both_databases! {
    refunds_are_listed_by_status_and_by_pages,
    a_conflict_of_currencies_is_accepted_after_a_correction,
    a_conflict_is_acknowledged_and_counts_no_more_until_there_is_news,
    a_held_refund_takes_once_it_is_accepted,
    what_needs_no_decision_is_refused_and_changes_nothing,
    a_mistaken_report_is_withdrawn_and_made_anew_by_the_provider_or_a_better_report,
    a_report_is_not_withdrawn_once_stripe_was_asked,
    stripes_refunds_have_no_other_accounts,
    the_commands_show_what_the_api_shows,
}

async fn refunds_are_listed_by_status_and_by_pages(app: TestApp) {
    for n in 1..=3 {
        app.post_webhook(&refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_9", 100).to_string()).await;
    }
    app.refund_of(10_000, 4).await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    assert_eq!(refs(&list(&app, "").await), ["re_4", "re_3", "re_2", "re_1"]);
    assert_eq!(refs(&list(&app, "?status=matched").await), ["re_4"]);
    let first = list(&app, "?status=unmatched&limit=2").await;
    assert_eq!(refs(&first), ["re_3", "re_2"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let last = list(&app, &format!("?status=unmatched&limit=2&cursor={cursor}")).await;
    assert_eq!((refs(&last), &last["next_cursor"]), (vec!["re_1".to_owned()], &Value::Null));
    let first = list(&app, "?status=unmatched&order=oldest&limit=2").await;
    assert_eq!(refs(&first), ["re_1", "re_2"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    // A currency has no index, so this page is narrowed row by row.
    let last = list(&app, &format!("?status=unmatched&order=oldest&currency=eur&limit=2&cursor={cursor}")).await;
    assert_eq!((refs(&last), &last["next_cursor"]), (vec!["re_3".to_owned()], &Value::Null));
    for (query, detail) in [
        ("?order=first", "order must be newest or oldest"),
        ("?status=lost", "status must be one of unmatched, held, matched, conflicting, nothing_to_reverse, failed"),
        ("?limit=201", "limit must be an integer from 1 to 200"),
        ("?kind=refund", "unknown parameter \"kind\""),
    ] {
        for path in ["refunds", "disputes"] {
            let (status, problem) = get(&app, &format!("/v1/{path}{query}")).await;
            assert_eq!(status, 400, "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
        }
    }
    assert_eq!(get(&app, "/v1/disputes").await, (200, json!({"disputes": [], "next_cursor": null})));
    assert_eq!(get(&app, "/v1/disputes/re_1").await.0, 404);
}

async fn a_conflict_of_currencies_is_accepted_after_a_correction(mut app: TestApp) {
    // Before the sweeper comes upon it.
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1h")]).await;
    in_another_currency(&app).await;
    let (status, problem) = act(&app, "re_1", "accept").await;
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/conflict")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("still conflicts: the refund is in usd"), "{problem}");
    assert_eq!(app.db.count("history WHERE actor = 'ada'").await, 0);
    app.db.execute("UPDATE payments SET currency = 'usd'").await;
    let (status, accepted) = act(&app, "re_1", "accept").await;
    assert_eq!((status, &accepted["status"]), (200, &json!("matched")), "{accepted}");
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.db.count("history WHERE actor = 'ada' AND reason = 'accepted: corrected'").await, 1);
}

async fn a_conflict_is_acknowledged_and_counts_no_more_until_there_is_news(app: TestApp) {
    in_another_currency(&app).await;
    let warned = check(&app, "conflicting refunds").await;
    assert_eq!(warned["status"], "warning");
    assert!(warned["message"].as_str().unwrap().starts_with("1 (10000 usd; the oldest "), "{warned}");
    assert!(warned["remedy"].as_str().unwrap().contains("clawback refunds list --status conflicting"), "{warned}");
    let (status, acknowledged) = act(&app, "re_1", "acknowledge").await;
    assert_eq!((status, &acknowledged["status"]), (200, &json!("conflicting")), "{acknowledged}");
    assert!(acknowledged["acknowledged_at"].is_string(), "{acknowledged}");
    assert_eq!(check(&app, "conflicting refunds").await["status"], "ok");
    let metrics = app.http.get(format!("{}/metrics", app.base_url)).bearer_auth(&app.read_token).send().await.unwrap();
    assert!(!metrics.text().await.unwrap().contains("clawback_waiting_claim_amount_minor_units{"));
    let (status, problem) = act(&app, "re_1", "acknowledge").await;
    assert_eq!(
        (status, &problem["detail"].as_str().unwrap().contains("needs no attention")),
        (409, &true),
        "{problem}"
    );
    // Its failure is news.
    let mut failed = refund_event("evt_2", "re_1", "pi_1", 10_000);
    failed["data"]["object"]["status"] = json!("failed");
    failed["data"]["object"]["currency"] = json!("usd");
    app.post_webhook(&failed.to_string()).await;
    let now = app.refund_view("re_1").await;
    assert_eq!((&now["status"], &now["acknowledged_at"]), (&json!("failed"), &Value::Null), "{now}");
}

async fn a_held_refund_takes_once_it_is_accepted(app: TestApp) {
    app.refund_of(10_000, 1).await;
    app.db.execute("UPDATE claims SET status = 'held', status_reason = 'older than this ledger'").await;
    let warned = check(&app, "held refunds").await;
    assert!(warned["remedy"].as_str().unwrap().contains("clawback refunds accept ID"), "{warned}");
    let (status, accepted) = act(&app, "re_1", "accept").await;
    assert_eq!((status, &accepted["status"]), (200, &json!("unmatched")), "{accepted}");
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
}

async fn what_needs_no_decision_is_refused_and_changes_nothing(app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let rows = app.db.count("history").await;
    for verb in ["accept", "acknowledge"] {
        let (status, problem) = act(&app, "re_1", verb).await;
        assert_eq!((status, &problem["type"]), (409, &json!("/problems/conflict")), "{problem}");
        assert_eq!(act(&app, "re_2", verb).await.0, 404);
    }
    // One id of two providers: Clawback's own id says which.
    app.post_hyperswitch(&crate::support::hyperswitch_event("evt_h", "re_1", "pi_h", 100).to_string()).await;
    for verb in ["accept", "acknowledge", "withdraw"] {
        let (status, problem) = act(&app, "re_1", verb).await;
        assert_eq!(
            (status, problem["detail"].as_str().unwrap().contains("names several claims")),
            (409, true),
            "{problem}"
        );
        let refused = app.cli(&["refunds", verb, "re_1", "--reason", "x"]).await;
        assert_eq!((refused.code, refused.stderr.contains("names several claims")), (1, true), "{refused:?}");
    }
    assert_eq!(app.db.count("history").await, rows + 1, "the new refund's alone");
}

async fn a_mistaken_report_is_withdrawn_and_made_anew_by_the_provider_or_a_better_report(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    assert_eq!(app.report(&report("re_1", "pi_1", 5_000, "eur")).await.status(), 201);
    let (status, withdrawn) = act(&app, "re_1", "withdraw").await;
    assert_eq!((status, &withdrawn["status"], &withdrawn["failed_at"]), (200, &json!("failed"), &Value::Null));
    assert_eq!(withdrawn["status_reason"], "withdrawn by ada: corrected; 2 reversals were called off");
    assert_eq!(app.transfer_becomes(0, "completed").await["reversals"][0]["failure_code"], "withdrawn");
    assert_eq!(app.db.count("history WHERE actor = 'ada' AND reason = 'withdrawn: corrected'").await, 1);
    let (status, problem) = act(&app, "re_1", "withdraw").await;
    assert_eq!((status, says(&problem, "is withdrawn already")), (409, true), "{problem}");

    // The provider's own word makes it anew, with its own amount, and can't be withdrawn.
    let answer: Value =
        app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 500).to_string()).await.json().await.unwrap();
    assert_eq!(answer["outcome"], "accepted", "{answer}");
    let anew = app.refund_view("re_1").await;
    assert_eq!((&anew["id"], &anew["amount"], &anew["status"]), (&withdrawn["id"], &json!(500), &json!("matched")));
    let (status, problem) = act(&app, "re_1", "withdraw").await;
    assert_eq!((status, says(&problem, "its provider has reported it itself")), (409, true), "{problem}");

    // So does a better report, and the provider's word that the refund failed.
    assert_eq!(app.report(&report("re_2", "pi_2", 100, "usd")).await.status(), 201);
    assert_eq!(app.report(&report("re_2", "pi_2", 100, "eur")).await.status(), 409, "it is known otherwise");
    let run = app.cli(&["refunds", "withdraw", "re_2", "--reason", "not in dollars"]).await;
    assert!(run.table().starts_with("Withdrawn.\n"), "{run:?}");
    assert_eq!(app.report(&report("re_2", "pi_1", 100, "eur")).await.status(), 201);
    let anew = app.refund_view("re_2").await;
    assert_eq!(
        (&anew["status"], &anew["currency"], &anew["payment_ref"]),
        (&json!("matched"), &json!("eur"), &json!("pi_1"))
    );
    assert_eq!(act(&app, "re_2", "withdraw").await.0, 200);
    for (event, status) in [("evt_2", "failed"), ("evt_3", "succeeded")] {
        let mut event = refund_event(event, "re_2", "pi_1", 100);
        event["data"]["object"]["status"] = json!(status);
        assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    }
    let failed = app.refund_view("re_2").await;
    assert_eq!((&failed["status"], failed["failed_at"].is_string()), (&json!("failed"), true), "{failed}");
    let live = "reversals WHERE status <> 'called_off'";
    assert_eq!(app.db.count(live).await, 2, "those of the one refund that stands");
}

async fn a_report_is_not_withdrawn_once_stripe_was_asked(app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    assert_eq!(app.report(&report("re_1", "pi_1", 10_000, "eur")).await.status(), 201);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let (rows, before) = (app.db.count("history").await, app.refund_view("re_1").await);
    let (status, problem) = act(&app, "re_1", "withdraw").await;
    assert_eq!((status, &problem["type"]), (409, &json!("/problems/conflict")), "{problem}");
    assert!(says(&problem, "Stripe was asked for it: 6000 eur were taken back from transfer tr_1"), "{problem}");
    assert_eq!((app.db.count("history").await, app.refund_view("re_1").await), (rows, before));
}

fn report(refund_ref: &str, payment_ref: &str, amount: i64, currency: &str) -> Value {
    json!({"source": "stripe", "refund_ref": refund_ref, "payment_ref": payment_ref, "amount": amount, "currency": currency})
}

fn says(problem: &Value, words: &str) -> bool {
    problem["detail"].as_str().unwrap().contains(words)
}

async fn the_commands_show_what_the_api_shows(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    assert_eq!(app.cli(&["refunds", "list"]).await.table(), "No refunds.\n");
    assert_eq!(app.cli(&["disputes", "list"]).await.table(), "No disputes.\n");
    in_another_currency(&app).await;
    app.refund_of(4_000, 2).await;
    let run = app.cli(&["refunds", "list", "--format", "json"]).await;
    assert_eq!(run.json()["refunds"], list(&app, "").await["refunds"]);
    let age = |text: &str| regex_free_age(text);
    insta::assert_snapshot!("refunds_list", age(&redacted(app.cli(&["refunds", "list"]).await.table())));
    insta::assert_snapshot!("refunds_show", redacted(app.cli(&["refunds", "show", "re_2"]).await.table()));
    let shown = app.cli(&["refunds", "show", "re_1", "--format", "json"]).await.json();
    assert_eq!(shown, app.refund_view("re_1").await);
    let run = app.cli(&["refunds", "acknowledge", "re_1", "--reason", "settled at Stripe"]).await;
    assert!(run.table().starts_with("Acknowledged.\n"), "{run:?}");
    let run = app.cli(&["refunds", "show", "re_9"]).await;
    assert_eq!((run.code, run.stderr.contains("no refund has the id \"re_9\"")), (1, true), "{run:?}");
    let run = app.cli(&["refunds", "list", "--status", "lost"]).await;
    assert_eq!((run.code, run.stderr.contains("possible values: unmatched, held, matched")), (2, true), "{run:?}");
}

/// The age column as `AGE`.
fn regex_free_age(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(' ') {
        Some((rest, age)) if age.ends_with('s') && age.trim_end_matches('s').parse::<u32>().is_ok() => {
            format!("{} AGE\n", rest.trim_end())
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A refund in US dollars of a payment in euros.
async fn in_another_currency(app: &TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let mut event = refund_event("evt_1", "re_1", "pi_1", 10_000);
    event["data"]["object"]["currency"] = json!("usd");
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    assert_eq!(app.refund_view("re_1").await["status"], "conflicting");
}

/// Two accounts would make two debts of one refund, under one key.
async fn stripes_refunds_have_no_other_accounts(app: TestApp) {
    let mut body = report("re_1", "pi_1", 5_000, "eur");
    body["account"] = json!("acct_1");
    let answer = app.report(&body).await;
    let (status, problem) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!((status.as_u16(), &problem["field"]), (422, &json!("account")), "{problem}");
    assert_eq!(problem["detail"], "account must be left out where the source is stripe");
    assert_eq!(app.db.count("claims").await, 0);
}

async fn check(app: &TestApp, name: &str) -> Value {
    let doctor = app.cli(&["doctor", "--format", "json"]).await.json();
    let found = doctor["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == name).cloned();
    found.unwrap_or_else(|| panic!("no check {name:?} in {doctor}"))
}

fn refs(page: &Value) -> Vec<String> {
    page["refunds"].as_array().unwrap().iter().map(|row| row["refund_ref"].as_str().unwrap().to_owned()).collect()
}

async fn list(app: &TestApp, query: &str) -> Value {
    let (status, page) = get(app, &format!("/v1/refunds{query}")).await;
    assert_eq!(status, 200, "{page}");
    page
}

async fn get(app: &TestApp, path: &str) -> (u16, Value) {
    let request = app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn act(app: &TestApp, id: &str, verb: &str) -> (u16, Value) {
    let request = app.http.post(format!("{}/v1/refunds/{id}/{verb}", app.base_url)).bearer_auth(&app.api_token);
    let response = request.json(&json!({"operator": "ada", "reason": "corrected"})).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}
