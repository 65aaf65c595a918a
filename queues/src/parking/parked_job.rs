//! A parked job, as people look at it. Made from a message; it holds none.

use crate::headers;
use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use std::collections::BTreeMap;

/// A job in the parking queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedJob {
    /// The message's id; empty when another program published it without one and the broker parked it.
    pub id: String,
    /// The job's kind: the message's `type` property; empty when it has none.
    pub kind: String,
    /// The last attempt before it was parked: 1 for a job that was parked at its first.
    pub attempts: u32,
    /// Why it was parked; `None` for a message that nobody parked, but published into the parking queue.
    pub reason: Option<String>,
    /// When it was parked (UTC): see [`Delivery::parked_at`](crate::Delivery::parked_at).
    pub parked_at: Option<DateTime<Utc>>,
    /// When the job was first published (UTC).
    pub first_published_at: Option<DateTime<Utc>>,
    /// What the job belongs to, as its publisher said.
    pub correlation_id: Option<String>,
    /// W3C trace context of the publisher.
    pub traceparent: Option<String>,
    /// Every header, as text: also those that other programs, and the broker, have set.
    pub headers: BTreeMap<String, String>,
    /// The body, untouched; JSON for a [`Job`](crate::Job) that could be decoded.
    pub payload: Vec<u8>,
}

impl ParkedJob {
    pub(super) fn new(properties: &BasicProperties, payload: Vec<u8>) -> Self {
        let delivery = headers::delivery(properties, false);
        Self {
            id: headers::message_id(properties).unwrap_or_default(),
            kind: delivery.kind,
            attempts: headers::attempt(properties),
            reason: delivery.parked_reason,
            parked_at: delivery.parked_at,
            first_published_at: headers::first_published_at(properties),
            correlation_id: delivery.correlation_id,
            traceparent: delivery.traceparent,
            headers: headers::as_text(properties),
            payload,
        }
    }
}
