//! Two `clawback serve` and two `clawback worker` processes on one PostgreSQL and one RabbitMQ: each does a share, and no
//! refund is lost or done twice, though every webhook comes twice and in no order.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clawback::ledger::{NewPayment, NewTransfer};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::support::{Backend, Process, TestApp, free_address, refund_event, sign};

/// Half of them full, one a payment; half of them partial, two a payment.
const REFUNDS: usize = 5_000;
const FULL: usize = REFUNDS / 2;
const AT_ONCE: usize = 32;
const AMOUNT: i64 = 1_003;
/// What the two partial refunds of a payment give back together.
const PARTS: [i64; 2] = [301, 455];
/// The default: no job is made anew while its first one waits in the queue.
const PATIENT_SWEEPER: (&str, &str) = ("REVERSAL_CHECK_INTERVAL", "1m");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_serves_and_two_workers_share_5000_refunds_and_lose_or_double_none() {
    TestApp::run(Backend::Postgres, share_the_work).await;
}

async fn share_the_work(mut app: TestApp) {
    app.stop().await;
    register_payments(&app).await;
    let logs = Logs::create(&app);
    let addresses = [free_address(), free_address()];
    let mut processes = Vec::new();
    for (n, address) in addresses.iter().enumerate() {
        processes.push(logs.start("serve", n, app.settings_with(&[("HTTP_ADDR", address), PATIENT_SWEEPER])));
        processes.push(logs.start("worker", n, app.settings_with(&[PATIENT_SWEEPER])));
    }
    for address in &addresses {
        app.base_url = format!("http://{address}");
        app.is_up().await;
    }

    post_all(&app, &addresses).await;
    app.until_none_is_open().await;
    for process in processes {
        assert_eq!(process.terminate().await, Some(0));
    }

    reckon(&app).await;
    // The smallest share that is no accident: a process that only stood by would have none.
    let fair = |total: usize, share: usize| share >= total / 20;
    let reversed = [logs.count("worker", 0, "reversed"), logs.count("worker", 1, "reversed")];
    assert_eq!(reversed.iter().sum::<usize>(), REFUNDS, "{reversed:?}");
    assert!(reversed.iter().all(|share| fair(REFUNDS, *share)), "{reversed:?}");
    let received = [logs.count("serve", 0, "webhook received"), logs.count("serve", 1, "webhook received")];
    assert!(received.iter().all(|share| fair(REFUNDS, *share)), "{received:?}");
    let published = [logs.sum("serve", 0, "confirmed"), logs.sum("serve", 1, "confirmed")];
    // Which relay a commit wakes first is chance, and one that is awake takes all that is there.
    assert!(published.iter().all(|share| *share > 0), "{published:?}");
    println!("reversed {reversed:?}, webhooks {received:?}, published {published:?}");
    logs.remove();
}

