//! Why the parking queue could not be worked on. Every text says what is left to do.

use crate::BrokerError;

/// An operation on the parking queue that did not end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParkingError {
    /// The broker cannot be used; nothing was done.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// There is no parking queue; nothing was done.
    #[error("there is no queue {queue:?}: declare the topology, or correct the work queue's name")]
    NoQueue {
        /// The parking queue's name.
        queue: String,
    },
    /// It ended on the way. Every other job is still parked. When a connection was lost, acknowledgements may have been
    /// lost with it: some jobs may then be parked, and replayed too.
    #[error("interrupted after {} jobs: {reason}; the others are still parked: run it again", done.len())]
    Interrupted {
        /// The ids of the jobs that were replayed or discarded.
        done: Vec<String>,
        /// What went wrong.
        reason: String,
    },
    /// A job is discarded for a reason, which is logged; nothing was done.
    #[error("discarding needs a written reason, and this one is empty")]
    NoReason,
}
