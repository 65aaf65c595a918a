//! One seed's world: people who pay, refund and dispute, a Stripe that misbehaves, a broker that is played, a database that
//! forgets, and the final reckoning.

mod life;
mod loss;
mod reckoning;
mod scenario;

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use clawback::ledger::{CallJob, CallKind, ClaimPolicy, Ledger, LedgerOptions, WebhookEvent};
use clawback::stripe::Client;
use clawback::worker::{Caller, CircuitBreaker, CreateTransfer, Limiter, LookUp, Notify, ReverseTransfer, Timing};
use queues::{Delivery, Handler, KeyPermits, Outcome, RetryPolicy};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use sea_orm::{ConnectionTrait, DatabaseConnection};
use stripe_sim::{Fault, Sim, Target};
use uuid::Uuid;

use crate::support::{Backend, DEADLINE, Db, count, rows};
use loss::SinceBackup;
use scenario::{Scenario, Told, scenario};

/// Longer than a call can be on its way: the slowest fault, and a client that gives up.
const SETTLING: Duration = Duration::from_millis(60);
const CALL_TIMEOUT: Duration = Duration::from_millis(40);
/// In the end nothing is slow on purpose, and a machine that is must not make a call fail.
const PATIENT_CALL_TIMEOUT: Duration = Duration::from_secs(20);
const STEPS: usize = 250;

/// A message, on the broker that the test plays.
#[derive(Clone)]
struct Message {
    kind: CallKind,
    job: CallJob,
    parked_reason: Option<String>,
}

pub(super) struct World {
    seed: u64,
    rng: StdRng,
    plan: Scenario,
    db: Db,
    look: DatabaseConnection,
    ledger: Ledger,
    sim: Sim,
    worker: Caller,
    /// In another process: it shares nothing with the first but the database.
    other_worker: Caller,
    queue: Vec<Message>,
    parked: Vec<Message>,
    /// What Stripe tells of, until it was delivered for the last time.
    events: Vec<WebhookEvent>,
    /// How many of Stripe's events are known here.
    heard: usize,
    /// The refunds that are made through Hyperswitch, as they are now.
    told: BTreeMap<String, Told>,
    /// What faults are for: transfers, the accounts of those that are yet to be created, and what is looked up.
    targets: Vec<String>,
    since_backup: Option<SinceBackup>,
    /// How often the database forgot.
    losses: usize,
    /// How many messages ago a worker died: what it had asked for may still arrive.
    since_death: usize,
}

impl World {
    pub(super) async fn create(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let db = Db::create(Backend::Sqlite).await;
        let look = db.connect().await;
        let plan = scenario(&mut rng);
        let (ledger, other) = (connect(&db.url, plan.policy).await, connect(&db.url, plan.policy).await);
        ledger.migrate_up().await.unwrap();
        let sim = Sim::start();
        let worker = start_worker(&ledger, &sim, CALL_TIMEOUT);
        let other_worker = start_worker(&other, &sim, CALL_TIMEOUT);
        let (queue, parked, events, targets) = (Vec::new(), Vec::new(), Vec::new(), plan.targets());
        let (heard, since_backup, losses, since_death) = (0, None, 0, 0);
        let mut world = Self {
            seed,
            rng,
            plan,
            db,
            look,
            ledger,
            sim,
            worker,
            other_worker,
            queue,
            parked,
            events,
            heard,
            told: BTreeMap::new(),
            targets,
            since_backup,
            losses,
            since_death,
        };
        world.buyers_pay();
        world
    }

    /// Everything happens in random order, and goes wrong.
    pub(super) async fn live(&mut self) {
        for _ in 0..STEPS {
            match self.rng.random_range(0..100) {
                0..10 => self.go_on_anywhere().await,
                10..26 => self.deliver_an_event(0.7).await,
                26..42 => self.break_something(),
                42..45 => self.move_back_a_parked_job(),
                45..48 => self.let_a_day_pass().await,
                48..51 => self.lose_and_sweep().await,
                51..53 => self.operators_accept().await,
                53..56 => self.back_up_or_forget().await,
                _ => self.deliver(true).await,
            }
            self.relay().await;
        }
    }

