//! The graceful stop.

use crate::support::{Count, Running, bench, eventually};
use queues::{Delivery, Outcome, Publisher};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc};

#[tokio::test]
async fn a_worker_that_stops_finishes_what_it_runs_and_gives_the_rest_back() {
    bench(&[100], async |bench| {
        let (starts, mut started) = mpsc::unbounded_channel();
        let (gate, finished) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
        let (open, count) = (Arc::clone(&gate), Arc::clone(&finished));
        let handler = move |job: Count, _: Delivery| {
            let (gate, starts, finished) = (Arc::clone(&gate), starts.clone(), Arc::clone(&finished));
            async move {
                let _ = starts.send(job.number);
                gate.acquire().await.unwrap().forget();
                finished.fetch_add(1, Ordering::SeqCst);
                Outcome::Done
            }
        };
        let mut worker = Running::start(bench.worker().prefetch(8).concurrency(2).register(handler)).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..10)).await {
            result.unwrap();
        }
        for _ in 0..2 {
            started.recv().await.unwrap();
        }
        worker.ask_to_stop();
        // What waits in the worker goes back at once, while two jobs still run.
        eventually("the rest", async || (bench.ready(&bench.name).await == 8).then_some(())).await;
        assert_eq!(count.load(Ordering::SeqCst), 0);
        open.add_permits(10);
        worker.stopped().await;
        assert_eq!(count.load(Ordering::SeqCst), 2);
        assert!(started.is_empty(), "a job was begun after the stop");
        assert_eq!(bench.ready(&bench.name).await, 8);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_outlasts_the_drain_timeout_goes_back_to_the_queue() {
    bench(&[100], async |bench| {
        let (starts, mut started) = mpsc::unbounded_channel();
        let handler = move |_: Count, _: Delivery| {
            let _ = starts.send(());
            std::future::pending::<Outcome>()
        };
        let drain = Duration::from_millis(100);
        let worker = Running::start(bench.worker().drain_timeout(drain).register(handler)).await;
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        started.recv().await.unwrap();
        worker.stop().await;
        eventually("the message", async || (bench.ready(&bench.name).await == 1).then_some(())).await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_stops_under_load_has_told_the_broker_of_all_that_it_has_done() {
    bench(&[100], async |bench| {
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..3000)).await {
            result.unwrap();
        }
        let (done, some) = (Arc::new(AtomicU32::new(0)), Arc::new(tokio::sync::Notify::new()));
        let (count, enough) = (Arc::clone(&done), Arc::clone(&some));
        let handler = move |_: Count, _: Delivery| {
            if done.fetch_add(1, Ordering::SeqCst) == 1000 {
                some.notify_one();
            }
            async { Outcome::Done }
        };
        let worker = Running::start(bench.worker().register(handler)).await;
        enough.notified().await;
        worker.stop().await;
        let left = 3000 - count.load(Ordering::SeqCst);
        eventually("the rest", async || (bench.ready(&bench.name).await >= left).then_some(())).await;
        assert_eq!(bench.ready(&bench.name).await, left, "jobs that are done came back");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_is_dropped_loses_nothing() {
    bench(&[100], async |bench| {
        let (starts, mut started) = mpsc::unbounded_channel();
        let handler = move |_: Count, _: Delivery| {
            let _ = starts.send(());
            std::future::pending::<Outcome>()
        };
        let task = tokio::spawn(bench.worker().register(handler).run(std::future::pending()));
        Publisher::start(&bench.broker).publish(bench.job(1)).await.unwrap();
        started.recv().await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        eventually("the message", async || (bench.ready(&bench.name).await == 1).then_some(())).await;
    })
    .await;
}
