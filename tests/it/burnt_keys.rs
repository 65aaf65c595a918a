//! A key is burnt before another one is used: whoever still holds it, and wakes up late, can't make Stripe act a second time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use clawback::ledger::{CallJob, Failure, Note, Task, TryOutcome};
use clawback::stripe::{Client, Meaning, ReverseTransfer as Command};
use clawback::worker::{Caller, CircuitBreaker, Limiter, ReverseTransfer, Timing};
use queues::{Delivery, Handler, KeyPermits, Outcome, RetryPolicy};
use serde_json::{Value, json};
use stripe_sim::Fault;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};
use uuid::Uuid;

use crate::support::{
    Backend, DEADLINE, NO_SWEEPER, Process, TestApp, both_databases, eventually, hyperswitch_event, two_sellers,
};

both_databases! {
    a_worker_that_wakes_up_with_a_key_that_stripe_never_saw_reverses_nothing_twice,
    a_500_that_stripe_saved_burns_the_key_before_the_next_is_used,
    a_call_that_was_never_executed_is_executed_under_its_first_key,
    a_replay_keeps_the_key_until_stripe_has_answered_it,
    other_shares_after_a_refusal_are_asked_for_under_the_next_key,
    what_is_owed_again_for_another_amount_is_asked_for_under_the_next_key,
}

/// The 500 came from an edge, and was not saved. The first worker is then held up with the same key in its hand.
async fn a_worker_that_wakes_up_with_a_key_that_stripe_never_saw_reverses_nothing_twice(mut app: TestApp) {
    let (task, worker) = one_open_reversal(&mut app).await;
    let held_up = app.ledger().authorize(task.clone()).await.unwrap();
    app.sim.fault("tr_1", Fault::ServerErrorAtTheEdge, 1);
    until_done(&worker, task.call.id).await;

    // It wakes up at last.
    let late = stripe(&app.sim.base_url()).reverse_transfer(&command(&held_up)).await;
    let Meaning::Reversed { reversal_id, .. } = late.meaning else { panic!("{late:?}") };
    assert!(late.replayed, "its key was executed already");
    let done = TryOutcome::Done { stripe_id: reversal_id, externally: false };
    app.ledger().report(&held_up, done, Note::new("worker", "late")).await.unwrap();
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1, "it was reversed twice");
    assert_eq!(generations(&app), ["0", "0", "0"]);
}

async fn a_500_that_stripe_saved_burns_the_key_before_the_next_is_used(mut app: TestApp) {
    let (task, worker) = one_open_reversal(&mut app).await;
    app.sim.fault("tr_1", Fault::ServerError, 1);
    until_done(&worker, task.call.id).await;
    assert_eq!(generations(&app), ["0", "0", "1"], "asked again under the same key, answered from what was saved");
    let ledger = app.sim.ledger();
    let posts: Vec<_> = ledger.reversal_posts("tr_1").collect();
    let looks = |from: usize, to: usize| {
        let at = |id: &str| ledger.requests.iter().position(|request| request.id == id).unwrap();
        let between = &ledger.requests[at(&posts[from].id)..at(&posts[to].id)];
        between.iter().filter(|request| request.path.ends_with("/reversals") && request.method == "GET").count()
    };
    assert!(posts[1].replayed && !posts[2].replayed);
    assert!(looks(0, 1) == 1 && looks(1, 2) >= 2, "a look before the old key, two before the new one");
    assert_eq!(ledger.reversals("tr_1").len(), 1);
}

async fn a_call_that_was_never_executed_is_executed_under_its_first_key(mut app: TestApp) {
    let (task, worker) = one_open_reversal(&mut app).await;
    app.sim.fault("tr_1", Fault::Garbage200 { applied: false }, 2);
    until_done(&worker, task.call.id).await;
    assert_eq!(generations(&app), ["0", "0", "0"]);
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1);
}

/// It failed permanently on timeouts alone: a worker may still hold the key.
async fn a_replay_keeps_the_key_until_stripe_has_answered_it(mut app: TestApp) {
    let (task, worker) = one_open_reversal(&mut app).await;
    let held_up = app.ledger().authorize(task).await.unwrap();
    let note = || Note::new("ada", "a test");
    let why = Failure { code: "unavailable".into(), message: "HTTP 503".into() };
    let failed = app.ledger().report(&held_up, TryOutcome::Failed(why), note()).await.unwrap();
    app.ledger().replay_held(&failed.call, &note()).await.unwrap();
    until_done(&worker, held_up.call.id).await;
    let late = stripe(&app.sim.base_url()).reverse_transfer(&command(&held_up)).await;
    assert!(late.replayed, "{late:?}");
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 1, "it was reversed twice");
}

