//! A message to be published, as plain data. Built by users; the publisher turns it into AMQP.

use crate::{Job, Topology};

/// One message: where it goes, what it is and what it carries.
///
/// Everything but the payload and the trace context must fit in 255 bytes each, which AMQP demands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The job's identity: the `message_id` property. Errors name it.
    pub id: String,
    /// The job's kind: the `type` property.
    pub kind: String,
    /// The exchange, which must exist: a missing one costs the connection's other messages their confirms too.
    pub exchange: String,
    /// The routing key: the work queue's name.
    pub routing_key: String,
    /// The body; JSON for a [`Job`].
    pub payload: Vec<u8>,
    /// Which attempt its first delivery is: 1, unless the publisher continues a count.
    pub attempt: u32,
    /// What this job belongs to: the `correlation_id` property.
    pub correlation_id: Option<String>,
    /// W3C trace context: the header `traceparent`.
    pub traceparent: Option<String>,
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
        }
    }

    /// A job's message to the topology's work queue.
    ///
    /// # Errors
    /// When the job's `Serialize` fails (a map whose keys are no strings, for one).
    pub fn job<J: Job>(topology: &Topology, id: impl Into<String>, job: &J) -> Result<Self, serde_json::Error> {
        Ok(Self::new(topology, J::KIND, id, serde_json::to_vec(job)?))
    }

    /// Sets the attempt that its first delivery is.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets what this job belongs to.
    #[must_use]
    pub fn with_correlation_id(mut self, correlation_id: impl Into<String>) -> Self {
        self.correlation_id = Some(correlation_id.into());
        self
    }

    /// Sets the W3C trace context, which then travels through every retry.
    #[must_use]
    pub fn with_traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }
}
