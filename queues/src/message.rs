//! A message to publish, as plain data.

use crate::{Job, PublishError, Topology, publisher::Outgoing, topology::Address};
use std::{collections::BTreeMap, time::Duration};

/// One message: its destination, kind and content.
///
/// Every field except the payload, the trace context and the values of headers must fit in 255 bytes (an AMQP limit).
///
/// It may be stored, as an outbox does. What this version stores, a later one reads. Take the `payload` out before, and store
/// it as bytes: in JSON it is an array of numbers, up to four times as large.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Message {
    /// The job's identity: the `message_id` property. Errors name it.
    pub id: String,
    /// The job's kind: the `type` property.
    pub kind: String,
    /// The exchange. It must exist.
    pub exchange: String,
    /// The routing key: the work queue's name, unless it is delayed.
    pub routing_key: String,
    /// Not public: the routing depends on it.
    pub(crate) key: Option<String>,
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
    /// Further headers: names must not begin with `x-`, nor be `CC`, `BCC` or one of the library's own; all headers together must
    /// fit in a frame (128 KiB by default). Retries keep them.
    pub headers: BTreeMap<String, String>,
    /// The requested delay.
    pub(crate) delay: Option<Duration>,
    /// The longest delay of a topology without long ones.
    pub(crate) longest_delay: Option<Duration>,
    /// How long it can wait without meeting a worker.
    pub(crate) longest_wait: Duration,
}

impl Message {
    /// A message to the topology's work queue, with any payload.
    #[must_use]
    pub fn new(topology: &Topology, kind: impl Into<String>, id: impl Into<String>, payload: Vec<u8>) -> Self {
        let id = id.into();
        Self {
            kind: kind.into(),
            exchange: topology.exchange().to_owned(),
            routing_key: topology.work_queue_of(&id),
            id,
            payload,
            key: None,
            attempt: 1,
            correlation_id: None,
            traceparent: None,
            high_priority: false,
            headers: BTreeMap::new(),
            delay: None,
            longest_delay: None,
            longest_wait: topology.longest_wait(),
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

    /// Sets the attempt number of its first delivery: 1 unless set; 0 counts as 1.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Says what the job is about: a customer, an account, an order. With a [partitioned](Topology::partitioned) topology the
    /// jobs of one key run in the order of their publishing, and a worker may [limit](crate::Worker::limit_per_key) each key. A
    /// job without a key has no order, and no limit. With a key of more than 255 bytes publishing fails with
    /// [`PublishError::Invalid`](crate::PublishError::Invalid).
    #[must_use]
    pub fn with_key(mut self, topology: &Topology, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self.route(topology);
        self
    }

    /// Delays its first delivery by `delay`: a declared one exactly; with [long
    /// delays](Topology::with_long_delays) any, rounded up to seconds; otherwise rounded up to a declared one, see
    /// [`Topology::delay_for`], and publishing it with a longer one fails with
    /// [`PublishError::Invalid`](crate::PublishError::Invalid). It waits in queues. A published message cannot be called
    /// back: let the handler find that there is nothing left to do.
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
        self.delay = Some(delay);
        self.route(topology);
        self
    }

    /// What the job is about: see [`with_key`](Self::with_key).
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    fn route(&mut self, topology: &Topology) {
        let work_queue = topology.work_queue_of(self.key.as_deref().unwrap_or(&self.id));
        let Some(delay) = self.delay else {
            self.routing_key = work_queue;
            return;
        };
        let Address { exchange, routing_key } = topology.delayed(delay, &work_queue);
        (self.exchange, self.routing_key) = (exchange, routing_key);
        self.longest_delay = (!topology.has_long_delays()).then(|| topology.longest_delay());
    }

    /// Lets it overtake others in the work queue, also after a retry, and also others of its own key. RabbitMQ 4.0 to 4.2
    /// deliver two messages of high priority for one of normal priority; 4.3 delivers those of high priority first, as long
    /// as there are any; RabbitMQ 3 ignores it.
    #[must_use]
    pub fn with_high_priority(mut self) -> Self {
        self.high_priority = true;
        self
    }

    /// Adds a header, which [`Delivery::headers`](crate::Delivery::headers) shows to the handler; a second one of a name replaces
    /// the first. With a reserved name (see the field `headers`) publishing fails with
    /// [`PublishError::Invalid`](crate::PublishError::Invalid).
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.insert(name.into(), value.into());
        self
    }

    /// Sets the correlation id. With more than 255 bytes publishing fails with
    /// [`PublishError::Invalid`](crate::PublishError::Invalid).
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_outbox_has_stored_is_read_by_every_later_version() {
        let topology = Topology::new("jobs", "q", [Duration::from_secs(60)]).unwrap().partitioned(2).unwrap();
        let message = Message::new(&topology, "count", "job-1", b"7".to_vec())
            .with_key(&topology, "seller-17")
            .with_delay(&topology, Duration::from_millis(1500))
            .with_attempt(2)
            .with_correlation_id("order-7")
            .with_traceparent("00-1-2-01")
            .with_high_priority()
            .with_header("tenant", "blue");
        // As 0.1.0 stores it. What is added later needs a default.
        let stored = json!({
            "id": "job-1", "kind": "count", "exchange": "q.retry.1m", "routing_key": "q.p1", "key": "seller-17",
            "payload": [55], "attempt": 2, "correlation_id": "order-7", "traceparent": "00-1-2-01", "high_priority": true,
            "headers": { "tenant": "blue" }, "delay": { "secs": 1, "nanos": 500_000_000 },
            "longest_delay": { "secs": 60, "nanos": 0 }, "longest_wait": { "secs": 60, "nanos": 0 },
        });
        assert_eq!(serde_json::to_value(&message).unwrap(), stored);
        assert_eq!(serde_json::from_value::<Message>(stored).unwrap(), message);
        assert_eq!(message.key(), Some("seller-17"));
    }
}
