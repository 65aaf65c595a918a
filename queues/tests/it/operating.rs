//! What operators do with parked jobs.

use crate::support::{Bench, Count, Running, amqp_url, bench, scripted};
use chrono::Utc;
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use queues::{Message, Outcome, ParkedJob, ParkingError, Publisher, Selection, Verdict};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

fn ids(bench: &Bench, numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("{}-{number}", bench.name)).collect()
}

async fn listed(bench: &Bench) -> Vec<String> {
    bench.parking().list(&Selection::all()).await.unwrap().into_iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn a_list_tells_all_about_parked_jobs_and_leaves_them_in_their_order() {
    bench(&[100], async |bench| {
        let before = Utc::now().timestamp_millis();
        bench.park(0..25).await;
        let jobs = bench.parking().list(&Selection::all().at_most(3)).await.unwrap();
        let now = Utc::now().timestamp_millis();
        assert_eq!(jobs.len(), 3);
        for (number, job) in jobs.iter().enumerate() {
            assert_eq!((&job.id, job.kind.as_str()), (&format!("{}-{number}", bench.name), "count"));
            assert_eq!((job.reason.clone(), job.attempts), (Some(format!("reason {number}")), 1));
            assert_eq!(job.payload, format!(r#"{{"number":{number}}}"#).into_bytes());
            let published = job.first_published_at.unwrap().timestamp_millis();
            let parked = job.parked_at.unwrap().timestamp_millis();
            assert!(before <= published && published <= parked && parked <= now, "{job:?}");
        }
        for _ in 0..3 {
            assert_eq!(listed(&bench).await, ids(&bench, 0..25));
        }
        let found = bench.parking().show(&format!("{}-17", bench.name)).await.unwrap().unwrap();
        assert_eq!(found.reason.as_deref(), Some("reason 17"));
        assert_eq!(bench.parking().show("nobody").await.unwrap(), None);
        assert_eq!(bench.ready(&bench.topology.parked_queue()).await, 25);
    })
    .await;
}

#[tokio::test]
async fn listing_fifty_times_drops_nothing() {
    bench(&[100], async |bench| {
        bench.park(0..2).await;
        for _ in 0..50 {
            assert_eq!(listed(&bench).await.len(), 2);
        }
    })
    .await;
}

#[tokio::test]
async fn a_replay_has_fresh_attempts_and_remembers_why_and_when_it_was_parked() {
    bench(&[100, 200], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.parked_at {
            None => Outcome::Retry { reason: "no luck".to_owned() },
            Some(_) if delivery.attempt < 3 => Outcome::Retry { reason: "nor now".to_owned() },
            Some(_) => Outcome::Done,
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let job = bench.job(1).with_correlation_id("c-1").with_traceparent(traceparent).with_high_priority();
        Publisher::start(&bench.broker).publish(job).await.unwrap();
        for attempt in 1..=3 {
            assert_eq!(heard.next().await.1.attempt, attempt);
        }
        bench.parked(1).await;
        let parked = bench.parking().list(&Selection::all()).await.unwrap().remove(0);
        assert_eq!((parked.attempts, parked.traceparent.as_deref()), (3, Some(traceparent)));
        assert_eq!(bench.parking().replay(&Selection::all(), Duration::ZERO).await.unwrap(), ids(&bench, [1]));
        for attempt in 1..=3 {
            let (_, delivery, _) = heard.next().await;
            assert_eq!((delivery.attempt, delivery.message_id), (attempt, parked.id.clone()));
            assert_eq!(delivery.parked_reason.as_deref(), Some("exhausted after 3 attempts: no luck"));
            assert_eq!(delivery.parked_at, parked.parked_at);
            assert_eq!(delivery.traceparent.as_deref(), Some(traceparent));
            assert_eq!(delivery.correlation_id.as_deref(), Some("c-1"));
        }
        worker.stop().await;
        let statuses = bench.broker.queue_statuses(&bench.topology).await.unwrap();
        assert!(statuses.iter().all(|status| status.messages == 0), "{statuses:?}");
    })
    .await;
}

#[tokio::test]
async fn the_jobs_that_are_asked_for_are_replayed_and_the_others_stay_in_their_order() {
    bench(&[100], async |bench| {
        bench.park(0..20).await;
        let parking = bench.parking();
        // Reasons 1, 10, 11, 12 … match: the oldest four go.
        let some = Selection::all().kind("count").reason_contains("reason 1").at_most(4);
        assert_eq!(parking.replay(&some, Duration::ZERO).await.unwrap(), ids(&bench, [1, 10, 11, 12]));
        let other_kind = Selection::all().kind("other");
        assert_eq!(parking.replay(&other_kind, Duration::ZERO).await.unwrap(), Vec::<String>::new());
        let one = Selection::id(format!("{}-5", bench.name));
        assert_eq!(parking.replay(&one, Duration::ZERO).await.unwrap(), ids(&bench, [5]));
        assert_eq!(bench.ready(&bench.name).await, 5);
        let left = (0..20).filter(|number| ![1, 10, 11, 12, 5].contains(number));
        assert_eq!(listed(&bench).await, ids(&bench, left));
    })
    .await;
}

#[tokio::test]
async fn a_thousand_are_replayed_at_once_and_each_comes_once() {
    bench(&[100], async |bench| {
        bench.put_into_parking(0..1000).await;
        let started = Instant::now();
        let replayed = bench.parking().replay(&Selection::all(), Duration::ZERO).await.unwrap();
        assert_eq!(replayed.len(), 1000);
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}: are confirms pipelined?", started.elapsed());
        assert_eq!(bench.ready(&bench.topology.parked_queue()).await, 0);
        assert_eq!(bench.ready(&bench.name).await, 1000);
    })
    .await;
}

#[tokio::test]
async fn a_replay_whose_jobs_fail_at_once_ends_all_the_same() {
    bench(&[100], async |bench| {
        bench.put_into_parking(0..50).await;
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Park { reason: "still broken".to_owned() });
        let worker = Running::start(bench.worker().register(handler)).await;
        assert_eq!(bench.parking().replay(&Selection::all(), Duration::ZERO).await.unwrap().len(), 50);
        assert_eq!(heard.numbers(50).await.len(), 50);
        worker.stop().await;
        heard.nothing_more();
        assert_eq!(bench.ready(&bench.topology.parked_queue()).await, 50);
    })
    .await;
}

#[tokio::test]
async fn a_replay_can_be_spread_over_time() {
    bench(&[100], async |bench| {
        bench.park(0..4).await;
        let started = Instant::now();
        let interval = Duration::from_millis(100);
        assert_eq!(bench.parking().replay(&Selection::all(), interval).await.unwrap().len(), 4);
        assert!(started.elapsed() >= interval * 3, "{:?}", started.elapsed());
    })
    .await;
}

#[tokio::test]
async fn a_replay_that_dies_on_the_way_has_lost_nothing() {
    bench(&[100], async |bench| {
        bench.put_into_parking(0..300).await;
        let parking = bench.parking();
        let selection = Selection::all();
        // Dropped at any moment, again and again: copies first, acknowledgements later.
        for milliseconds in [10, 20, 40, 80] {
            let replay = parking.replay(&selection, Duration::from_micros(100));
            let _ = tokio::time::timeout(Duration::from_millis(milliseconds), replay).await;
        }
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        // What the dead ones held comes back when the broker has noticed, at times after the queue has looked empty.
        let replaying = async {
            loop {
                parking.replay(&selection, Duration::ZERO).await.unwrap();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let numbers = tokio::select! { numbers = heard.numbers(300) => numbers, () = replaying => return };
        assert_eq!(numbers.len(), 300);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_replay_without_a_work_queue_leaves_the_jobs_parked_and_says_so() {
    bench(&[100], async |bench| {
        bench.park(0..3).await;
        bench.management.delete("queues", &bench.name).await;
        let error = bench.parking().replay(&Selection::all(), Duration::ZERO).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, ParkingError::Interrupted { done, .. } if done.is_empty()), "{error:?}");
        assert!(text.contains("returned by the broker") && text.contains("still parked"), "{text}");
        assert_eq!(listed(&bench).await, ids(&bench, 0..3));
    })
    .await;
}

#[tokio::test]
async fn a_job_is_discarded_with_a_reason_only_and_goes_nowhere() {
    bench(&[100], async |bench| {
        bench.park(0..3).await;
        let parking = bench.parking();
        let error = parking.discard(&Selection::all(), "  ").await.unwrap_err();
        assert!(matches!(error, ParkingError::NoReason), "{error:?}");
        let one = Selection::id(format!("{}-1", bench.name));
        let discarded = parking.discard(&one, "the order was cancelled").await.unwrap();
        assert_eq!((discarded.len(), discarded[0].payload.as_slice()), (1, br#"{"number":1}"#.as_slice()));
        assert_eq!(listed(&bench).await, ids(&bench, [0, 2]));
        for status in bench.broker.queue_statuses(&bench.topology).await.unwrap() {
            let expected = if status.name == bench.topology.parked_queue() { 2 } else { 0 };
            assert_eq!(status.messages, expected, "{status:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_judge_decides_about_each_job_in_its_order_and_while_it_is_held() {
    bench(&[100], async |bench| {
        bench.park(0..6).await;
        let mut judged = Vec::new();
        let judge = async |job: &ParkedJob| {
            judged.push(job.id.clone());
            if judged.len() == 1 {
                // Nobody else sees a job that is being judged, and takes the queue for empty.
                let held = bench.parking().list(&Selection::all()).await.unwrap_err();
                assert!(matches!(held, ParkingError::Interrupted { .. }), "{held}");
            }
            assert_eq!(job.headers["parked-reason"], job.reason.clone().unwrap());
            match judged.len() % 3 {
                1 => Verdict::Replay,
                2 => Verdict::Discard { reason: "ann: enough".to_owned() },
                _ => Verdict::Keep,
            }
        };
        let gone = bench.parking().judge(&Selection::all(), Duration::ZERO, judge).await.unwrap();
        assert_eq!(judged, ids(&bench, 0..6));
        assert_eq!(gone, ids(&bench, [0, 1, 3, 4]));
        assert_eq!(listed(&bench).await, ids(&bench, [2, 5]));
        assert_eq!(bench.ready(&bench.name).await, 2, "0 and 3 are back at work, 1 and 4 are gone");
    })
    .await;
}

#[tokio::test]
async fn a_limit_is_of_the_selected_jobs_whatever_the_judge_says_of_them() {
    bench(&[100], async |bench| {
        bench.put_into_parking(0..9).await;
        for selection in [Selection::all(), Selection::all().kind("count")] {
            let mut judged = Vec::new();
            let judge = async |job: &ParkedJob| {
                judged.push(job.id.clone());
                Verdict::Keep
            };
            let gone = bench.parking().judge(&selection.at_most(4), Duration::ZERO, judge).await.unwrap();
            assert_eq!((judged, gone), (ids(&bench, 0..4), Vec::new()));
        }
        assert_eq!(listed(&bench).await, ids(&bench, 0..9));
    })
    .await;
}

#[tokio::test]
async fn an_operation_to_which_the_broker_gives_nothing_of_what_it_counted_says_so() {
    bench(&[100], async |bench| {
        let parked = bench.topology.parked_queue();
        bench.management.delete("queues", &parked).await;
        let alone = json!({ "x-queue-type": "quorum", "x-single-active-consumer": true });
        bench.management.declare(&parked, alone).await;
        bench.put_into_parking(0..3).await;
        // Somebody else is the queue's only consumer, and holds one.
        let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut other = channel.basic_consume(parked.as_str().into(), "".into(), options, none).await.unwrap();
        let _held = other.next().await.unwrap().unwrap();
        let (parking, all) = (bench.parking(), Selection::all());
        let (listed, discarded) = tokio::join!(parking.list(&all), parking.discard(&all, "enough"));
        let replayed = parking.replay(&all, Duration::ZERO).await;
        for error in [listed.unwrap_err(), discarded.unwrap_err(), replayed.unwrap_err()] {
            let text = error.to_string();
            assert!(matches!(&error, ParkingError::Interrupted { done, .. } if done.is_empty()), "{error:?}");
            assert!(text.contains("none of 2 more") && text.contains("run it again"), "{text}");
        }
        connection.close(200, "OK".into()).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_another_consumer_holds_is_reported_as_held_and_not_as_an_empty_queue() {
    bench(&[100], async |bench| {
        bench.put_into_parking(0..3).await;
        let connection = Connection::connect(&amqp_url(), ConnectionProperties::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let (options, none, parked) =
            (BasicConsumeOptions::default(), FieldTable::default(), bench.topology.parked_queue());
        let mut other = channel.basic_consume(parked.as_str().into(), "".into(), options, none).await.unwrap();
        for _ in 0..3 {
            other.next().await.unwrap().unwrap();
        }
        let (parking, all) = (bench.parking(), Selection::all());
        let (listed, replayed) = tokio::join!(parking.list(&all), parking.replay(&all, Duration::ZERO));
        for error in [listed.map(drop).unwrap_err(), replayed.map(drop).unwrap_err()] {
            assert!(
                matches!(&error, ParkingError::Interrupted { .. }) && error.to_string().contains("holds"),
                "{error}"
            );
        }
        // One that ends soon is waited for.
        let (listed, ()) =
            tokio::join!(parking.list(&all), async { connection.close(200, "OK".into()).await.unwrap() });
        assert_eq!(listed.unwrap().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn what_nobody_parked_is_listed_and_replayed_too() {
    bench(&[100], async |bench| {
        let queue = bench.topology.parked_queue();
        assert!(bench.management.publish(&queue, json!({}), "what is this?").await);
        let mut message = Message::new(&bench.topology, "count", "by-hand", br#"{"number":9}"#.to_vec());
        (message.exchange, message.routing_key) = (String::new(), queue);
        Publisher::start(&bench.broker).publish(message).await.unwrap();
        let jobs = bench.parking().list(&Selection::all()).await.unwrap();
        assert_eq!((jobs[0].id.as_str(), jobs[0].kind.as_str(), &jobs[0].reason), ("", "", &None));
        bench.parking().discard(&Selection::all().at_most(1), "not a job").await.unwrap();
        assert_eq!(bench.parking().replay(&Selection::all(), Duration::ZERO).await.unwrap(), ["by-hand"]);
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        assert_eq!(heard.next().await.0.number, 9);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_parking_queue_that_does_not_exist_is_named() {
    bench(&[100], async |bench| {
        bench.management.delete("queues", &bench.topology.parked_queue()).await;
        let error = bench.parking().list(&Selection::all()).await.unwrap_err();
        assert!(matches!(&error, ParkingError::NoQueue { queue, .. } if *queue == bench.topology.parked_queue()));
    })
    .await;
}
