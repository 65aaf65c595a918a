//! What this library asks of a broker, on RabbitMQ and on the broker in memory alike: the one must not promise what the
//! other does not keep.

use crate::support::{Count, Running, amqp_url, eventually, gated, scripted};
use lapin::{Connection, ConnectionProperties, options::QueueDeleteOptions};
use queues::{
    BrokerError, Delivery, Message, Outcome, Parking, PublishError, Publisher, RetryPolicy, Selection, Topology,
    Worker,
    testing::{MemoryBroker, TestQueue},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

const DELAY: Duration = Duration::from_millis(300);

/// A broker, and a queue on it whose policy allows two retries.
struct Place {
    memory: Option<MemoryBroker>,
    queue: TestQueue,
}

impl Place {
    async fn on_rabbitmq(shape: fn(Topology) -> Topology) -> Self {
        Self { memory: None, queue: declare(&amqp_url(), shape).await }
    }

    async fn in_memory(shape: fn(Topology) -> Topology) -> Self {
        let memory = MemoryBroker::start().await.unwrap();
        let queue = declare(&memory.url(), shape).await;
        Self { memory: Some(memory), queue }
    }

    fn worker(&self) -> Worker {
        let policy = RetryPolicy::new(DELAY, 2 * DELAY, 2);
        Worker::new(self.queue.broker(), self.queue.topology().clone(), policy)
    }

    fn job(&self, number: u32) -> Message {
        Message::job(self.queue.topology(), number.to_string(), &Count { number }).unwrap()
    }

    async fn publish(&self, messages: impl IntoIterator<Item = Message>) {
        let messages = messages.into_iter().collect();
        for result in Publisher::start(self.queue.broker()).publish_all(messages).await {
            result.unwrap();
        }
    }

    /// Lets the next delayed message come: in memory at once.
    async fn pass(&self, delay: Duration) {
        if let Some(memory) = &self.memory {
            assert_eq!(memory.skip_delay().await, delay);
        }
    }

    fn takes_its_time(&self) -> bool {
        self.memory.is_none()
    }

    /// Ready messages of a queue, when there are `count`.
    async fn ready(&self, queue: &str, count: u32) {
        eventually("messages", async || {
            let statuses = self.queue.broker().queue_statuses(self.queue.topology()).await.unwrap();
            (statuses.iter().find(|status| status.name == queue).unwrap().messages == count).then_some(())
        })
        .await;
    }

    /// Behind the library's back.
    async fn delete_queue(&self, name: &str) {
        let url = self.memory.as_ref().map_or_else(amqp_url, MemoryBroker::url);
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.unwrap();
        connection.close(200, "OK".into()).await.unwrap();
    }

    fn parking(&self) -> Parking {
        self.queue.parking()
    }
}

async fn declare(url: &str, shape: fn(Topology) -> Topology) -> TestQueue {
    TestQueue::declare_with(url, RetryPolicy::new(DELAY, 2 * DELAY, 2), |topology| Ok(shape(topology))).await.unwrap()
}

macro_rules! on {
    ($broker:ident: $($test:ident: $shape:expr,)*) => {
        mod $broker {
            use std::convert::identity;

            $(#[tokio::test]
            async fn $test() {
                let place = super::Place::$broker($shape).await;
                super::$test(&place).await;
                place.queue.delete().await.unwrap();
            })*
        }
    };
}

macro_rules! on_both_brokers {
    ($($tests:tt)*) => {
        on! { on_rabbitmq: $($tests)* }
        on! { in_memory: $($tests)* }
    };
}

on_both_brokers! {
    jobs_come_in_order_as_many_at_a_time_as_the_prefetch_allows_and_are_gone_when_done: identity,
    what_no_queue_and_what_no_exchange_takes_is_named: identity,
    a_failed_job_comes_again_after_its_delays_and_is_parked_after_the_last: identity,
    parked_jobs_stay_in_their_order_and_are_replayed: identity,
    a_job_that_kills_its_worker_again_and_again_is_parked_by_the_broker: identity,
    what_a_lost_worker_had_comes_again_in_its_order: identity,
    a_delay_of_any_length_passes_through_its_queues: |topology| topology.with_long_delays().unwrap(),
    a_partition_has_one_worker_until_that_ends: |topology| topology.partitioned(2).unwrap(),
    what_is_declared_otherwise_is_refused_and_what_is_missing_is_seen: identity,
    a_worker_survives_that_its_queue_is_deleted: identity,
}

async fn jobs_come_in_order_as_many_at_a_time_as_the_prefetch_allows_and_are_gone_when_done(place: &Place) {
    let (handler, mut started, open) = gated();
    let worker = place.worker().prefetch(3).register(handler);
    let worker = Running::start(worker).await;
    place.publish((0..8).map(|number| place.job(number))).await;
    for number in 0..3 {
        assert_eq!(started.recv().await, Some(number));
    }
    place.ready(place.queue.topology().queue(), 5).await;
    open.add_permits(8);
    for number in 3..8 {
        assert_eq!(started.recv().await, Some(number));
    }
    worker.stop().await;
    place.ready(place.queue.topology().queue(), 0).await;
}

async fn what_no_queue_and_what_no_exchange_takes_is_named(place: &Place) {
    let (mut homeless, mut lost) = (place.job(1), place.job(2));
    homeless.routing_key = "nowhere".to_owned();
    lost.exchange = "missing".to_owned();
    let publisher = Publisher::start(place.queue.broker());
    let results = publisher.publish_all(vec![place.job(0), homeless, lost, place.job(3)]).await;
    assert!(matches!(&results[1], Err(PublishError::Returned { id, .. }) if id == "1"), "{results:?}");
    assert!(matches!(&results[2], Err(PublishError::NoExchange { id, .. }) if id == "2"), "{results:?}");
    assert_eq!((&results[0], &results[3]), (&Ok(()), &Ok(())));
    place.ready(place.queue.topology().queue(), 2).await;
}

async fn a_failed_job_comes_again_after_its_delays_and_is_parked_after_the_last(place: &Place) {
    let (handler, mut heard) = scripted::<Count>(|_| Outcome::Retry { reason: "no luck".to_owned() });
    let worker = Running::start(place.worker().register(handler)).await;
    place.publish([place.job(7)]).await;
    let mut before = None::<Instant>;
    for (attempt, delay) in [(1, Duration::ZERO), (2, DELAY), (3, 2 * DELAY)] {
        if attempt > 1 {
            place.pass(delay).await;
        }
        let (job, delivery, at) = heard.next().await;
        assert_eq!((job.number, delivery.attempt, delivery.redelivered), (7, attempt, false));
        assert!(!place.takes_its_time() || before.is_none_or(|before| at - before >= delay), "{attempt} came early");
        before = Some(at);
    }
    place.ready(&place.queue.topology().parked_queue(), 1).await;
    let parked = place.parking().list(&Selection::all()).await.unwrap();
    assert_eq!((parked[0].attempts, parked[0].reason.as_deref()), (3, Some("exhausted after 3 attempts: no luck")));
    worker.stop().await;
}

async fn parked_jobs_stay_in_their_order_and_are_replayed(place: &Place) {
    let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.parked_at {
        None => Outcome::Park { reason: "not now".to_owned() },
        Some(_) => Outcome::Done,
    });
    let worker = Running::start(place.worker().concurrency(1).register(handler)).await;
    place.publish((0..4).map(|number| place.job(number))).await;
    for _ in 0..4 {
        heard.next().await;
    }
    place.ready(&place.queue.topology().parked_queue(), 4).await;
    for _ in 0..2 {
        let parked = place.parking().list(&Selection::all()).await.unwrap();
        assert_eq!(parked.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    }
    assert_eq!(place.parking().replay(&Selection::id("2"), Duration::ZERO).await.unwrap(), ["2"]);
    assert_eq!(heard.next().await.0.number, 2);
    let rest = place.parking().list(&Selection::all()).await.unwrap();
    assert_eq!(rest.iter().map(|job| job.id.as_str()).collect::<Vec<_>>(), ["0", "1", "3"]);
    worker.stop().await;
}

async fn a_job_that_kills_its_worker_again_and_again_is_parked_by_the_broker(place: &Place) {
    place.publish([place.job(1)]).await;
    for death in 0..=Topology::DELIVERY_LIMIT {
        let (starts, mut started) = mpsc::unbounded_channel();
        let worker = place.worker().register(move |_: Count, delivery: Delivery| {
            let _ = starts.send(delivery.redelivered);
            std::future::pending::<Outcome>()
        });
        let running = tokio::spawn(worker.run(std::future::pending()));
        assert_eq!(started.recv().await, Some(death > 0));
        running.abort();
        let _ = running.await;
    }
    place.ready(&place.queue.topology().parked_queue(), 1).await;
}

async fn what_a_lost_worker_had_comes_again_in_its_order(place: &Place) {
    let begun = Arc::new(Mutex::new(Vec::new()));
    let (starts, mut started) = mpsc::unbounded_channel();
    let first = place.worker().prefetch(50).concurrency(5).register(move |_: Count, _: Delivery| {
        let _ = starts.send(());
        std::future::pending::<Outcome>()
    });
    let first = tokio::spawn(first.run(std::future::pending()));
    place.publish((0..80).map(|number| place.job(number))).await;
    place.ready(place.queue.topology().queue(), 30).await;
    for _ in 0..5 {
        started.recv().await.unwrap();
    }
    first.abort();
    let _ = first.await;
    place.ready(place.queue.topology().queue(), 80).await;
    let all = Arc::clone(&begun);
    let second = place.worker().concurrency(1).register(move |job: Count, delivery: Delivery| {
        all.lock().unwrap().push((job.number, delivery.redelivered));
        std::future::ready(Outcome::Done)
    });
    let second = Running::start(second).await;
    eventually("all jobs", async || (begun.lock().unwrap().len() == 80).then_some(())).await;
    let expected: Vec<(u32, bool)> = (0..80).map(|number| (number, number < 50)).collect();
    assert_eq!(*begun.lock().unwrap(), expected);
    second.stop().await;
}

async fn a_delay_of_any_length_passes_through_its_queues(place: &Place) {
    let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
    let worker = Running::start(place.worker().register(handler)).await;
    let (short, published) = (Duration::from_secs(3), Instant::now());
    let topology = place.queue.topology();
    place.publish([place.job(1).with_delay(topology, short)]).await;
    // Two seconds, then one.
    place.pass(Duration::from_secs(2)).await;
    place.pass(Duration::from_secs(1)).await;
    let (_, _, at) = heard.next().await;
    assert!(!place.takes_its_time() || at - published >= short, "{:?}", at - published);
    worker.stop().await;
}

async fn a_partition_has_one_worker_until_that_ends(place: &Place) {
    let topology = place.queue.topology();
    let start = async |name: &'static str, begun: &Arc<Mutex<Vec<(&'static str, u32)>>>| {
        let begun = Arc::clone(begun);
        let worker = place.worker().register(move |job: Count, _: Delivery| {
            begun.lock().unwrap().push((name, job.number));
            std::future::ready(Outcome::Done)
        });
        Running::start(worker).await
    };
    let begun = Arc::default();
    let first = start("first", &begun).await;
    let second = start("second", &begun).await;
    let jobs = |numbers: std::ops::Range<u32>| numbers.map(|number| place.job(number).with_key(topology, "a"));
    place.publish(jobs(0..20)).await;
    eventually("the first's jobs", async || (begun.lock().unwrap().len() >= 20).then_some(())).await;
    first.stop().await;
    place.publish(jobs(20..40)).await;
    eventually("the second's jobs", async || (begun.lock().unwrap().len() >= 40).then_some(())).await;
    let expected: Vec<_> = (0..40).map(|number| (if number < 20 { "first" } else { "second" }, number)).collect();
    assert_eq!(*begun.lock().unwrap(), expected);
    second.stop().await;
}