    /// What is left is done without faults; then both ledgers are compared.
    pub(super) async fn end(&mut self) {
        while self.plan.threads.iter().any(|thread| !thread.is_empty()) {
            self.go_on_anywhere().await;
        }
        while !self.events.is_empty() {
            self.deliver_an_event(1.0).await;
        }
        self.sim.clear_faults();
        for transfer in self.sim.ledger().transfers.values() {
            self.sim.set_balance(&transfer.destination, None);
        }
        self.calls_have_ended().await;
        self.settle_pending_at_stripe();
        self.start_workers(PATIENT_CALL_TIMEOUT);
        tokio::time::timeout(DEADLINE, async {
            let mut replayed = false;
            loop {
                while !self.queue.is_empty() {
                    self.deliver(false).await;
                    self.relay().await;
                }
                self.operators_accept().await;
                self.sweep().await;
                self.relay().await;
                if self.queue.is_empty() && self.nothing_is_open().await {
                    // What was given up is replayed once; what is given up again has a reason that stays.
                    if replayed {
                        break;
                    }
                    self.replay_what_was_given_up().await;
                    replayed = true;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("seed {}: it does not come to an end", self.seed));
        self.reckon().await;
    }

    async fn nothing_is_open(&self) -> bool {
        let uncreated = "seller_transfers WHERE status IN ('pending', 'failed')";
        let owed = "reversals WHERE status = 'pending'";
        let mut open = 0;
        for rows in [uncreated, owed, "calls WHERE state = 'open'"] {
            open += count(&self.look, rows).await;
        }
        open == 0
    }

    pub(super) async fn remove(self) {
        self.look.close().await.unwrap();
        self.ledger.close().await.unwrap();
        self.other_worker.ledger.close().await.unwrap();
        self.db.give_back().await;
    }

    fn break_something(&mut self) {
        let delay_ms = self.rng.random_range(1..55);
        let faults = [
            Fault::ApplyThenDropConnection,
            Fault::DropBeforeApply,
            Fault::ServerError,
            Fault::ServerErrorApplied,
            Fault::ServerErrorAtTheEdge,
            Fault::Conflict409,
            Fault::RateLimited { retry_after: None },
            Fault::LockTimeout,
            Fault::UnavailableHtml,
            Fault::BadGateway,
            Fault::Slow { delay_ms },
            Fault::SlowThenNothing { delay_ms },
            Fault::BalanceInsufficient,
            Fault::Unauthorized,
            Fault::Pending,
            Fault::Garbage200 { applied: true },
            Fault::Garbage200 { applied: false },
        ];
        let fault = faults.choose(&mut self.rng).unwrap().clone();
        let target = self.targets.choose(&mut self.rng).unwrap().clone();
        let times = self.rng.random_range(1..4);
        let is_written_to = target.starts_with("tr_") || target.starts_with("acct_");
        if is_written_to && self.rng.random_bool(0.03) {
            self.sim.reverse_from_elsewhere(&target, None);
        } else if !is_written_to || self.rng.random_bool(0.1) {
            self.sim.fault_reads(target.as_str(), Fault::UnavailableHtml, times);
        } else {
            self.sim.fault(Target::Transfer(target), fault, times);
        }
    }

    fn move_back_a_parked_job(&mut self) {
        self.queue.extend(self.parked.pop());
    }

    /// The broker loses a message, and the sweeper looks.
    async fn lose_and_sweep(&mut self) {
        if !self.queue.is_empty() && self.rng.random_bool(0.5) {
            let lost = self.rng.random_range(0..self.queue.len());
            self.queue.swap_remove(lost);
        }
        self.sweep().await;
    }

    /// The operator's part, for rows whose parked message the broker may have lost.
    async fn replay_what_was_given_up(&mut self) {
        self.parked.clear();
        let failed = "SELECT lower(hex(id)) AS id, kind FROM calls WHERE state = 'failed'";
        for row in rows(&self.look, failed).await {
            let job = CallJob { call_id: Uuid::parse_str(row["id"].as_str().unwrap()).unwrap() };
            let kind = CallKind::all().find(|kind| row["kind"] == kind.to_string()).unwrap();
            self.queue.push(Message { kind, job, parked_reason: Some("replayed in the end".into()) });
        }
    }

    async fn sweep(&self) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        for kind in CallKind::all() {
            self.ledger.sweep(kind, 100).await.unwrap();
        }
        self.ledger.rematch(None, 100).await.unwrap();
    }

    /// The relay's part: whatever is new in the outbox goes into the queue.
    async fn relay(&mut self) {
        let unpublished = "SELECT kind, payload FROM outbox WHERE published_at IS NULL ORDER BY id";
        let jobs = rows(&self.look, unpublished).await;
        for row in &jobs {
            let job = serde_json::from_str(row["payload"].as_str().unwrap()).unwrap();
            let kind = CallKind::of_job(row["kind"].as_str().unwrap()).unwrap();
            self.queue.push(Message { kind, job, parked_reason: None });
        }
        if !jobs.is_empty() {
            let mark = "UPDATE outbox SET published_at = created_at WHERE published_at IS NULL";
            self.look.execute_unprepared(mark).await.unwrap();
        }
    }

    /// Delivers a message, perhaps to two workers, which perhaps die.
    async fn deliver(&mut self, with_deaths: bool) {
        if self.queue.is_empty() {
            return;
        }
        // Nobody probes here: the worker is started anew.
        if self.worker.breaker.is_open() || self.other_worker.breaker.is_open() {
            self.start_workers(if with_deaths { CALL_TIMEOUT } else { PATIENT_CALL_TIMEOUT });
        }
        let index = self.rng.random_range(0..self.queue.len());
        let message = self.queue.swap_remove(index);
        let over = self.claim_that_is_over(&message).await;
        let asked = over.as_ref().map(|_| self.sim.ledger().requests.len());
        let polls = |rng: &mut StdRng| match with_deaths && rng.random_bool(0.3) {
            true => rng.random_range(1..40),
            false => usize::MAX,
        };
        let (outcome, died) = if self.rng.random_bool(0.15) {
            let (first, second) = (polls(&mut self.rng), polls(&mut self.rng));
            let second_worker = if self.rng.random_bool(0.5) { &self.worker } else { &self.other_worker };
            let (one, other) = tokio::join!(
                handle(&self.worker, message.clone(), first),
                handle(second_worker, message.clone(), second)
            );
            let died = one.is_none() || other.is_none();
            (one.or(other), died)
        } else {
            let polls = polls(&mut self.rng);
            let worker = if self.rng.random_bool(0.5) { &self.worker } else { &self.other_worker };
            let outcome = handle(worker, message.clone(), polls).await;
            let died = outcome.is_none();
            (outcome, died)
        };
        self.since_death = if died { 0 } else { self.since_death + 1 };
        if let (Some(over), Some(asked), true) = (over, asked, self.since_death > 3) {
            self.nothing_was_asked_for(&over, asked);
        }
        match outcome {
            Some(Outcome::Done) => {}
            Some(Outcome::Park { reason }) => {
                self.parked.push(Message { parked_reason: Some(reason), ..message });
            }
            Some(Outcome::Snooze { delay, .. } | Outcome::RetryAfter { delay, .. }) => {
                tokio::time::sleep(delay.min(SETTLING)).await;
                self.queue.push(message);
            }
            // Died, or gave it back: it is delivered again.
            _ => self.queue.push(message),
        }
    }

    /// The claim that the message's call is for, if it takes nothing any more.
    async fn claim_that_is_over(&self, message: &Message) -> Option<String> {
        let of =
            "SELECT c.reference FROM reversals r JOIN claims c ON c.id = r.claim_id WHERE c.status = 'failed' AND r.id";
        let found = rows(&self.look, &format!("{of} = x'{}'", message.job.call_id.simple())).await;
        Some(found.first()?["reference"].as_str()?.to_owned())
    }

    /// Stripe may have done what was asked for before the claim was over; afterwards it is not asked.
    fn nothing_was_asked_for(&self, claim: &str, since: usize) {
        let name = format!("%3A{claim}");
        let ledger = self.sim.ledger();
        let asked =
            ledger.requests[since..].iter().find(|request| request.body.split('&').any(|it| it.ends_with(&name)));
        assert!(asked.is_none(), "seed {}: {claim} was over: {asked:?}", self.seed);
    }

    fn start_workers(&mut self, call_timeout: Duration) {
        self.worker = start_worker(&self.ledger, &self.sim, call_timeout);
        self.other_worker = start_worker(&self.other_worker.ledger, &self.sim, call_timeout);
    }

    async fn calls_have_ended(&self) {
        let ended = |ledger: &stripe_sim::Ledger| {
            ledger.requests.iter().all(|request| request.status.is_some() || request.dropped)
        };
        self.sim.wait_for(ended, DEADLINE).await.unwrap();
    }

    fn settle_pending_at_stripe(&self) {
        for transfer in self.sim.ledger().transfers.values() {
            for reversal in transfer.reversals.iter().filter(|reversal| reversal.status.as_deref() == Some("pending")) {
                self.sim.settle(&reversal.id, "succeeded");
            }
        }
    }
}

async fn connect(url: &str, claims: ClaimPolicy) -> Ledger {
    let grace = Duration::from_millis(1);
    let options =
        LedgerOptions { reversal_grace: grace, creation_grace: grace, max_connections: 4, claims, notifies: false };
    Ledger::connect(url, options).await.unwrap()
}

/// Runs the job until it is done, or has been polled that often: the worker dies at that await. What it has handed to the
/// ledger by then may still be committed, as by a database whose client has died.
async fn handle(worker: &Caller, message: Message, mut polls: usize) -> Option<Outcome> {
    let mut delivery = Delivery::new(Uuid::now_v7().to_string(), "any");
    delivery.parked_reason = message.parked_reason;
    let mut job = pin!(async {
        match message.kind {
            CallKind::Reverse => worker.handle(ReverseTransfer(message.job), delivery).await,
            CallKind::Create => worker.handle(CreateTransfer(message.job), delivery).await,
            CallKind::LookUp => worker.handle(LookUp(message.job), delivery).await,
            CallKind::Notify => worker.handle(Notify(message.job), delivery).await,
        }
    });
    poll_fn(|context| {
        if polls == 0 {
            return Poll::Ready(None);
        }
        polls -= 1;
        job.as_mut().poll(context).map(Some)
    })
    .await
}

fn start_worker(ledger: &Ledger, sim: &Sim, call_timeout: Duration) -> Caller {
    let policy = RetryPolicy::new(Duration::from_millis(1), Duration::from_millis(4), 3);
    let key = secrecy::SecretString::from("sk_test_of_the_seeds");
    let stripe = Client::new(sim.base_url().parse().unwrap(), key, None).unwrap().with_timeout(call_timeout);
    let timing = Timing { balance_deadline: Duration::from_secs(3600), settling: SETTLING, turn: DEADLINE };
    let (limiter, breaker) = (Arc::new(Limiter::new(100_000)), Arc::new(CircuitBreaker::new()));
    let parse = clawback::http::webhooks::stripe::content_of;
    let (transfers, sellers) = (KeyPermits::new(1), KeyPermits::new(8));
    Caller {
        ledger: ledger.clone(),
        stripe,
        limiter,
        breaker,
        transfers,
        sellers,
        policy,
        timing,
        parse,
        notifier: None,
    }
}
