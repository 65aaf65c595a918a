//! Whether memory stays flat over many jobs: a publisher and a worker in this process, and its resident memory on the way.

use crate::{Note, Place, library::connected};
use queues::{Delivery, Outcome, Worker};
use std::{fs, sync::Arc, time::Instant};
use tokio::sync::Semaphore;

/// Jobs between two looks at the memory.
const STEP: usize = 50_000;
/// Jobs in one call of the publisher.
const BATCH: usize = 1000;
/// Jobs that the worker may be behind, so that it is the library that is measured and not a queue that grows.
const BEHIND: usize = 20_000;

pub(crate) async fn run(place: &Place, jobs: usize) {
    let room = Arc::new(Semaphore::new(BEHIND));
    let (handled, (stop, stopped)) = (Arc::clone(&room), tokio::sync::oneshot::channel::<()>());
    let worker = Worker::new(&place.broker, place.topology.clone(), place.policy).prefetch(1000).concurrency(100);
    let worker = worker.register(move |_: Note, _: Delivery| {
        handled.add_permits(1);
        std::future::ready(Outcome::Done)
    });
    let running = tokio::spawn(worker.run(async { stopped.await.unwrap_or_default() }));
    let publisher = connected(place).await;
    let started = Instant::now();
    let mut megabytes = Vec::new();
    for batch in 0..jobs.div_ceil(BATCH) {
        room.acquire_many(BATCH as u32).await.unwrap().forget();
        for result in publisher.publish_all(place.messages(BATCH)).await {
            result.unwrap();
        }
        if ((batch + 1) * BATCH).is_multiple_of(STEP) {
            megabytes.push(resident_megabytes());
            println!(
                "{} jobs after {:.1?}: {:.1} MB",
                (batch + 1) * BATCH,
                started.elapsed(),
                megabytes.last().unwrap()
            );
        }
    }
    drop(room.acquire_many(BEHIND as u32).await.unwrap());
    let seconds = started.elapsed().as_secs_f64();
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    publisher.close().await;
    place.clear(place.topology.queue(), "all jobs").await;
    println!(
        "{}",
        serde_json::json!({
            "jobs": jobs, "jobs_per_second": (jobs as f64 / seconds).round(), "resident_megabytes": megabytes,
        })
    );
}

/// From Linux's `/proc`: the second number is resident pages, of 4 KiB.
fn resident_megabytes() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").expect("resident memory is read from /proc, which Linux has");
    let pages: f64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    (pages * 4.096 / 100.0).round() / 10.0
}
