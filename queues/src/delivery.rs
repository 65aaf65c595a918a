//! What a handler may know about the message that its job came in. Built by the worker from a message's properties.

use chrono::{DateTime, Utc};

/// A job's message, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The message's id: the job's identity. Deliveries of one job share it, duplicates included. A message that another program
    /// has published without one gets another id with each delivery.
    pub message_id: String,
    /// The job's kind: the message's `type` property.
    pub kind: String,
    /// Which attempt this is: 1 is the first. Starts again at 1 after the parking queue.
    pub attempt: u32,
    /// Why the message was parked, when it has been in the parking queue and has come back: by a replay, or by "Move
    /// messages" in RabbitMQ's management UI. It stays through the retries that follow.
    pub parked_reason: Option<String>,
    /// When it was parked (UTC), if the message says so: the worker's clock, or the broker's in whole seconds. It tells
    /// a parking that came after a failure from one before it. (RabbitMQ 3 keeps the time of the first parking when it
    /// has parked a message twice and the message was moved by hand in between.)
    pub parked_at: Option<DateTime<Utc>>,
    /// What this job belongs to, as its publisher said.
    pub correlation_id: Option<String>,
    /// W3C trace context of the publisher.
    pub traceparent: Option<String>,
    /// Whether the broker has delivered this message before, without an acknowledgement.
    pub redelivered: bool,
}

impl Delivery {
    /// A first delivery, as a handler's own tests need it.
    #[must_use]
    pub fn new(message_id: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            message_id: message_id.into(),
            kind: kind.into(),
            attempt: 1,
            parked_reason: None,
            parked_at: None,
            correlation_id: None,
            traceparent: None,
            redelivered: false,
        }
    }
}
