//! Consuming: a worker's configuration and its run. `supervisor` spans all its connections, `session` one connection's
//! life, `job` one job's.

mod admission;
mod consumers;
mod job;
mod key_limit;
mod key_permits;
mod session;
mod settle;
mod supervisor;

#[cfg(feature = "tower")]
use crate::layer::{Attempt, BoxError, HandlerService, Layered};
use crate::{
    Broker, BrokerError, ConnectionState, Delivery, Handler, Job, Outcome, Publisher, RetryPolicy, Topology,
    batch::Batched,
    connection::{Reconnect, Refusals},
    job::{AnyHandler, HandlerOf},
    measure::WorkerMetrics,
};
use admission::{Admission, Rules};
use chrono::{DateTime, Utc};
use job::{Desk, OnParked, OnSettled};
pub use key_limit::KeyLimit;
pub use key_permits::{KeyPermit, KeyPermits};
use settle::Why;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use supervisor::Supervisor;
use tokio::{select, sync::watch, task::JoinSet};
use tracing::warn;

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
    handlers: HashMap<&'static str, Registered>,
    /// A kind with two handlers: reported by `run`, which keeps `register` chainable.
    duplicate: Option<&'static str>,
    state: watch::Sender<ConnectionState>,
    control: WorkerControl,
    on_settled: Option<OnSettled>,
    on_parked: Option<OnParked>,
    clock: fn() -> DateTime<Utc>,
    retry_order: RetryOrder,
    key_limit: Option<KeyLimit>,
}

/// What becomes of the later jobs of a key when one of them is to be tried again, in a
/// [partitioned](Topology::partitioned) topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RetryOrder {
    /// They wait, in this worker, until it is done or parked; jobs of other keys go on. The delays of a retry policy together
    /// must not exceed 15 minutes; a longer [`Snooze`](crate::Outcome::Snooze) ends early, and the handler may
    /// snooze again. Should the worker die, the attempts are counted anew.
    #[default]
    Hold,
    /// They go on. It waits in a retry queue, and comes behind all that were published meanwhile.
    Overtake,
}

