//! A worker's run: what is refused before it begins, and what spans all its connections.

use super::{
    RetryOrder, Worker, WorkerError,
    admission::{Admission, Rules},
    job::Desk,
    register::Registered,
    supervisor::{self, Supervisor},
};
use crate::{
    BrokerError, ConnectionState, Publisher, RetryPolicy,
    connection::{Reconnect, Refusals},
    measure::WorkerMetrics,
};
use std::{future::Future, pin::pin, sync::Arc, time::Duration};
use tokio::{select, sync::watch, task::JoinSet};
use tracing::warn;

/// RabbitMQ's `consumer_timeout` unless set: it closes the channel of whoever holds a message for longer.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(30 * 60);

impl Worker {
    /// Works until `shutdown` resolves: declares the topology, consumes, and starts again, with growing delays, whenever the
    /// connection, the channel or the consumer ends.
    ///
    /// Then it takes no more messages, waits for the running jobs (at most the drain timeout), gives the rest back and
    /// closes its connections. Dropping the future loses no message either, but cuts the jobs off.
    ///
    /// # Errors
    /// For a wrong set of handlers or policies, before it begins: [`WorkerError::NoHandler`], [`WorkerError::DuplicateKind`],
    /// [`WorkerError::BatchTooLarge`], [`WorkerError::MissingDelays`], [`WorkerError::HeldTooLong`]. For a queue or an exchange
    /// with other arguments: [`WorkerError::Topology`]. For a broker that keeps refusing us: [`WorkerError::Refused`]. Never for
    /// a lost connection.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), WorkerError> {
        self.check()?;
        let queues = u16::try_from(self.topology.work_queues().len()).unwrap_or(u16::MAX);
        let all = self.prefetch.saturating_mul(queues);
        let all = supervisor::capped_prefetch(all, self.concurrency, self.job_timeout);
        let prefetch = (all / queues).max(1);
        let in_order = self.topology.is_partitioned();
        let admission = (in_order || self.key_limit.is_some()).then(|| {
            let (limit, room) = (self.key_limit.unwrap_or_default(), usize::from(all / 2));
            Admission::new(Rules { in_order, limit, room })
        });
        if prefetch < self.prefetch {
            let (queue, wanted) = (self.topology.queue(), self.prefetch);
            warn!(queue, wanted, prefetch, "smaller prefetch: no message may wait here for more than 15 minutes");
        }
        if self.job_timeout > CONSUMER_TIMEOUT {
            let (queue, job_timeout) = (self.topology.queue(), self.job_timeout);
            warn!(
                queue,
                ?job_timeout,
                "a job that runs for longer than RabbitMQ's consumer_timeout, 30 minutes unless set, is delivered again meanwhile"
            );
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

    fn check(&self) -> Result<(), WorkerError> {
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
        let waits_too_long = |policy: &&RetryPolicy| !policy.ends_within(supervisor::LONGEST_HOLD);
        if self.topology.is_partitioned()
            && self.retry_order == RetryOrder::Hold
            && let Some(policy) = policies.into_iter().find(waits_too_long)
        {
            let (queue, retries) = (self.topology.queue().to_owned(), policy.max_retries());
            return Err(WorkerError::HeldTooLong { queue, policy: policy.delays(), retries });
        }
        Ok(())
    }
}
