//! The way back from the parking queue.

use crate::support::{Count, Running, bench, scripted};
use chrono::{TimeDelta, Utc};
use queues::{Outcome, Publisher};

#[tokio::test]
async fn a_job_that_is_moved_back_by_hand_knows_why_it_was_parked_and_has_fresh_attempts() {
    bench(&[100, 200], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match (&delivery.parked_reason, delivery.attempt) {
            (None, 2) => Outcome::Park { reason: "broken".to_owned() },
            (Some(_), 3) => Outcome::Done,
            _ => Outcome::Retry { reason: "again".to_owned() },
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        for attempt in 1..=2 {
            assert_eq!(heard.next().await.1.attempt, attempt);
        }
        assert_eq!(bench.parked(1).await[0]["properties"]["headers"]["attempt"], 2);
        bench.management.move_messages(&bench.topology.parked_queue(), &bench.name).await;
        for attempt in 1..=3 {
            let (_, delivery, _) = heard.next().await;
            assert_eq!((delivery.attempt, delivery.parked_reason.as_deref()), (attempt, Some("broken")));
            assert_eq!(delivery.message_id, format!("{}-1", bench.name));
        }
        worker.stop().await;
        let statuses = bench.broker.queue_statuses(&bench.topology).await.unwrap();
        assert!(statuses.iter().all(|status| status.messages == 0), "{statuses:?}");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_parked_again_after_a_replay_can_be_replayed_again() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match (&delivery.parked_reason, delivery.attempt) {
            (_, 1) => Outcome::RetryAfter { delay: std::time::Duration::ZERO, reason: "once more".to_owned() },
            (None, _) => Outcome::Park { reason: "first".to_owned() },
            (Some(reason), _) if reason == "first" => Outcome::Park { reason: "second".to_owned() },
            _ => Outcome::Done,
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        for (parked_reason, last) in [(None, false), (Some("first"), false), (Some("second"), true)] {
            for attempt in 1..=2 {
                let (_, delivery, _) = heard.next().await;
                assert_eq!((delivery.attempt, delivery.parked_reason.as_deref()), (attempt, parked_reason));
            }
            if !last {
                bench.parked(1).await;
                bench.management.move_messages(&bench.topology.parked_queue(), &bench.name).await;
            }
        }
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_time_of_the_parking_tells_it_from_a_failure_that_came_later() {
    bench(&[100], async |bench| {
        let before = Utc::now();
        let (handler, mut heard) = scripted::<Count>(|delivery| match (delivery.parked_at, delivery.attempt) {
            (None, _) => Outcome::Park { reason: "broken".to_owned() },
            // The handler fails for good, and its worker dies before the parking copy: the message comes again.
            (Some(_), 1) if !delivery.redelivered => Outcome::GiveBack,
            (Some(_), 1) => Outcome::Retry { reason: "again".to_owned() },
            (Some(_), _) => Outcome::Done,
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        assert_eq!(heard.next().await.1.parked_at, None);
        bench.parked(1).await;
        let parked = Utc::now();
        bench.management.move_messages(&bench.topology.parked_queue(), &bench.name).await;
        for (attempt, redelivered) in [(1, false), (1, true), (2, false)] {
            let (_, delivery, _) = heard.next().await;
            assert_eq!((delivery.attempt, delivery.redelivered), (attempt, redelivered));
            let at = delivery.parked_at.unwrap();
            assert!(at > before - TimeDelta::milliseconds(1) && at < parked, "{before} {at} {parked}");
        }
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_is_rejected_without_end_is_parked_by_the_broker_and_comes_back_with_a_reason() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        let mut deliveries = 0;
        while !bench.management.reject_messages(&bench.name, 1).await.is_empty() {
            deliveries += 1;
        }
        bench.parked(1).await;
        let worker = Running::start(bench.worker().register(handler)).await;
        bench.management.move_messages(&bench.topology.parked_queue(), &bench.name).await;
        let (_, delivery, _) = heard.next().await;
        let age = Utc::now() - delivery.parked_at.unwrap();
        assert!((TimeDelta::seconds(-2)..TimeDelta::seconds(30)).contains(&age), "{age}");
        let reason = delivery.parked_reason.unwrap();
        assert_eq!(reason, "the broker parked it: it was delivered too often without being acknowledged");
        assert!((20..=22).contains(&deliveries), "{deliveries}");
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn looking_at_a_parked_job_fifty_times_does_not_drop_it() {
    bench(&[100], async |bench| {
        let (handler, _heard) = scripted::<Count>(|_| Outcome::Park { reason: "look at me".to_owned() });
        let worker = Running::start(bench.worker().register(handler)).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        bench.parked(1).await;
        worker.stop().await;
        for _ in 0..50 {
            assert_eq!(bench.management.get_messages(&bench.topology.parked_queue(), 1).await.len(), 1);
        }
        bench.parked(1).await;
    })
    .await;
}