struct Registered {
    handler: Arc<dyn AnyHandler>,
    policy: Option<RetryPolicy>,
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
            handlers: HashMap::new(),
            duplicate: None,
            control: WorkerControl::new(state.subscribe()),
            state,
            on_settled: None,
            on_parked: None,
            clock: Utc::now,
            retry_order: RetryOrder::default(),
            key_limit: None,
        }
    }

    /// How many unacknowledged messages the broker may hand over (at least 1; AMQP's 0, "unlimited", counts as 1), of each
    /// partition if there are any. It bounds the concurrency too.
    ///
    /// The broker closes a channel that holds a message for 30 minutes (its consumer timeout). So [`run`](Self::run) takes
    /// only what it can finish in 15 minutes should every job run into the job timeout, and logs a smaller prefetch: 15 for
    /// one job at a time and 60 s each. What can run at once it always takes.
    pub fn prefetch(mut self, prefetch: u16) -> Self {
        self.prefetch = prefetch.max(1);
        self
    }

    /// How many jobs run at a time (at least 1).
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// After how long a job is cut off, which counts as a failure. It ends at an await: a handler that blocks its thread
    /// cannot be cut off.
    pub fn job_timeout(mut self, timeout: Duration) -> Self {
        self.job_timeout = timeout;
        self
    }

    /// How long a stopping worker waits for its running jobs; then it cuts them off, and their messages return to the queue.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets the handler of one kind of job. Several kinds may share the queue.
    pub fn register<J: Job, H: Handler<J>>(self, handler: H) -> Self {
        self.add(J::KIND, Arc::new(HandlerOf::<J, H>::new(handler)), None)
    }

    /// Like [`register`](Self::register), with a retry policy for this kind alone. The topology must declare its delays
    /// too.
    pub fn register_with_policy<J: Job, H: Handler<J>>(self, policy: RetryPolicy, handler: H) -> Self {
        self.add(J::KIND, Arc::new(HandlerOf::<J, H>::new(handler)), Some(policy))
    }

    /// Sets a handler that takes up to `size` jobs at once, or what has come `wait` after the first of them. It returns an
    /// outcome (or a `Result`) for each, in their order, and each job is settled by its own. Each of them counts as a job that
    /// runs: `size` must not exceed the [`concurrency`](Self::concurrency) or the [`prefetch`](Self::prefetch), and the
    /// [`job_timeout`](Self::job_timeout) includes the wait.
    ///
    /// ```no_run
    /// # use queues::*;
    /// # use std::time::Duration;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct IndexPage { url: String }
    /// # impl Job for IndexPage { const KIND: &'static str = "index_page"; }
    /// # async fn insert_all(_: &[String]) -> Result<(), std::io::Error> { Ok(()) }
    /// # fn register(worker: Worker) -> Worker {
    /// worker.concurrency(50).register_batch(50, Duration::from_millis(200), |jobs: Vec<(IndexPage, Delivery)>| async move {
    ///     let urls: Vec<String> = jobs.into_iter().map(|(job, _)| job.url).collect();
    ///     let inserted = insert_all(&urls).await;
    ///     urls.iter().map(|_| inserted.as_ref().copied().map_err(Outcome::retry)).collect::<Vec<_>>()
    /// })
    /// # }
    /// ```
    pub fn register_batch<J, F, Fut, O>(self, size: usize, wait: Duration, handler: F) -> Self
    where
        J: Job,
        F: Fn(Vec<(J, Delivery)>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Vec<O>> + Send,
        O: Into<Outcome> + Send + 'static,
    {
        self.add(J::KIND, Arc::new(Batched::new(size, wait, handler)), None)
    }

    fn add(mut self, kind: &'static str, handler: Arc<dyn AnyHandler>, policy: Option<RetryPolicy>) -> Self {
        if self.handlers.insert(kind, Registered { handler, policy }).is_some() {
            self.duplicate = Some(kind);
        }
        self
    }

    /// Wraps every handler that was registered before with a tower layer; the last layer is the outermost. Feature `tower`.
    ///
    /// A layer sees each attempt before its payload is decoded, within the job's `tracing` span and the
    /// [`job_timeout`](Self::job_timeout). An error of the middleware is [`Outcome::Retry`] with its text. While a layer is not
    /// ready (a concurrency limit), the job waits, and holds its place among those that run at a time.
    ///
    /// ```no_run
    /// # use queues::*;
    /// # use std::time::Duration;
    /// # #[derive(serde::Serialize, serde::Deserialize)] struct SendReceipt;
    /// # impl Job for SendReceipt { const KIND: &'static str = "send_receipt"; }
    /// # fn build(worker: Worker) -> Worker {
    /// worker
    ///     .register(|_: SendReceipt, _: Delivery| async { Outcome::Done })
    ///     .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(5)))
    ///     .layer(tower::limit::GlobalConcurrencyLimitLayer::new(3))
    /// # }
    /// ```
    #[cfg(feature = "tower")]
    pub fn layer<L>(mut self, layer: L) -> Self
    where
        L: tower_layer::Layer<HandlerService>,
        L::Service: tower_service::Service<Attempt, Response: Into<Outcome>, Error: Into<BoxError>, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        for registered in self.handlers.values_mut() {
            let least_concurrency = registered.handler.least_concurrency();
            let service = layer.layer(HandlerService(Arc::clone(&registered.handler)));
            registered.handler = Arc::new(Layered { service, least_concurrency });
        }
        self
    }

    fn policy_of(&self, kind: &str) -> &RetryPolicy {
        self.handlers.get(kind).and_then(|registered| registered.policy.as_ref()).unwrap_or(&self.policy)
    }

    /// What time it is, for when a job is due and when it was parked; this machine's clock unless set. Machines whose clocks
    /// differ need one that they share, like their database's.
    pub fn clock(mut self, clock: fn() -> DateTime<Utc>) -> Self {
        self.clock = clock;
        self
    }

    /// Whether later jobs of a key wait for one that is to be tried again; only with a
    /// [partitioned](Topology::partitioned) topology.
    pub fn retry_order(mut self, order: RetryOrder) -> Self {
        self.retry_order = order;
        self
    }

    /// Limits the jobs of each [key](crate::Message::with_key) in this worker. A job whose turn comes within some seconds
    /// waits for it in the prefetch, as far as half of that allows; otherwise it is snoozed until its turn, without using up an
    /// attempt. Declare short delays, or [long delays](Topology::with_long_delays), for a precise turn. In a partitioned
    /// topology jobs only wait.
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

    /// Called with each job that this worker parks, and the reason, once its copy is confirmed in the parking queue. Must
    /// not block. Jobs parked by the broker are not reported.
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

    /// Works until `shutdown` resolves: declares the topology, consumes, and starts again, with growing delays, whenever the
    /// connection, the channel or the consumer ends.
    ///
    /// Then it takes no more messages, waits for the running jobs (at most the drain timeout), gives the rest back and
    /// closes its connections. Dropping the future loses no message either, but cuts the jobs off.
    ///
    /// # Errors
    /// [`WorkerError`]: a wrong set of handlers or policies, a queue with other arguments, or a broker that keeps refusing
    /// us. Never a lost connection.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkerError> {
        if let Some(kind) = self.duplicate {
            return Err(WorkerError::DuplicateKind { kind });
        }
        if self.handlers.is_empty() {
            return Err(WorkerError::NoHandler { queue: self.topology.queue().to_owned() });
        }
        let at_once = self.concurrency.min(self.prefetch.into());
        for (kind, Registered { handler, .. }) in &self.handlers {
            let size = handler.least_concurrency();
            if size > at_once {
                return Err(WorkerError::BatchTooLarge { kind, size, at_once });
            }
        }
        let policies = self.handlers.values().filter_map(|registered| registered.policy.as_ref()).chain([&self.policy]);
        let policies: Vec<&RetryPolicy> = policies.collect();
        let declared = self.topology.delays();
        let lacks = |policy: &&RetryPolicy| policy.delays().iter().any(|delay| !declared.contains(delay));
        if let Some(policy) = policies.iter().copied().find(lacks) {
            let queue = self.topology.queue().to_owned();
            return Err(WorkerError::MissingDelays { queue, policy: policy.delays(), declared: declared.to_vec() });
        }
        let in_order = self.topology.is_partitioned();
        let waits_too_long = |policy: &&RetryPolicy| !policy.ends_within(supervisor::LONGEST_HOLD);
        if in_order
            && self.retry_order == RetryOrder::Hold
            && let Some(policy) = policies.into_iter().find(waits_too_long)
        {
            let (queue, retries) = (self.topology.queue().to_owned(), policy.max_retries());
            return Err(WorkerError::HeldTooLong { queue, policy: policy.delays(), retries });
        }
        let queues = u16::try_from(self.topology.work_queues().len()).unwrap_or(u16::MAX);
        let all = self.prefetch.saturating_mul(queues);
        let all = supervisor::capped_prefetch(all, self.concurrency, self.job_timeout);
        let prefetch = (all / queues).max(1);
        let admission = (in_order || self.key_limit.is_some()).then(|| {
            let (limit, room) = (self.key_limit.unwrap_or_default(), usize::from(all / 2));
            Admission::new(Rules { in_order, limit, room })
        });
        if prefetch < self.prefetch {
            let (queue, wanted) = (self.topology.queue(), self.prefetch);
            warn!(queue, wanted, prefetch, "smaller prefetch: no message may wait here for more than 15 minutes");
        }
        // Acknowledgements must get through while an alarm blocks publishing: two connections.
        let publisher = Publisher::start(&self.broker);
        let metrics = WorkerMetrics::new(self.topology.queue(), self.handlers.keys().copied());
        let (consuming, drain_timeout) = (watch::Sender::new(ConnectionState::starting()), self.drain_timeout);
        let desk = Arc::new(Desk { worker: self, publisher: publisher.clone(), metrics });
        let (jobs, paused) = (JoinSet::new(), desk.worker.control.subscribe());
        let mut supervisor = Supervisor {
            desk: Arc::clone(&desk),
            prefetch,
            jobs,
            admission,
            state: &consuming,
            paused,
            reconnect: Reconnect::new(),
            refusals: Refusals::default(),
            careful_until: None,
        };
        let working = async {
            let (session, ended) = match supervisor.work(pin!(shutdown)).await {
                Ok(session) => (session, Ok(())),
                Err(error @ BrokerError::Refused { .. }) => {
                    (None, Err(WorkerError::Refused { reason: error.to_string() }))
                }
                Err(error) => (None, Err(WorkerError::Topology(error))),
            };
            supervisor.stop(session, drain_timeout).await;
            ended
        };
        let mut publishing = publisher.state();
        let is_refused = |state: &ConnectionState| matches!(state, ConnectionState::Refused { .. });
        let ended = select! {
            ended = working => ended,
            Ok(state) = publishing.wait_for(is_refused) => match &*state {
                ConnectionState::Refused { error } => Err(WorkerError::Refused { reason: error.clone() }),
                _ => Ok(()),
            },
            never = supervisor::show(&desk.worker.state, consuming.subscribe(), publisher.state()) => match never {},
        };
        publisher.close().await;
        desk.worker.state.send_replace(ConnectionState::Closed);
        ended
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

