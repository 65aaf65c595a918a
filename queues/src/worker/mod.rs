//! Consuming: a worker's configuration and its run. `supervisor` spans all its connections, `session` one connection's
//! life, `job` one job's.

mod admission;
mod consuming;
mod control;
mod error;
mod intake;
mod job;
mod key_limit;
mod key_permits;
mod register;
mod run;
mod session;
mod settle;
mod share;
mod supervisor;

pub use control::{WorkerControl, WorkerHealth};
pub use error::WorkerError;
pub use key_limit::KeyLimit;
pub use key_permits::{KeyPermit, KeyPermits};

use crate::{Broker, ConnectionState, Delivery, RetryPolicy, Topology};
use chrono::{DateTime, Utc};
use job::{OnParked, OnSettled};
use register::Registered;
use settle::Why;
use std::{collections::HashMap, fmt, time::Duration};
use tokio::sync::watch;

/// Takes jobs from a work queue, runs their handlers and settles each message.
///
/// ```no_run
/// # use queues::*;
/// # use std::time::Duration;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct SendReceipt;
/// # impl Job for SendReceipt { const KIND: &'static str = "send_receipt"; }
/// # async fn run(broker: Broker, topology: Topology) -> Result<(), WorkerError> {
/// let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(3600), 5);
/// Worker::new(&broker, topology, policy)
///     .prefetch(100)
///     .concurrency(10)
///     .register(|job: SendReceipt, _delivery: Delivery| async move { Outcome::Done })
///     .run(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
///     .await
/// # }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    broker: Broker,
    topology: Topology,
    policy: RetryPolicy,
    prefetch: u16,
    concurrency: usize,
    job_timeout: Duration,
    drain_timeout: Duration,
    unknown_kind_timeout: Duration,
    handlers: HashMap<&'static str, Registered>,
    /// A kind with two handlers: reported by `run`, which keeps `register` chainable.
    duplicate: Option<&'static str>,
    state: watch::Sender<ConnectionState>,
    control: WorkerControl,
    on_settled: Option<OnSettled>,
    on_parked: Option<OnParked>,
    clock: Box<dyn Fn() -> DateTime<Utc> + Send + Sync>,
    retry_order: RetryOrder,
    key_limit: Option<KeyLimit>,
}

/// What becomes of the later jobs of a key when one of them is to be tried again, in a
/// [partitioned](Topology::partitioned) topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RetryOrder {
    /// They wait, in this worker, until it is done or parked; jobs of other keys go on. The delays of a retry policy together
    /// must not exceed 15 minutes. A longer [`Snooze`](crate::Outcome::Snooze) ends after 15 minutes, and the handler may snooze
    /// again; a longer [`RetryAfter`](crate::Outcome::RetryAfter) ends then, too, and its attempt counts. Should the worker die,
    /// the attempts are counted anew.
    #[default]
    Hold,
    /// They go on. It waits in a retry queue, and comes behind all that were published meanwhile.
    Overtake,
}

impl Worker {
    /// A worker for the topology's work queue: prefetch 100, 10 jobs at a time, 60 s for each, 20 s to drain.
    pub fn new(broker: &Broker, topology: Topology, policy: RetryPolicy) -> Self {
        let state = watch::Sender::new(ConnectionState::starting());
        Self {
            broker: broker.clone(),
            topology,
            policy,
            prefetch: 100,
            concurrency: 10,
            job_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(20),
            unknown_kind_timeout: Duration::from_secs(15 * 60),
            handlers: HashMap::new(),
            duplicate: None,
            control: WorkerControl::new(state.subscribe()),
            state,
            on_settled: None,
            on_parked: None,
            clock: Box::new(Utc::now),
            retry_order: RetryOrder::default(),
            key_limit: None,
        }
    }

