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
    /// The time of a periodic job cannot be read.
    #[error("the schedule of {name:?} must be a cron expression (got {expression:?}): {reason}")]
    Schedule {
        /// The periodic job's name.
        name: String,
        /// The expression as given.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
}
