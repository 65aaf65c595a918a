//! What operators look at: sellers, the summary, groups of failures, the history and the export; at the API and the commands.

use std::collections::BTreeSet;

use chrono::{TimeDelta, Utc};
use clawback::ledger::Note;
use reqwest::header::ACCEPT;
use serde_json::{Value, json};
use stripe_sim::{Fault, Target};

use crate::support::{NO_SWEEPER, TestApp, both_databases, eventually, refund_event, to_create, two_sellers};

both_databases! {
    what_is_owed_waits_failed_and_is_back_is_seen_from_every_side,
    pages_of_sellers_join_up,
}

/// In euros 6,000 are back from s1, 3,000 of s2 wait for balance, 2,000 of =s5 failed and 100 are unmatched; 1,000 US dollars of
/// s3 failed; 9,000 euros of s3 and s4 were not paid out.
async fn one_of_each(app: &mut TestApp) {
    let settings =
        [("REVERSAL_BACKOFF_BASE", "1h"), ("REVERSAL_BACKOFF_MAX", "2h"), ("TRANSFER_RETRY_MAX_RETRIES", "0")];
    app.restart_with(&[&settings[..], &[NO_SWEEPER]].concat()).await;
    let message = "The account may not receive transfers yet.".to_owned();
    app.sim.fault(Target::Any, Fault::Refused { status: 400, code: None, message }, 1_000);
    assert_eq!(app.register(to_create("pi_3")).await.status(), 201);
    eventually("both creations have failed", || async {
        (app.db.count("calls WHERE kind = 'create' AND state = 'failed'").await == 2).then_some(())
    })
    .await;
    app.sim.clear_faults();
    app.sim.fault("tr_2", Fault::BalanceInsufficient, 1);
    let mut first = two_sellers("pi_1");
    let unknown = json!({"seller_id": "s3", "stripe_transfer_id": "tr_unknown1", "destination": "acct_3", "amount": 1_000,
        "currency": "usd"});
    first["transfers"].as_array_mut().unwrap().push(unknown);
    assert_eq!(app.register(first).await.status(), 201);
    let second = json!({"payment_ref": "pi_2", "amount": 5_000, "currency": "eur", "transfers": [{"seller_id": "=s5",
        "stripe_transfer_id": "tr_unknown2", "destination": "acct_5", "amount": 2_000, "currency": "eur"}]});
    assert_eq!(app.register(second).await.status(), 201);
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    app.post_webhook(&refund_event("evt_2", "re_2", "pi_2", 5_000).to_string()).await;
    app.post_webhook(&refund_event("evt_9", "re_9", "pi_9", 100).to_string()).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(2, "permanently_failed").await;
    app.reversal_when(1, "it waits", |reversal| reversal["failure_code"] == "balance_insufficient").await;
    eventually("both have failed", || async {
        (app.db.count("reversals WHERE status = 'permanently_failed'").await == 2).then_some(())
    })
    .await;
}

async fn what_is_owed_waits_failed_and_is_back_is_seen_from_every_side(mut app: TestApp) {
    one_of_each(&mut app).await;
    sellers(&app).await;
    groups(&app).await;
    summary(&app).await;
    history(&app).await;
    export(&app).await;
    // Nothing is owed for a refund that failed.
    app.db.execute("UPDATE claims SET status = 'failed' WHERE reference = 're_1'").await;
    let of_s3 = get(&app, "/v1/sellers/s3").await["currencies"][1].clone();
    assert_eq!(
        (&of_s3["currency"], &of_s3["owed"], &of_s3["failed"]),
        (&json!("usd"), &json!(0), &json!(0)),
        "{of_s3}"
    );
    assert_eq!(ids(&get(&app, "/v1/sellers?debt=failed").await), Vec::<&str>::new());
    assert_eq!(app.cli(&["reversals", "groups"]).await.table(), "No reversal has failed permanently.\n");
    let risks = app.cli(&["summary", "--format", "json"]).await.json()["currencies"].clone();
    assert!(risks.as_array().unwrap().iter().all(|of| of["at_risk"][2]["count"] == 0), "{risks}");
}

