//! A test's own exchange and queues on some broker.

use super::eventually;
use futures_util::FutureExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use queues::{Broker, Message, ParkedJob, Parking, RetryPolicy, Selection, Topology, Worker};
use std::{future::Future, panic::AssertUnwindSafe, time::Duration};
use uuid::Uuid;

/// A job that carries a number, and knows by it what is to become of it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Job {
    pub(crate) number: u32,
}

impl queues::Job for Job {
    const KIND: &'static str = "numbered";
}

#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) broker: Broker,
    pub(crate) topology: Topology,
    name: String,
    /// Past whatever breaks the library's connections.
    direct_url: String,
}

impl Place {
    /// Runs a test on queues of its own, and deletes them, whether it succeeds or fails. The library connects to `url`;
    /// what the test itself asks and deletes goes to `direct_url`.
    pub(crate) async fn run<F: Future<Output = ()>>(url: &str, direct_url: &str, test: impl FnOnce(Self) -> F) {
        let name = format!("fault-{}", Uuid::now_v7());
        let topology = Topology::new(format!("{name}.jobs"), &name, Self::policy().delays()).unwrap();
        let broker = Broker::new(url, &name).unwrap();
        let place = Self { broker, topology, name, direct_url: direct_url.to_owned() };
        place.direct().declare(&place.topology).await.unwrap();
        let result = AssertUnwindSafe(test(place.clone())).catch_unwind().await;
        place.delete_all().await;
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    /// On a broker that is none.
    pub(crate) fn unconnected(url: &str) -> Self {
        let topology = Topology::new("nowhere.jobs", "nowhere", Self::policy().delays()).unwrap();
        let broker = Broker::new(url, "nowhere").unwrap();
        Self { broker, topology, name: "nowhere".to_owned(), direct_url: url.to_owned() }
    }

    /// One retry, after a short while.
    pub(crate) fn policy() -> RetryPolicy {
        RetryPolicy::new(Duration::from_millis(200), Duration::from_millis(200), 1)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn job(&self, number: u32) -> Message {
        Message::job(&self.topology, number.to_string(), &Job { number }).unwrap()
    }

    pub(crate) fn worker(&self) -> Worker {
        Worker::new(&self.broker, self.topology.clone(), Self::policy()).prefetch(200).concurrency(20)
    }

    pub(crate) async fn parked(&self) -> Vec<ParkedJob> {
        Parking::new(&self.direct(), self.topology.clone()).list(&Selection::all()).await.unwrap()
    }

    /// Waits until no queue but the parking queue has a message. No worker may hold any.
    pub(crate) async fn drained(&self) {
        let parked = self.topology.parked_queue();
        eventually("the end of all messages but the parked ones", async || {
            // A broker that has just come back may not answer at once.
            let statuses = self.direct().queue_statuses(&self.topology).await.ok()?;
            statuses.iter().all(|status| status.name == parked || status.messages == 0).then_some(())
        })
        .await;
    }

    /// Deletes a queue, as an operator might.
    pub(crate) async fn delete_queue(&self, name: &str) {
        let connection = self.connect().await;
        let channel = connection.create_channel().await.unwrap();
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
    }

    fn direct(&self) -> Broker {
        Broker::new(&self.direct_url, &self.name).unwrap()
    }

    async fn connect(&self) -> Connection {
        Connection::connect(&self.direct_url, ConnectionProperties::default()).await.unwrap()
    }

    /// A broker that was broken goes as a whole; what is left on it need not be said.
    async fn delete_all(&self) {
        let Ok(connection) = Connection::connect(&self.direct_url, ConnectionProperties::default()).await else {
            return;
        };
        let Ok(channel) = connection.create_channel().await else { return };
        for queue in self.topology.queues() {
            let _ = channel.queue_delete(queue.name.into(), QueueDeleteOptions::default()).await;
        }
        let _ = channel.exchange_delete(self.topology.exchange().into(), ExchangeDeleteOptions::default()).await;
    }
}