/// Stripe has saved its refusal of the first amount.
async fn other_shares_after_a_refusal_are_asked_for_under_the_next_key(mut app: TestApp) {
    for account in ["acct_1", "acct_2"] {
        app.sim.set_balance(account, Some(0));
    }
    app.refund(5_000).await;
    for index in [0, 1] {
        app.reversal_when(index, "it waits for balance", |row| row["failure_code"] == "balance_insufficient").await;
    }
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    let report = json!({
        "source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 5_000, "currency": "eur",
        "transfers": [{"transfer_id": "tr_1", "amount": 100}, {"transfer_id": "tr_2", "amount": 50}],
    });
    assert_eq!(app.report(&report).await.status(), 200);
    for account in ["acct_1", "acct_2"] {
        app.sim.set_balance(account, None);
    }
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    for index in [0, 1] {
        app.transfer_becomes(index, "partially_reversed").await;
    }
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (100, 50));
    assert_eq!(app.db.count("history WHERE to_status = 'permanently_failed'").await, 0, "an operator was needed");
}

/// Stripe has saved its answer for the first amount, which was called off after two looks.
async fn what_is_owed_again_for_another_amount_is_asked_for_under_the_next_key(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.register(two_sellers("pi_1")).await;
    let told = async |app: &TestApp, refund: &str, amount: i64, status: &str, minute: u32, shares: Value| {
        let mut event = hyperswitch_event(&format!("evt_{minute}"), refund, "pi_1", amount);
        event["event_type"] = json!(format!("refund_{status}"));
        let object = &mut event["content"]["object"];
        (object["status"], object["metadata"]) = (json!(status), shares);
        object["updated_at"] = json!(format!("2026-11-23T10:{minute:02}:00.000Z"));
        assert_eq!(app.post_hyperswitch(&event.to_string()).await.status(), 200);
    };
    told(&app, "ref_1", 5_000, "succeeded", 1, json!({})).await;
    let id: Uuid = app.payment("pi_1").await["transfers"][0]["reversals"][0]["id"].as_str().unwrap().parse().unwrap();
    let task = app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    app.sim.fault("tr_1", Fault::ServerError, 1);
    let command = Command { amount: 3_000, claim: "hyperswitch:ref_1".into(), ..command(&task) };
    assert_eq!(stripe(&app.sim.base_url()).reverse_transfer(&command).await.meaning, Meaning::ServerError);
    told(&app, "ref_1", 5_000, "failed", 2, json!({})).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "completed").await;

    told(&app, "ref_2", 4_000, "succeeded", 3, json!({"clawback_tr_1": "4000"})).await;
    told(&app, "ref_1", 5_000, "succeeded", 4, json!({})).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    let taken = |id: &str| {
        let ledger = app.sim.ledger();
        let mut taken: Vec<_> =
            ledger.reversals(id).iter().map(|it| (it.metadata["clawback_claim"].clone(), it.amount)).collect();
        taken.sort();
        taken
    };
    let of = |n: u32, amount: i64| (format!("hyperswitch:ref_{n}"), amount);
    assert_eq!((taken("tr_1"), taken("tr_2")), (vec![of(1, 2_000), of(2, 4_000)], vec![of(1, 2_500)]));
    assert_eq!(app.db.count("history WHERE to_status = 'permanently_failed'").await, 0, "an operator was needed");
}

#[tokio::test]
async fn a_request_is_not_written_after_its_time() {
    let sim = stripe_sim::Sim::start();
    sim.add_transfer("tr_1", 6_000, "eur", "acct_1");
    let past = stripe(&sim.base_url()).write_within(Duration::ZERO);
    let command = Command {
        refund_application_fee: false,
        transfer_id: "tr_1".into(),
        amount: 100,
        currency: "eur".into(),
        claim: "stripe:re_1".into(),
        generation: 0,
    };
    let report = past.reverse_transfer(&command).await;
    assert_eq!(report.meaning, Meaning::NotSent, "{report:?}");
    assert!(sim.ledger().reversals("tr_1").is_empty());
    assert_eq!(sim.ledger().reversal_posts("tr_1").count(), 0);
}