async fn sellers(app: &TestApp) {
    let all = get(app, "/v1/sellers").await;
    assert_eq!((ids(&all), &all["next_cursor"]), (vec!["=s5", "s1", "s2", "s3", "s4"], &Value::Null));
    let money = |seller: usize, currency: usize| &all["sellers"][seller]["currencies"][currency];
    for (of, expected) in [
        (money(0, 0), json!({"currency": "eur", "transfers": 1, "paid": 2_000, "owed": 2_000, "failed": 2_000})),
        (money(1, 0), json!({"paid": 6_000, "taken_back": 6_000, "owed": 0, "oldest_open": null})),
        (
            money(2, 0),
            json!({"paid": 3_000, "taken_back": 0, "owed": 3_000, "waiting_for_balance": 3_000, "failed": 0}),
        ),
        (money(3, 0), json!({"currency": "eur", "paid": 0, "unpaid": 6_000, "owed": 0})),
        (money(3, 1), json!({"currency": "usd", "paid": 1_000, "unpaid": 0, "failed": 1_000, "closed": 0})),
        (money(4, 0), json!({"transfers": 1, "paid": 0, "unpaid": 3_000})),
    ] {
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&of[field], value, "{field} of {of}");
        }
    }
    assert!(money(0, 0)["oldest_open"].is_string());
    for (debt, expected) in
        [("open", &["=s5", "s2", "s3"][..]), ("waiting_for_balance", &["s2"]), ("failed", &["=s5", "s3"])]
    {
        assert_eq!(ids(&get(app, &format!("/v1/sellers?debt={debt}")).await), expected, "{debt}");
    }
    let one = get(app, "/v1/sellers/s3").await;
    assert_eq!(
        (&one["currencies"], &one["reversals"][0]["refund_ref"]),
        (&all["sellers"][3]["currencies"], &json!("re_1"))
    );
    assert_eq!(one["reversals"].as_array().unwrap().len(), 1);
    assert_eq!(app.cli(&["sellers", "show", "s3", "--format", "json"]).await.json(), one);
    assert_eq!(app.cli(&["sellers", "list", "--format", "json"]).await.json()["sellers"], all["sellers"]);
    let csv = text(app, "/v1/sellers?format=csv", "*/*").await;
    let currencies = |seller: &Value| seller["currencies"].as_array().unwrap().len();
    assert_eq!(
        csv.lines().count(),
        1 + all["sellers"].as_array().unwrap().iter().map(currencies).sum::<usize>(),
        "{csv}"
    );
    assert!(csv.contains("\n'=s5,") && csv.contains("\ns2,eur,1,3000,0,3000,3000,0,0,0,"), "{csv}");
    assert_eq!(app.cli(&["sellers", "list", "--format", "csv"]).await.stdout, csv);
    let lines = text(app, "/v1/sellers?debt=failed&format=ndjson", "*/*").await;
    let row: Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    assert_eq!((&row["seller_id"], &row["failed"]), (&json!("s3"), &money(3, 0)["failed"]), "{row}");
    for (list, arguments) in [
        ("reversals?status=reversed", "reversals list --status reversed"),
        ("refunds?", "refunds list"),
        ("disputes?", "disputes list"),
        ("transfers?seller=s3", "transfers list --seller s3"),
    ] {
        let csv = text(app, &format!("/v1/{list}&format=csv"), "*/*").await;
        let arguments: Vec<&str> = arguments.split(' ').chain(["--format", "csv"]).collect();
        assert_eq!(app.cli(&arguments).await.stdout, csv, "{list}");
    }
    let table = app.cli(&["sellers", "list"]).await;
    assert!(
        table.table().contains("\ns2\n")
            && table.words().contains("eur: paid 3000, taken back 0, owed 3000 (of it 3000 waiting for balance), the")
    );
    assert!(app.cli(&["sellers", "show", "s3"]).await.words().contains("6000 not paid"));
    let none = app.cli(&["sellers", "show", "s9"]).await;
    assert!(none.code == 1 && none.stderr.contains("no seller has the id \"s9\""), "{none:?}");
    for (path, status) in [("/v1/sellers/s9", 404), ("/v1/sellers?debt=big", 400), ("/v1/sellers?cursor=", 400)] {
        assert_eq!(response(app, path).await.status(), status, "{path}");
    }
}

