//! Clawback in the test's own process, on a database, a virtual host and a Stripe of its own.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use clawback::app::{App, Patience, Role};
use clawback::config::Config;
use clawback::ledger::{ClaimPolicy, DisputePolicy, Ledger, LedgerOptions, NewPayment, NewTransfer};
use futures_util::FutureExt;
use serde_json::Value;
use stripe_sim::Sim;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Backend, Db, Finished, Vhost, clawback, count, eventually, sign, sign_hyperswitch};

/// The payment response hash key of the tests' profile.
pub(crate) const HYPERSWITCH_KEY: &str = "hash_key_of_the_tests";

const PATIENCE: Patience = Patience {
    settling: Duration::from_millis(200),
    probe_every: Duration::from_millis(300),
    turn: Duration::from_secs(3),
    refusals: Duration::from_secs(2),
};

/// The options of a ledger that a test opens itself.
pub(super) const LEDGER_OPTIONS: LedgerOptions = LedgerOptions {
    reversal_grace: Duration::from_secs(1),
    creation_grace: Duration::from_secs(1),
    max_connections: 20,
    claims: ClaimPolicy {
        refunds_since: None,
        reverse_on_pending: false,
        discovery: false,
        disputes: DisputePolicy::Off,
    },
    notifies: false,
};

/// A running Clawback.
pub(crate) struct TestApp {
    pub(crate) base_url: String,
    pub(crate) webhook_secret: String,
    pub(crate) api_token: String,
    pub(crate) read_token: String,
    pub(crate) sim: Sim,
    pub(crate) db: std::sync::Arc<Db>,
    pub(crate) vhost: std::sync::Arc<Vhost>,
    pub(crate) http: reqwest::Client,
    ledger: Ledger,
    settings: Vec<(String, String)>,
    running: Option<Running>,
}

/// An app that runs as a task, until it is told to stop.
pub(crate) struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn start(app: App) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(app.run_until(async move {
            let _ = stopped.await;
            Duration::ZERO
        }));
        Self { stop, task }
    }

    /// In order, as on SIGTERM.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        self.task.await.unwrap().unwrap();
    }
}

impl TestApp {
    /// Runs a test on a database and a virtual host of its own, and removes both, however the test ends.
    pub(crate) async fn run<F: Future<Output = ()>>(backend: Backend, test: impl FnOnce(TestApp) -> F) {
        let db = std::sync::Arc::new(Db::create(backend).await);
        let vhost = std::sync::Arc::new(Vhost::create().await);
        let app = Self::start_on(db.clone(), vhost.clone()).await;
        let result = AssertUnwindSafe(test(app)).catch_unwind().await;
        vhost.delete().await;
        db.give_back().await;
        if let Err(panicked) = result {
            std::panic::resume_unwind(panicked);
        }
    }

    pub(crate) async fn start_on(db: std::sync::Arc<Db>, vhost: std::sync::Arc<Vhost>) -> Self {
        super::list_what_is_reached();
        let sim = Sim::start();
        sim.add_transfer("tr_1", 6_000, "eur", "acct_1");
        sim.add_transfer("tr_2", 3_000, "eur", "acct_2");
        let settings = settings(&db.url, &vhost.amqp_url, &sim.base_url());
        let ledger = Ledger::connect(&db.url, LEDGER_OPTIONS).await.unwrap();
        let mut app = Self {
            base_url: String::new(),
            webhook_secret: "whsec_of_the_tests".into(),
            api_token: "token-of-the-tests".into(),
            read_token: "read-token-of-the-tests".into(),
            sim,
            db,
            vhost,
            http: super::http_client(),
            ledger,
            settings,
            running: None,
        };
        app.start(&[]).await;
        app
    }

    /// Starts everything (again), with some settings changed.
    pub(crate) async fn start(&mut self, changes: &[(&str, &str)]) {
        self.settings = self.settings_with(changes);
        let config = Config::from_parts(None, self.settings.clone()).unwrap();
        let app = App::build_with(&config, Role::All, PATIENCE).await.unwrap();
        self.base_url = format!("http://{}", app.http_addr().unwrap());
        self.running = Some(Running::start(app));
    }

    /// Stops in order, as on SIGTERM.
    pub(crate) async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Waits until it ends with an error, and returns that.
    pub(crate) async fn ends(&mut self) -> String {
        let running = self.running.take().expect("it was not started");
        let ended = tokio::time::timeout(super::DEADLINE, running.task).await.expect("it goes on");
        format!("{:#}", ended.unwrap().unwrap_err())
    }

    /// Stops, changes settings, and starts again.
    pub(crate) async fn restart_with(&mut self, changes: &[(&str, &str)]) {
        self.stop().await;
        self.start(changes).await;
    }

    /// The settings as environment variables, for a process of its own.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }

