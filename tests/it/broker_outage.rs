//! The broker goes away and comes back under a running Clawback, and is spoken to over TLS. A broker of the test's own, which it may stop and kill.

#[path = "../../queues/tests/faults/support/own_broker.rs"]
#[expect(dead_code, reason = "others use the rest of it")]
mod own_broker;

use std::time::Duration;

use serde_json::json;

use own_broker::{OwnBroker, dev};

use crate::support::{Authority, Backend, Db, TestApp, Vhost, clawback, eventually, refund_event, text};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_resumes_by_itself_after_the_broker_was_stopped_and_after_it_was_killed() {
    let broker = OwnBroker::start().await;
    let vhost = Vhost::create_on(&broker.url, broker.management_url.as_str()).await;
    let db = std::sync::Arc::new(Db::create(Backend::Postgres).await);
    let mut app = TestApp::start_on(db.clone(), vhost.into()).await;
    app.refund(1_000).await;
    app.transfer_becomes(0, "partially_reversed").await;

    let (right, wrong) = (Authority::new(), Authority::new());
    encrypt(&broker, &right);
    for (n, how) in ["stop", "kill"].into_iter().enumerate() {
        dev(&["broker", how], &broker.folder).await;
        readiness_says(&app, "degraded").await;
        // Refunds are taken in while there is no broker.
        let event = refund_event(&format!("evt_while_{how}"), &format!("re_while_{how}"), "pi_1", 1_000);
        let answer = app.post_webhook(&event.to_string()).await;
        assert_eq!(answer.status(), 200);
        let waiting = app.transfer_becomes(0, "reversal_pending").await;
        assert_eq!(waiting["reversals"][n + 1]["status"], "pending");
        broker.start_again().await;
        readiness_says(&app, "ok").await;
        let transfer = app.transfer_becomes(0, "partially_reversed").await;
        assert_eq!(transfer["amount_reversed"], json!(600 * (n + 2)));
    }
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (1_800, 900));
    app.restart_with(&[("STRIPE_DISCOVERY", "on")]).await;
    a_queue_that_confirms_nothing_holds_up_no_other_queue(&app, &broker).await;
    // Over TLS, only with the right certificate.
    let mut url = url::Url::parse(&app.vhost.amqp_url.replacen("amqp:", "amqps:", 1)).unwrap();
    url.set_port(Some(tls_port(&broker))).unwrap();
    let verify = async |authority: &Authority| {
        let given = [("AMQP_URL", url.as_str()), ("SSL_CERT_FILE", &text(&authority.file()))];
        clawback(&["queues", "verify"], &app.settings_with(&given)).await
    };
    let encrypted = verify(&right).await;
    assert_eq!((encrypted.code, encrypted.stdout.contains("Everything is as wanted.")), (0, true), "{encrypted:?}");
    let refused = verify(&wrong).await;
    assert!(refused.code == 1 && refused.stderr.contains("certificate"), "{refused:?}");
    drop(app);
    db.give_back().await;
}

/// As without a leader: the process of `reversals` is suspended.
async fn a_queue_that_confirms_nothing_holds_up_no_other_queue(app: &TestApp, broker: &OwnBroker) {
    broker.suspend(&app.vhost.name, "reversals").await;
    let event = refund_event("evt_silent", "re_silent", "pi_1", 1_000);
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    let unknown = json!({"source": "stripe", "refund_ref": "re_other", "payment_ref": "ch_other", "amount": 5_000, "currency": "eur"});
    assert_eq!(app.report(&unknown).await.status(), 201);
    let published = || async {
        let published = app.db.count("outbox WHERE kind = 'look_up' AND published_at IS NOT NULL").await;
        (published == 1).then_some(())
    };
    // Less than the 20 s after which the message to the silent queue is given up.
    tokio::time::timeout(Duration::from_secs(10), eventually("the look-up is published", published)).await.unwrap();
    assert_eq!(app.db.count("outbox WHERE kind = 'reverse_transfer' AND published_at IS NULL").await, 2);
    broker.resume(&app.vhost.name, "reversals").await;
    eventually("the refund is taken back", || async { (app.reversed_at_stripe("tr_1") == 2_400).then_some(()) }).await;
}

/// Degraded, not down: refunds are taken in all the same.
async fn readiness_says(app: &TestApp, status: &str) {
    eventually(&format!("readiness says {status}"), || async {
        let answer = app.http.get(format!("{}/health/ready", app.base_url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let health: serde_json::Value = answer.json().await.unwrap();
        // Who publishes, and who consumes.
        ["broker", "consumers"].iter().all(|part| health["parts"][part]["status"] == status).then_some(())
    })
    .await;
}

/// A second listener, for TLS, from its next start on.
fn encrypt(broker: &OwnBroker, authority: &Authority) {
    let (certificate, key) = authority.for_this_machine();
    let write = |name: &str, content: &str| {
        let file = broker.folder.join(name);
        std::fs::write(&file, content).unwrap();
        text(&file)
    };
    let (certificate, key) = (write("server.pem", &certificate), write("server.key", &key));
    let port = tls_port(broker);
    write(
        "tls.conf",
        &format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
        ),
    );
}

/// One of the ten that are its own.
fn tls_port(broker: &OwnBroker) -> u16 {
    std::fs::read_to_string(broker.folder.join("ports")).unwrap().trim().parse::<u16>().unwrap() + 6
}
