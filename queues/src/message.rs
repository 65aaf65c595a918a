//! A message to publish, as plain data.

use crate::{Job, PublishError, Topology, publisher::Outgoing};
use std::{collections::BTreeMap, time::Duration};

/// One message: its destination, kind and content.
///
/// Every field except the payload and the trace context must fit in 255 bytes (an AMQP limit).
///
/// It may be stored, as an outbox does. What this version stores, a later one reads.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// The job's identity: the `message_id` property. Errors name it.
    pub id: String,
    /// The job's kind: the `type` property.
    pub kind: String,
    /// The exchange. It must exist.
    pub exchange: String,
    /// The routing key: the work queue's name.
    pub routing_key: String,
    /// The body; JSON for a [`Job`].
    pub payload: Vec<u8>,
    /// The attempt number of its first delivery: 1, unless the publisher continues a count.
    pub attempt: u32,
    /// What this job belongs to: the `correlation_id` property.
    pub correlation_id: Option<String>,
    /// W3C trace context: the header `traceparent`.
    pub traceparent: Option<String>,
    /// Whether it overtakes others: see [`with_high_priority`](Self::with_high_priority).
    pub high_priority: bool,
    /// Further headers: names must not begin with `x-` or be one of the library's own; all headers together must fit in a
    /// frame (128 KiB by default). Retries keep them.
    pub headers: BTreeMap<String, String>,
    /// A requested delay that exceeds the longest retry queue's.
    pub(crate) excessive_delay: Option<(Duration, Duration)>,
}

impl Message {
    /// A message to the topology's work queue, with any payload.
    #[must_use]
    pub fn new(topology: &Topology, kind: impl Into<String>, id: impl Into<String>, payload: Vec<u8>) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            exchange: topology.exchange().to_owned(),
            routing_key: topology.queue().to_owned(),
            payload,
            attempt: 1,
            correlation_id: None,
            traceparent: None,
            high_priority: false,
            headers: BTreeMap::new(),
            excessive_delay: None,
        }
    }

    /// A job's message to the topology's work queue.
    ///
    /// # Errors
    /// When the job's `Serialize` fails (for example on a map whose keys are not strings).
    pub fn job<J: Job>(topology: &Topology, id: impl Into<String>, job: &J) -> Result<Self, serde_json::Error> {
        Ok(Self::new(topology, J::KIND, id, serde_json::to_vec(job)?))
    }

    /// Whether AMQP, and RabbitMQ with its defaults, can carry it: what [`Publisher::publish`](crate::Publisher::publish)
    /// would refuse.
    ///
    /// # Errors
    /// [`PublishError::Invalid`](crate::PublishError::Invalid), with the field and what is allowed.
    pub fn validate(&self) -> Result<(), PublishError> {
        Outgoing::check(self.clone())
    }

    /// Sets the attempt number of its first delivery.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Delays its first delivery by `delay`, rounded up to a declared one: see [`Topology::delay_for`]. It waits in the retry
    /// queue of that delay. Publishing a message with a longer delay fails with
    /// [`PublishError::Invalid`](crate::PublishError::Invalid).
    ///
    /// ```
    /// # use queues::{Message, Topology};
    /// # use std::time::Duration;
    /// let topology = Topology::new("shop.jobs", "receipts", [60, 3600].map(Duration::from_secs))?;
    /// let message = Message::new(&topology, "send_receipt", "receipt-4711", Vec::new());
    /// let message = message.with_delay(&topology, Duration::from_secs(90));
    /// assert_eq!((message.exchange.as_str(), message.routing_key.as_str()), ("", "receipts.retry.1h"));
    /// # Ok::<(), queues::TopologyError>(())
    /// ```
    #[must_use]
    pub fn with_delay(mut self, topology: &Topology, delay: Duration) -> Self {
        let longest = topology.longest_delay();
        self.excessive_delay = (delay > longest).then_some((delay, longest));
        self.exchange = String::new();
        self.routing_key = topology.retry_queue(topology.delay_for(delay));
        self
    }

    /// Lets it overtake others in the work queue, also after a retry. From RabbitMQ 4.0 on a quorum queue has two
    /// priorities and delivers two messages of high priority for one of normal priority. RabbitMQ 3 ignores it.
    #[must_use]
    pub fn with_high_priority(mut self) -> Self {
        self.high_priority = true;
        self
    }

    /// Adds a header, which [`Delivery::headers`](crate::Delivery::headers) shows to the handler.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets the correlation id.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: impl Into<String>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }

    /// Sets the W3C trace context, which travels through every retry. A value of more than 255 bytes is invalid (they
    /// have 55) and is omitted.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}
