//! `clawback doctor`: healthy, with everything broken, and with each thing broken by itself.

use std::time::Duration;

use serde_json::{Value, json};
use stripe_sim::{Endpoint, Fault, Target};

use crate::support::{
    Backend, Db, Finished, TestApp, both_databases, clawback, eventually, required, settings, to_create,
};

both_databases! {
    where_all_is_well_every_line_is_ok,
    what_waits_for_an_operator_is_a_warning_with_the_command_to_use,
    sellers_who_were_not_paid_are_a_warning,
    webhooks_with_a_wrong_signature_are_counted,
    what_another_machine_serves_is_not_missed_in_a_worker,
    strict_fails_while_a_refund_is_unmatched_and_passes_when_all_is_well,
    a_stripe_that_refuses_or_fails_is_explained,
    events_that_no_endpoint_is_told_of_are_named,
    queues_that_are_not_as_wanted_are_errors_and_hide_nothing_else,
}

async fn where_all_is_well_every_line_is_ok(app: TestApp) {
    let run = eventually("both consumers are there", || async {
        let run = doctor(&app, &[]).await;
        (run.stdout.matches("consumers: ").count() >= 1 && !run.stdout.contains("no consumer")).then_some(run)
    })
    .await;
    assert_eq!(run.code, 0, "{run:?}");
    let wrong: Vec<&str> =
        run.stdout.lines().filter(|line| line.starts_with("error") || line.starts_with("warn")).collect();
    assert_eq!(wrong, [] as [&str; 0], "{}", run.stdout);
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    assert!(!run.stdout.contains("of-the-tests") && !run.stdout.contains("of_the_tests"), "a secret: {}", run.stdout);
    if app.db.backend == Backend::Postgres {
        insta::assert_snapshot!("doctor_healthy", redacted(&app, &run));
    }
}

async fn what_waits_for_an_operator_is_a_warning_with_the_command_to_use(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_MAX_RETRIES", "0")]).await;
    // The sweeper may make a second job for it, which must not succeed either.
    app.sim.fault("tr_1", Fault::UnavailableHtml, 7);
    app.refund(10_000).await;
    app.transfer_becomes(0, "permanently_failed").await;
    app.transfer_becomes(1, "reversed").await;
    eventually("the job is parked", || async {
        let parked = app.vhost.queues().await.into_iter().find(|queue| queue["name"] == "reversals.parked");
        parked.filter(|queue| queue["messages"].as_i64() > Some(0))
    })
    .await;
    app.stop().await;
    app.db.execute("UPDATE claims SET attention = 'failed after it had succeeded'").await;
    let ago = match app.db.backend {
        Backend::Sqlite => "'2026-01-02T03:04:05.000000+00:00'",
        Backend::Postgres => "'2026-01-02T03:04:05Z'",
    };
    app.db.execute(&format!("UPDATE outbox SET published_at = NULL, created_at = {ago}")).await;

    let run = doctor(&app, &["--format", "json"]).await;
    assert_eq!(run.code, 0, "warnings are no errors: {run:?}");
    assert_eq!(run.json()["status"], "warning");
    let warning = |check: &str, message: &str, remedy: &str| {
        let found = check_named(&run, check);
        assert_eq!(found["status"], "warning", "{found}");
        for (text, expected) in [(&found["message"], message), (&found["remedy"], remedy)] {
            assert!(text.as_str().unwrap().contains(expected), "{found}");
        }
    };
    warning(
        "reversals",
        "permanently failed: 1; the sellers still have the money",
        "clawback reversals list --status permanently_failed",
    );
    warning("attention", "old): re_1", "clawback refunds show ID");
    warning("outbox", ", the oldest since 2026-01-02T03:04:05Z", "clawback serve");
    warning("reversals.parked", "parked jobs: ", "clawback parked list");
    let strict = doctor(&app, &["--strict"]).await;
    assert_eq!(strict.code, 3, "{strict:?}");
    warning("workers of reversals", "no consumer", "clawback worker");
}

async fn webhooks_with_a_wrong_signature_are_counted(app: TestApp) {
    for _ in 0..3 {
        assert_eq!(app.post_signed("{}", "t=1,v1=00").await.status(), 400);
    }
    let found = eventually("the process has told of them", || async {
        let run = doctor(&app, &["--format", "json"]).await;
        let found = check_named(&run, "webhooks' signatures");
        (found["status"] == "warning").then_some(found)
    })
    .await;
    assert!(found["message"].as_str().unwrap().contains(" UTC: 3, the last one "), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("STRIPE_WEBHOOK_SECRET"), "{found}");
}

