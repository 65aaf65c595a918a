//! Pause and resume, and who is alive: over HTTP, by command, on the pages' functions.

use reqwest::StatusCode;
use serde_json::{Value, json};
use stripe_sim::Fault;

use crate::support::{Backend, NO_SWEEPER, Process, TestApp, both_databases, eventually, two_sellers};

both_databases! {
    a_paused_seller_is_not_called_for_and_all_others_are,
    everything_is_paused_and_resumed_by_a_command_of_another_process,
    a_call_that_waited_while_it_was_paused_is_made_when_it_is_resumed,
    a_worker_that_waits_for_stripe_is_alive_and_an_operator_hurries_it,
    a_process_that_dies_is_missing_and_one_that_stops_is_gone,
}

async fn get(app: &TestApp, path: &str) -> Value {
    let request = app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token);
    request.send().await.unwrap().json().await.unwrap()
}

async fn post(app: &TestApp, path: &str, body: Value) -> (StatusCode, Value) {
    let request = app.http.post(format!("{}{path}", app.base_url)).bearer_auth(&app.api_token);
    let response = request.json(&body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn ready_when(app: &TestApp, part: &str, words: &str) -> Value {
    eventually(&format!("readiness says of {part}: {words}"), || async {
        let ready = get(app, "/health/ready").await;
        ready["parts"][part]["reason"].as_str().unwrap_or_default().contains(words).then_some(ready)
    })
    .await
}

async fn both_are_alive(app: &TestApp) {
    eventually("both processes are alive", || async {
        (get(app, "/v1/processes").await["alive"].as_array()?.len() == 2).then_some(())
    })
    .await;
}

fn posts(app: &TestApp, transfer: &str) -> usize {
    let ledger = app.sim.ledger();
    ledger.requests.iter().filter(|request| request.method == "POST" && request.path.contains(transfer)).count()
}

async fn a_paused_seller_is_not_called_for_and_all_others_are(mut app: TestApp) {
    // The sweeper's own interval brings nothing back.
    app.restart_with(&[NO_SWEEPER]).await;
    let pause = json!({"seller": "acct_1", "operator": "ada", "reason": "the seller objects"});
    let (status, problem) = post(&app, "/v1/pauses", pause.clone()).await;
    let must =
        "seller must be the account of a transfer that is registered (got \"acct_1\"); force pauses it all the same";
    assert_eq!((status, &problem["detail"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(must)));
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), StatusCode::CREATED);
    let (status, paused) = post(&app, "/v1/pauses", pause.clone()).await;
    assert_eq!(
        (status, &paused["seller"], &paused["operator"]),
        (StatusCode::CREATED, &json!("acct_1"), &json!("ada"))
    );
    assert_eq!(post(&app, "/v1/pauses", pause).await.0, StatusCode::CONFLICT);
    for (wrong, field) in [
        (json!({"seller": "s1", "operator": "a", "reason": "b"}), "seller"),
        (json!({"operator": "", "reason": "b"}), "operator"),
    ] {
        let (status, problem) = post(&app, "/v1/pauses", wrong).await;
        assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(field)), "{problem}");
    }

    app.refund(10_000).await;
    app.transfer_becomes(1, "reversed").await;
    eventually("the paused call's job is done with", || async {
        let jobs = app.db.count("outbox WHERE published_at IS NULL").await;
        (jobs == 0).then_some(())
    })
    .await;
    let swept = app.ledger().sweep(clawback::ledger::CallKind::Reverse, 100).await.unwrap();
    assert_eq!(swept.jobs, 0, "what is paused gets no job");
    let reversal = app.payment("pi_1").await["transfers"][0]["reversals"][0].clone();
    assert_eq!((&reversal["status"], &reversal["retry_count"]), (&json!("pending"), &json!(0)));
    assert_eq!(posts(&app, "tr_1"), 0);
    let trace = app.cli(&["trace", "re_1"]).await.words();
    assert!(trace.contains("acct_1 is paused since") && trace.contains("by ada: the seller objects"), "{trace}");
    let ready = ready_when(&app, "pauses", "calls about 1 sellers are paused").await;
    assert_eq!(ready["status"], "degraded");
    assert!(!ready.to_string().contains("ada"), "{ready}");

    let id = paused["id"].as_str().unwrap();
    let (status, resumed) =
        post(&app, &format!("/v1/pauses/{id}/resume"), json!({"operator": "eve", "reason": "settled"})).await;
    assert_eq!((status, &resumed["calls_due"]), (StatusCode::OK, &json!(1)));
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(posts(&app, "tr_1"), 1);
    let again = post(&app, &format!("/v1/pauses/{id}/resume"), json!({"operator": "eve", "reason": "settled"})).await;
    assert_eq!(again.0, StatusCode::NOT_FOUND);
    let history = get(&app, "/v1/history?entity=pause").await["history"].clone();
    let told: Vec<_> =
        history.as_array().unwrap().iter().map(|row| (&row["actor"], &row["to_status"], &row["reason"])).collect();
    assert_eq!(
        told,
        [
            (&json!("eve"), &json!("resumed"), &json!("acct_1: settled")),
            (&json!("ada"), &json!("paused"), &json!("acct_1: the seller objects")),
        ]
    );
}