/// Pauses and resumes one worker. Cheap to clone; harmless once the worker has ended.
///
/// A paused worker stays connected and takes nothing: running jobs continue and are settled, waiting messages are given
/// back at once for other workers. Before RabbitMQ 4.3 that counts as a delivery: a message that meets
/// [`DELIVERY_LIMIT`](crate::Topology::DELIVERY_LIMIT) pauses without being handled is parked by the broker. So pause for
/// minutes, not by the second.
///
/// ```no_run
/// # async fn example(worker: queues::Worker) -> Result<(), queues::WorkerError> {
/// let control = worker.control();
/// tokio::spawn(worker.run(std::future::pending()));
/// control.pause();
/// // …until what the jobs need is back:
/// control.resume();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WorkerControl {
    paused: Arc<watch::Sender<bool>>,
    state: watch::Receiver<ConnectionState>,
    activity: Arc<Activity>,
}

/// What a worker does, for [`WorkerControl::health`].
#[derive(Debug, Default)]
struct Activity {
    running: AtomicUsize,
    /// Milliseconds since 1970; 0 before the first delivery.
    last_delivery_ms: AtomicI64,
}

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerHealth {
    /// As from [`Worker::state`].
    pub connection: ConnectionState,
    /// Whether it is paused.
    pub paused: bool,
    /// Jobs that run or are being settled.
    pub running: usize,
    /// When it last took a message (UTC).
    pub last_delivery_at: Option<DateTime<Utc>>,
}

