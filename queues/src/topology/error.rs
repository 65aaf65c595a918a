//! What is wrong with a topology.

use std::time::Duration;

/// A name or a delay that RabbitMQ would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A name is empty, too long or reserved.
    #[error("the {object} name must have 1 to 255 bytes and not begin with `amq.` (got {name:?})")]
    #[non_exhaustive]
    Name {
        /// `exchange` or `queue`.
        object: &'static str,
        /// The name as given, or as derived from it (`NAME.parked`, `NAME.retry.1m`).
        name: String,
    },
    /// The number of partitions is not possible.
    #[error("partitions must be 1 to 256 (got {partitions})")]
    #[non_exhaustive]
    Partitions {
        /// The number as given.
        partitions: u16,
    },
    /// The work queue's name does not fit into the routing keys of long delays.
    #[error("with long delays a work queue's name must have at most 209 bytes and no word `*` or `#` (got {name:?})")]
    #[non_exhaustive]
    LongDelays {
        /// The name.
        name: String,
    },
    /// Without a delay there is no retry queue.
    #[error("retry delays must have at least one entry (got none)")]
    NoDelays,
    /// A delay is too short, too long, or not in whole milliseconds.
    #[error("a retry delay must be in whole milliseconds, from 1 ms to 49 days (got {delay:?})")]
    #[non_exhaustive]
    Delay {
        /// The delay as given.
        delay: Duration,
    },
}