async fn everything_is_paused_and_resumed_by_a_command_of_another_process(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    let of_nobody = ["pause", "--seller", "acct_typo", "--reason", "the seller objects"];
    let refused = app.cli(&of_nobody).await;
    assert!(refused.code == 1 && refused.stderr.contains("force pauses it all the same"), "{refused:?}");
    assert_eq!(app.cli(&[&of_nobody[..], &["--force"]].concat()).await.code, 0);
    assert_eq!(app.cli(&["resume", "--seller", "acct_typo", "--reason", "nobody has it"]).await.code, 0);
    let paused = app.cli(&["pause", "--reason", "Stripe asks us to stop"]).await;
    assert_eq!(paused.table(), "everything is paused.\nResume it with: clawback resume --reason TEXT\n");
    assert_eq!(app.cli(&["pause", "--reason", "again"]).await.code, 1);
    app.refund(10_000).await;
    app.published(2).await;
    ready_when(&app, "pauses", "all calls are paused by an operator, since").await;
    let doctor = app.cli(&["doctor"]).await.words();
    assert!(
        doctor.contains("everything is paused since") && doctor.contains("by ada: Stripe asks us to stop"),
        "{doctor}"
    );
    eventually("both jobs are done with", || async {
        let shown = app.cli(&["queues", "status", "--format", "json"]).await.json();
        let ready = shown["queues"].as_array()?.iter().filter_map(|queue| queue["messages"].as_u64()).sum::<u64>();
        (ready == 0).then_some(())
    })
    .await;
    assert_eq!((posts(&app, "tr_1"), posts(&app, "tr_2")), (0, 0));

    // On SQLite the relay of the other process hears of no commit, and looks at its interval.
    let resumed = app.cli(&["resume", "--reason", "we may go on", "--format", "json"]).await;
    assert_eq!(resumed.json()["calls_due"], 2, "{resumed:?}");
    assert_eq!(app.db.count("outbox").await, 4, "each call got a new job at once");
    app.restart_with(&[("REVERSAL_CHECK_INTERVAL", "1s")]).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    let missing = app.cli(&["resume", "--reason", "again"]).await;
    assert!(missing.code == 1 && missing.stderr.contains("everything"), "{missing:?}");
}

async fn a_call_that_waited_while_it_was_paused_is_made_when_it_is_resumed(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER]).await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 1);
    app.refund(10_000).await;
    app.transfer_becomes(1, "reversed").await;
    let (_, paused) = post(&app, "/v1/pauses", json!({"seller": "acct_1", "operator": "ada", "reason": "wait"})).await;
    // Whether it was tried before, waits for its retry, or is being made: nobody knows.
    let tried = app
        .reversal_when(0, "it was tried once", |reversal| {
            reversal["retry_count"] == 1 || reversal["status"] == "reversed"
        })
        .await;
    let id = paused["id"].as_str().unwrap();
    let (_, resumed) = post(&app, &format!("/v1/pauses/{id}/resume"), json!({"operator": "ada", "reason": "go"})).await;
    assert!(resumed["calls_due"].is_u64(), "{resumed}");
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 6_000, "{tried}");
}

