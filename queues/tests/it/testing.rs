//! The help for tests of handlers, as the library's users have it.

use crate::support::{Count, amqp_url, scripted};
use queues::{
    Broker, Delivery, Message, Outcome, PublishError, RetryPolicy, Selection,
    testing::{MemoryBroker, TestQueue, TestQueueError},
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::time::{advance, pause, resume};

const PATIENCE: Duration = Duration::from_secs(20);

async fn queue() -> TestQueue {
    let policy = RetryPolicy::new(Duration::from_millis(50), Duration::from_secs(1), 2);
    TestQueue::declare(&amqp_url(), policy).await.unwrap()
}

#[tokio::test]
async fn it_is_drained_when_every_job_is_done_or_parked_those_that_handlers_publish_included() {
    let queue = queue().await;
    let more = queue.clone();
    queue.start(queue.worker().register(move |job: Count, delivery: Delivery| {
        let more = more.clone();
        async move {
            match (job.number, delivery.attempt) {
                (10, 1) => {
                    more.publish("child", &Count { number: 11 }).await.unwrap();
                    Outcome::Retry { reason: "once".to_owned() }
                }
                (11, 1..=2) => Outcome::Retry { reason: "later".to_owned() },
                (11, _) => Outcome::Park { reason: "in the end".to_owned() },
                _ => Outcome::Done,
            }
        }
    }));
    for number in 0..=10 {
        queue.publish(&format!("job-{number}"), &Count { number }).await.unwrap();
    }
    queue.drained(PATIENCE).await.unwrap();
    let parked = queue.parking().list(&Selection::all()).await.unwrap();
    assert_eq!((parked.len(), parked[0].id.as_str(), parked[0].attempts), (1, "child", 3));
    let statuses = queue.broker().queue_statuses(queue.topology()).await.unwrap();
    assert_eq!(statuses.iter().map(|status| status.messages).collect::<Vec<_>>(), [1, 0, 0, 0]);
    let (url, topology) = (amqp_url(), queue.topology().clone());
    queue.delete().await.unwrap();
    let statuses = Broker::new(&url, "test").unwrap().queue_statuses(&topology).await.unwrap();
    assert!(statuses.iter().all(|status| !status.exists), "{statuses:?}");
}

#[tokio::test]
async fn jobs_that_nobody_settles_are_named() {
    let queue = queue().await;
    let worker = queue.worker().drain_timeout(Duration::from_millis(100));
    queue.start(worker.register(|job: Count, _: Delivery| async move {
        match job.number {
            1 => std::future::pending().await,
            _ => Outcome::Done,
        }
    }));
    for number in 0..2 {
        queue.publish(&format!("job-{number}"), &Count { number }).await.unwrap();
    }
    let error = queue.drained(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(&error, TestQueueError::NotDrained { ids, .. } if *ids == ["job-1".to_owned()].into()), "{error}");
    queue.delete().await.unwrap();
    let idle = self::queue().await;
    idle.start(idle.worker());
    let (broker, topology) = (idle.broker().clone(), idle.topology().clone());
    assert!(matches!(idle.delete().await.unwrap_err(), TestQueueError::Worker(_)), "a worker without a handler");
    assert!(
        broker.queue_statuses(&topology).await.unwrap().iter().all(|status| !status.exists),
        "it is deleted all the same"
    );
}

#[tokio::test]
async fn a_message_that_is_refused_is_not_waited_for() {
    let queue = queue().await;
    let mut message = Message::new(queue.topology(), "count", "no-way", b"{}".to_vec());
    message.exchange = "x".repeat(300);
    let error = queue.publish_message(message).await.unwrap_err();
    assert!(matches!(error, TestQueueError::Publish(PublishError::Invalid { .. })), "{error}");
    queue.drained(Duration::ZERO).await.unwrap();
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn a_snooze_longer_than_every_retry_queue_is_skipped_in_parts_by_the_brokers_clock() {
    const HOUR: Duration = Duration::from_secs(3600);
    let broker = MemoryBroker::start().await.unwrap();
    let queue = TestQueue::declare(&broker.url(), RetryPolicy::new(HOUR, HOUR, 1)).await.unwrap();
    let too_early = AtomicBool::new(true);
    let (handler, mut heard) = scripted::<Count>(move |_| match too_early.swap(false, Ordering::Relaxed) {
        true => Outcome::Snooze { delay: 3 * HOUR, reason: "too early".to_owned() },
        false => Outcome::Done,
    });
    queue.start(queue.worker().clock(broker.clock()).register(handler));
    queue.publish("job", &Count { number: 1 }).await.unwrap();
    heard.next().await;
    for _ in 0..3 {
        heard.nothing_more();
        assert_eq!(broker.skip_delay().await, HOUR);
    }
    heard.next().await;
    queue.drained(PATIENCE).await.unwrap();
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn a_job_that_ran_for_longer_than_a_message_may_be_held_is_retried_all_the_same() {
    const LONGER: Duration = Duration::from_secs(16 * 60);
    let broker = MemoryBroker::start().await.unwrap();
    let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(60), 1);
    let queue = TestQueue::declare(&broker.url(), policy).await.unwrap();
    queue.start(queue.worker().job_timeout(2 * LONGER).register(|_: Count, delivery: Delivery| async move {
        if delivery.attempt == 1 {
            pause();
            advance(LONGER).await;
            resume();
        }
        Outcome::Retry { reason: "it takes so long".to_owned() }
    }));
    queue.publish("job", &Count { number: 1 }).await.unwrap();
    broker.skip_delay().await;
    queue.drained(PATIENCE).await.unwrap();
    let parked = queue.parking().list(&Selection::all()).await.unwrap();
    assert_eq!((parked.len(), parked[0].attempts), (1, 2), "its first attempt was not counted");
    queue.delete().await.unwrap();
}
