//! What users implement and see of a job: its kind, its handler, its delivery and its outcome.

use chrono::{DateTime, Utc};
use futures_util::{FutureExt, future::BoxFuture};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fmt::Display,
    future::{Future, ready},
    marker::PhantomData,
    time::Duration,
};

/// One kind of work: a payload that survives a journey through the broker.
///
/// The payload is JSON in the message's body; [`KIND`](Self::KIND) is the message's `type` property.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct SendReceipt {
///     order: String,
/// }
///
/// impl queues::Job for SendReceipt {
///     const KIND: &'static str = "send_receipt";
/// }
/// ```
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind's stable name. Messages in the queues carry it, so it must survive every rename of the Rust type. With more than
    /// 255 bytes no job can be published: [`PublishError::Invalid`](crate::PublishError::Invalid).
    const KIND: &'static str;
}

/// Does one kind of job. Any `Fn(J, Delivery) -> impl Future<Output: Into<Outcome>>` is a handler; shared state goes into the
/// closure's captures or the type's fields. The output is an [`Outcome`], or a `Result<(), E>` whose error becomes one:
///
/// ```
/// use queues::{Delivery, Job, Outcome};
/// # #[derive(serde::Serialize, serde::Deserialize)] struct SendReceipt { order: String }
/// # impl Job for SendReceipt { const KIND: &'static str = "send_receipt"; }
///
/// enum PrintError {
///     NoPaper,
///     NoSuchOrder(String),
/// }
///
/// impl From<PrintError> for Outcome {
///     fn from(error: PrintError) -> Self {
///         match error {
///             PrintError::NoPaper => Self::retry("the printer has no paper"),
///             PrintError::NoSuchOrder(order) => Self::park(format!("there is no order {order}")),
///         }
///     }
/// }
///
/// async fn send_receipt(job: SendReceipt, _: Delivery) -> Result<(), PrintError> {
///     print(&job.order).await
/// }
///
/// // Where every error means the same:
/// async fn send_receipt_soon(job: SendReceipt, _: Delivery) -> Result<(), Outcome> {
///     let text = std::fs::read_to_string(&job.order).map_err(Outcome::retry)?;
///     let _copies: u8 = text.parse().map_err(Outcome::park)?;
///     Ok(())
/// }
/// # async fn print(_: &str) -> Result<(), PrintError> { Err(PrintError::NoPaper) }
/// # fn is_handler<J: Job, H: queues::Handler<J>>(_: H) {}
/// # is_handler::<SendReceipt, _>(send_receipt);
/// # is_handler::<SendReceipt, _>(send_receipt_soon);
/// ```
///
/// A closure with shared state clones it for each attempt, whose future takes the clone:
///
/// ```
/// use queues::{Delivery, Job, Outcome, Worker};
/// use std::sync::Arc;
/// # #[derive(serde::Serialize, serde::Deserialize)] struct SendReceipt { order: String }
/// # impl Job for SendReceipt { const KIND: &'static str = "send_receipt"; }
/// # struct Pool;
/// # impl Pool { async fn mark_sent(&self, _: &str) -> Result<(), std::io::Error> { Ok(()) } }
///
/// fn register(worker: Worker, pool: Arc<Pool>) -> Worker {
///     worker.register(move |job: SendReceipt, _: Delivery| {
///         let pool = Arc::clone(&pool);
///         async move {
///             match pool.mark_sent(&job.order).await {
///                 Ok(()) => Outcome::Done,
///                 Err(error) => Outcome::retry(error),
///             }
///         }
///     })
/// }
/// ```
///
/// Delivery is at least once: a handler must give the same result when it runs twice, even concurrently. Its future is
/// dropped at an `await` when it exceeds the job timeout or the drain timeout.
pub trait Handler<J: Job>: Send + Sync + 'static {
    /// [`Outcome`], or `Result<(), E>` with an error that becomes one.
    type Output: Into<Outcome>;

    /// Does the job and decides the fate of its message. A panic counts as [`Outcome::Retry`] with the panic's text.
    fn handle(&self, job: J, delivery: Delivery) -> impl Future<Output = Self::Output> + Send;
}

impl<J, F, Fut> Handler<J> for F
where
    J: Job,
    F: Fn(J, Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output: Into<Outcome>> + Send,
{
    type Output = Fut::Output;

    fn handle(&self, job: J, delivery: Delivery) -> impl Future<Output = Self::Output> + Send {
        self(job, delivery)
    }
}

/// A handler whose job type is erased.
pub(crate) trait AnyHandler: Send + Sync {
    /// Decodes the payload and starts the job.
    fn start<'a>(&'a self, payload: &[u8], delivery: Delivery) -> BoxFuture<'a, Outcome>;

    /// How many jobs must be able to run at a time.
    fn least_concurrency(&self) -> usize {
        1
    }
}

/// Keeps the job type beside the handler: one type may handle several kinds.
pub(crate) struct HandlerOf<J, H>(H, PhantomData<fn(J)>);

impl<J, H> HandlerOf<J, H> {
    pub(crate) fn new(handler: H) -> Self {
        Self(handler, PhantomData)
    }
}

impl<J: Job, H: Handler<J>> AnyHandler for HandlerOf<J, H> {
    fn start<'a>(&'a self, payload: &[u8], delivery: Delivery) -> BoxFuture<'a, Outcome> {
        match decode(payload) {
            Ok(job) => Box::pin(self.0.handle(job, delivery).map(Into::into)),
            Err(outcome) => Box::pin(ready(outcome)),
        }
    }
}

