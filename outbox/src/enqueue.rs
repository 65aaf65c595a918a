//! Writing jobs into the outbox, in the transaction that makes them necessary.

use crate::{
    Connection, OutboxError,
    connection::Value,
    sql::{CANCEL, INSERT, TAKE_KEY},
};
use queues::Message;
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// The outbox: jobs that a [`Relay`](crate::Relay) brings to the broker once their transaction is committed. Clones share
/// their wake-ups.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    pub(crate) committed: Arc<Notify>,
}

/// A message for the outbox, and when it may go.
#[derive(Debug, Clone)]
#[must_use = "it is enqueued by `Outbox::enqueue`"]
pub struct OutboxJob {
    message: Message,
    delay: Duration,
    unique: Option<(String, Duration)>,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enqueued {
    /// It is in the outbox as soon as the transaction is committed.
    Added,
    /// Another job has its key, and the key's period is not over: nothing was written.
    Duplicate,
}

impl OutboxJob {
    /// A job that may go at once.
    pub fn new(message: Message) -> Self {
        Self { message, delay: Duration::ZERO, unique: None }
    }

    /// Keeps it in the database for `delay`, of any length; until then it can be [cancelled](Outbox::cancel).
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Makes it the only job with this key that is enqueued within `period` from now. Exact: two transactions with one key
    /// wait for each other, and if the first is rolled back, the second is added.
    pub fn unique(mut self, key: impl Into<String>, period: Duration) -> Self {
        self.unique = Some((key.into(), period));
        self
    }
}

impl From<Message> for OutboxJob {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

impl Outbox {
    /// An outbox in the tables of [`schema`](crate::schema()). All of a process's parts should share one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a job within your transaction: it goes to the broker if, and only if, that is committed.
    ///
    /// On PostgreSQL the commit wakes every relay. On SQLite call [`wake`](Self::wake) after it, or the relay finds the job at
    /// its next look.
    ///
    /// # Errors
    /// [`OutboxError::Invalid`] for a message that no broker could take; otherwise when the database refuses.
    pub async fn enqueue(
        &self,
        mut connection: impl Connection,
        job: impl Into<OutboxJob>,
    ) -> Result<Enqueued, OutboxError> {
        let OutboxJob { mut message, delay, unique } = job.into();
        message.validate().map_err(OutboxError::Invalid)?;
        if let Some((key, period)) = unique {
            let values = vec![Value::Text(key), Value::Text(message.id.clone()), milliseconds(period)];
            if connection.first(TAKE_KEY, values).await?.is_none() {
                return Ok(Enqueued::Duplicate);
            }
        }
        let payload = std::mem::take(&mut message.payload);
        let envelope = serde_json::to_string(&message)?;
        let Message { id, kind, routing_key, .. } = message;
        let texts = [id, kind, routing_key, envelope].map(Value::Text);
        let values = texts.into_iter().chain([Value::Bytes(payload), milliseconds(delay)]).collect();
        connection.first(INSERT, values).await?;
        metrics::counter!("outbox_jobs_enqueued_total").increment(1);
        Ok(Enqueued::Added)
    }

    /// Takes a job back that no relay has touched, by its message's id; `false` if there is none, or it is too late. Its key
    /// stays taken.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn cancel(&self, mut connection: impl Connection, message_id: &str) -> Result<bool, OutboxError> {
        Ok(connection.first(CANCEL, vec![Value::Text(message_id.to_owned())]).await?.is_some())
    }

    /// Has this process's relay look now.
    pub fn wake(&self) {
        self.committed.notify_one();
    }
}

fn milliseconds(duration: Duration) -> Value {
    /// Some thousand years: sums with the time of day still fit.
    const LONGEST: i64 = 1 << 45;
    Value::Integer(i64::try_from(duration.as_millis()).unwrap_or(LONGEST).min(LONGEST))
}
