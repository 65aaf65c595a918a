//! Operations: many rows, previewed, started once, worked on by one process at a time, whoever dies.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clawback::ledger::{Discarder, ItemState, Note, OperationAction, OperationFilter, OperationState, Pace};
use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::support::{
    Backend, NO_SWEEPER, Process, TestApp, both_databases, clawback, eventually, refund_event, to_create, two_sellers,
};
use stripe_sim::{Fault, Target};

both_databases! {
    an_operation_is_previewed_started_once_and_done_row_by_row,
    a_spread_and_a_cap_hold_back_what_an_abort_then_leaves,
    claims_are_acknowledged_and_what_would_be_refused_is_said_before,
    a_preview_says_what_stripe_has_of_each_debt_and_without_a_key_that_nobody_asked,
    an_operation_goes_on_after_its_process_was_killed_and_does_no_row_twice,
    an_abort_stops_the_batch_that_was_read_before_it,
    a_preview_asks_stripe_also_where_transfers_are_created_and_claims_accepted,
    a_discard_takes_only_messages_whose_rows_say_so_whoever_dies_or_aborts_in_the_middle,
}

/// That many reversals of `pi_1` over 1.00 EUR each that failed permanently, as if Stripe had been away.
async fn failed(app: &mut TestApp, sellers: i64) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    let amount = app.many_sellers("pi_1", sellers).await;
    app.refund_of(amount, 1).await;
    for sql in [
        "UPDATE reversals SET status = 'permanently_failed'",
        "UPDATE seller_transfers SET status = 'permanently_failed'",
        "UPDATE calls SET state = 'failed', failure_code = 'unavailable', failure_message = 'Stripe answered 503'",
    ] {
        app.db.execute(sql).await;
    }
}

const REPLAYED: &str =
    "history WHERE entity = 'reversal' AND from_status = 'permanently_failed' AND to_status = 'pending'";

