//! What this library does of the same.

use crate::{
    Note, Place,
    tally::{Tally, latencies},
};
use queues::{Delivery, Message, Outcome, Publisher, Worker};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Empty handlers end at once: it is enough that there is always one that can begin.
const CONCURRENCY: usize = 100;

/// Messages per second, each confirmed.
pub(crate) async fn publish(place: &Place, messages: Vec<Message>) -> f64 {
    let publisher = connected(place).await;
    let count = messages.len();
    let started = Instant::now();
    for result in publisher.publish_all(messages).await {
        result.unwrap();
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    publisher.close().await;
    rate
}

pub(crate) async fn connected(place: &Place) -> Publisher {
    let publisher = Publisher::start(&place.broker);
    publisher.state().wait_for(queues::ConnectionState::is_connected).await.unwrap();
    publisher
}

/// Messages per second from the first job's beginning until the worker has stopped: it cancels its consumer too, which says
/// that the queue has worked off all acknowledgements, and closes both its connections. Bodies are decoded.
pub(crate) async fn consume(place: &Place, count: usize, prefetch: u16) -> f64 {
    let tally = Arc::new(Tally::of(count));
    let (handled, all) = (Arc::clone(&tally), Arc::clone(&tally));
    let worker = Worker::new(&place.broker, place.topology.clone(), place.policy)
        .prefetch(prefetch)
        .concurrency(CONCURRENCY)
        // So short that the prefetch is the one that is asked for.
        .job_timeout(Duration::from_secs(10))
        .register(move |_: Note, _: Delivery| {
            handled.add();
            std::future::ready(Outcome::Done)
        });
    // As a program with other things to do would: beside it, and not in it.
    tokio::spawn(worker.run(async move { all.all().await })).await.unwrap().unwrap();
    tally.rate()
}

/// From publishing to the handler, one job at a time, to a worker that has nothing to do; ascending.
pub(crate) async fn latency(place: &Place, count: usize) -> Vec<Duration> {
    let (tell, mut hear) = mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker =
        Worker::new(&place.broker, place.topology.clone(), place.policy).register(move |_: Note, _: Delivery| {
            let _ = tell.send(Instant::now());
            std::future::ready(Outcome::Done)
        });
    let mut state = worker.state();
    let running = tokio::spawn(worker.run(async { stopped.await.unwrap_or_default() }));
    state.wait_for(queues::ConnectionState::is_connected).await.unwrap();
    let publisher = connected(place).await;
    let mut messages = place.messages(count).into_iter();
    let publish = async || publisher.publish(messages.next().unwrap()).await.unwrap();
    let delays = latencies(count, &mut hear, publish).await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    delays
}
