//! What can go wrong with an outbox.

use queues::PublishError;

/// Why nothing was written, or read. In a transaction of yours: roll it back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutboxError {
    /// The broker could never take the message.
    #[error(transparent)]
    Invalid(PublishError),
    /// The message has no JSON.
    #[error("the message cannot be serialized: {0}")]
    Message(#[from] serde_json::Error),
    /// The database refused.
    #[error("the outbox cannot be used: {0}")]
    Database(#[from] sqlx::Error),
    /// The database refused, by way of sea-orm.
    #[cfg(feature = "sea-orm")]
    #[error("the outbox cannot be used: {0}")]
    SeaOrm(#[from] sea_orm::DbErr),
    /// The database is neither PostgreSQL nor SQLite.
    #[error("the outbox's database must be PostgreSQL or SQLite (got {got})")]
    #[non_exhaustive]
    Backend {
        /// What it is, as sea-orm names it.
        got: String,
    },
    /// The relay's publisher has ended, and with it the relay.
    #[error("the relay's publisher has ended: {reason}")]
    #[non_exhaustive]
    PublisherEnded {
        /// What the broker said, if it refused us.
        reason: String,
    },
    /// Two periodic jobs would share one row.
    #[error("the name of a periodic job must be its own (got {name:?} twice)")]
    #[non_exhaustive]
    DuplicateSchedule {
        /// The name.
        name: String,
    },
    /// The closure that makes a periodic job's message has panicked.
    #[error("the message of the periodic job {name:?} could not be made: its closure panicked")]
    #[non_exhaustive]
    PeriodicMessage {
        /// The periodic job's name.
        name: String,
    },
    /// The time of a periodic job cannot be read.
    #[error("the schedule of {name:?} must be a cron expression (got {expression:?}): {reason}")]
    #[non_exhaustive]
    Schedule {
        /// The periodic job's name.
        name: String,
        /// The expression as given.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
}
