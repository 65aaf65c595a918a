//! apalis-amqp as its documentation shows it, with a quorum queue. It switches no confirms on. A worker whose backend has pushed
//! nothing before panics (1.0.0), so each pushes one job first, as its documentation does.

use crate::{
    Note, PREFETCH, Place, bare,
    tally::{Tally, latencies},
};
use apalis::prelude::*;
use apalis_amqp::{AmqpBackend, Config};
use lapin::{options::QueueDeclareOptions, types::FieldTable};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::mpsc, time::sleep};

pub(crate) const QUEUE: &str = "apalis";

/// After its first push.
async fn backend(place: &Place) -> AmqpBackend<Note> {
    let config = Config::default().queue(QUEUE).prefetch_count(PREFETCH).quorum(true);
    let mut backend = AmqpBackend::new_from_addr(&place.url).unwrap().with_config(config);
    backend.push(Note::new()).await.unwrap();
    backend
}

pub(crate) async fn publish(place: &Place, count: usize) -> f64 {
    let mut backend = backend(place).await;
    let started = Instant::now();
    backend.push_bulk((1..count).map(|_| Note::new()).collect()).await.unwrap();
    let rate = count as f64 / started.elapsed().as_secs_f64();
    have_arrived(place, count).await;
    rate
}

/// What is not confirmed is lost when its connection ends, and the jobs are counted later.
async fn have_arrived(place: &Place, count: usize) {
    let (connection, channel) = bare::open(place).await;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for _ in 0..300 {
        let queue = channel.queue_declare(QUEUE.into(), options, FieldTable::default()).await.unwrap();
        if queue.message_count() as usize >= count {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    connection.close(200, "OK".into()).await.unwrap();
}

/// The same messages by bare lapin.
pub(crate) async fn fill(place: &Place, count: usize) {
    drop(backend(place).await);
    let mut messages = place.messages(count - 1);
    for message in &mut messages {
        (message.exchange, message.routing_key) = (String::new(), QUEUE.to_owned());
    }
    bare::publish(place, messages).await;
}

pub(crate) async fn consume(place: &Place, count: usize) -> f64 {
    let tally = Arc::new(Tally::of(count + 1));
    let handled = Arc::clone(&tally);
    let worker = WorkerBuilder::new("bench").backend(backend(place).await).build(move |_: Note| {
        handled.add();
        async { Ok::<(), BoxDynError>(()) }
    });
    let all = Arc::clone(&tally);
    let done = async move {
        all.all().await;
        Ok::<(), WorkerError>(())
    };
    worker.run_until(done).await.unwrap();
    tally.rate()
}

pub(crate) async fn latency(place: &Place, count: usize) -> Vec<Duration> {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let worker = WorkerBuilder::new("bench").backend(backend(place).await).build(move |_: Note| {
        let _ = tell.send(Instant::now());
        async { Ok::<(), BoxDynError>(()) }
    });
    let measuring = async {
        let mut publisher = backend(place).await;
        // The worker is there when it has both backends' first jobs.
        for _ in 0..2 {
            heard.recv().await.unwrap();
        }
        latencies(count, &mut heard, async || publisher.push(Note::new()).await.unwrap()).await
    };
    tokio::select! {
        ended = worker.run() => panic!("the worker has ended: {ended:?}"),
        delays = measuring => delays,
    }
}
