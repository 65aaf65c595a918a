//! Why a worker cannot run. A lost connection is no such reason: the worker gets a new one.

use crate::BrokerError;

/// A worker that ended, or did not begin, although nobody asked it to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// No handler was registered, so every message would be parked as unknown.
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
    /// The broker has a queue or an exchange of that name which is declared otherwise: no retry heals that.
    #[error(transparent)]
    Topology(BrokerError),
}