async fn what_another_machine_serves_is_not_missed_in_a_worker(app: TestApp) {
    let mut settings = app.settings();
    let of_a_server = ["STRIPE_WEBHOOK_SECRET", "HYPERSWITCH_WEBHOOK_SECRET", "API_TOKEN"];
    settings.retain(|(name, _)| !of_a_server.contains(&name.as_str()));
    let look = async || {
        let run = clawback(&["doctor", "--format", "json"], &settings).await;
        ["Stripe's webhooks", "API"].map(|check| check_named(&run, check))
    };
    // Whoever serves here may have this configuration.
    for found in look().await {
        assert_eq!(found["status"], "warning", "{found}");
    }
    app.db.execute("UPDATE processes SET host = 'web-1'").await;
    for found in look().await {
        assert_eq!((&found["status"], &found["remedy"]), (&json!("ok"), &Value::Null), "{found}");
        assert_eq!(found["message"], "not of this process: run on web-1 is alive");
    }
}

async fn sellers_who_were_not_paid_are_a_warning(app: TestApp) {
    let (code, message) = (Some("resource_missing".to_owned()), "No such destination: 'acct_3'".to_owned());
    app.sim.fault("acct_3", Fault::Refused { status: 400, code, message }, u32::MAX);
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "permanently_failed").await;
    let run = doctor(&app, &["--strict", "--format", "json"]).await;
    let found = check_named(&run, "creations");
    assert_eq!((run.code, &found["status"]), (3, &json!("warning")), "{found}");
    let message = found["message"].as_str().unwrap();
    assert!(message.starts_with("permanently failed: 1 (6000 eur; the oldest "), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("clawback transfers retry"), "{found}");
}

async fn strict_fails_while_a_refund_is_unmatched_and_passes_when_all_is_well(app: TestApp) {
    let strict = async |code| {
        eventually("the exit code is as expected", || async {
            let run = doctor(&app, &["--strict", "--format", "json"]).await;
            (run.code == code).then_some(run)
        })
        .await
    };
    strict(0).await;
    app.refund_of(10_000, 1).await;
    let run = strict(3).await;
    let found = check_named(&run, "unmatched refunds");
    assert_eq!(found["status"], "warning", "{found}");
    assert!(found["message"].as_str().unwrap().starts_with("1 (10000 eur; the oldest "), "{found}");
    assert!(found["remedy"].as_str().unwrap().contains("clawback refunds list --status unmatched"), "{found}");
    assert_eq!(doctor(&app, &[]).await.code, 0, "without --strict a warning is no failure");
}

async fn a_stripe_that_refuses_or_fails_is_explained(app: TestApp) {
    let stripe = async |fault: Fault| {
        app.sim.fault_reads(Target::Any, fault, 1);
        let run = doctor(&app, &["--format", "json"]).await;
        let found = check_named(&run, "Stripe");
        (run.code, found["status"].clone(), found["remedy"].as_str().unwrap_or_default().to_owned())
    };
    let (code, status, remedy) = stripe(Fault::Unauthorized).await;
    assert!((code, status) == (1, json!("error")) && remedy.contains("Stripe refused STRIPE_API_KEY"), "{remedy}");
    let (code, status, remedy) = stripe(Fault::PermissionDenied).await;
    assert!((code, status) == (1, json!("error")) && remedy.contains("permission to read transfers"), "{remedy}");
    let (code, status, remedy) = stripe(Fault::RateLimited { retry_after: None }).await;
    assert!((code, status) == (0, json!("warning")) && remedy.contains("slows down"), "{remedy}");
    let (_, status, remedy) = stripe(Fault::Garbage200 { applied: true }).await;
    assert!(status == json!("error") && remedy.contains("STRIPE_API_BASE"), "{remedy}");
    assert!(app.sim.ledger().requests.iter().all(|call| call.method == "GET"), "it changed something at Stripe");

    app.sim.advance(Duration::from_secs(100));
    let clock = check_named(&doctor(&app, &["--format", "json"]).await, "Stripe's clock");
    assert_eq!(clock["status"], "warning", "{clock}");
    app.sim.advance(Duration::from_secs(900));
    let run = doctor(&app, &["--format", "json"]).await;
    let clock = check_named(&run, "Stripe's clock");
    assert_eq!((run.code, &clock["status"]), (1, &json!("error")), "{clock}");
    assert!(clock["message"].as_str().unwrap().contains("s behind Stripe's"), "{clock}");
}

