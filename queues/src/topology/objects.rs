//! What a topology consists of on the broker: queues, exchanges and bindings, as values.

use super::Topology;
use std::{collections::BTreeMap, fmt, time::Duration};

/// So large that looking at a parked message in the management UI, which counts as a delivery, never drops it. (A negative
/// number, RabbitMQ 4's "unlimited", means 0 on RabbitMQ 3.)
const PARKED_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// A durable queue's specification. What correctness rests on is an argument; what an operator may tune belongs in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// Its `x-` arguments.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Argument {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Flag(bool),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

/// Where a queue's expired or undeliverable messages go.
pub(super) enum DeadLetters<'a> {
    /// Into this queue.
    To(&'a str),
    /// Through this exchange, by the routing key with which they were published.
    Through(&'a str),
}

impl QueueSpec {
    /// No TTL and no dead-letter target: parked jobs stay until a person decides.
    pub(super) fn parked(name: String) -> Self {
        Self::quorum(name).with("x-delivery-limit", Argument::Integer(PARKED_DELIVERY_LIMIT))
    }

    pub(super) fn work(name: String, parked: &str) -> Self {
        let limit = i64::from(Topology::DELIVERY_LIMIT);
        Self::quorum(name).dead_lettering(&DeadLetters::To(parked)).with("x-delivery-limit", Argument::Integer(limit))
    }

    /// One consumer at a time: with several, jobs of one key would be handed to two workers.
    pub(super) fn partition(name: String, parked: &str) -> Self {
        Self::work(name, parked).with("x-single-active-consumer", Argument::Flag(true))
    }

    /// No `x-expires`: it would delete the queue together with the messages in it.
    pub(super) fn waiting(name: String, delay: Duration, then: &DeadLetters<'_>) -> Self {
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self::quorum(name).dead_lettering(then).with("x-message-ttl", Argument::Integer(milliseconds))
    }

    pub(super) fn quorum(name: String) -> Self {
        Self { name, arguments: BTreeMap::new() }.with_text("x-queue-type", "quorum")
    }

    /// At least once. Without `reject-publish` a quorum queue silently falls back to at most once.
    fn dead_lettering(self, letters: &DeadLetters<'_>) -> Self {
        let queue = match *letters {
            DeadLetters::To(queue) => {
                self.with_text("x-dead-letter-exchange", "").with_text("x-dead-letter-routing-key", queue)
            }
            DeadLetters::Through(exchange) => self.with_text("x-dead-letter-exchange", exchange),
        };
        queue.with_text("x-dead-letter-strategy", "at-least-once").with_text("x-overflow", "reject-publish")
    }

    fn with_text(self, name: &'static str, value: &str) -> Self {
        self.with(name, Argument::Text(value.to_owned()))
    }

    fn with(mut self, name: &'static str, value: Argument) -> Self {
        self.arguments.insert(name, value);
        self
    }
}

/// A durable exchange's specification.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeSpec {
    /// Its name.
    pub name: String,
    /// Its type: `direct`, `fanout` or `topic`.
    pub kind: &'static str,
}

impl ExchangeSpec {
    pub(super) fn new(name: String, kind: &'static str) -> Self {
        Self { name, kind }
    }
}

/// Which messages of an exchange go on to a queue or to another exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Binding {
    /// The exchange.
    pub source: String,
    /// The queue or the exchange that gets the messages.
    pub destination: String,
    /// Whether the destination is a queue.
    pub to_queue: bool,
    /// The routing key, or a topic exchange's pattern.
    pub routing_key: String,
}

impl Binding {
    pub(super) fn to_queue(source: &str, queue: &str, routing_key: impl Into<String>) -> Self {
        let (source, destination) = (source.to_owned(), queue.to_owned());
        Self { source, destination, to_queue: true, routing_key: routing_key.into() }
    }

    pub(super) fn to_exchange(source: &str, exchange: &str, routing_key: impl Into<String>) -> Self {
        Self { to_queue: false, ..Self::to_queue(source, exchange, routing_key) }
    }
}

/// Where a message is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
}

impl Address {
    /// Straight into a queue, through the default exchange.
    pub(crate) fn queue(name: String) -> Self {
        Self { exchange: String::new(), routing_key: name }
    }
}
