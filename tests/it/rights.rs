//! Clawback with the rights that the delivered roles give it, and not more: PostgreSQL's by migrations/roles.sql, RabbitMQ's by
//! deploy/rabbitmq/definitions.json, and each process with its own secrets.

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use serde_json::Value;
use uuid::Uuid;

use crate::reconcile::{register, reverse_at_stripe};
use crate::support::{
    Backend, Db, Process, TestApp, Vhost, clawback, eventually, free_address, refund_event, required, two_sellers,
};

/// What the role must not be able to do.
const FORBIDDEN: [&str; 9] = [
    "UPDATE history SET reason = 'changed'",
    "DELETE FROM history",
    "TRUNCATE history",
    "ALTER TABLE history DISABLE TRIGGER ALL",
    "DROP TRIGGER history_append_only ON history",
    "DROP TABLE outbox",
    "ALTER TABLE payments ADD COLUMN x text",
    "CREATE TABLE x (id uuid)",
    "SET ROLE dev",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delivered_roles_have_the_rights_that_are_needed_and_no_others() {
    let db = std::sync::Arc::new(Db::create_empty(Backend::Postgres).await);
    let name = format!("run_{}", Uuid::new_v4().simple());
    let roles: String = include_str!("../../migrations/roles.sql")
        .lines()
        .filter(|line| !line.starts_with(['\\', '-']))
        .map(|line| line.replace("clawback_run", &name).replace(":'password'", "'hush'") + "\n")
        .collect();
    db.execute(&roles).await;
    // Migrates as the owner.
    let (first, vhost) = (Vhost::create().await, Vhost::create().await);
    let mut app = TestApp::start_on(db.clone(), first.into()).await;
    app.stop().await;
    app.vhost.delete().await;

    let definitions: Value = serde_json::from_str(include_str!("../../deploy/rabbitmq/definitions.json")).unwrap();
    let rights = definitions["permissions"].as_array().unwrap().iter().find(|of| of["user"] == "clawback").unwrap();
    let user = definitions["users"].as_array().unwrap().iter().find(|of| of["name"] == "clawback").unwrap();
    let tags: Vec<&str> = user["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    vhost.put_user(&name, "hush", &tags.join(","), rights).await;
    let as_role = |url: &str| {
        let mut url = url::Url::parse(url).unwrap();
        url.set_username(&name).unwrap();
        url.set_password(Some("hush")).unwrap();
        url.to_string()
    };
    let (database, broker) = (as_role(&db.url), as_role(&vhost.amqp_url));
    let mut management = url::Url::parse(&required("RABBITMQ_MANAGEMENT_URL")).unwrap();
    management.set_username("").unwrap();
    management.set_password(None).unwrap();
    let address = free_address();
    app.base_url = format!("http://{address}");
    let rights = [
        ("DATABASE_URL", database.as_str()),
        ("AMQP_URL", &broker),
        // With the user of AMQP_URL.
        ("RABBITMQ_MANAGEMENT_URL", management.as_str()),
        // Nobody is there to be told.
        ("EVENTS_URL", "http://127.0.0.1:1"),
    ];
    let serve = [("HTTP_ADDR", address.as_str()), ("STRIPE_API_KEY", "")];
    let worker = [
        ("STRIPE_WEBHOOK_SECRET", ""),
        ("HYPERSWITCH_WEBHOOK_SECRET", ""),
        ("API_TOKEN", ""),
        ("API_READ_TOKEN", ""),
        ("EVENTS_SECRET", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="),
    ];
    let serve = Process::start("serve", &app.settings_with(&[&rights[..], &serve].concat()));
    let worker = Process::start("worker", &app.settings_with(&[&rights[..], &worker].concat()));
    app.is_up().await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.refund_of(10_000, 1).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    operators_work(&app, &[("DATABASE_URL", database.as_str()), ("AMQP_URL", &broker)]).await;
    eventually("what workers hold is seen, and all is as wanted", || async {
        let (_, seen) = app.read("/v1/queues").await;
        assert_eq!(seen["limited"], Value::Null, "{seen}");
        let all = seen["queues"].as_array()?;
        let is_known = all.iter().all(|queue| queue["unacknowledged"].is_u64());
        (is_known && seen["problems"].as_array()?.is_empty()).then_some(())
    })
    .await;
    let queues: Vec<String> =
        vhost.queues().await.iter().map(|queue| queue["name"].as_str().unwrap().to_owned()).collect();
    for queue in ["reversals", "transfers", "lookups", "events"] {
        assert!(queues.iter().any(|name| name == queue), "{queue} is missing: {queues:?}");
    }
    assert_eq!((serve.terminate().await, worker.terminate().await), (Some(0), Some(0)));

    let mut options = ConnectOptions::new(database.clone());
    options.max_connections(1).sqlx_logging(false);
    let connection = Database::connect(options).await.unwrap();
    for sql in FORBIDDEN {
        connection.execute_unprepared(sql).await.expect_err(sql);
    }
    connection.close().await.unwrap();
    vhost.delete_user(&name).await;
    vhost.delete().await;
    drop(app);
    db.give_back().await;
    let admin = Database::connect(required("DATABASE_URL")).await.unwrap();
    admin.execute_unprepared(&format!("DROP ROLE {name}")).await.unwrap();
}

/// Runs of reconcile with differences, notes, operations and pauses, by commands with these rights.
async fn operators_work(app: &TestApp, rights: &[(&str, &str)]) {
    let settings = app.settings_with(rights);
    let json = async |arguments: &[&str]| {
        let run = clawback(&[arguments, &["--format", "json"]].concat(), &settings).await;
        assert!([0, 3].contains(&run.code), "{arguments:?}: {run:?}");
        run.json()
    };
    register(app, "pi_2", &["tr_unknown"], 500).await;
    app.post_webhook(&refund_event("evt_2", "re_2", "pi_2", 500).to_string()).await;
    app.sim.add_transfer("tr_3", 500, "eur", "acct_1");
    register(app, "pi_3", &["tr_3"], 500).await;
    reverse_at_stripe(app, "tr_3", 200, "").await;
    let group = eventually("a reversal has failed", || async {
        json(&["reversals", "groups"]).await["groups"][0]["key"].as_str().map(str::to_owned)
    })
    .await;

    let run = json(&["reconcile"]).await["summary"]["run"].as_str().unwrap().to_owned();
    let run = json(&["reconcile", "show", &run]).await;
    assert!(run["state"] == "done" && run["found"].to_string().contains("tr_3"), "{run}");

    json(&["reversals", "note", &group, "--text", "asked Stripe"]).await;
    assert_eq!(json(&["reversals", "groups"]).await["groups"][0]["notes"][0]["text"], "asked Stripe");

    let operation = json(&["operations", "preview", "close_reversals", "--group", &group]).await;
    let operation = operation["id"].as_str().unwrap().to_owned();
    json(&["operations", "start", &operation, "--reason", "written off", "--yes"]).await;
    eventually("the operation is done", || async {
        (json(&["operations", "show", &operation]).await["progress"]["done"] == 1).then_some(())
    })
    .await;

    json(&["pause", "--reason", "to see that it works"]).await;
    json(&["resume", "--reason", "it does"]).await;
}