async fn an_operation_is_previewed_started_once_and_done_row_by_row(mut app: TestApp) {
    failed(&mut app, 5).await;
    for (body, field) in [
        (json!({"action": "replay_reversals", "filter": {}}), "filter"),
        (json!({"action": "replay_reversals", "filter": {"status": "held"}}), "filter.status"),
        (json!({"action": "accept_claims", "filter": {"seller": "s1"}}), "filter.seller"),
        (json!({"action": "replay_reversals", "filter": {"ids": []}}), "filter.ids"),
        (json!({"action": "replay_reversals", "filter": {"failure": "x"}}), "filter.failure"),
        (json!({"action": "delete", "filter": {"seller": "s1"}}), "action"),
    ] {
        let (status, problem) = post(&app, "", &body).await;
        assert_eq!((status, &problem["field"]), (422, &json!(field)), "{problem}");
    }
    let key = get(&app, "/v1/reversals/groups").await["groups"][0]["key"].clone();
    let filter =
        json!({"failure_code": "unavailable", "group": key, "currency": "EUR", "since": "2026-01-01T00:00:00Z"});
    let (status, preview) = post(&app, "", &json!({"action": "replay_reversals", "filter": filter})).await;
    assert_eq!(status, 201, "{preview}");
    for (field, expected) in [
        ("state", json!("previewed")),
        ("matching", json!(5)),
        ("items", json!(5)),
        ("checked", json!(5)),
        ("refusals", json!([])),
        ("progress", json!({"pending": 5, "done": 0, "refused": 0})),
        ("sums", json!([{"currency": "eur", "count": 5, "amount": 500}])),
        ("filter", filter.clone()),
    ] {
        assert_eq!(preview[field], expected, "{field}");
    }
    assert!(preview["oldest"].is_string());
    assert_eq!(app.db.count("reversals WHERE status = 'permanently_failed'").await, 5, "a preview changes nothing");
    assert_eq!(app.db.count(REPLAYED).await, 0);

    // Somebody else settles one of them before the start.
    let id = preview["id"].as_str().unwrap();
    let settled = get(&app, &format!("/v1/operations/{id}/items?limit=1")).await["items"][0]["target_id"].clone();
    app.ledger().close_reversal(settled.as_str().unwrap(), &Note::new("bob", "paid by invoice")).await.unwrap();
    let start = json!({"operator": "ada", "reason": "Stripe is back"});
    let path = format!("/{id}/start");
    let (one, other) = tokio::join!(post(&app, &path, &start), post(&app, &path, &start));
    let mut statuses = [one.0, other.0];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409], "{one:?} {other:?}");
    let done = ended(&app, id).await;
    assert_eq!((&done["state"], &done["progress"]), (&json!("done"), &json!({"pending": 0, "done": 4, "refused": 1})));
    assert_eq!((&done["operator"], &done["reason"]), (&json!("ada"), &json!("Stripe is back")));
    let refused = get(&app, &format!("/v1/operations/{id}/items?state=refused")).await;
    assert_eq!((&refused["items"][0]["target_id"], &refused["next_cursor"]), (&settled, &Value::Null));
    assert!(refused["items"][0]["problem"].as_str().unwrap().contains("is closed; only a permanently_failed one"));
    let by_ada = format!("{REPLAYED} AND actor = 'ada' AND reason = 'Stripe is back (operation {id})'");
    assert_eq!((app.db.count(&by_ada).await, app.db.count(REPLAYED).await), (4, 4));
    assert_eq!(app.db.count("outbox").await, 5 + 4, "each has a job of its own");
    let steps = get(&app, "/v1/history?entity=operation").await["history"].clone();
    let steps: Vec<&Value> = steps.as_array().unwrap().iter().map(|row| &row["to_status"]).collect();
    assert_eq!(steps, ["done", "running"]);
    assert_eq!((post(&app, &path, &start).await.0, post(&app, &format!("/{id}/abort"), &start).await.0), (409, 409));
    for unknown in ["none", "00000000-0000-7000-8000-000000000000"] {
        assert_eq!(post(&app, &format!("/{unknown}/start"), &start).await.0, 404);
    }
    for (field, value, said) in [
        ("since", json!("soon"), "must be a time like 2026-11-01T09:30:00Z, a date like 2026-11-01, or a duration"),
        ("until", json!("-262143-01-01"), "from 1970 to 9999"),
        ("ids", json!(["x"]), "must be Clawback's id, a UUID"),
    ] {
        let body = json!({"action": "replay_reversals", "filter": {field: value}});
        let (status, problem) = post(&app, "", &body).await;
        assert_eq!((status, problem["detail"].as_str().unwrap().contains(said)), (422, true), "{problem}");
    }
    let bad = json!({"operator": "ada", "reason": "x", "spread_seconds": -1, "cap": 0});
    let (status, problem) = post(&app, &path, &bad).await;
    assert_eq!((status, problem["errors"].as_array().unwrap().len()), (422, 2), "{problem}");

    let listed = get(&app, "/v1/operations").await;
    assert_eq!((&listed["operations"], &listed["next_cursor"]), (&json!([done]), &Value::Null));
    let shown = app.cli(&["operations", "show", id, "--format", "json"]).await.json();
    assert_eq!((&shown["progress"], shown["rows"].as_array().unwrap().len()), (&done["progress"], 5));
    let table = app.cli(&["operations", "show", id]).await;
    assert!(table.words().contains("4 done, 1 refused, 0 left") && table.words().contains("is closed;"), "{table:?}");
    assert!(app.cli(&["operations", "list"]).await.words().contains("replay_reversals done"));
    // Nothing is left to do.
    let none = app.cli(&["operations", "preview", "close_reversals", "--seller", "s1", "--format", "json"]).await;
    assert_eq!(none.code, 3, "{none:?}");
    let id = none.json()["id"].as_str().unwrap().to_owned();
    let run = app.cli(&["operations", "start", &id, "--reason", "x", "--yes"]).await;
    assert!(run.code == 1 && run.stderr.contains("has nothing to do"), "{run:?}");
    let run = app.cli(&["operations", "preview", "close_reversals"]).await;
    assert!(run.code == 1 && run.stderr.contains("filter must have at least one of failure_code"), "{run:?}");
}