/// # Errors
/// Parks the job. serde's own text would quote the body.
pub(crate) fn decode<J: Job>(payload: &[u8]) -> Result<J, Outcome> {
    serde_json::from_slice(payload).map_err(|error| {
        let (category, line, column) = (error.classify(), error.line(), error.column());
        Outcome::park(format!("undecodable payload: {category:?} error at line {line} column {column}"))
    })
}

/// A job's message as its handler sees it, without the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivery {
    /// The message's id: the job's identity, the same in every delivery, duplicates included. A foreign message without
    /// an id gets a new one with each delivery.
    pub message_id: String,
    /// The job's kind: the message's `type` property.
    pub kind: String,
    /// What the job is about: see [`Message::with_key`](crate::Message::with_key).
    pub key: Option<String>,
    /// The attempt's number: 1 is the first. Starts again at 1 after the parking queue.
    pub attempt: u32,
    /// Why the message was parked, once it has returned from the parking queue: by a replay, or by "Move messages" in
    /// RabbitMQ's management UI. Later retries keep it.
    pub parked_reason: Option<String>,
    /// When it was parked (UTC), if known: by the worker's clock (see [`Worker::clock`](crate::Worker::clock)), or the broker's in whole seconds. It tells a parking after
    /// a failure from one before it. (RabbitMQ 3 keeps the time of the first parking when it parked a message twice and
    /// the message was moved by hand in between.)
    pub parked_at: Option<DateTime<Utc>>,
    /// The publisher's correlation id.
    pub correlation_id: Option<String>,
    /// The publisher's W3C trace context.
    pub traceparent: Option<String>,
    /// Whether the broker delivered this message before without receiving an acknowledgement.
    pub redelivered: bool,
    /// How many attempts the worker's policy allows for this kind; `None` outside of a worker.
    pub max_attempts: Option<u32>,
    /// When the job was first published (UTC): by the publisher's clock; in whole seconds for foreign messages.
    pub first_published_at: Option<DateTime<Utc>>,
    /// The publisher's own headers as text, without the library's and the broker's (`x-…`).
    pub headers: BTreeMap<String, String>,
}

impl Delivery {
    /// A first delivery, for tests of handlers.
    #[must_use]
    pub fn new(message_id: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            message_id: message_id.into(),
            kind: kind.into(),
            key: None,
            attempt: 1,
            parked_reason: None,
            parked_at: None,
            correlation_id: None,
            traceparent: None,
            redelivered: false,
            max_attempts: None,
            first_published_at: None,
            headers: BTreeMap::new(),
        }
    }

    /// How long ago the job was first published; zero if the publisher's clock is ahead.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        Some((Utc::now() - self.first_published_at?).to_std().unwrap_or_default())
    }
}

/// How a job ended; decides the fate of its message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The work is done, or nothing is left to do: the message is acknowledged.
    Done,
    /// It failed and may succeed later. The attempt counts; the worker's [`RetryPolicy`](crate::RetryPolicy) chooses the
    /// delay, or parks the job as exhausted.
    Retry {
        /// Why it failed; kept in the header `last-error`, truncated when long.
        reason: String,
    },
    /// It failed, and the handler, which keeps its own count, chose the time of the next attempt. The attempt counts in
    /// the header; the policy is not asked.
    ///
    /// In a [partitioned](crate::Topology::partitioned) topology with [`RetryOrder::Hold`](crate::RetryOrder::Hold) a job with a
    /// key waits for at most 15 minutes: the next attempt comes then, however long the delay, and counts.
    RetryAfter {
        /// The delay: a declared one exactly; with [long delays](crate::Topology::with_long_delays) rounded up to seconds,
        /// otherwise to a declared one. A longer one passes through the longest retry queue until it is over.
        delay: Duration,
        /// Why it failed; kept in the header `last-error`, truncated when long.
        reason: String,
    },
    /// It is too early, or something else is not ready: try later without counting this attempt.
    ///
    /// In a [partitioned](crate::Topology::partitioned) topology with [`RetryOrder::Hold`](crate::RetryOrder::Hold) a job with a
    /// key waits for at most 15 minutes: the handler is asked again then, and may snooze again.
    Snooze {
        /// The delay: a declared one exactly; with [long delays](crate::Topology::with_long_delays) rounded up to seconds,
        /// otherwise to a declared one. A longer one passes through the longest retry queue until it is over.
        delay: Duration,
        /// What the job waits for; kept in the header `last-error`, truncated when long.
        reason: String,
    },
    /// It can never succeed without help: moved to the parking queue for a person.
    Park {
        /// Why; kept in the header `parked-reason`, truncated when long.
        reason: String,
    },
    /// Returned to the queue, for any worker, without counting the attempt: at once the first time, and later through a
    /// retry queue, whose delay grows. After some 20 returns in a row (10 in a partition, where none is at once) the job is
    /// parked. To wait for something, use [`Snooze`](Self::Snooze).
    GiveBack,
}

impl Outcome {
    /// [`Retry`](Self::Retry), for `map_err`.
    #[must_use]
    pub fn retry(reason: impl Display) -> Self {
        Self::Retry { reason: reason.to_string() }
    }

    /// [`Park`](Self::Park), for `map_err`.
    #[must_use]
    pub fn park(reason: impl Display) -> Self {
        Self::Park { reason: reason.to_string() }
    }

    pub(crate) fn is_failure(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::RetryAfter { .. } | Self::Park { .. })
    }
}

impl<E: Into<Outcome>> From<Result<(), E>> for Outcome {
    fn from(result: Result<(), E>) -> Self {
        result.map_or_else(Into::into, |()| Self::Done)
    }
}
