//! A real queue with a unique name, and a way to wait until its jobs are settled.

use crate::{
    Broker, BrokerError, Job, Message, Parking, PublishError, Publisher, RetryPolicy, Topology, TopologyError, Worker,
    WorkerError,
    connection::{close, text},
};
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A test's own exchange and queues. Clones share them, so a handler may publish too. [`delete`](Self::delete) alone deletes
/// them: a test that fails before leaves queues named `test-…`.
///
/// ```
/// use queues::{Delivery, Job, Outcome, RetryPolicy, Selection, testing::TestQueue};
/// use std::time::Duration;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct SendReceipt {
///     order: u32,
/// }
///
/// impl Job for SendReceipt {
///     const KIND: &'static str = "send_receipt";
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let queue = TestQueue::declare(
///     &std::env::var("AMQP_URL")?,
///     RetryPolicy::new(Duration::from_millis(50), Duration::from_secs(1), 2),
/// )
/// .await?;
/// queue.start(queue.worker().register(|job: SendReceipt, delivery: Delivery| async move {
///     match (job.order, delivery.attempt) {
///         (1, 1) => Outcome::Retry { reason: "the printer warms up".to_owned() },
///         (2, _) => Outcome::Park { reason: "no such order".to_owned() },
///         _ => Outcome::Done,
///     }
/// }));
/// queue.publish("receipt-1", &SendReceipt { order: 1 }).await?;
/// queue.publish("receipt-2", &SendReceipt { order: 2 }).await?;
/// queue.drained(Duration::from_secs(20)).await?;
///
/// let parked = queue.parking().list(&Selection::all()).await?;
/// assert_eq!((parked.len(), parked[0].id.as_str()), (1, "receipt-2"));
/// queue.delete().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TestQueue {
    broker: Broker,
    topology: Topology,
    policy: RetryPolicy,
    publisher: Publisher,
    /// The ids of published jobs that are neither done nor parked.
    outstanding: Arc<watch::Sender<BTreeSet<String>>>,
    workers: Arc<Mutex<JoinSet<Result<(), WorkerError>>>>,
    stop: CancellationToken,
}

