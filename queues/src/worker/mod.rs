//! Consuming: how a worker is configured, and what it is made of when it runs. All its connections are `supervisor`, one
//! connection's life is `session`, one job's is `job`.

mod acks;
mod control;
mod error;
mod holding;
mod job;
mod session;
mod settle;
mod settled;
mod shown;
mod supervisor;

pub use {control::WorkerControl, error::WorkerError};

use crate::{
    Broker, ConnectionState, Handler, Job, Publisher, RetryPolicy, Topology,
    handler::{AnyHandler, HandlerOf},
    measure::WorkerMetrics,
    reconnect::Reconnect,
};
use job::{Desk, OnSettled};
use std::{collections::HashMap, fmt, future::Future, pin::pin, sync::Arc, time::Duration};
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
    handlers: HashMap<&'static str, Arc<dyn AnyHandler>>,
    /// Two handlers for one kind: said when the worker is run, so that registering stays a chain.
    duplicate: Option<&'static str>,
    state: watch::Sender<ConnectionState>,
    control: WorkerControl,
    on_settled: Option<OnSettled>,
}

impl Worker {
    /// A worker for the topology's work queue: prefetch 100, 10 jobs at a time, 60 s for each, 20 s to drain.
    pub fn new(broker: &Broker, topology: Topology, policy: RetryPolicy) -> Self {
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
            state: watch::Sender::new(ConnectionState::starting()),
            control: WorkerControl::new(),
            on_settled: None,
        }
    }

    /// How many messages the broker may hand over ahead of their acknowledgement (at least 1; AMQP's 0, "unlimited", is
    /// taken as 1). It bounds the concurrency too.
    ///
    /// Messages that wait here are held, and the broker closes the channel of whoever holds one for 30 minutes (its consumer
    /// timeout). So [`run`](Self::run) takes no more than can be worked off in 15 minutes, should every job run into the job
    /// timeout: with one job at a time and 60 s for each, 15. It says so in the log. What can run at once it always takes.
    pub fn prefetch(mut self, prefetch: u16) -> Self {
        self.prefetch = prefetch.max(1);
        self
    }

    /// How many jobs run at a time (at least 1).
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// After how long a job is cut off, which counts as a failure. It is cut off where it awaits: a handler that blocks
    /// its thread cannot be.
    pub fn job_timeout(mut self, timeout: Duration) -> Self {
        self.job_timeout = timeout;
        self
    }

    /// How long a worker that is asked to stop waits for the jobs that it runs; then it cuts them off, and the broker
    /// hands their messages to others.
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Sets the handler of one kind of job. Several kinds may share the queue.
    pub fn register<J: Job, H: Handler<J>>(mut self, handler: H) -> Self {
        if self.handlers.insert(J::KIND, Arc::new(HandlerOf::<J, H>::new(handler))).is_some() {
            self.duplicate = Some(J::KIND);
        }
        self
    }

    /// The state of the consuming connection, to be read or awaited; take it before [`run`](Self::run). It is `Blocked`
    /// while that is connected and the broker takes no copies from this worker: jobs that are to be retried or parked wait
    /// for the end of the alarm, and keep their places among those that run at a time. The broker tells a connection of an
    /// alarm when it publishes, so that a worker that puts nothing off stays `Connected`, and works on.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.subscribe()
    }

    /// What pauses and resumes this worker; take it before [`run`](Self::run).
    #[must_use]
    pub fn control(&self) -> WorkerControl {
        self.control.clone()
    }

    /// Called with the id of each job that is done or parked: the last that this worker has to do with it.
    #[cfg(feature = "testing")]
    pub(crate) fn on_settled(mut self, tell: impl Fn(&str) + Send + Sync + 'static) -> Self {
        self.on_settled = Some(Box::new(tell));
        self
    }

    /// Works until `shutdown` resolves, through every loss of the connection: declares the topology, consumes, and
    /// starts anew, with growing delays, whenever the connection, the channel or the consumer ends.
    ///
    /// Then it takes no more messages, waits for the running jobs (at most the drain timeout), gives the rest back and
    /// closes its connections. Dropping the future instead loses no message either, but cuts the jobs off.
    ///
    /// # Errors
    /// [`WorkerError`]: a wrong set of handlers, or a queue that is declared otherwise. Never a lost connection.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkerError> {
        if let Some(kind) = self.duplicate {
            return Err(WorkerError::DuplicateKind { kind });
        }
        if self.handlers.is_empty() {
            return Err(WorkerError::NoHandler { queue: self.topology.queue().to_owned() });
        }
        let Self {
            broker,
            topology,
            policy,
            prefetch,
            concurrency,
            job_timeout,
            drain_timeout,
            handlers,
            state,
            control,
            on_settled,
            ..
        } = self;
        let wanted = prefetch;
        let prefetch = holding::prefetch(wanted, concurrency, job_timeout);
        if prefetch < wanted {
            let queue = topology.queue();
            warn!(
                queue,
                wanted,
                prefetch,
                concurrency,
                ?job_timeout,
                "took a smaller prefetch: the last of the wanted would have to be held for more than 15 minutes"
            );
        }
        // Acknowledgements must get through while an alarm blocks publishing, so each has a connection of its own.
        let publisher = Publisher::start(&broker);
        let metrics = WorkerMetrics::new(topology.queue(), handlers.keys().copied());
        let publishing = publisher.clone();
        let desk = Desk { broker, topology, policy, job_timeout, handlers, publisher: publishing, metrics, on_settled };
        let consuming = watch::Sender::new(ConnectionState::starting());
        let mut supervisor = Supervisor {
            desk: Arc::new(desk),
            prefetch,
            concurrency,
            jobs: JoinSet::new(),
            state: &consuming,
            paused: control.subscribe(),
            reconnect: Reconnect::new(),
        };
        let working = async {
            match supervisor.work(pin!(shutdown)).await {
                Ok(session) => {
                    supervisor.stop(session, drain_timeout).await;
                    Ok(())
                }
                Err(error) => {
                    supervisor.stop(None, drain_timeout).await;
                    Err(WorkerError::Topology(error))
                }
            }
        };
        let ended = select! {
            ended = working => ended,
            never = shown::show(&state, consuming.subscribe(), publisher.state()) => match never {},
        };
        publisher.close().await;
        state.send_replace(ConnectionState::Closed);
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
