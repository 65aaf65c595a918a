//! Pausing and resuming, and jobs that kill their worker.

use crate::support::{Count, Running, bench, eventually, gated, publish, scripted, wait_for};
use queues::{ConnectionState, Delivery, Outcome, Publisher, Selection, Topology};
use std::time::Duration;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_paused_worker_takes_nothing_gives_back_what_waits_and_finishes_what_runs() {
    bench(&[100], async |bench| {
        let (handler, mut started, open) = gated();
        let worker = bench.worker().prefetch(8).concurrency(2).register(handler);
        let control = worker.control();
        let worker = Running::start(worker).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..10)).await {
            result.unwrap();
        }
        let running = [started.recv().await.unwrap(), started.recv().await.unwrap()];
        control.pause();
        assert!(control.is_paused());
        eventually("the rest", async || (bench.ready(&bench.name).await == 8).then_some(())).await;
        open.add_permits(10);
        let consumers = async || bench.broker.queue_statuses(&bench.topology).await.unwrap()[1].consumers;
        assert_eq!(consumers().await, 0);
        bench.management.close_connection(&format!("{} (consume)", bench.name)).await;
        let mut state = worker.state.clone();
        wait_for(&mut state, "the loss", |state| !state.is_connected()).await;
        wait_for(&mut state, "the next connection", ConnectionState::is_connected).await;
        assert_eq!(
            (consumers().await, bench.ready(&bench.name).await >= 8),
            (0, true),
            "a new connection is no resume"
        );
        assert!(started.is_empty(), "a job was begun while paused");
        control.resume();
        let mut rest = std::collections::BTreeSet::new();
        while rest.len() < 8 {
            let number = started.recv().await.unwrap();
            // The acknowledgements of these two may have been lost with the connection.
            if !running.contains(&number) {
                rest.insert(number);
            }
        }
        assert_eq!(bench.management.consumers(&bench.name, 1).await[0]["prefetch_count"], 8);
        worker.stop().await;
        assert_eq!(bench.ready(&bench.name).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_handler_may_pause_its_own_worker() {
    bench(&[100], async |bench| {
        let worker = bench.worker().concurrency(1);
        let control = worker.control();
        let (handler, mut heard) = scripted::<Count>({
            let control = control.clone();
            move |delivery| {
                if delivery.message_id.ends_with("-0") {
                    control.pause();
                }
                Outcome::Done
            }
        });
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..3)).await {
            result.unwrap();
        }
        let worker = Running::start(worker.register(handler)).await;
        assert_eq!(heard.next().await.0.number, 0);
        eventually("the rest", async || (bench.ready(&bench.name).await >= 1).then_some(())).await;
        control.resume();
        assert_eq!(heard.numbers(2).await, [1, 2].into());
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_paused_before_it_runs_begins_with_nothing() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = bench.worker().register(handler);
        let control = worker.control();
        control.pause();
        publish(&bench, bench.job(1)).await;
        let worker = Running::start(worker).await;
        assert_eq!(bench.ready(&bench.name).await, 1);
        heard.nothing_more();
        control.resume();
        assert!(!heard.next().await.1.redelivered, "it was taken while the worker was paused");
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_that_kills_its_worker_again_and_again_is_parked_after_the_delivery_limit() {
    bench(&[100], async |bench| {
        publish(&bench, bench.job(1).with_correlation_id("killer")).await;
        let mut deaths = 0;
        while bench.ready(&bench.topology.parked_queue()).await == 0 {
            let (starts, mut started) = mpsc::unbounded_channel();
            let handler = move |_: Count, _: Delivery| {
                let _ = starts.send(());
                std::future::pending::<Outcome>()
            };
            // The worker and its connections are gone without a word, as when its process dies.
            let task = tokio::spawn(bench.worker().register(handler).run(std::future::pending()));
            let parked = eventually("a delivery, or the parking", async || {
                match bench.ready(&bench.topology.parked_queue()).await {
                    1 => Some(true),
                    _ => (!started.is_empty()).then_some(false),
                }
            });
            let parked = parked.await;
            task.abort();
            let _ = task.await;
            if !parked {
                started.recv().await.unwrap();
                deaths += 1;
            }
            assert!(deaths <= Topology::DELIVERY_LIMIT + 1, "it was delivered {deaths} times");
        }
        assert_eq!(deaths, Topology::DELIVERY_LIMIT + 1);
        let parked = bench.parking().list(&Selection::all()).await.unwrap();
        assert_eq!(parked[0].correlation_id.as_deref(), Some("killer"));
        assert!(parked[0].reason.as_ref().unwrap().starts_with("the broker parked it"), "{parked:?}");
        // Its replay begins anew, although the broker's notes are not in the copy.
        bench.parking().replay(&Selection::all(), Duration::ZERO).await.unwrap();
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let worker = Running::start(bench.worker().register(handler)).await;
        let (_, delivery, _) = heard.next().await;
        assert_eq!((delivery.attempt, delivery.parked_reason), (1, parked[0].reason.clone()));
        assert_eq!(delivery.parked_at, parked[0].parked_at);
        assert!(delivery.parked_at.is_some());
        worker.stop().await;
    })
    .await;
}
