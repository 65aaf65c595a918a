//! Rounds of a quarter of a second instead of ten minutes, on a real broker.

use super::{ParkedJob, Parking, Selection, Verdict};
use crate::{Message, Publisher, RetryPolicy, testing::TestQueue};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

async fn with_parked<F: Future<Output = ()>>(ids: &[&str], test: impl FnOnce(Parking) -> F) {
    let url = std::env::var("AMQP_URL").map_err(|_| "AMQP_URL is not set: run the tests with `./dev test`").unwrap();
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 1);
    let queue = TestQueue::declare(&url, policy).await.unwrap();
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
