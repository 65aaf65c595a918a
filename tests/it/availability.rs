//! What stops or slows Clawback's surroundings does not stop its intake, or is said at once.

use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    Backend, DEADLINE, Process, TestApp, both_databases, eventually, free_address, refund_event, two_sellers,
};

#[tokio::test]
async fn a_lost_connection_to_the_broker_is_told_in_our_words_alone() {
    TestApp::run(Backend::Sqlite, |mut app: TestApp| async move {
        app.stop().await;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let worker = Process::start_logging("worker", &app.settings(), &log);
        app.vhost.hang_up("dev").await;
        let said = eventually("the loss is logged", || async {
            let said = std::fs::read_to_string(&log).unwrap();
            said.contains("not consuming; will try again").then_some(said)
        })
        .await;
        assert!(!said.contains("lapin"), "{said}");
        worker.kill().await;
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_the_database_keeps_waiting_is_refused_and_counts_once_when_it_comes_again() {
    TestApp::run(Backend::Postgres, |app: TestApp| async move {
        let other = app.db.connect().await;
        other.execute_unprepared("BEGIN; LOCK TABLE webhook_events IN ACCESS EXCLUSIVE MODE").await.unwrap();
        let event = refund_event("evt_1", "re_1", "pi_1", 10_000).to_string();
        let answer = app.post_webhook(&event).await;
        let (status, again) = (answer.status(), answer.headers().get("retry-after").cloned());
        let problem: Value = answer.json().await.unwrap();
        assert_eq!((status.as_u16(), &problem["type"]), (503, &json!("/problems/overloaded")), "{problem}");
        assert_eq!(again.unwrap(), "1");
        other.execute_unprepared("ROLLBACK").await.unwrap();
        eventually("it is taken", || async { (app.post_webhook(&event).await.status() == 200).then_some(()) }).await;
        assert_eq!((app.db.count("claims").await, app.db.count("webhook_events").await), (1, 1));
    })
    .await;
}

both_databases! {
    whatever_the_broker_refuses_webhooks_are_taken,
    told_to_stop_it_is_not_ready_and_serves_for_a_while_yet,
    old_webhooks_are_deleted_and_their_claims_stay,
    stripe_is_reached_through_the_proxy_alone,
}

async fn whatever_the_broker_refuses_webhooks_are_taken(mut app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.stop().await;
    let mut wrong = url::Url::parse(&app.vhost.amqp_url).unwrap();
    wrong.set_password(Some("wrong")).unwrap();
    let address = free_address();
    app.base_url = format!("http://{address}");
    let settings = app.settings_with(&[("AMQP_URL", wrong.as_str()), ("HTTP_ADDR", &address)]);
    let serve = Process::start("serve", &settings);
    app.is_up().await;
    let answer = app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!((ready(&app).await.0, app.db.count("reversals WHERE status = 'pending'").await), (200, 2));
    // A worker has nothing to do without its queues, and says why.
    let worker = app.settings_with(&[("AMQP_URL", wrong.as_str())]);
    let refused = crate::support::clawback(&["worker"], &worker).await;
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("the queues on the broker can't be used"), "{refused:?}");
    assert_eq!(serve.terminate().await, Some(0));
    app.start(&[]).await;
    app.transfer_becomes(0, "reversed").await;
}

async fn told_to_stop_it_is_not_ready_and_serves_for_a_while_yet(mut app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.stop().await;
    let address = free_address();
    app.base_url = format!("http://{address}");
    let settings = app.settings_with(&[("HTTP_ADDR", &address), ("SHUTDOWN_DELAY", "3s")]);
    let serve = Process::start("run", &settings);
    app.is_up().await;
    let told = Instant::now();
    serve.signal("TERM").await;
    let readiness = eventually("readiness says that it stops", || async {
        let (status, readiness) = ready(&app).await;
        (status == 503).then_some(readiness)
    })
    .await;
    assert_eq!(readiness["parts"]["stopping"]["status"], "unavailable");
    let answer = app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(serve.terminate().await, Some(0));
    assert!(told.elapsed() >= Duration::from_secs(3));
    app.start(&[]).await;
    app.transfer_becomes(0, "reversed").await;
}

async fn old_webhooks_are_deleted_and_their_claims_stay(mut app: TestApp) {
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.db.count("webhook_events").await, 1);
    app.restart_with(&[("INBOX_RETENTION", "1s")]).await;
    eventually("the webhook is deleted", || async { (app.db.count("webhook_events").await == 0).then_some(()) }).await;
    // Told again after that, it takes nothing again.
    app.refund_of(10_000, 1).await;
    assert_eq!(app.db.count("claims").await, 1);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
    app.db.no_table_was_read_as_a_whole().await;
}

async fn stripe_is_reached_through_the_proxy_alone(mut app: TestApp) {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://ann:hush@{}", proxy.local_addr().unwrap());
    let stripe = app.sim.base_url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = proxy.accept().await {
            let (seen, stripe) = (seen.clone(), stripe.clone());
            tokio::spawn(async move {
                let mut head = vec![0; 16 * 1024];
                let read = client.read(&mut head).await.unwrap();
                seen.send(String::from_utf8_lossy(&head[..read]).into_owned()).unwrap();
                // A server takes the absolute URL that a proxy is asked for, too.
                let mut server = tokio::net::TcpStream::connect(stripe).await.unwrap();
                server.write_all(&head[..read]).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    app.restart_with(&[("STRIPE_PROXY", &url)]).await;
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    let first = requests.recv().await.unwrap().to_lowercase();
    assert!(first.contains(" http://127.0.0.1") && first.contains("proxy-authorization: basic "), "{first}");

    let away = free_address();
    let settings = app.settings_with(&[("STRIPE_PROXY", &format!("http://ann:hush@{away}"))]);
    let doctor = crate::support::clawback(&["doctor"], &settings).await;
    let words = doctor.words();
    assert!(words.contains(&format!("through the proxy {away}")) && words.contains("STRIPE_PROXY"), "{words}");
    assert!(!words.contains("hush"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_is_said_at_once_and_used_again_when_it_takes_changes() {
    TestApp::run(Backend::Postgres, async |app: TestApp| {
        assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
        let name = app.db.url.rsplit_once('/').unwrap().1.to_owned();
        let set = async |read_only: &str| {
            app.db.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = {read_only}")).await;
        };
        set("on").await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
            AND pid <> pg_backend_pid()";
        app.db.query(end).await;
        eventually("readiness says that the database is read-only", || async {
            (ready(&app).await.0 == 503).then_some(())
        })
        .await;
        let event = refund_event("evt_1", "re_1", "pi_1", 10_000).to_string();
        assert_eq!(app.post_webhook(&event).await.status(), 503);
        set("off").await;
        let since = Instant::now();
        eventually("webhooks are taken again", || async {
            (app.post_webhook(&event).await.status() == 200).then_some(())
        })
        .await;
        assert!(since.elapsed() < DEADLINE / 4, "sessions that began read-only were kept");
        app.transfer_becomes(0, "reversed").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_connections_than_allowed_are_made() {
    TestApp::run(Backend::Postgres, async |mut app: TestApp| {
        app.stop().await;
        let name = "clawback of the test";
        let url = format!("{}?application_name={}", app.db.url, name.replace(' ', "%20"));
        app.start(&[("DATABASE_MAX_CONNECTIONS", "6"), ("DATABASE_URL", &url)]).await;
        assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
        let refunds = (0..60).map(|n| {
            let event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_1", 100).to_string();
            let app = &app;
            async move {
                assert_eq!(app.post_webhook(&event).await.status(), 200);
                app.payment("pi_1").await;
            }
        });
        futures_util::future::join_all(refunds).await;
        app.until_none_is_open().await;
        let made = app.db.count(&format!("pg_stat_activity WHERE application_name = '{name}'")).await;
        assert!((2..=6).contains(&made), "{made} connections");
    })
    .await;
}

/// The status and the body of the readiness.
async fn ready(app: &TestApp) -> (u16, Value) {
    let answer = app.http.get(format!("{}/health/ready", app.base_url)).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or(json!(null)))
}