/// One transfer each: `tr_0`, `tr_1`, … of `pi_0`, `pi_1`, …
async fn register_payments(app: &TestApp) {
    let payments = FULL + (REFUNDS - FULL) / PARTS.len();
    stream::iter(0..payments)
        .map(|n| async move {
            let transfer = format!("tr_side_{n}");
            app.sim.add_transfer(&transfer, AMOUNT, "eur", "acct_1");
            let transfers = vec![NewTransfer {
                seller_id: "s1".into(),
                stripe_transfer_id: Some(transfer),
                destination: "acct_1".into(),
                amount: AMOUNT,
                currency: "eur".into(),
                ..NewTransfer::default()
            }];
            let payment_ref = format!("pi_{n}");
            let payment =
                NewPayment { payment_ref, amount: AMOUNT, currency: "eur".into(), transfers, allow_excess: false };
            app.ledger().register_payment(payment).await.map(drop)
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
        .unwrap();
}

/// Every refund's event twice, shuffled, to both addresses in turn.
async fn post_all(app: &TestApp, addresses: &[String; 2]) {
    let event = |payment: usize, refund: usize, amount: i64| {
        refund_event(&format!("evt_{refund}"), &format!("re_{refund}"), &format!("pi_{payment}"), amount).to_string()
    };
    let full = (0..FULL).map(|n| event(n, n, AMOUNT));
    let partial = (FULL..REFUNDS).map(|n| {
        let (payment, part) = ((n - FULL) / PARTS.len(), (n - FULL) % PARTS.len());
        event(FULL + payment, n, PARTS[part])
    });
    let mut bodies: Vec<String> = full.chain(partial).collect();
    bodies.extend_from_within(..);
    bodies.shuffle(&mut StdRng::seed_from_u64(5_000));
    stream::iter(bodies.into_iter().zip(addresses.iter().cycle()))
        .for_each_concurrent(AT_ONCE, |(body, address)| async move {
            // As Stripe does: what is not taken now (an overloaded machine's 503) is sent again.
            loop {
                let request = app.http.post(format!("http://{address}/webhooks/stripe"));
                let request = request.header("stripe-signature", sign(&app.webhook_secret, &body)).body(body.clone());
                match request.send().await.unwrap().status().as_u16() {
                    200 => break,
                    status => assert_eq!(status, 503),
                }
            }
        })
        .await;
}

/// Every refund has one reversal here and one at Stripe, for the same claim, under the same id and of the same amount, and there are no others.
async fn reckon(app: &TestApp) {
    assert_eq!(app.db.count("claims WHERE status = 'matched'").await, i64::try_from(REFUNDS).unwrap());
    let ours = app
        .db
        .query(
            "SELECT c.source || ':' || c.reference AS claim, r.amount, r.stripe_reversal_id AS theirs,
                    t.stripe_transfer_id AS transfer, r.status, r.externally_reversed
             FROM reversals r JOIN seller_transfers t ON t.id = r.transfer_id JOIN claims c ON c.id = r.claim_id",
        )
        .await;
    assert_eq!(ours.len(), REFUNDS);
    let stripe = app.sim.ledger();
    let mut theirs: HashMap<&str, (&str, i64, &str)> = HashMap::new();
    for (transfer, reversal) in stripe.transfers.values().flat_map(|t| t.reversals.iter().map(move |r| (t, r))) {
        let known = theirs.insert(&reversal.id, (&transfer.id, reversal.amount, &reversal.metadata["clawback_claim"]));
        assert_eq!(known, None);
    }
    assert_eq!(theirs.len(), REFUNDS, "Stripe has reversals that nobody asked for");
    for row in &ours {
        assert_eq!(row["status"], "reversed");
        assert_eq!(row["externally_reversed"], false);
        let text = |name: &str| row[name].as_str().unwrap();
        let expected = (text("transfer"), row["amount"].as_i64().unwrap(), text("claim"));
        assert_eq!(theirs.get(text("theirs")), Some(&expected));
    }
    let (whole, part) = (AMOUNT * i64::try_from(FULL).unwrap(), PARTS.iter().sum::<i64>());
    let partial = part * i64::try_from((REFUNDS - FULL) / PARTS.len()).unwrap();
    let taken: i64 = theirs.values().map(|(_, amount, _)| amount).sum();
    assert_eq!(taken, whole + partial);
    let full = "seller_transfers WHERE status = 'reversed' AND amount_reversed = amount";
    assert_eq!(app.db.count(full).await, i64::try_from(FULL).unwrap());
}

/// What each process logged, by which its share is told.
struct Logs {
    folder: PathBuf,
}

impl Logs {
    fn create(app: &TestApp) -> Self {
        let folder = std::env::temp_dir().join(app.db.url.rsplit('/').next().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn path(&self, role: &str, n: usize) -> PathBuf {
        self.folder.join(format!("{role}-{n}.log"))
    }

    fn start(&self, role: &str, n: usize, mut settings: Vec<(String, String)>) -> Process {
        settings.push(("LOG_FORMAT".into(), "json".into()));
        settings.push(("RUST_LOG".into(), "warn,clawback=debug,outbox=debug".into()));
        Process::start_logging(role, &settings, &self.path(role, n))
    }

    fn count(&self, role: &str, n: usize, message: &str) -> usize {
        lines(&self.path(role, n)).iter().filter(|line| line["message"] == message).count()
    }

    fn sum(&self, role: &str, n: usize, field: &str) -> usize {
        let sum: u64 = lines(&self.path(role, n)).iter().filter_map(|line| line[field].as_u64()).sum();
        usize::try_from(sum).unwrap()
    }

    fn remove(self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