/// What went wrong with a test's queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestQueueError {
    /// The policy has a delay that no queue can have.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The broker cannot be used.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A job was not published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A job has no JSON.
    #[error("the job cannot be serialized: {0}")]
    Job(#[from] serde_json::Error),
    /// Some jobs were neither done nor parked in time.
    #[error("after {patience:?} these jobs are neither done nor parked: {ids:?}")]
    #[non_exhaustive]
    NotDrained {
        /// How long the test waited.
        patience: Duration,
        /// The jobs' ids.
        ids: BTreeSet<String>,
    },
    /// A worker did not run.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

impl TestQueue {
    /// Declares an exchange and queues named `test-` and a UUID, with the policy's delays.
    ///
    /// # Errors
    /// [`TestQueueError::Broker`] when the broker cannot be used, [`TestQueueError::Topology`] when a delay cannot be declared.
    pub async fn declare(amqp_url: &str, policy: RetryPolicy) -> Result<Self, TestQueueError> {
        Self::declare_with(amqp_url, policy, Ok).await
    }

    /// [`declare`](Self::declare) with another topology, which `shape` makes of the plain one: a
    /// [partitioned](Topology::partitioned) one, for example.
    ///
    /// # Errors
    /// As from [`declare`](Self::declare), and what `shape` answers, as [`TestQueueError::Topology`].
    pub async fn declare_with(
        amqp_url: &str,
        policy: RetryPolicy,
        shape: impl FnOnce(Topology) -> Result<Topology, TopologyError>,
    ) -> Result<Self, TestQueueError> {
        let name = format!("test-{}", Uuid::now_v7());
        let broker = Broker::new(amqp_url, &name)?;
        let mut delays = policy.delays();
        if delays.is_empty() {
            // A policy without retries; a topology needs a delay.
            delays.push(Duration::from_secs(1));
        }
        let topology = shape(Topology::new(format!("{name}.jobs"), name, delays)?)?;
        broker.declare(&topology).await?;
        let publisher = Publisher::start(&broker);
        let (outstanding, workers) = (Arc::default(), Arc::default());
        Ok(Self { broker, topology, policy, publisher, outstanding, workers, stop: CancellationToken::new() })
    }

    /// The broker, with this queue's name as the connections' name.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The exchange and the queues.
    #[must_use]
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The parking queue.
    #[must_use]
    pub fn parking(&self) -> Parking {
        Parking::new(&self.broker, self.topology.clone())
    }

    /// A worker for this queue that reports to [`drained`](Self::drained): register handlers, then [`start`](Self::start) it.
    pub fn worker(&self) -> Worker {
        let outstanding = Arc::clone(&self.outstanding);
        Worker::new(&self.broker, self.topology.clone(), self.policy).on_settled(move |id| {
            outstanding.send_if_modified(|ids| ids.remove(id));
        })
    }

    /// Runs a worker until the queue is [deleted](Self::delete).
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn start(&self, worker: Worker) {
        let stop = self.stop.clone();
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.spawn(worker.run(async move { stop.cancelled().await }));
    }

    /// Publishes a job. Each needs an id of its own.
    ///
    /// # Errors
    /// [`TestQueueError::Publish`] when it is not confirmed, [`TestQueueError::Job`] when it has no JSON.
    pub async fn publish<J: Job>(&self, id: &str, job: &J) -> Result<(), TestQueueError> {
        self.publish_message(Message::job(&self.topology, id, job)?).await
    }

    /// Publishes a message to [`topology`](Self::topology), with a key or a delay for example. Each needs an id of its own.
    ///
    /// # Errors
    /// [`TestQueueError::Publish`] when it is not confirmed.
    pub async fn publish_message(&self, message: Message) -> Result<(), TestQueueError> {
        // Before it can be settled.
        let id = message.id.clone();
        self.outstanding.send_modify(|ids| _ = ids.insert(id.clone()));
        let published = self.publisher.publish(message).await;
        if published.as_ref().is_err_and(PublishError::is_not_stored) {
            self.outstanding.send_if_modified(|ids| ids.remove(&id));
        }
        Ok(published?)
    }

    /// Waits until every job that was published here is done or parked, including those that a handler published before it
    /// was done itself.
    ///
    /// # Errors
    /// [`TestQueueError::NotDrained`] names the others.
    pub async fn drained(&self, patience: Duration) -> Result<(), TestQueueError> {
        let mut outstanding = self.outstanding.subscribe();
        if timeout(patience, outstanding.wait_for(BTreeSet::is_empty)).await.is_ok() {
            return Ok(());
        }
        Err(TestQueueError::NotDrained { patience, ids: outstanding.borrow().clone() })
    }

    /// Stops the workers and deletes the queues and the exchange, with what is in them.
    ///
    /// # Errors
    /// [`TestQueueError::Worker`] when a worker did not run, [`TestQueueError::Broker`] when the broker cannot be reached.
    pub async fn delete(self) -> Result<(), TestQueueError> {
        self.stop.cancel();
        let mut workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let mut worked = Ok(());
        while let Some(ended) = workers.join_next().await {
            // An error of the task itself is a panic, which has been printed.
            worked = worked.and(ended.unwrap_or(Ok(())));
        }
        self.publisher.close().await;
        let connection = self.broker.connect("delete").await?;
        let deleting = async {
            let channel = connection.create_channel().await?;
            for queue in self.topology.queues() {
                channel.queue_delete(queue.name.as_str().into(), QueueDeleteOptions::default()).await?;
            }
            for exchange in self.topology.exchanges() {
                channel.exchange_delete(exchange.name.as_str().into(), ExchangeDeleteOptions::default()).await?;
            }
            Ok(())
        };
        let deleted = deleting.await.map_err(|error: lapin::Error| self.broker.unreachable(text(&error)));
        close(&connection).await;
        deleted?;
        Ok(worked?)
    }
}