    /// How many unacknowledged messages the broker may hand over (100 unless set; AMQP's 0, "unlimited", counts as 1), of each
    /// partition if there are any. It bounds the concurrency too.
    ///
    /// The broker closes a channel that holds a message for 30 minutes (its consumer timeout). So [`run`](Self::run) takes
    /// only what it can finish in 15 minutes should every job run into the job timeout, and logs a smaller prefetch: 15 for
    /// one job at a time and 60 s each. What can run at once it always takes.
    pub fn prefetch(mut self, prefetch: u16) -> Self {
        self.prefetch = prefetch.max(1);
        self
    }

    /// How many jobs run at a time: 10 unless set; 0 counts as 1.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// After how long a job is cut off, which counts as a failure: 60 s unless set. It ends at an await: a handler that blocks
    /// its thread cannot be cut off. RabbitMQ closes the channel of whoever holds a message for longer than its `consumer_timeout`
    /// (30 minutes by default; from 4.3 on it cancels the consumer), so a longer job is delivered again while it still runs.
    pub fn job_timeout(mut self, timeout: Duration) -> Self {
        self.job_timeout = timeout;
        self
    }

    /// How long a stopping worker waits for its running jobs; then it cuts them off, and their messages return to the queue. 20 s
    /// unless set; zero cuts off at once.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// For how long a job of a kind without a handler is returned, with growing delays, before it is parked: 15 minutes unless set.
    /// Zero parks at once. During a rolling deployment another worker may know it. In a
    /// [partitioned](Topology::partitioned) topology a job with a key waits for that in this worker, and its key with it, until
    /// this worker is replaced; whoever gets it then counts the time anew.
    pub fn unknown_kind_timeout(mut self, timeout: Duration) -> Self {
        self.unknown_kind_timeout = timeout;
        self
    }

    /// What time it is, for when a job is due and when it was parked; this machine's clock unless set. Machines whose clocks
    /// differ need one that they share, like their database's. It must not panic.
    pub fn clock(mut self, clock: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    /// Whether later jobs of a key wait for one that is to be tried again; only with a
    /// [partitioned](Topology::partitioned) topology. [`Hold`](RetryOrder::Hold) unless set.
    pub fn retry_order(mut self, order: RetryOrder) -> Self {
        self.retry_order = order;
        self
    }

    /// Limits the jobs of each [key](crate::Message::with_key) in this worker. A job whose turn comes within some seconds
    /// waits for it in the prefetch, as far as half of that allows; otherwise it is snoozed until its turn, without using up an
    /// attempt. Declare short delays, or [long delays](Topology::with_long_delays), for a precise turn. In a partitioned
    /// topology jobs only wait. None unless set.
    pub fn limit_per_key(mut self, limit: KeyLimit) -> Self {
        self.key_limit = Some(limit);
        self
    }

    /// Whether a job that is to be tried again keeps its place.
    fn holds(&self, why: Why, delivery: &Delivery) -> bool {
        self.retry_order == RetryOrder::Hold
            && self.topology.is_partitioned()
            && delivery.key.is_some()
            && matches!(why, Why::Retried | Why::Snoozed)
    }

    /// Called with each job that this worker parks, and the reason, once its copy is confirmed in the parking queue. It must
    /// not block, and must not panic. Jobs parked by the broker are not reported. A second call replaces the first.
    pub fn on_parked(mut self, tell: impl Fn(&Delivery, &str) + Send + Sync + 'static) -> Self {
        self.on_parked = Some(Box::new(tell));
        self
    }

    /// The state of the consuming connection; take it before [`run`](Self::run). It is `Blocked` while that is connected and
    /// the broker accepts no copies from this worker: jobs to be retried or parked wait for the end of the alarm and keep
    /// their slots. A connection learns of an alarm when it publishes: a worker that retries and parks nothing stays
    /// `Connected` and works on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// Pauses and resumes this worker; take it before [`run`](Self::run).
    #[must_use]
    pub fn control(&self) -> WorkerControl {
        self.control.clone()
    }

    /// Called with the id of each job that is done or parked.
    #[cfg(feature = "testing")]
    pub(crate) fn on_settled(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_settled = Some(Box::new(tell));
        self
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("queue", &self.topology.queue())
            .field("kinds", &self.handlers.keys())
            .field("prefetch", &self.prefetch)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
