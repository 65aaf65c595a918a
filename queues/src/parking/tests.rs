//! Rounds of a quarter of a second instead of ten minutes, on a real broker.

use super::{ParkedJob, Parking, Selection, Verdict};
use crate::{
    Broker, Delivery, Job, Message, Outcome, Publisher, RetryPolicy, Topology, TopologyError, testing::TestQueue,
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

/// `message_id` in Latin-1, and `type`.
const UNREADABLE: &[u8] = b"\x00\xa0\x03m\xfcd\x05count";

/// With a header `tenant` that can be read.
const UNREADABLE_WITH_HEADERS: &[u8] = b"\x20\xa0\x00\x00\x00\x10\x06tenantS\x00\x00\x00\x04blue\x03m\xfcd\x05count";

#[derive(serde::Serialize, serde::Deserialize)]
struct Count(u32);

impl Job for Count {
    const KIND: &'static str = "count";
}

async fn test_queue() -> TestQueue {
    shaped(Ok).await
}

async fn shaped(shape: impl FnOnce(Topology) -> Result<Topology, TopologyError>) -> TestQueue {
    let url = std::env::var("AMQP_URL").map_err(|_| "AMQP_URL is not set: run the tests with `./dev test`").unwrap();
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 1);
    TestQueue::declare_with(&url, policy, shape).await.unwrap()
}

