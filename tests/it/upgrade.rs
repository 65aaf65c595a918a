//! Two versions of Clawback on one database: its schema is ahead of the one, or behind the other. And taking migrations back.

use serde_json::{Value, json};

use crate::support::{
    Backend, Db, Finished, Process, TestApp, both_databases, clawback, free_address, settings, two_sellers,
};

both_databases! {
    migrations_are_not_taken_back_while_there_is_data_or_company,
}

/// What a later version's migration does to the tables of this one: a column, a column with a default, and a table.
const NEXT: &str = "ALTER TABLE claims ADD COLUMN note text;
    ALTER TABLE reversals ADD COLUMN priority integer NOT NULL DEFAULT 0;
    CREATE TABLE notes (id uuid PRIMARY KEY);
    INSERT INTO seaql_migrations (version, applied_at) VALUES ('m20991231_000001_notes', 4102358400)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_the_schema_is_ahead_of_goes_on_and_starts() {
    TestApp::run(Backend::Postgres, async |mut app: TestApp| {
        assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
        app.db.execute(NEXT).await;
        app.refund_of(1_000, 1).await;
        app.transfer_becomes(0, "partially_reversed").await;
        assert_eq!(readiness(&app).await, "ok");
        app.stop().await;

        let address = free_address();
        app.base_url = format!("http://{address}");
        let (serve, worker) = (
            Process::start("serve", &app.settings_with(&[("HTTP_ADDR", &address)])),
            Process::start("worker", &app.settings()),
        );
        app.is_up().await;
        app.refund_of(9_000, 2).await;
        app.transfer_becomes(0, "reversed").await;
        app.transfer_becomes(1, "reversed").await;
        assert_eq!(readiness(&app).await, "ok");
        let run = app.cli(&["migrate", "status"]).await;
        assert_eq!((run.code, run.stdout.contains("newer    m20991231_000001_notes\n")), (0, true), "{run:?}");
        let run = app.cli(&["migrate", "up"]).await;
        assert_eq!((run.code, run.stdout.as_str()), (0, "0 migrations applied\n"), "{run:?}");
        let doctor = app.cli(&["doctor", "--format", "json"]).await.json();
        let checks = doctor["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["check"] == "migrations").unwrap();
        let says = found["message"].as_str().unwrap();
        assert_eq!(found["status"], "ok");
        assert!(says.ends_with("and of a newer version: m20991231_000001_notes"), "{says}");
        assert_eq!((serve.terminate().await, worker.terminate().await), (Some(0), Some(0)));
        // What only a newer version knows, that one takes back.
        let refused = app.ledger().migrate_down(1).await.unwrap_err().to_string();
        assert!(refused.contains("m20991231_000001_notes is of a newer version of Clawback"), "{refused}");
    })
    .await;
}

#[tokio::test]
async fn in_production_a_version_whose_schema_is_behind_does_not_start_and_says_what_to_do() {
    let db = Db::create_empty(Backend::Postgres).await;
    let given = settings(&[
        ("DATABASE_URL", &db.url),
        ("AMQP_URL", "amqps://ann:hush@127.0.0.1:1/jobs"),
        ("APP_ENV", "production"),
        ("STRIPE_API_KEY", "sk_live_x"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_x"),
        ("API_TOKEN", "0123456789abcdef0123456789abcdef"),
    ]);
    let refusals = async |what: &str| {
        for role in ["serve", "worker"] {
            let run = clawback(&[role], &given).await;
            assert!(run.code == 1 && run.stderr.contains(what), "{role}: {run:?}");
        }
    };
    refusals("2 migrations are pending; run `clawback migrate up` first").await;
    let owner = settings(&[("DATABASE_URL", &db.url), ("APP_ENV", "production")]);
    assert_eq!(clawback(&["migrate", "up"], &owner).await.stdout, "2 migrations applied\n");
    // Only the newest is missing.
    db.execute("DELETE FROM seaql_migrations WHERE version = (SELECT MAX(version) FROM seaql_migrations)").await;
    refusals("1 migrations are pending").await;
    db.give_back().await;
}

#[tokio::test]
async fn of_several_migrations_those_before_one_that_fails_stay() {
    let db = Db::create_empty(Backend::Postgres).await;
    // It is in the way of the second one.
    db.execute("CREATE FUNCTION refuse_history_change() RETURNS integer LANGUAGE sql AS 'SELECT 1'").await;
    let given = settings(&[("DATABASE_URL", &db.url)]);
    assert_eq!(clawback(&["migrate", "up"], &given).await.code, 1);
    assert_eq!(db.count("seaql_migrations").await, 1);
    assert_eq!(db.count("payments").await, 0);
    db.execute("DROP FUNCTION refuse_history_change()").await;
    assert_eq!(clawback(&["migrate", "up"], &given).await.stdout, "1 migrations applied\n");
    db.give_back().await;
}

async fn migrations_are_not_taken_back_while_there_is_data_or_company(mut app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.stop().await;
    let down =
        async |more: &[&str]| -> Finished { app.cli(&[&["migrate", "down", "--steps", "2"], more].concat()).await };
    if app.db.backend == Backend::Postgres {
        // The test's own connections.
        let run = down(&["--delete-data", app.db.name()]).await;
        let says = format!("others are connected to the database {} (", app.db.name());
        assert!(run.code == 1 && run.stderr.contains(&says), "{run:?}");
        let alone = Db::create_empty(Backend::Postgres).await;
        let given = app.settings_with(&[("DATABASE_URL", &alone.url)]);
        assert_eq!(clawback(&["migrate", "up"], &given).await.code, 0);
        let connection = alone.connect().await;
        let payment = "INSERT INTO payments (id, payment_ref, amount, currency, created_at)
            VALUES (gen_random_uuid(), 'pi_1', 1, 'eur', now())";
        sea_orm::ConnectionTrait::execute_unprepared(&connection, payment).await.unwrap();
        connection.close().await.unwrap();
        refuses_but_by_name(&given, alone.name()).await;
        alone.give_back().await;
    } else {
        refuses_but_by_name(&app.settings(), app.db.name()).await;
    }
}

async fn refuses_but_by_name(given: &[(String, String)], name: &str) {
    let down = async |more: &[&str]| clawback(&[&["migrate", "down", "--steps", "2"], more].concat(), given).await;
    for more in [&[][..], &["--delete-data", "production"]] {
        let run = down(more).await;
        let says = format!("the database {name} has rows in ");
        assert!(run.code == 1 && run.stderr.contains(&says), "{run:?}");
        assert!(
            run.stderr.contains(&format!("add --delete-data {name}")) && run.stderr.contains("payments"),
            "{run:?}"
        );
    }
    let run = down(&["--delete-data", name]).await;
    assert_eq!((run.code, run.stdout.as_str()), (0, "2 migrations reverted\n"), "{run:?}");
    // Without rows, nothing is lost.
    assert_eq!(clawback(&["migrate", "up"], given).await.code, 0);
    assert_eq!(down(&[]).await.code, 0);
}

async fn readiness(app: &TestApp) -> Value {
    let answer = app.http.get(format!("{}/health/ready", app.base_url)).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    assert_eq!((status, &body["parts"]["migrations"]), (200, &json!({"status": "ok"})), "{body}");
    body["status"].clone()
}
