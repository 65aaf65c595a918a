//! Why a worker ends by itself.

use crate::BrokerError;
use std::time::Duration;

/// Why a worker cannot run. A lost connection is no reason: the worker reconnects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// Without a handler every message would be parked as unknown.
    #[error("the worker for queue {queue:?} has no handler: register one before running it")]
    #[non_exhaustive]
    NoHandler {
        /// The work queue.
        queue: String,
    },
    /// Two handlers were registered for one kind.
    #[error("two handlers are registered for the job kind {kind:?}: a kind has one")]
    #[non_exhaustive]
    DuplicateKind {
        /// The kind.
        kind: &'static str,
    },
    /// A batch could never become full.
    #[error(
        "the batch size of kind {kind:?} must be at most the worker's concurrency and prefetch, {at_once} (got {size})"
    )]
    #[non_exhaustive]
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
    #[non_exhaustive]
    Refused {
        /// The broker's reply.
        reason: String,
    },
    /// A retry policy has delays without a retry queue.
    #[error(
        "the topology of queue {queue:?} must declare every delay of the worker's retry policies: the policy needs \
         {policy:?}, the topology declares {declared:?}"
    )]
    #[non_exhaustive]
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
    #[non_exhaustive]
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