#[tokio::test]
async fn messages_that_are_not_utf_8_are_parked_and_their_neighbors_are_done() {
    let queue = test_queue().await;
    let work = queue.topology().queue();
    let mut raw = queue.broker().open_raw(work).await.unwrap();
    for number in 0..60 {
        if number % 20 == 10 {
            raw.publish(work, UNREADABLE, b"7").await.unwrap();
        }
        queue.publish(&number.to_string(), &Count(number)).await.unwrap();
    }
    raw.close().await.unwrap();
    let runs: Arc<Mutex<HashMap<u32, u32>>> = Arc::default();
    let counted = Arc::clone(&runs);
    queue.start(queue.worker().register(move |Count(number): Count, _: Delivery| {
        *counted.lock().unwrap().entry(number).or_default() += 1;
        async {
            sleep(Duration::from_millis(20)).await;
            Outcome::Done
        }
    }));
    queue.drained(PATIENCE).await.unwrap();
    let parked = timeout(PATIENCE, async {
        loop {
            let parked = queue.parking().list(&Selection::all()).await.unwrap();
            if parked.len() >= 3 {
                return parked;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    for job in parked.await.unwrap() {
        assert_eq!((job.id.as_str(), job.kind.as_str(), job.payload.as_slice()), ("m\u{fffd}d", "count", &b"7"[..]));
        assert!(job.reason.as_ref().unwrap().contains("not UTF-8"), "{job:?}");
    }
    let runs = runs.lock().unwrap().clone();
    assert!(runs.len() == 60 && runs.values().all(|runs| *runs <= 3), "{runs:?}");
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn partitions_keep_the_order_of_their_jobs_around_messages_that_are_not_utf_8() {
    let queue = shaped(|topology| topology.partitioned(2)).await;
    let topology = queue.topology();
    let work = topology.work_queue_of("a");
    let mut raw = queue.broker().open_raw(&work).await.unwrap();
    let publisher = Publisher::start(queue.broker());
    for number in 0..120 {
        if number % 40 == 10 {
            raw.publish(&work, UNREADABLE, b"7").await.unwrap();
        }
        let message = Message::job(topology, number.to_string(), &Count(number)).unwrap();
        publisher.publish(message.with_key(topology, "a")).await.unwrap();
    }
    raw.close().await.unwrap();
    let begun: Arc<Mutex<Vec<u32>>> = Arc::default();
    for _ in 0..2 {
        let begun = Arc::clone(&begun);
        // More than 32: RabbitMQ 3 keeps the order of fewer by chance.
        queue.start(queue.worker().prefetch(50).register(move |Count(number): Count, _: Delivery| {
            let mut begun = begun.lock().unwrap();
            if !begun.contains(&number) {
                begun.push(number);
            }
            async { Outcome::Done }
        }));
    }
    let all = timeout(PATIENCE, async {
        while begun.lock().unwrap().len() < 120 {
            sleep(Duration::from_millis(50)).await;
        }
    });
    all.await.unwrap();
    assert!(begun.lock().unwrap().is_sorted(), "{begun:?}");
    let parked = queue.parking().list(&Selection::all()).await.unwrap();
    assert!(parked.len() >= 3 && parked.iter().all(|job| job.id == "m\u{fffd}d"), "{parked:?}");
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn jobs_that_wait_behind_a_slow_one_outlive_a_stream_of_messages_that_are_not_utf_8() {
    let queue = test_queue().await;
    let work = queue.topology().queue();
    for number in 0..30 {
        queue.publish(&number.to_string(), &Count(number)).await.unwrap();
    }
    let worker = queue.worker().concurrency(1).register(|_: Count, _: Delivery| async {
        sleep(Duration::from_millis(200)).await;
        Outcome::Done
    });
    queue.start(worker);
    let mut raw = queue.broker().open_raw(work).await.unwrap();
    for _ in 0..15 {
        raw.publish(work, UNREADABLE, b"7").await.unwrap();
        sleep(Duration::from_millis(250)).await;
    }
    raw.close().await.unwrap();
    // A job that the broker has parked is never done.
    queue.drained(PATIENCE).await.unwrap();
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn unreadable_messages_are_repaired_with_the_renewed_password() {
    let queue = test_queue().await;
    let new = std::env::var("AMQP_URL").unwrap();
    let mut old = url::Url::parse(&new).unwrap();
    old.set_password(Some("of-yesterday")).unwrap();
    let broker = Broker::new(old.as_str(), "renewed").unwrap().with_renewed_url(move || Some(new.clone()));
    let parked = queue.topology().parked_queue();
    let mut raw = queue.broker().open_raw(&parked).await.unwrap();
    raw.publish(&parked, UNREADABLE, b"7").await.unwrap();
    raw.close().await.unwrap();
    let listed = Parking::new(&broker, queue.topology().clone()).list(&Selection::all()).await.unwrap();
    assert_eq!(listed[0].id, "m\u{fffd}d");
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn a_parking_queue_with_a_message_that_is_not_utf_8_stays_usable() {
    let queue = test_queue().await;
    let parked = queue.topology().parked_queue();
    let mut raw = queue.broker().open_raw(&parked).await.unwrap();
    let park = async |id: &str| {
        let mut message = Message::new(queue.topology(), "count", id, b"1".to_vec());
        (message.exchange, message.routing_key) = (String::new(), parked.clone());
        Publisher::start(queue.broker()).publish(message).await.unwrap();
    };
    park("first").await;
    raw.publish(&parked, UNREADABLE_WITH_HEADERS, b"7").await.unwrap();
    raw.close().await.unwrap();
    park("last").await;
    let all = Selection::all();
    let listed = queue.parking().list(&all).await.unwrap();
    assert_eq!(listed[2].headers["tenant"], "blue", "a header that could be read is lost");
    let listed: Vec<String> = listed.into_iter().map(|job| job.id).collect();
    assert_eq!(listed, ["first", "last", "m\u{fffd}d"]);
    assert_eq!(queue.parking().replay(&all, Duration::ZERO).await.unwrap(), listed);
    queue.delete().await.unwrap();
}

async fn with_parked<F: Future<Output = ()>>(ids: &[&str], test: impl FnOnce(Parking) -> F) {
    let queue = test_queue().await;
    let publisher = Publisher::start(queue.broker());
    let messages = ids.iter().map(|id| {
        let mut message = Message::new(queue.topology(), "count", *id, Vec::new());
        (message.exchange, message.routing_key) = (String::new(), queue.topology().parked_queue());
        message
    });
    for result in publisher.publish_all(messages.collect()).await {
        result.unwrap();
    }
    test(Parking { round: Duration::from_millis(250), ..queue.parking() }).await;
    queue.delete().await.unwrap();
}

#[tokio::test]
async fn every_job_is_judged_once_in_its_order_however_many_rounds_it_takes_and_however_many_stay() {
    let ids =
        ["keep-1", "keep-2", "keep-3", "go-4", "twice", "keep-6", "twice", "go-7", "keep-8", "go-9", "twice", "go-10"];
    with_parked(&ids, async |parking| {
        let mut judged = Vec::new();
        let judge = async |job: &ParkedJob| {
            judged.push(job.id.clone());
            // A database that is asked, for one: two or three answers in a round.
            sleep(Duration::from_millis(100)).await;
            let stays = job.id.starts_with("keep") || (job.id == "twice" && judged.len() < 10);
            if stays { Verdict::Keep } else { Verdict::Replay }
        };
        let all = Selection::all();
        let gone = timeout(PATIENCE, parking.judge(&all, Duration::ZERO, judge)).await.unwrap().unwrap();
        assert_eq!(judged, ids);
        assert_eq!(gone, ["go-4", "go-7", "go-9", "twice", "go-10"]);
        let left: Vec<String> = parking.list(&all).await.unwrap().into_iter().map(|job| job.id).collect();
        assert_eq!(left, ["keep-1", "keep-2", "keep-3", "twice", "keep-6", "twice", "keep-8"]);
    })
    .await;
}

#[tokio::test]
async fn a_replay_that_is_spread_over_more_than_a_round_keeps_its_interval() {
    with_parked(&["1", "2", "3"], async |parking| {
        let (all, interval) = (Selection::all(), Duration::from_millis(600));
        let started = tokio::time::Instant::now();
        let gone = timeout(PATIENCE, parking.replay(&all, interval)).await.unwrap().unwrap();
        assert_eq!(gone, ["1", "2", "3"]);
        assert!(started.elapsed() >= interval * 2, "{:?}", started.elapsed());
    })
    .await;
}