async fn queues_that_are_not_as_wanted_are_errors_and_hide_nothing_else(mut app: TestApp) {
    app.stop().await;
    app.vhost.delete_queue("reversals.retry.100ms").await;
    let run = doctor(&app, &["--format", "json"]).await;
    let queues = check_named(&run, "queues of reversals");
    assert_eq!((run.code, &queues["message"]), (1, &json!("queue `reversals.retry.100ms` is missing")), "{queues}");
    assert_eq!(queues["remedy"], "`clawback queues declare` declares what is missing");
    for other in ["database", "migrations", "broker", "feature flags", "Stripe", "queues of transfers"] {
        assert_eq!(check_named(&run, other)["status"], "ok", "{other}");
    }
}

#[tokio::test]
async fn with_everything_broken_each_part_is_explained_at_once_and_no_secret_is_shown() {
    let broken = settings(&[
        ("DATABASE_URL", "postgres://ann:hush@127.0.0.1:1/clawback"),
        ("AMQP_URL", "amqp://ann:hush@127.0.0.1:1/jobs"),
        ("STRIPE_API_BASE", "http://127.0.0.1:1"),
        ("STRIPE_API_KEY", "sk_test_hush"),
    ]);
    let started = std::time::Instant::now();
    let run = clawback(&["doctor"], &broken).await;
    assert!(started.elapsed() < Duration::from_secs(4), "a refused connection is waited for");
    assert!(!run.stdout.contains("hush"), "{run:?}");
    insta::assert_snapshot!("doctor_broken", run.shown(&[]));
}