async fn groups(app: &TestApp) {
    let found = get(app, "/v1/reversals/groups").await;
    let group = &found["groups"][0];
    assert_eq!((found["groups"].as_array().unwrap().len(), &found["complete"]), (1, &json!(true)), "{found}");
    assert_eq!(
        (&group["failure_code"], &group["count"], &group["sellers"]),
        (&json!("resource_missing"), &json!(2), &json!(2))
    );
    assert_eq!(group["reason"], "No such transfer: '…'");
    assert_eq!(group["some_sellers"], json!(["=s5", "s3"]));
    let sum = |currency, amount| json!({"currency": currency, "count": 1, "amount": amount});
    assert_eq!(group["sums"], json!([sum("eur", 2_000), sum("usd", 1_000)]));
    let created = get(app, "/v1/transfers/groups").await;
    assert_eq!(created["groups"][0]["sums"], json!([{"currency": "eur", "count": 2, "amount": 9_000}]), "{created}");
    let shown = app.cli(&["reversals", "groups", "--format", "json"]).await.json();
    assert_eq!(shown["groups"], found["groups"]);
    let table = app.cli(&["transfers", "groups"]).await;
    assert!(table.words().contains("2 transfers of 2 sellers (9000 eur in minor units)"), "{table:?}");
    assert!(table.words().contains("The account may not receive transfers yet."), "{table:?}");
}

async fn summary(app: &TestApp) {
    let summary = get(app, "/v1/summary").await;
    let [eur, usd] = [0, 1].map(|n| &summary["currencies"][n]);
    assert_eq!((&eur["currency"], &usd["currency"]), (&json!("eur"), &json!("usd")), "{summary}");
    let risks = |of: &Value| -> Vec<(String, i64, i64)> {
        let risk = |risk: &Value| {
            assert_eq!(risk["by_age"]["under_1_hour"], json!({"count": risk["count"], "amount": risk["amount"]}));
            (
                risk["reason"].as_str().unwrap().to_owned(),
                risk["count"].as_i64().unwrap(),
                risk["amount"].as_i64().unwrap(),
            )
        };
        of["at_risk"].as_array().unwrap().iter().map(risk).filter(|(_, count, _)| *count > 0).collect()
    };
    let of = |reason: &str, amount| (reason.to_owned(), 1, amount);
    assert_eq!(risks(eur), [of("waiting_for_balance", 3_000), of("failed", 2_000), of("unmatched", 100)]);
    assert_eq!(risks(usd), [of("failed", 1_000)]);
    let taken = json!({"count": 1, "amount": 6_000});
    for days in ["today", "7_days", "30_days"] {
        assert_eq!(eur[format!("taken_back_{days}")], taken, "{days}");
    }
    assert_eq!(summary["time_to_reverse"]["measured"], 1);
    assert!(summary["time_to_reverse"]["p50_seconds"].as_f64().unwrap() > 0.0);
    let unpaid = &summary["unpaid"][0];
    assert_eq!((&unpaid["sellers"], &unpaid["amount"]), (&json!(2), &json!(9_000)));
    assert_eq!(summary["needs_attention"], json!({"refunds": 0, "disputes": 0, "oldest": null}));
    assert!(summary["last_reversal_at"].is_string(), "{summary}");
    assert_eq!(summary["reversed_per_minute"], 0.2, "one in five minutes");
    assert!(summary["last_webhook_at"].is_string() && summary["oldest_open"]["reversal_id"].is_string(), "{summary}");
    // Some seconds old at most, and nothing is read meanwhile.
    assert_eq!(get(app, "/v1/summary").await["as_of"], summary["as_of"]);

    let ago = |days| (Utc::now() - TimeDelta::days(days)).to_rfc3339();
    app.db.execute(&format!("UPDATE reversals SET created_at = '{}' WHERE currency = 'usd'", ago(10))).await;
    app.db.execute(&format!("UPDATE reversals SET updated_at = '{}' WHERE status = 'reversed'", ago(8))).await;
    app.db.execute("UPDATE claims SET attention = 'look at it' WHERE reference = 're_9'").await;
    let later = app.cli(&["summary", "--format", "json"]).await.json();
    let failed = &later["currencies"][1]["at_risk"][2];
    assert_eq!(failed["by_age"]["under_30_days"], json!({"count": 1, "amount": 1_000}), "{failed}");
    let eur = &later["currencies"][0];
    assert_eq!((&eur["taken_back_7_days"]["amount"], &eur["taken_back_30_days"]), (&json!(0), &taken));
    assert_eq!((&later["time_to_reverse"], &later["needs_attention"]["refunds"]), (&Value::Null, &json!(1)));
    let table = app.cli(&["summary"]).await;
    assert!(table.words().contains("at risk: waiting for balance 1 3000"), "{table:?}");
    app.db.execute(&format!("UPDATE reversals SET updated_at = '{}' WHERE status = 'reversed'", ago(0))).await;
}