async fn a_worker_that_waits_for_stripe_is_alive_and_an_operator_hurries_it(mut app: TestApp) {
    app.stop().await;
    // A process of its own has the real pauses between probes: 10 s and more.
    let worker = Process::start("worker", &app.settings());
    app.start(&[("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    both_are_alive(&app).await;
    app.sim.allow_keys(["sk_test_another"]);
    app.refund(10_000).await;
    let ready = ready_when(&app, "stripe", "the circuit breaker of a worker is open: Stripe can't be used since").await;
    assert_eq!((&ready["status"], &ready["parts"]["workers"]["status"]), (&json!("degraded"), &json!("ok")));
    let process = get(&app, "/v1/processes").await["alive"]
        .as_array()
        .unwrap()
        .iter()
        .find(|of| of["role"] == "worker")
        .cloned()
        .unwrap();
    assert_eq!(process["breaker"], "open", "{process}");
    assert!(process["outage_reason"].as_str().unwrap().contains("STRIPE_API_KEY"), "{process}");
    assert!(["tr_1", "tr_2"].contains(&process["outage_about"].as_str().unwrap()), "{process}");
    for (command, words) in [
        (&["queues", "verify"][..], "Workers are alive, and take no jobs for now: Stripe can't be used since"),
        (&["doctor"], "no consumer: workers are alive, and take no jobs for now"),
        (&["processes"], "Stripe can't be used since"),
    ] {
        let shown = app.cli(command).await;
        assert!(shown.words().contains(words), "{shown:?}");
        assert!(!shown.words().contains("start `clawback worker`"), "{shown:?}");
    }
    let trace = app.cli(&["trace", "re_1"]).await.words();
    assert!(trace.contains("it waits: Stripe can't be used since") && trace.contains("next probe"), "{trace}");

    app.sim.allow_keys(["sk_test_of_the_tests"]);
    let (status, asked) =
        post(&app, "/v1/breaker/probe", json!({"operator": "ada", "reason": "the key is back"})).await;
    assert_eq!((status, &asked["workers"]), (StatusCode::ACCEPTED, &json!(1)));
    // Without the probe, the next one would come up to 10 s later.
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    eventually("the worker says that its breaker is closed", || async {
        (app.cli(&["breaker", "probe", "--reason", "again"])
            .await
            .stderr
            .contains("no worker's circuit breaker is open"))
        .then_some(())
    })
    .await;
    let history = get(&app, "/v1/history?entity=process").await["history"].clone();
    assert_eq!(history[0]["reason"], "a probe of Stripe was asked for: the key is back");
    assert_eq!(worker.terminate().await, Some(0));
}

async fn a_process_that_dies_is_missing_and_one_that_stops_is_gone(mut app: TestApp) {
    app.stop().await;
    let worker = Process::start("worker", &app.settings());
    app.start(&[("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    let roles = async || {
        let processes = get(&app, "/v1/processes").await;
        let roles =
            |of: &str| processes[of].as_array().unwrap().iter().map(|one| one["role"].to_string()).collect::<Vec<_>>();
        (roles("alive"), roles("missing"))
    };
    let names = |of: &[&str]| of.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>();
    both_are_alive(&app).await;
    worker.kill().await;
    // As if it had died a minute ago.
    let minute_ago = (chrono::Utc::now() - chrono::TimeDelta::minutes(1)).format("%Y-%m-%dT%H:%M:%S%.6f+00:00");
    app.db.execute(&format!("UPDATE processes SET seen_at = '{minute_ago}' WHERE role = 'worker'")).await;
    ready_when(&app, "workers", "no worker is alive").await;
    assert_eq!(roles().await, (names(&["run"]), names(&["worker"])));
    let doctor = app.cli(&["doctor"]).await.words();
    assert!(
        doctor.contains("start `clawback worker`: nobody calls Stripe") && doctor.contains("is missing"),
        "{doctor}"
    );
    app.db.execute("UPDATE processes SET seen_at = '2026-01-01 00:00:00+00:00' WHERE role = 'worker'").await;
    assert_eq!(roles().await, (names(&["run"]), names(&[])), "it is forgotten after an hour");
    app.stop().await;
    assert_eq!(app.db.count("processes WHERE role = 'run'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_pause_and_resume_on_a_page_and_every_page_says_what_is_paused() {
    TestApp::run(Backend::Sqlite, async |app| {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let log_in = async |token: &str| {
            let form = [("token", token), ("operator", "ada")];
            let answer = http.post(format!("{}/ui/login", app.base_url)).form(&form).send().await.unwrap();
            answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned()
        };
        let (reader, operator) = (log_in(&app.read_token).await, log_in(&app.api_token).await);
        let page = async |path: &str, cookie: &str| {
            let request = http.get(format!("{}{path}", app.base_url)).header("cookie", cookie);
            request.send().await.unwrap().text().await.unwrap()
        };
        let send = async |path: &str, cookie: &str, form: &[(&str, &str)]| {
            let request = http.post(format!("{}{path}", app.base_url)).header("cookie", cookie).form(form);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let reason = ("reason", "the <b>seller</b> objects");
        assert_eq!(send("/ui/pauses", &reader, &[reason]).await.0, 403);
        assert_eq!(send("/ui/pauses", &operator, &[("seller", "s1"), reason]).await.0, 422);
        let (status, unknown) = send("/ui/pauses", &operator, &[("seller", "acct_1"), reason]).await;
        assert!(status == 422 && unknown.contains("must be the account of a transfer"), "{unknown}");
        let form = [("seller", "acct_1"), ("force", "yes"), reason];
        let (status, paused) = send("/ui/pauses", &operator, &form).await;
        assert!(status == 200 && paused.contains("acct_1 is paused"), "{paused}");
        let seen = page("/ui/refunds", &reader).await;
        assert!(seen.contains("acct_1 is paused") && seen.contains("by ada: the &lt;b&gt;seller"), "{seen}");
        let (of_reader, of_operator) = (page("/ui/queues", &reader).await, page("/ui/queues", &operator).await);
        assert!(!of_reader.contains("action=\"/ui/pauses"), "{of_reader}");
        let resume = of_operator.split("action=\"").find(|rest| rest.starts_with("/ui/pauses/")).unwrap();
        let resume = resume.split('"').next().unwrap().to_owned();
        assert_eq!(send(&resume, &operator, &[("reason", "settled")]).await.0, 200);
        assert!(!page("/ui/refunds", &reader).await.contains("acct_1 is paused"));
        assert_eq!(send("/ui/breaker/probe", &operator, &[("reason", "now")]).await.0, 409, "no breaker is open");
    })
    .await;
}
