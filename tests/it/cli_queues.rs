//! `clawback queues`: declare, look, and compare with what is wanted, on a virtual host of its own.

use serde_json::json;

use crate::support::{Backend, Finished, TestApp, Vhost, clawback, eventually, required, settings};

#[tokio::test]
async fn declare_makes_every_queue_and_verify_misses_only_the_consumers() {
    on_a_vhost(async |broker| {
        let before = broker.queues("status", &[]).await;
        assert!(before.code == 0 && before.stdout.contains("missing"), "{before:?}");
        let run = broker.queues("declare", &[]).await;
        insta::assert_snapshot!("queues_declared", run.shown(&[]));
        let again = broker.queues("declare", &["--format", "json"]).await;
        assert_eq!(again.code, 0, "{again:?}");
        let first = &again.json()["queues"][0];
        assert_eq!(first, &json!({"name": "reversals.parked", "exists": true, "messages": 0, "consumers": 0}));
        let run = broker.queues("verify", &broker.management()).await;
        insta::assert_snapshot!("queues_without_consumers", run.shown(&[]));
    })
    .await;
}

#[tokio::test]
async fn verify_says_queue_by_queue_what_differs_and_what_to_do() {
    on_a_vhost(async |broker| {
        broker.queues("declare", &[]).await;
        broker.vhost.delete_queue("reversals.retry.2m").await;
        broker.vhost.delete_queue("reversals.parked").await;
        let classic = json!({"durable": true, "arguments": {"x-queue-type": "classic", "x-message-ttl": 1000}});
        broker.vhost.put_object("queues", "reversals.parked", classic).await;
        let expiring = json!({"pattern": "^reversals$", "apply-to": "queues", "definition": {"max-length": 5}});
        broker.vhost.put_object("policies", "short", expiring).await;
        // The broker applies a policy a little after it has taken it.
        let run = eventually("the policy is found", || async {
            let run = broker.queues("verify", &broker.management()).await;
            run.stdout.contains("max-length").then_some(run)
        })
        .await;
        insta::assert_snapshot!("queues_that_differ", run.shown(&[]));
        let json = broker.queues("verify", &[&broker.management()[..], &["--format", "json"]].concat()).await;
        assert_eq!(json.code, 3, "{json:?}");
        let problems = json.json()["problems"].as_array().unwrap().clone();
        let missing = json!({"object": "queue `reversals.retry.2m`", "property": "existence", "wanted": "declared",
            "found": null, "remedy": "`clawback queues declare` declares what is missing"});
        assert!(problems.contains(&missing), "{problems:#?}");

        // A declaration that would have to change a queue changes nothing.
        let run = broker.queues("declare", &[]).await;
        assert!(run.code == 1 && run.stderr.contains("queue `reversals.parked` exists"), "{run:?}");
    })
    .await;
}

#[tokio::test]
async fn without_the_management_api_verify_says_what_amqp_can_tell() {
    on_a_vhost(async |broker| {
        broker.queues("declare", &[]).await;
        broker.vhost.delete_queue("reversals.retry.2m").await;
        let run = broker.queues("verify", &[]).await;
        insta::assert_snapshot!("queues_by_amqp_alone", run.shown(&[]));
        let away = broker.queues("verify", &["--management", "http://127.0.0.1:1", "--format", "json"]).await;
        let limited = away.json()["limited"].as_str().unwrap_or_default().to_owned();
        assert!(away.code == 3 && limited.contains("http://127.0.0.1:1 cannot be reached"), "{away:?}");
        let mut settings = broker.settings.clone();
        settings.push(("RABBITMQ_MANAGEMENT_URL".to_owned(), broker.management.clone()));
        let named = clawback(&["queues", "verify", "--format", "json"], &settings).await;
        assert!(named.code == 3 && named.json()["limited"].is_null(), "the environment names it: {named:?}");
        settings.last_mut().unwrap().1 = "ann:hush@rabbit:15672".to_owned();
        let wrong = clawback(&["queues", "verify"], &settings).await;
        assert!(
            wrong.code == 1
                && wrong.stderr.contains("RABBITMQ_MANAGEMENT_URL must be a URL that starts with http: or https:"),
            "{wrong:?}"
        );
        assert!(!wrong.stderr.contains("hush"), "{wrong:?}");
        let typo = broker.queues("verify", &["--management", "127.0.0.1"]).await;
        assert!(typo.code == 2 && typo.stderr.contains("it must be like http://HOST:15672"), "{typo:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_is_content_where_clawback_runs() {
    TestApp::run(Backend::Sqlite, async |app: TestApp| {
        let management = required("RABBITMQ_MANAGEMENT_URL");
        eventually("everything is as wanted", || async {
            let arguments = ["queues", "verify", "--management", &management, "--format", "json"];
            let run = clawback(&arguments, &app.settings()).await;
            (run.code == 0 && run.json()["problems"] == json!([])).then_some(())
        })
        .await;
        // Without user and password in it, those of AMQP_URL are taken.
        let (_, host) = management.rsplit_once('@').unwrap();
        let run = clawback(&["queues", "verify", "--management", &format!("http://{host}")], &app.settings()).await;
        assert!(run.code == 0 && run.stdout.ends_with("Everything is as wanted.\n"), "{run:?}");
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_can_not_be_asked_is_exit_code_1_without_its_password() {
    let away = settings(&[("AMQP_URL", "amqp://ann:hush@127.0.0.1:1/jobs")]);
    for command in ["declare", "status", "verify"] {
        let run = clawback(&["queues", command], &away).await;
        assert!(run.code == 1 && run.stderr.contains("127.0.0.1:1 cannot be reached"), "{run:?}");
        assert!(run.stdout.is_empty() && !run.stderr.contains("hush"), "{run:?}");
    }
}

#[tokio::test]
async fn the_helps_teach_what_is_compared_and_the_exit_codes() {
    for command in ["declare", "status", "verify"] {
        let help = clawback(&["queues", command, "--help"], &[]).await.stdout;
        insta::assert_snapshot!(format!("queues_{command}_help"), help);
    }
}

/// A broker's virtual host, and Clawback's settings for it.
struct OwnVhost {
    vhost: Vhost,
    management: String,
    settings: Vec<(String, String)>,
}

impl OwnVhost {
    async fn queues(&self, command: &str, more: &[&str]) -> Finished {
        clawback(&[&["queues", command], more].concat(), &self.settings).await
    }

    fn management(&self) -> [&str; 2] {
        ["--management", &self.management]
    }
}

async fn on_a_vhost(test: impl AsyncFnOnce(&OwnVhost)) {
    let vhost = Vhost::create().await;
    let settings = settings(&[("AMQP_URL", &vhost.amqp_url)]);
    let broker = OwnVhost { vhost, management: required("RABBITMQ_MANAGEMENT_URL"), settings };
    let result = futures_util::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(test(&broker))).await;
    broker.vhost.delete().await;
    if let Err(panicked) = result {
        std::panic::resume_unwind(panicked);
    }
}
