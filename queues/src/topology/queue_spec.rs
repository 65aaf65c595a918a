//! One queue's arguments: the table in the README, as values. Used by the topology, and by whoever compares a broker
//! with it. What correctness rests on stands here; what an operator may tune belongs in a policy.

use crate::Topology;
use std::{collections::BTreeMap, fmt, time::Duration};

/// So large that looking at a parked message in the management UI, which counts as a delivery, never drops it. (A
/// negative number, RabbitMQ 4's "unlimited", means 0 on RabbitMQ 3.)
const PARKED_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// A durable queue as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// The queue's name.
    pub name: String,
    /// Its `x-` arguments.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
        }
    }
}

impl QueueSpec {
    /// No TTL and no dead-letter target: what is parked stays until somebody decides.
    pub(super) fn parked(name: String) -> Self {
        Self::quorum(name).with_integer("x-delivery-limit", PARKED_DELIVERY_LIMIT)
    }

    pub(super) fn work(name: &str, parked: &str) -> Self {
        Self::quorum(name.to_owned())
            .dead_lettering_to(parked)
            .with_integer("x-delivery-limit", i64::from(Topology::DELIVERY_LIMIT))
    }

    /// No `x-expires`: it would delete the queue together with the messages in it.
    pub(super) fn retry(name: String, delay: Duration, work: &str) -> Self {
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self::quorum(name).dead_lettering_to(work).with_integer("x-message-ttl", milliseconds)
    }

    fn quorum(name: String) -> Self {
        Self { name, arguments: BTreeMap::new() }.with_text("x-queue-type", "quorum")
    }

    /// Through the default exchange, at least once. Without `reject-publish` a quorum queue falls back to at most once,
    /// and says nothing.
    fn dead_lettering_to(self, queue: &str) -> Self {
        self.with_text("x-dead-letter-exchange", "")
            .with_text("x-dead-letter-routing-key", queue)
            .with_text("x-dead-letter-strategy", "at-least-once")
            .with_text("x-overflow", "reject-publish")
    }

    fn with_text(mut self, name: &'static str, value: &str) -> Self {
        self.arguments.insert(name, Argument::Text(value.to_owned()));
        self
    }

    fn with_integer(mut self, name: &'static str, value: i64) -> Self {
        self.arguments.insert(name, Argument::Integer(value));
        self
    }
}