async fn what_is_declared_otherwise_is_refused_and_what_is_missing_is_seen(place: &Place) {
    let (broker, topology) = (place.queue.broker(), place.queue.topology());
    assert!(broker.check(topology).await.unwrap().differences.is_empty());
    // A work queue that has the name of the parking queue.
    let other = Topology::new(topology.exchange(), topology.parked_queue(), [DELAY]).unwrap();
    let refused = broker.declare(&other).await.unwrap_err();
    assert!(matches!(&refused, BrokerError::Mismatch { object, .. } if object.contains(".parked")), "{refused}");
    place.delete_queue(&other.parked_queue()).await;
    let missing = Topology::new(topology.exchange(), "missing", [DELAY]).unwrap();
    assert!(broker.queue_statuses(&missing).await.unwrap().iter().all(|status| !status.exists));
}

async fn a_worker_survives_that_its_queue_is_deleted(place: &Place) {
    let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
    let worker = Running::start(place.worker().register(handler)).await;
    place.publish([place.job(1)]).await;
    assert_eq!(heard.next().await.0.number, 1);
    place.delete_queue(place.queue.topology().queue()).await;
    eventually("a new queue", async || {
        let statuses = place.queue.broker().queue_statuses(place.queue.topology()).await.unwrap();
        (statuses[1].exists && statuses[1].consumers == 1).then_some(())
    })
    .await;
    place.publish([place.job(2)]).await;
    assert_eq!(heard.next().await.0.number, 2);
    worker.stop().await;
}