    /// The same, with some of them changed.
    pub(crate) fn settings_with(&self, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut settings = self.settings();
        for (name, value) in changes {
            settings.retain(|(known, _)| known != name);
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        settings
    }

    /// Waits until somebody answers at `base_url`.
    pub(crate) async fn is_up(&self) {
        eventually("the process answers", || async {
            let answer = self.http.get(format!("{}/health/live", self.base_url)).send().await.ok();
            answer.filter(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Runs `clawback <arguments>` on this database, virtual host and Stripe.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Finished {
        clawback(arguments, &self.settings).await
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What another process has of the ledger: it shares nothing with the others but the database.
    pub(crate) async fn another_ledger(&self) -> Ledger {
        Ledger::connect(&self.db.url, LEDGER_OPTIONS).await.unwrap()
    }

    pub(crate) async fn register(&self, payment: Value) -> reqwest::Response {
        let request = self.http.post(format!("{}/v1/payments", self.base_url)).bearer_auth(&self.api_token);
        request.json(&payment).send().await.unwrap()
    }

    pub(crate) async fn post_webhook(&self, body: &str) -> reqwest::Response {
        self.post_signed(body, &sign(&self.webhook_secret, body)).await
    }

    /// Posts a webhook of Hyperswitch's, signed.
    pub(crate) async fn post_hyperswitch(&self, body: &str) -> reqwest::Response {
        self.post_hyperswitch_signed(body.to_owned(), &sign_hyperswitch(HYPERSWITCH_KEY, body.as_bytes())).await
    }

    pub(crate) async fn post_hyperswitch_signed(
        &self,
        body: impl Into<reqwest::Body>,
        signature: &str,
    ) -> reqwest::Response {
        let request = self.http.post(format!("{}/webhooks/hyperswitch", self.base_url));
        request.header("x-webhook-signature-512", signature).body(body).send().await.unwrap()
    }

    /// Reports a refund through the API.
    pub(crate) async fn report(&self, refund: &Value) -> reqwest::Response {
        let request = self.http.post(format!("{}/v1/refunds", self.base_url)).bearer_auth(&self.api_token);
        request.json(refund).send().await.unwrap()
    }

    /// What the API answers to who may read.
    pub(crate) async fn read(&self, path: &str) -> (u16, Value) {
        let request = self.http.get(format!("{}{path}", self.base_url)).bearer_auth(&self.read_token);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// The refund as the API shows it.
    pub(crate) async fn refund_view(&self, id: &str) -> Value {
        let request = self.http.get(format!("{}/v1/refunds/{id}", self.base_url));
        request.bearer_auth(&self.read_token).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn post_signed(&self, body: &str, signature: &str) -> reqwest::Response {
        self.http
            .post(format!("{}/webhooks/stripe", self.base_url))
            .header("stripe-signature", signature)
            .header("content-type", "application/json")
            .body(body.to_owned())
            .send()
            .await
            .unwrap()
    }

    /// Registers `two_sellers("pi_1")`, and posts a refund of `amount` for it.
    pub(crate) async fn refund(&self, amount: i64) {
        let registered = self.register(super::two_sellers("pi_1")).await;
        assert!(registered.status().is_success(), "{}", registered.text().await.unwrap());
        self.refund_of(amount, 1).await;
    }

    /// Has Stripe answer one call. While it answers none, no job's retries are used up.
    pub(crate) async fn stripe_answers(&self) {
        self.sim.add_transfer("tr_answered", 100, "eur", "acct_answered");
        let transfer = NewTransfer {
            seller_id: "answered".into(),
            stripe_transfer_id: Some("tr_answered".into()),
            destination: "acct_answered".into(),
            amount: 100,
            currency: "eur".into(),
            ..NewTransfer::default()
        };
        let (payment_ref, currency) = ("pi_answered".to_owned(), "eur".to_owned());
        let payment = NewPayment { payment_ref, amount: 100, currency, transfers: vec![transfer], allow_excess: false };
        self.ledger.register_payment(payment).await.unwrap();
        self.post_webhook(&super::refund_event("evt_answered", "re_answered", "pi_answered", 100).to_string()).await;
        eventually("Stripe answers", || async { (self.reversed_at_stripe("tr_answered") == 100).then_some(()) }).await;
    }

    /// Registers a payment with that many transfers of 1.00 EUR, here and at Stripe, and returns its amount.
    pub(crate) async fn many_sellers(&self, payment_ref: &str, sellers: i64) -> i64 {
        let transfers = (0..sellers).map(|n| {
            let id = format!("tr_of_{n}");
            self.sim.add_transfer(&id, 100, "eur", "acct_1");
            NewTransfer {
                seller_id: format!("s{n}"),
                stripe_transfer_id: Some(id),
                destination: "acct_1".into(),
                amount: 100,
                currency: "eur".into(),
                ..NewTransfer::default()
            }
        });
        let (transfers, amount) = (transfers.collect(), sellers * 100);
        let payment = NewPayment {
            payment_ref: payment_ref.into(),
            amount,
            currency: "eur".into(),
            transfers,
            allow_excess: false,
        };
        self.ledger.register_payment(payment).await.unwrap();
        amount
    }

    /// Posts the refund number `n` of `pi_1`.
    pub(crate) async fn refund_of(&self, amount: i64, n: usize) {
        let event = super::refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_1", amount).to_string();
        let answer = self.post_webhook(&event).await;
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    /// A second Clawback with the same settings, on a port of its own.
    pub(crate) async fn another(&self) -> Running {
        self.another_with(&[]).await
    }

    /// A second Clawback with some settings changed.
    pub(crate) async fn another_with(&self, changes: &[(&str, &str)]) -> Running {
        let mut settings = self.settings.clone();
        for (name, value) in changes {
            settings.retain(|(known, _)| known != name);
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        let config = Config::from_parts(None, settings).unwrap();
        Running::start(App::build_with(&config, Role::All, PATIENCE).await.unwrap())
    }

    pub(crate) async fn payment(&self, payment_ref: &str) -> Value {
        let request = self.http.get(format!("{}/v1/payments/{payment_ref}", self.base_url));
        request.bearer_auth(&self.read_token).send().await.unwrap().json().await.unwrap()
    }

    /// Waits until the transfer `index` of `pi_1` has `status`, and returns it.
    pub(crate) async fn transfer_becomes(&self, index: usize, status: &str) -> Value {
        eventually(&format!("transfer {index} becomes {status}"), || async {
            let transfer = self.payment("pi_1").await["transfers"][index].clone();
            (transfer["status"] == status).then_some(transfer)
        })
        .await
    }

    /// Waits until `condition` holds for the first reversal of the transfer `index` of `pi_1`, and returns it.
    pub(crate) async fn reversal_when(&self, index: usize, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || async {
            let reversal = self.payment("pi_1").await["transfers"][index]["reversals"][0].clone();
            (!reversal.is_null() && condition(&reversal)).then_some(reversal)
        })
        .await
    }

    /// Waits until that many jobs, or more, have reached the broker.
    pub(crate) async fn published(&self, jobs: i64) {
        eventually("the jobs are published", || async {
            (self.db.count("outbox WHERE published_at IS NOT NULL").await >= jobs).then_some(())
        })
        .await;
    }

    /// Waits until every reversal has ended, however long that takes, as long as it goes on.
    pub(crate) async fn until_none_is_open(&self) {
        let connection = self.db.connect().await;
        let mut left = i64::MAX;
        while left > 0 {
            left = eventually(&format!("of {left} open reversals another one ends"), || async {
                let open = count(&connection, "reversals WHERE status = 'pending'").await;
                (open < left).then_some(open)
            })
            .await;
        }
        connection.close().await.unwrap();
    }

    /// What the simulator really took back from a transfer, in all.
    pub(crate) fn reversed_at_stripe(&self, transfer_id: &str) -> i64 {
        self.sim.ledger().reversals(transfer_id).iter().map(|reversal| reversal.amount).sum()
    }
}

fn settings(database_url: &str, amqp_url: &str, stripe: &str) -> Vec<(String, String)> {
    [
        ("DATABASE_URL", database_url),
        ("AMQP_URL", amqp_url),
        ("HTTP_ADDR", "127.0.0.1:0"),
        ("STRIPE_API_KEY", "sk_test_of_the_tests"),
        ("STRIPE_API_BASE", stripe),
        ("STRIPE_MAX_RPS", "1000"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_of_the_tests"),
        ("SHUTDOWN_DELAY", "0s"),
        // Tests of discovery turn it on; in the others only a registration makes a payment known.
        ("STRIPE_DISCOVERY", "off"),
        ("HYPERSWITCH_WEBHOOK_SECRET", HYPERSWITCH_KEY),
        ("API_TOKEN", "token-of-the-tests"),
        ("API_READ_TOKEN", "read-token-of-the-tests"),
        // The tests' refunds are of any age.
        ("REFUNDS_SINCE", "2020-01-01"),
        ("REVERSAL_CHECK_INTERVAL", "1s"),
        ("REVERSAL_BACKOFF_BASE", "100ms"),
        ("REVERSAL_BACKOFF_MAX", "800ms"),
        ("TRANSFER_RETRY_CHECK_INTERVAL", "1s"),
        ("TRANSFER_RETRY_BACKOFF_BASE", "100ms"),
        ("TRANSFER_RETRY_BACKOFF_MAX", "800ms"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}