async fn history(app: &TestApp) {
    let id = get(app, "/v1/sellers/=s5").await["reversals"][0]["id"].as_str().unwrap().to_owned();
    app.ledger().close_reversal(&id, &Note::new("ada", "paid by invoice, 4711")).await.unwrap();
    assert_eq!(get(app, "/v1/sellers/=s5").await["currencies"][0]["closed"], 2_000);
    let rows = app.db.count("history").await;
    let (mut pages, mut path) = (Vec::new(), "/v1/history?limit=7".to_owned());
    loop {
        let page = get(app, &path).await;
        pages.extend(page["history"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/history?limit=7&cursor={cursor}");
    }
    assert!(pages.is_sorted_by(|one, next| one["id"].as_str() > next["id"].as_str()));
    assert_eq!(i64::try_from(pages.len()).unwrap(), rows);
    let of = async |query: &str| {
        get(app, &format!("/v1/history?limit=200&{query}")).await["history"].as_array().unwrap().clone()
    };
    let by_ada = of("actor=ada").await;
    assert_eq!(by_ada.len(), 2, "the reversal and its transfer: {by_ada:?}");
    assert_eq!(of("actor=ada&entity=reversal").await.len(), 1);
    assert!(of("actor=grace").await.is_empty() && of("id=re_none").await.is_empty());
    let of_refund = of("id=re_2").await;
    assert!(of_refund.iter().all(|row| row["actor"] != "sweeper") && of_refund.len() > 4, "{of_refund:?}");
    assert_eq!(of("id=tr_unknown2").await, of_refund, "all of one payment");
    let remarks = of("kind=remark").await.len() + of("kind=change").await.len();
    assert_eq!(i64::try_from(remarks).unwrap(), rows);
    assert!(of("since=1h").await.len() == pages.len() && of("until=1h").await.is_empty());
    let first = pages.last().unwrap()["at"].as_str().unwrap();
    assert!(of(&format!("until={first}")).await.is_empty());

    let csv = text(app, "/v1/history?actor=ada", "text/csv").await;
    let header = "id,at,entity,entity_id,from_status,to_status,actor,reason,stripe_request_id\n";
    assert!(csv.starts_with(header), "{csv}");
    assert!(csv.contains(&format!(
        ",reversal,{id},permanently_failed,closed,ada,\"settled elsewhere: paid by invoice, 4711\",\n"
    )));
    let lines = text(app, "/v1/history?format=ndjson", "*/*").await;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, pages);
    assert_eq!(app.cli(&["history", "--actor", "ada", "--format", "csv"]).await.stdout, csv);
    let shown = app.cli(&["history", "--limit", "7", "--format", "json"]).await.json();
    assert_eq!(shown["history"].as_array().unwrap()[..], pages[..7]);
    let table = app.cli(&["history", "--id", &id]).await;
    assert!(table.words().contains("permanently_failed → closed, ada: settled elsewhere"), "{table:?}");
    for (query, detail) in [
        (
            "entity=seller",
            "entity must be one of payment, transfer, refund, dispute, reversal, lookup, event, operation",
        ),
        ("since=soon", "since must be a time like 2026-11-01T09:30:00Z"),
        ("format=xml", "format must be one of json, csv, ndjson"),
        ("actor=", "actor must be 1 to 255 bytes"),
        ("who=ada", "unknown parameter \"who\""),
    ] {
        let problem = response(app, &format!("/v1/history?{query}")).await;
        assert_eq!(problem.status(), 400, "{query}");
        let problem: Value = problem.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

async fn export(app: &TestApp) {
    let csv = text(app, "/v1/export?from=1h", "*/*").await;
    let (header, rows) = csv.split_once('\n').unwrap();
    let columns: Vec<&str> = header.split(',').collect();
    assert_eq!(rows.lines().count(), 4, "{csv}");
    assert!(csv.contains(",'=s5,acct_5,"), "{csv}");
    let lines = text(app, "/v1/export?from=1h&status=reversed", "application/x-ndjson").await;
    let row: Value = serde_json::from_str(&lines).unwrap();
    assert_eq!(
        row.as_object().unwrap().keys().map(String::as_str).collect::<BTreeSet<_>>(),
        columns.into_iter().collect()
    );
    let reversal = app.payment("pi_1").await["transfers"][0]["reversals"][0].clone();
    for (field, value) in [
        ("reversal_id", &reversal["id"]),
        ("stripe_reversal_id", &reversal["stripe_reversal_id"]),
        ("amount", &json!(6_000)),
        ("refund_ref", &json!("re_1")),
        ("refund_amount", &json!(10_000)),
        ("payment_ref", &json!("pi_1")),
        ("seller_id", &json!("s1")),
        ("stripe_transfer_id", &json!("tr_1")),
        ("actor", &json!("worker")),
        ("kind", &json!("refund")),
        ("reversed_at", &row["changed_at"]),
    ] {
        assert_eq!(&row[field], value, "{field}");
    }
    assert!(row["balance_transaction"].as_str().unwrap().starts_with("txn_"), "{row}");
    assert!(row["stripe_request_id"].is_string() && row["reversed_at"].is_string(), "{row}");
    assert_eq!(text(app, "/v1/export?from=1h&to=2h", "*/*").await, format!("{header}\n"));
    assert_eq!(app.cli(&["export", "--from", "1h", "--format", "csv"]).await.stdout, csv);
    let shown = app.cli(&["export", "--from", "1h", "--status", "reversed", "--format", "ndjson"]).await;
    assert_eq!(shown.stdout, lines);
    assert!(
        app.cli(&["export", "--help"]).await.words().contains(&header.replace(',', ", ")),
        "the help names the columns"
    );
    for (query, detail) in [("", "from is required"), ("?from=1h&format=json", "format must be one of csv, ndjson")] {
        let problem: Value = response(app, &format!("/v1/export{query}")).await.json().await.unwrap();
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

async fn pages_of_sellers_join_up(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    assert_eq!(app.cli(&["sellers", "list"]).await.table(), "No sellers.\n");
    assert_eq!(app.cli(&["reversals", "groups"]).await.table(), "No reversal has failed permanently.\n");
    let amount = app.many_sellers("pi_1", 7).await;
    for n in 1..=3 {
        app.refund_of(amount / 7, n).await;
    }
    let first = get(&app, "/v1/sellers?limit=3").await;
    let second = get(&app, &format!("/v1/sellers?limit=3&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    let third = get(&app, &format!("/v1/sellers?limit=3&cursor={}", second["next_cursor"].as_str().unwrap())).await;
    assert_eq!([ids(&first), ids(&second), ids(&third)].concat(), ["s0", "s1", "s2", "s3", "s4", "s5", "s6"]);
    assert_eq!(third["next_cursor"], Value::Null);
    let of_two = app.cli(&["sellers", "list", "--after", "s2", "--limit", "2", "--format", "ndjson"]).await.stdout;
    let of_two: Vec<Value> = of_two.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(of_two.iter().map(|row| &row["seller_id"]).collect::<Vec<_>>(), ["s3", "s4"]);
    assert!(app.cli(&["sellers", "list", "--limit", "2"]).await.table().ends_with("or with --after s1\n"));
    // A seller's reversals, too.
    let first = get(&app, "/v1/sellers/s1?limit=2").await;
    let rest = get(&app, &format!("/v1/sellers/s1?limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    let refunds = [&first, &rest].map(|page| page["reversals"].as_array().unwrap().clone()).concat();
    let refunds: Vec<&Value> = refunds.iter().map(|row| &row["refund_ref"]).collect();
    assert_eq!((refunds, &rest["next_cursor"]), (vec![&json!("re_3"), &json!("re_2"), &json!("re_1")], &Value::Null));
}

fn ids(page: &Value) -> Vec<&str> {
    page["sellers"].as_array().unwrap().iter().map(|seller| seller["seller_id"].as_str().unwrap()).collect()
}

async fn response(app: &TestApp, path: &str) -> reqwest::Response {
    app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token).send().await.unwrap()
}

async fn get(app: &TestApp, path: &str) -> Value {
    let response = response(app, path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn text(app: &TestApp, path: &str, accept: &str) -> String {
    let request = app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token).header(ACCEPT, accept);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.unwrap()
}
