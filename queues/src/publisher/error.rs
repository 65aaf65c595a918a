//! Why a message is not known to be safe. Every variant names the message.

/// A message that the broker has not confirmed. Unless it says otherwise the message may have arrived all the same:
/// publish it again, and let the handler cope with a duplicate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The message cannot be put into AMQP; it was not sent.
    #[error("message {id:?} cannot be published: {problem}")]
    Invalid {
        /// The message's id.
        id: String,
        /// Which field is wrong, and what is allowed.
        problem: String,
    },
    /// There was no connection within the time allowed, or the publisher is closed; it was not sent.
    #[error("message {id:?} was not published: no connection to the broker: {reason}")]
    NotConnected {
        /// The message's id.
        id: String,
        /// Why there is none.
        reason: String,
    },
    /// No queue took it: the exchange has no binding for its routing key, or the queue is missing. It is not stored.
    #[error("message {id:?} was returned by the broker ({reply}): no queue takes it; declare the topology")]
    Returned {
        /// The message's id.
        id: String,
        /// The broker's reply.
        reply: String,
    },
    /// The broker could not store it.
    #[error("message {id:?} was refused by the broker (nack): its queue is full or unavailable")]
    Nacked {
        /// The message's id.
        id: String,
    },
    /// No confirm came in time: the broker is slow, or it blocks publishers because of an alarm.
    #[error("message {id:?} was not confirmed in time; it may have arrived")]
    TimedOut {
        /// The message's id.
        id: String,
    },
    /// The connection ended before the confirm came.
    #[error("message {id:?} was not confirmed before the connection was lost: {reason}; it may have arrived")]
    ConnectionLost {
        /// The message's id.
        id: String,
        /// Why the connection ended.
        reason: String,
    },
}

impl PublishError {
    /// The id of the message that this is about.
    #[must_use]
    pub fn message_id(&self) -> &str {
        match self {
            Self::Invalid { id, .. }
            | Self::NotConnected { id, .. }
            | Self::Returned { id, .. }
            | Self::Nacked { id }
            | Self::TimedOut { id }
            | Self::ConnectionLost { id, .. } => id,
        }
    }
}