impl WorkerControl {
    fn new(state: watch::Receiver<ConnectionState>) -> Self {
        Self { paused: Arc::new(watch::Sender::new(false)), state, activity: Arc::default() }
    }

    /// What a health check should know.
    #[must_use]
    pub fn health(&self) -> WorkerHealth {
        let last = self.activity.last_delivery_ms.load(Ordering::Relaxed);
        WorkerHealth {
            connection: self.state.borrow().clone(),
            paused: self.is_paused(),
            running: self.activity.running.load(Ordering::Relaxed),
            last_delivery_at: (last > 0).then(|| DateTime::from_timestamp_millis(last)).flatten(),
        }
    }

    /// Takes no more messages until [`resume`](Self::resume), even after reconnecting. Returns at once; a message that is just
    /// being taken may still be handled.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Takes messages again.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    fn subscribe(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }
}

/// Counts a job as running until it is dropped, even when its task is cut off.
struct Running<'a>(&'a Activity);

impl Activity {
    fn start(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.last_delivery_ms.store(Utc::now().timestamp_millis(), Ordering::Relaxed);
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a worker cannot run. A lost connection is no reason: the worker reconnects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Without a handler every message would be parked as unknown.
    #[error("the worker for queue {queue:?} has no handler: register one before running it")]
    NoHandler {
        /// The work queue.
        queue: String,
    },
    /// Two handlers were registered for one kind.
    #[error("two handlers are registered for the job kind {kind:?}: a kind has one")]
    DuplicateKind {
        /// The kind.
        kind: &'static str,
    },
    /// A batch could never become full.
    #[error(
        "the batch size of kind {kind:?} must be at most the worker's concurrency and prefetch, {at_once} (got {size})"
    )]
    BatchTooLarge {
        /// The kind.
        kind: &'static str,
        /// The size asked for.
        size: usize,
        /// The smaller of concurrency and prefetch.
        at_once: usize,
    },
    /// The broker refused the user, the vhost or a permission for longer than
    /// [`Broker::with_refusal_timeout`](crate::Broker::with_refusal_timeout) allows.
    #[error("the worker gave up: {reason}")]
    Refused {
        /// The broker's reply.
        reason: String,
    },
    /// A retry policy has delays without a retry queue.
    #[error(
        "the topology of queue {queue:?} must declare every delay of the worker's retry policies: the policy needs \
         {policy:?}, the topology declares {declared:?}"
    )]
    MissingDelays {
        /// The work queue.
        queue: String,
        /// The policy's delays.
        policy: Vec<Duration>,
        /// The topology's delays.
        declared: Vec<Duration>,
    },
    /// The retries of a job that holds its key would take longer than a message may be held.
    #[error(
        "the delays of a retry policy must together be at most 15 minutes where retries hold their key (queue {queue:?}: {retries} \
         retries with delays up to {:?}); choose RetryOrder::Overtake for longer ones",
        .policy.last().copied().unwrap_or_default()
    )]
    HeldTooLong {
        /// The work queue.
        queue: String,
        /// The policy's delays.
        policy: Vec<Duration>,
        /// How many retries it allows.
        retries: u32,
    },
    /// A queue or the exchange exists with other arguments: retrying does not help.
    #[error(transparent)]
    Topology(BrokerError),
}
