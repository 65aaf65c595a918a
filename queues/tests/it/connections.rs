//! A worker outlives its connections, and wakes up without delay.

use crate::support::{Count, Running, amqp_url, bench, scripted, wait_for};
use queues::{Broker, ConnectionState, Outcome, Publisher, WorkerError};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

fn is_lost(state: &ConnectionState) -> bool {
    matches!(state, ConnectionState::Reconnecting { last_error: Some(_), .. })
}

#[tokio::test]
async fn a_worker_whose_connection_is_closed_consumes_again_with_the_same_prefetch() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let mut worker = Running::start(bench.worker().prefetch(37).concurrency(3).register(handler)).await;
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(1)).await.unwrap();
        heard.next().await;
        let before = bench.management.consumers(&bench.name, 1).await;
        bench.management.close_connection(&format!("{} (consume)", bench.name)).await;
        wait_for(&mut worker.state, "the loss", is_lost).await;
        wait_for(&mut worker.state, "the next connection", ConnectionState::is_connected).await;
        publisher.publish(bench.job(2)).await.unwrap();
        heard.numbers(1).await;
        let after = bench.management.consumers(&bench.name, 1).await;
        assert_eq!((&before[0]["prefetch_count"], &after[0]["prefetch_count"]), (&json!(37), &json!(37)));
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn every_job_is_handled_although_the_connections_are_closed_again_and_again() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.attempt {
            1 => Outcome::Retry { reason: "once".to_owned() },
            _ => Outcome::Done,
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        let publisher = Publisher::start(&bench.broker);
        for result in publisher.publish_all(bench.jobs(0..1000)).await {
            result.unwrap();
        }
        publisher.close().await;
        for connection in ["consume", "publish", "consume"] {
            bench.management.close_connection(&format!("{} ({connection})", bench.name)).await;
        }
        let mut done = std::collections::BTreeSet::new();
        while done.len() < 1000 {
            let (job, delivery, _) = heard.next().await;
            if delivery.attempt == 2 {
                done.insert(job.number);
            }
        }
        worker.stop().await;
        assert_eq!(bench.ready(&bench.topology.parked_queue()).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_under_its_consumer_is_declared_anew() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let mut worker = Running::start(bench.worker().register(handler)).await;
        bench.management.delete("queues", &bench.name).await;
        wait_for(&mut worker.state, "the loss", is_lost).await;
        wait_for(&mut worker.state, "the next connection", ConnectionState::is_connected).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        assert_eq!(heard.next().await.0.number, 1);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_retry_queue_that_is_deleted_is_declared_anew_and_the_job_is_not_lost() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.attempt {
            1 => Outcome::Retry { reason: "once".to_owned() },
            _ => Outcome::Done,
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        bench.management.delete("queues", &bench.topology.retry_queue(Duration::from_millis(100))).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        for attempt in 1..=2 {
            assert_eq!(heard.next().await.1.attempt, attempt);
        }
        worker.stop().await;
        heard.nothing_more();
    })
    .await;
}

#[tokio::test]
async fn an_idle_worker_has_a_job_within_milliseconds() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(0)).await.unwrap();
        heard.next().await;
        let mut delays = Vec::new();
        for number in 1..=21 {
            let started = Instant::now();
            publisher.publish(bench.job(number)).await.unwrap();
            delays.push(heard.next().await.2 - started);
        }
        delays.sort_unstable();
        // The median, because other tests run on the same machine; any interval of polling would show, and so would the 40 ms
        // of a TCP acknowledgement that is put off.
        assert!(delays[10] < Duration::from_millis(30), "{delays:?}");
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_stops_while_there_is_no_broker() {
    bench(&[100], async |bench| {
        let broker = Broker::new("amqp://127.0.0.1:1/", "test").unwrap();
        let (handler, _heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = queues::Worker::new(&broker, bench.topology.clone(), bench.policy()).register(handler);
        let mut state = worker.state();
        worker.run(async { wait_for(&mut state, "a failure", is_lost).await }).await.unwrap();
        assert_eq!(*state.borrow(), ConnectionState::Closed);
    })
    .await;
}

#[tokio::test]
async fn a_broker_that_keeps_refusing_ends_the_worker_and_the_publisher_with_its_reply() {
    bench(&[100], async |bench| {
        let url = amqp_url().replace("://", "://nobody").replacen(":dev@", ":wrong@", 1);
        let broker = Broker::new(&url, "test").unwrap().with_refusal_timeout(Duration::from_millis(500));
        let (handler, _heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = queues::Worker::new(&broker, bench.topology.clone(), bench.policy()).register(handler);
        let state = worker.state();
        let run = timeout(Duration::from_secs(30), worker.run(std::future::pending()));
        let error = run.await.expect("the worker still tries").unwrap_err();
        assert!(matches!(&error, WorkerError::Refused { reason, .. } if reason.contains("ACCESS_REFUSED")), "{error}");
        assert_eq!(*state.borrow(), ConnectionState::Closed);
        let publisher = Publisher::start(&broker);
        let is_refused = |state: &ConnectionState| matches!(state, ConnectionState::Refused { .. });
        wait_for(&mut publisher.state(), "the end", is_refused).await;
        let error = publisher.publish(bench.job(1)).await.unwrap_err();
        assert!(error.to_string().contains("ACCESS_REFUSED"), "{error}");
        publisher.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_health_check_sees_what_a_worker_and_a_publisher_do() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = bench.worker().register(handler);
        let control = worker.control();
        let before = control.health();
        assert!(before.last_delivery_at.is_none() && !before.paused && is_starting(&before.connection), "{before:?}");
        let worker = Running::start(worker).await;
        let publisher = Publisher::start(&bench.broker);
        publisher.publish(bench.job(1)).await.unwrap();
        heard.next().await;
        control.pause();
        let health = control.health();
        assert!(health.last_delivery_at.is_some() && health.paused && health.connection.is_connected(), "{health:?}");
        assert!(publisher.health().connection.is_connected() && publisher.health().waiting == 0);
        worker.stop().await;
        assert_eq!(control.health().running, 0);
    })
    .await;
}

fn is_starting(state: &ConnectionState) -> bool {
    matches!(state, ConnectionState::Reconnecting { last_error: None, .. })
}

#[tokio::test]
async fn a_worker_whose_queue_is_declared_otherwise_ends_with_the_reason() {
    bench(&[100], async |bench| {
        bench.management.delete("queues", &bench.name).await;
        bench.management.declare(&bench.name, json!({ "x-queue-type": "classic" })).await;
        let (handler, _heard) = scripted::<Count>(|_| Outcome::Done);
        let error = bench.worker().register(handler).run(std::future::pending()).await.unwrap_err();
        assert!(
            matches!(&error, WorkerError::Topology(_)) && error.to_string().contains("inequivalent arg"),
            "{error}"
        );
    })
    .await;
}