async fn a_spread_and_a_cap_hold_back_what_an_abort_then_leaves(mut app: TestApp) {
    failed(&mut app, 4).await;
    let run = app
        .cli(&["operations", "preview", "close_reversals", "--failure-code", "unavailable", "--format", "json"])
        .await;
    let id = run.json()["id"].as_str().unwrap().to_owned();
    let start =
        |more: &[&'static str]| [&["operations", "start", id.as_str(), "--reason", "written off"], more].concat();
    let asked = app.cli(&start(&[])).await;
    assert!(
        asked.code == 1 && asked.stderr.contains("close_reversals: 4 rows (400 eur in minor units)? Add --yes"),
        "{asked:?}"
    );
    let run = app.cli(&start(&["--spread", "1h", "--cap", "2", "--yes"])).await;
    assert_eq!(run.code, 0, "{run:?}");
    let path = format!("/v1/operations/{id}");
    eventually("the first row is done", || async { (get(&app, &path).await["progress"]["done"] == 1).then_some(()) })
        .await;
    let now = get(&app, &path).await;
    assert_eq!((&now["spread_seconds"], &now["cap"], &now["state"]), (&json!(3_600), &json!(2), &json!("running")));
    assert_eq!(app.cli(&["operations", "abort", &id, "--reason", "the wrong ones"]).await.code, 0);
    // As if an hour had passed.
    app.db.execute("UPDATE operations SET started_at = '2020-01-01T00:00:00+00:00'").await;
    let aborted = get(&app, &path).await;
    assert_eq!((&aborted["state"], &aborted["progress"]["done"]), (&json!("aborted"), &json!(1)));
    let run = app
        .cli(&["operations", "preview", "close_reversals", "--failure-code", "unavailable", "--format", "json"])
        .await;
    let rest = run.json()["id"].as_str().unwrap().to_owned();
    let run = app.cli(&["operations", "start", &rest, "--reason", "written off", "--cap", "2", "--yes"]).await;
    assert_eq!(run.code, 0, "{run:?}");
    assert_eq!(ended(&app, &rest).await["progress"], json!({"pending": 1, "done": 2, "refused": 0}));
    assert_eq!(app.db.count("reversals WHERE status = 'closed'").await, 3);
    assert_eq!(get(&app, &path).await["progress"]["done"], 1, "what was aborted stays");
}

async fn claims_are_acknowledged_and_what_would_be_refused_is_said_before(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.many_sellers("pi_1", 1).await;
    for n in 1..=3 {
        app.post_webhook(&refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_9", 100).to_string()).await;
    }
    let mut event = refund_event("evt_4", "re_4", "pi_1", 100);
    event["data"]["object"]["currency"] = json!("usd");
    app.post_webhook(&event.to_string()).await;
    let body = json!({"action": "accept_claims", "filter": {"status": "conflicting"}});
    let (_, preview) = post(&app, "", &body).await;
    let refusal = &preview["refusals"][0];
    assert_eq!((&preview["items"], &refusal["count"]), (&json!(1), &json!(1)), "{preview}");
    assert!(refusal["reason"].as_str().unwrap().contains("still conflicts"), "{preview}");

    // What is never started is forgotten, and can't be started any more before that.
    let old = preview["id"].as_str().unwrap();
    app.db.execute("UPDATE operations SET created_at = '2026-01-02T03:04:05+00:00'").await;
    let start = json!({"operator": "ada", "reason": "too late"});
    let (status, problem) = post(&app, &format!("/{old}/start"), &start).await;
    assert!(status == 409 && problem["detail"].as_str().unwrap().contains("preview it again"), "{problem}");

    let body = json!({"action": "acknowledge_claims", "filter": {"status": "unmatched", "kind": "refund"}});
    let (_, preview) = post(&app, "", &body).await;
    let long = Duration::from_secs(24 * 60 * 60);
    assert_eq!((app.ledger().forget(long).await.unwrap(), app.ledger().forget(long).await.unwrap()), (1, 0));
    assert_eq!((app.db.count("operations").await, app.db.count("operation_items").await), (1, 3));
    assert_eq!((&preview["items"], &preview["refusals"]), (&json!(3), &json!([])), "{preview}");
    let id = preview["id"].as_str().unwrap();
    let (status, _) = post(&app, &format!("/{id}/start"), &json!({"operator": "ada", "reason": "a test shop"})).await;
    assert_eq!((status, &ended(&app, id).await["progress"]["done"]), (202, &json!(3)));
    assert_eq!(app.db.count("claims WHERE acknowledged_at IS NOT NULL").await, 3);
}

async fn an_operation_goes_on_after_its_process_was_killed_and_does_no_row_twice(mut app: TestApp) {
    const ROWS: i64 = 150;
    failed(&mut app, ROWS).await;
    let body = json!({"action": "replay_reversals", "filter": {"failure_code": "unavailable"}});
    let (_, preview) = post(&app, "", &body).await;
    let id = preview["id"].as_str().unwrap().to_owned();
    app.stop().await;
    let settings = app.settings_with(&[("HTTP_ADDR", "127.0.0.1:0")]);
    let pace = Pace { spread_seconds: 5, cap: None };
    app.ledger().start_operation(id.parse().unwrap(), &Note::new("ada", "Stripe is back"), pace, None).await.unwrap();
    let process = Process::start("serve", &settings);
    let some_are_done = async || {
        eventually("some rows are done", || async {
            let done = app.db.count("operation_items WHERE state = 'done'").await;
            (done >= 10).then_some(done)
        })
        .await
    };
    assert!(some_are_done().await < ROWS, "it was killed too late");
    process.kill().await;
    // Others wait for the end of its lease, and then go on, two at a time.
    app.db.execute("UPDATE operations SET lease_until = '2020-01-01T00:00:00+00:00'").await;
    let (one, other) = (Process::start("serve", &settings), Process::start("serve", &settings));
    eventually("it is done", || async { (app.db.count("operations WHERE state = 'done'").await == 1).then_some(()) })
        .await;
    assert_eq!((one.terminate().await, other.terminate().await), (Some(0), Some(0)));
    assert_eq!(app.db.count("operation_items WHERE state = 'done'").await, ROWS);
    assert_eq!(app.db.count(REPLAYED).await, ROWS, "each once");
    assert_eq!(app.db.count("outbox").await, 2 * ROWS);
    assert_eq!(app.db.count("history WHERE entity = 'operation' AND to_status = 'done'").await, 1);
}

async fn an_abort_stops_the_batch_that_was_read_before_it(mut app: TestApp) {
    failed(&mut app, 3).await;
    let body = json!({"action": "discard_messages", "filter": {"failure_code": "unavailable"}});
    let (_, preview) = post(&app, "", &body).await;
    let id: uuid::Uuid = preview["id"].as_str().unwrap().parse().unwrap();
    app.stop().await;
    let ledger = app.ledger();
    ledger.start_operation(id, &Note::new("ada", "not needed"), Pace::default(), None).await.unwrap();
    // As soon as somebody has taken the lease, before the rows are worked off.
    let abort = "UPDATE operations SET state = 'aborted'";
    match app.db.backend {
        Backend::Sqlite => {
            let trigger = "CREATE TRIGGER abort_it AFTER UPDATE OF lease_owner ON operations";
            app.db.execute(&format!("{trigger} BEGIN {abort} WHERE id = NEW.id; END")).await;
        }
        Backend::Postgres => {
            let body = format!("BEGIN {abort} WHERE id = NEW.id; RETURN NEW; END");
            app.db
                .execute(&format!("CREATE FUNCTION abort_it() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"))
                .await;
            let trigger = "CREATE TRIGGER abort_it AFTER UPDATE OF lease_owner ON operations FOR EACH ROW";
            app.db.execute(&format!("{trigger} EXECUTE FUNCTION abort_it()")).await;
        }
    }
    ledger.work_on_operations(uuid::Uuid::new_v4(), &discards(&Arc::default(), false)).await.unwrap();
    assert_eq!(app.db.count("operations WHERE state = 'aborted'").await, 1);
    assert_eq!(app.db.count("operation_items WHERE state = 'pending'").await, 3);
    assert_eq!(app.db.count("history WHERE reason LIKE '%parked messages are discarded%'").await, 0);
}

/// The rows whose messages were to be thrown away, by pass.
type Passes = Arc<Mutex<Vec<HashSet<uuid::Uuid>>>>;

/// Throws messages away, or can't since the broker is away.
fn discards(passes: &Passes, fails: bool) -> Box<Discarder> {
    let passes = Arc::clone(passes);
    Box::new(move |rows, _| {
        passes.lock().unwrap().push(rows.into_keys().collect());
        let done = if fails { Err("the broker is away".to_owned()) } else { Ok(()) };
        async move { done }.boxed()
    })
}

async fn a_discard_takes_only_messages_whose_rows_say_so_whoever_dies_or_aborts_in_the_middle(mut app: TestApp) {
    const ROWS: i64 = 60;
    failed(&mut app, ROWS).await;
    app.stop().await;
    let (ledger, filter) =
        (app.ledger(), OperationFilter { failure_code: Some("unavailable".to_owned()), ..OperationFilter::default() });
    let start = async || {
        let id = ledger.preview_operation(OperationAction::DiscardMessages, &filter).await.unwrap().id;
        ledger.start_operation(id, &Note::new("ada", "not needed"), Pace::default(), None).await.unwrap();
        id
    };
    let done = async |id: uuid::Uuid| -> HashSet<uuid::Uuid> {
        let (items, _) = ledger.operation_items(id, Some(ItemState::Done), None, 1_000).await.unwrap();
        items.into_iter().map(|item| item.target_id).collect()
    };
    let (worker, passes) = (uuid::Uuid::new_v4(), Passes::default());

    // Aborted after the first of two batches: no message of the second one goes.
    let id = start().await;
    ledger.work_on_operations(worker, &discards(&passes, false)).await.unwrap();
    assert_eq!((done(id).await.len(), passes.lock().unwrap().len()), (50, 0), "the rows first");
    ledger.abort_operation(id, &Note::new("bob", "the wrong ones")).await.unwrap();
    for _ in 0..2 {
        ledger.work_on_operations(worker, &discards(&passes, false)).await.unwrap();
    }
    let of_the_first = done(id).await;
    assert_eq!(of_the_first.len(), 50);
    assert_eq!(*passes.lock().unwrap(), [of_the_first], "once, and of no other row");

    // Whoever dies before the messages are gone leaves them to the next.
    let (id, passes) = (start().await, Passes::default());
    for _ in 0..3 {
        ledger.work_on_operations(worker, &discards(&passes, true)).await.unwrap();
    }
    assert_eq!(ledger.operation(id).await.unwrap().unwrap().state, OperationState::Running);
    app.db.execute("UPDATE operations SET lease_until = '2020-01-01T00:00:00+00:00'").await;
    ledger.work_on_operations(uuid::Uuid::new_v4(), &discards(&passes, false)).await.unwrap();
    assert_eq!(ledger.operation(id).await.unwrap().unwrap().state, OperationState::Done);
    let all = done(id).await;
    assert_eq!((all.len() as i64, passes.lock().unwrap().pop()), (ROWS, Some(all)), "all in one pass");
}

async fn a_preview_says_what_stripe_has_of_each_debt_and_without_a_key_that_nobody_asked(mut app: TestApp) {
    failed(&mut app, 7).await;
    // One was taken back in the dashboard, one in part, one by a Clawback that forgot it; one can't be read.
    app.sim.reverse_from_elsewhere("tr_of_0", None);
    app.sim.reverse_from_elsewhere("tr_of_1", Some(40));
    let ours = [("amount", "100"), ("metadata[clawback_claim]", "stripe:re_1")];
    let url = format!("{}/v1/transfers/tr_of_2/reversals", app.sim.base_url());
    let answer = app.http.post(url).bearer_auth("sk_test_1").form(&ours).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    app.sim.fault_reads("tr_of_3", Fault::PermissionDenied, 1);
    app.sim.set_balance("acct_1", Some(200));
    let (reads, body) =
        (app.sim.counts().requests, json!({"action": "replay_reversals", "filter": {"currency": "eur"}}));
    let (_, preview) = post(&app, "", &body).await;
    let sum = |count: i64| json!([{"currency": "eur", "count": count, "amount": count * 100}]);
    let expected = [("ready", 2), ("already_reversed", 2), ("less_left", 1), ("short_of_balance", 1), ("unknown", 1)];
    let expected = expected.map(|(says, count)| json!({"says": says, "sums": sum(count)}));
    assert_eq!(preview["at_stripe"], json!(expected), "{preview}");
    assert_eq!(
        app.sim.counts().requests - reads,
        7 + 3 + 1,
        "each transfer once, lists where something is back, one balance"
    );
    let id = preview["id"].as_str().unwrap();
    let items = get(&app, &format!("/v1/operations/{id}/items")).await["items"].clone();
    let details: Vec<&str> =
        items.as_array().unwrap().iter().filter_map(|item| item["stripe_detail"].as_str()).collect();
    for detail in ["nothing is left of tr_of_0", "60 eur left of tr_of_1", "done as trr_", "acct_1 has 0 eur"] {
        assert!(details.iter().any(|said| said.starts_with(detail)), "{detail}: {details:?}");
    }
    assert_eq!(details.len(), 5, "{details:?}");
    let shown = app.cli(&["operations", "show", id]).await;
    assert!(shown.words().contains("At Stripe 2 ready: 200 eur At Stripe 2 already reversed: 200 eur"), "{shown:?}");

    let settings = app.settings_with(&[("STRIPE_API_KEY", "")]);
    let run = clawback(&["operations", "preview", "close_reversals", "--seller", "s4"], &settings).await;
    assert!(run.code == 0 && run.words().contains("At Stripe not asked (no STRIPE_API_KEY)"), "{run:?}");
    let run = app.cli(&["operations", "preview", "close_reversals", "--seller", "s4", "--format", "json"]).await;
    assert_eq!(run.json()["at_stripe"][0]["says"], "ready", "{run:?}");
}

async fn a_preview_asks_stripe_also_where_transfers_are_created_and_claims_accepted(mut app: TestApp) {
    let settings = [("REFUNDS_SINCE", ""), ("TRANSFER_RETRY_MAX_RETRIES", "0"), NO_SWEEPER];
    app.restart_with(&settings).await;
    let message = "The account may not receive transfers yet.".to_owned();
    app.sim.fault(Target::Any, Fault::Refused { status: 400, code: None, message }, 2);
    assert_eq!(app.register(to_create("pi_c")).await.status(), 201);
    eventually("both creations have failed", || async {
        (app.db.count("calls WHERE kind = 'create' AND state = 'failed'").await == 2).then_some(())
    })
    .await;
    let says = async |action: &str, filter: Value| {
        let (status, preview) = post(&app, "", &json!({"action": action, "filter": filter})).await;
        assert_eq!(status, 201, "{preview}");
        let path = format!("/v1/operations/{}/items", preview["id"].as_str().unwrap());
        let items = get(&app, &path).await["items"].as_array().unwrap().clone();
        let said = |item: &Value| format!("{} {}", item["at_stripe"].as_str().unwrap(), item["stripe_detail"]);
        items.iter().map(said).collect::<Vec<_>>()
    };
    assert_eq!(says("retry_transfers", json!({"currency": "eur"})).await, ["ready null", "ready null"]);
    app.sim.set_balance("acct_platform", Some(7_000));
    let short = "short_of_balance \"the platform has 1000 eur\"";
    assert_eq!(says("retry_transfers", json!({"currency": "eur"})).await, ["ready null", short]);
    // A Clawback that has lost its ledger had created the first one.
    app.sim.set_balance("acct_platform", None);
    let form = [
        ("amount", "6000"),
        ("currency", "eur"),
        ("destination", "acct_3"),
        ("transfer_group", "pi_c"),
        ("metadata[payment_ref]", "pi_c"),
        ("metadata[clawback_transfer]", "acct_3:6000eur:0"),
    ];
    let url = format!("{}/v1/transfers", app.sim.base_url());
    let answer = app.http.post(url).bearer_auth("sk_test_1").form(&form).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let said = says("retry_transfers", json!({"currency": "eur"})).await;
    assert!(said[0].starts_with("already_created \"it exists as tr_"), "{said:?}");

    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    for n in [1, 2] {
        let mut event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_1", 5_000);
        event["data"]["object"]["created"] = json!(1_500_000_000);
        app.post_webhook(&event.to_string()).await;
    }
    let held = json!({"status": "held"});
    assert_eq!(says("accept_claims", held.clone()).await, ["ready null", "ready null"]);
    app.sim.reverse_from_elsewhere("tr_1", Some(2_000));
    app.sim.set_balance("acct_2", Some(1_000));
    let said = says("accept_claims", held).await;
    assert!(said[0].starts_with("short_of_balance ") && said[0].contains("acct_2 has 1000 eur"), "{said:?}");
    assert!(said[1].contains("1000 eur left of tr_1"), "the first one takes 3000 of 4000: {said:?}");
    assert_eq!(app.db.count("reversals").await, 0, "a preview changes nothing");
}

/// The operation once it has ended.
async fn ended(app: &TestApp, id: &str) -> Value {
    eventually("the operation ends", || async {
        let operation = get(app, &format!("/v1/operations/{id}")).await;
        operation["finished_at"].is_string().then_some(operation)
    })
    .await
}

async fn get(app: &TestApp, path: &str) -> Value {
    let response = app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.json().await.unwrap()
}

async fn post(app: &TestApp, path: &str, body: &Value) -> (u16, Value) {
    let request = app.http.post(format!("{}/v1/operations{path}", app.base_url)).bearer_auth(&app.api_token);
    let response = request.json(body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}