#[tokio::test]
async fn a_database_that_accepts_and_says_nothing_is_given_up_in_time() {
    // A listener that never accepts: the kernel completes the connection, and nobody answers on it.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let broken = settings(&[
        ("DATABASE_URL", &format!("postgres://ann:hush@{address}/clawback")),
        ("AMQP_URL", &format!("amqp://ann:hush@{address}/jobs")),
        ("STRIPE_API_BASE", &format!("http://{address}")),
        ("STRIPE_API_KEY", "sk_test_hush"),
    ]);
    let run = clawback(&["doctor", "--format", "json"], &broken).await;
    assert_eq!(run.code, 1, "{run:?}");
    for check in ["database", "broker", "Stripe"] {
        assert_eq!(check_named(&run, check)["status"], "error", "{check}: {run:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_can_not_be_used_is_a_finding() {
    let run = clawback(&["doctor"], &settings(&[("HTTP_ADDR", "localhost"), ("API_TOKEN", "hush hush")])).await;
    assert!(!run.stdout.contains("hush"), "{run:?}");
    insta::assert_snapshot!("doctor_configuration", run.shown(&[]));
}

#[tokio::test]
async fn pending_migrations_are_a_warning_in_development_and_an_error_in_production() {
    let db = Db::create_empty(Backend::Postgres).await;
    let away = "amqps://ann:hush@127.0.0.1:1/jobs";
    let given = [("DATABASE_URL", db.url.as_str()), ("AMQP_URL", away), ("STRIPE_API_BASE", "https://127.0.0.1:1")];
    let production = [
        ("APP_ENV", "production"),
        ("STRIPE_API_KEY", "sk_live_x"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_x"),
        ("API_TOKEN", "0123456789abcdef0123456789abcdef"),
    ];
    let development = clawback(&["doctor", "--format", "json"], &settings(&given)).await;
    let production = clawback(&["doctor", "--format", "json"], &settings(&[&given[..], &production].concat())).await;
    db.give_back().await;
    let found = check_named(&development, "migrations");
    assert_eq!((&found["status"], &found["remedy"]), (&json!("warning"), &json!("the next start applies them")));
    let found = check_named(&production, "migrations");
    assert_eq!((&found["status"], &found["remedy"]), (&json!("error"), &json!("run `clawback migrate up`")));
}

#[tokio::test]
async fn a_sqlite_file_that_is_not_there_is_not_made() {
    let file = std::env::temp_dir().join(format!("clawback-{}.db", uuid::Uuid::new_v4().simple()));
    let url = format!("sqlite://{}?mode=rwc", file.display());
    let run = clawback(&["doctor", "--format", "json"], &settings(&[("DATABASE_URL", &url)])).await;
    assert_eq!(check_named(&run, "database")["status"], "warning", "{run:?}");
    assert!(!file.exists());
}

#[tokio::test]
async fn a_live_key_in_development_and_what_is_left_unset_are_warnings() {
    let given = [
        ("DATABASE_URL", "sqlite://no-such-folder/x.db"),
        ("AMQP_URL", "amqp://127.0.0.1:1"),
        ("STRIPE_API_BASE", "http://127.0.0.1:1"),
        ("STRIPE_API_KEY", "rk_live_hush"),
        ("REVERSAL_WORKER_ENABLED", "false"),
    ];
    let run = clawback(&["doctor", "--format", "json"], &settings(&given)).await;
    let key = check_named(&run, "Stripe's key");
    assert_eq!(key["message"], "a restricted key in live mode, with APP_ENV=development");
    for check in ["Stripe's key", "Stripe's webhooks", "API", "worker"] {
        assert_eq!(check_named(&run, check)["status"], "warning", "{check}");
    }
    let given = [given[0], given[1], given[2]];
    let unset = clawback(&["doctor", "--format", "json"], &settings(&given)).await;
    let stripe = check_named(&unset, "Stripe");
    assert_eq!(stripe["message"], "STRIPE_API_KEY is not set: `clawback worker` can't run");
}

#[tokio::test]
async fn the_help_says_what_is_checked_and_the_exit_codes() {
    insta::assert_snapshot!(clawback(&["doctor", "--help"], &[]).await.stdout);
}

async fn doctor(app: &TestApp, more: &[&str]) -> Finished {
    let management = required("RABBITMQ_MANAGEMENT_URL");
    clawback(&[&["doctor", "--management", &management], more].concat(), &app.settings()).await
}

/// The worst finding of that name.
fn check_named(run: &Finished, name: &str) -> Value {
    let shown = run.json();
    let mut found: Vec<Value> =
        shown["checks"].as_array().unwrap().iter().filter(|check| check["check"] == name).cloned().collect();
    let rank = |check: &Value| ["ok", "warning", "error"].iter().position(|status| check["status"] == **status);
    found.sort_by_key(rank);
    found.pop().unwrap_or_else(|| panic!("no check {name:?}: {shown:#}"))
}

/// What differs from machine to machine, and from one version of Clawback to the next.
fn redacted(app: &TestApp, run: &Finished) -> String {
    let base = app.sim.base_url();
    let shown = run.stdout.replace(base.trim_end_matches('/'), "http://STRIPE");
    let ends_here = ["PostgreSQL ", "RabbitMQ ", "configuration: development; ", "migrations: all "];
    let lines = shown.lines().map(|line| match ends_here.iter().find(|start| line.contains(**start)) {
        Some(start) => format!("{}{start}…", line.split(start).next().unwrap_or_default()),
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn events_that_no_endpoint_is_told_of_are_named(mut app: TestApp) {
    let told_of = |events: &[&str]| {
        let enabled_events = events.iter().map(|event| (*event).to_owned()).collect();
        app.sim.add_endpoint(Endpoint {
            enabled_events,
            ..Endpoint::new("https://example.com/webhooks/stripe", "whsec_1")
        });
    };
    app.sim.add_endpoint(Endpoint::new("https://example.com/of/another/program", "whsec_2"));
    told_of(&["refund.created", "refund.failed"]);
    let found = check_named(&doctor(&app, &["--format", "json"]).await, "Stripe's endpoints");
    assert_eq!(found["status"], "warning", "{found}");
    // Without discovery nobody needs `transfer.created`.
    assert!(
        found["message"]
            .as_str()
            .unwrap()
            .ends_with("is told of refund.updated, charge.refunded, charge.refund.updated"),
        "{found}"
    );
    told_of(&["v1.refund.updated", "charge.refunded", "charge.refund.updated", "charge.dispute.closed"]);
    let found = check_named(&doctor(&app, &["--format", "json"]).await, "Stripe's endpoints");
    assert_eq!(found["status"], "ok", "{found}");
    // Nor disputes, before they take anything.
    app.restart_with(&[("DISPUTE_POLICY", "lost")]).await;
    let found = check_named(&doctor(&app, &["--format", "json"]).await, "Stripe's endpoints");
    let missing = "is told of charge.dispute.funds_withdrawn, charge.dispute.funds_reinstated";
    assert!(found["message"].as_str().unwrap().ends_with(missing), "{found}");
}