/// A real worker is suspended between its check and its request, while its connection is being set up. Another one finds its
/// key too old to be burnt, and goes on with a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_suspended_worker_that_goes_on_sends_nothing_any_more() {
    TestApp::run(Backend::Postgres, async |mut app: TestApp| {
        app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
        app.refund(4_000).await;
        app.published(2).await;
        let slow =
            SlowRoad::to(app.sim.base_url().parse::<url::Url>().unwrap().socket_addrs(|| None).unwrap()[0]).await;
        // Its two jobs are all that the broker gives it.
        let few = [("REVERSAL_PREFETCH", "2"), ("REVERSAL_CONCURRENCY", "2")];
        let way = [("REVERSAL_WORKER_ENABLED", "true"), ("STRIPE_API_BASE", slow.base_url.as_str())];
        let changes = [few, way].concat();
        let suspended = Process::start("worker", &app.settings_with(&changes));
        eventually("both calls are checked", || async {
            (app.db.count("calls WHERE requested_at IS NOT NULL").await == 2).then_some(())
        })
        .await;
        let since = Instant::now();
        suspended.signal("STOP").await;
        assert!(app.sim.ledger().requests.is_empty(), "it was too fast");
        slow.open();

        // A day later Stripe has forgotten every key.
        app.sim.advance(Duration::from_secs(25 * 60 * 60));
        let yesterday = (Utc::now() - TimeDelta::hours(25)).to_rfc3339();
        app.db.execute(&format!("UPDATE calls SET generation_started_at = '{yesterday}'")).await;
        app.db.execute("UPDATE outbox SET published_at = NULL, claimed_until = NULL").await;
        app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
        app.transfer_becomes(0, "partially_reversed").await;
        app.transfer_becomes(1, "partially_reversed").await;

        let posts = app.sim.ledger().requests.iter().filter(|request| request.method == "POST").count();
        tokio::time::sleep(Duration::from_millis(3_300).saturating_sub(since.elapsed())).await;
        suspended.signal("CONT").await;
        eventually("it has read its calls again, and acknowledged their jobs", || async {
            let queues = app.vhost.queues().await;
            let left = queues.iter().filter(|queue| queue["name"].as_str() == Some("reversals"));
            (left.filter_map(|queue| queue["messages_unacknowledged"].as_i64()).sum::<i64>() == 0).then_some(())
        })
        .await;
        assert_eq!(suspended.terminate().await, Some(0));
        let ledger = app.sim.ledger();
        assert_eq!((ledger.reversals("tr_1").len(), ledger.reversals("tr_2").len()), (1, 1), "it was reversed twice");
        assert_eq!(ledger.requests.iter().filter(|request| request.method == "POST").count(), posts);
    })
    .await;
}

/// A way to Stripe on which no connection is set up before it is opened: its queue of connections is full.
struct SlowRoad {
    base_url: String,
    open: tokio::sync::watch::Sender<bool>,
}

impl SlowRoad {
    async fn to(stripe: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // One more than its backlog.
        let full = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let open = tokio::sync::watch::Sender::new(false);
        let mut opened = open.subscribe();
        tokio::spawn(async move {
            if opened.wait_for(|open| *open).await.is_err() {
                return;
            }
            drop(full);
            while let Ok((mut here, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut there = TcpStream::connect(stripe).await.unwrap();
                    let _ = copy_bidirectional(&mut here, &mut there).await;
                });
            }
        });
        Self { base_url: format!("http://{address}"), open }
    }

    fn open(&self) {
        self.open.send_replace(true);
    }
}

/// One reversal of `tr_1` with nobody who works at it, and a worker that is played by the test.
async fn one_open_reversal(app: &mut TestApp) -> (Task, Caller) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.refund(4_000).await;
    let id: Uuid = app.payment("pi_1").await["transfers"][0]["reversals"][0]["id"].as_str().unwrap().parse().unwrap();
    let worker = Caller {
        parse: clawback::http::webhooks::stripe::content_of,
        notifier: None,
        ledger: app.ledger().clone(),
        stripe: stripe(&app.sim.base_url()),
        limiter: Arc::new(Limiter::new(1_000)),
        breaker: Arc::new(CircuitBreaker::new()),
        transfers: KeyPermits::new(1),
        sellers: KeyPermits::new(8),
        policy: RetryPolicy::new(Duration::from_millis(20), Duration::from_millis(100), 9),
        timing: Timing {
            balance_deadline: Duration::from_secs(3600),
            settling: Duration::from_millis(200),
            turn: Duration::from_secs(30),
        },
    };
    (app.ledger().task(id).await.unwrap().unwrap(), worker)
}

/// Delivers the call's job again and again.
async fn until_done(worker: &Caller, id: Uuid) {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let job = ReverseTransfer(CallJob { call_id: id });
        match worker.handle(job, Delivery::new("m", "reverse_transfer")).await {
            Outcome::Done => return,
            Outcome::Snooze { delay, .. } | Outcome::RetryAfter { delay, .. } => tokio::time::sleep(delay).await,
            other => panic!("{other:?}"),
        }
    }
    panic!("it is never done");
}

fn stripe(base: &str) -> Client {
    Client::new(base.parse().unwrap(), secrecy::SecretString::from("sk_test_of_the_tests"), None).unwrap()
}

fn command(task: &Task) -> Command {
    let (claim, currency) = ("stripe:re_1".to_owned(), "eur".to_owned());
    Command {
        refund_application_fee: false,
        transfer_id: "tr_1".into(),
        amount: 2_400,
        currency,
        claim,
        generation: task.call.generation,
    }
}

/// The generations in the idempotency keys of the calls about `tr_1`, in their order.
fn generations(app: &TestApp) -> Vec<String> {
    let ledger = app.sim.ledger();
    let keys = ledger.reversal_posts("tr_1").filter_map(|post| post.idempotency_key.clone());
    keys.map(|key| key.rsplit('-').next().unwrap().to_owned()).collect()
}
