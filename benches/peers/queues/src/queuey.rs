//! queuey as its documentation shows it, without priorities, which quorum queues do not have before RabbitMQ 4.3.

use crate::{
    Note as Body, Place,
    tally::{Tally, latencies},
};
use futures_util::{StreamExt, stream};
use queuey::{RabbitMqOptions, prelude::*};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

pub(crate) const QUEUE: &str = "queuey.notes";
/// Each is a channel with one message in flight. Its documentation asks for more than 8 where confirms are what is waited for.
const PUBLISHED_AT_ONCE: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Queues)]
#[queues(prefix = "queuey")]
enum Queue {
    #[queue(prefetch = 1000, max_priority = 0)]
    Notes,
}

#[derive(Debug, Serialize, Deserialize, Job)]
#[job(queue = Queue::Notes)]
struct Note {
    text: String,
}

fn note() -> Note {
    serde_json::from_value(serde_json::to_value(Body::new()).unwrap()).unwrap()
}

async fn backend(place: &Place) -> Arc<RabbitMqBackend> {
    let options = RabbitMqOptions::default().publish_concurrency(PUBLISHED_AT_ONCE);
    Arc::new(RabbitMqBackend::with_options(&place.url, options).await.unwrap())
}

pub(crate) async fn publish(place: &Place, count: usize) -> f64 {
    let backend = backend(place).await;
    let producer = Producer::<Queue, _>::new(backend.clone()).await.unwrap();
    let notes: Vec<Note> = (0..count).map(|_| note()).collect();
    let started = Instant::now();
    let published = stream::iter(&notes).map(|note| producer.enqueue(note)).buffer_unordered(PUBLISHED_AT_ONCE);
    published.for_each(async |id| _ = id.unwrap()).await;
    let rate = count as f64 / started.elapsed().as_secs_f64();
    backend.close().await.unwrap();
    rate
}

async fn worker(place: &Place, handle: impl Fn() + Send + Sync + 'static) -> Worker<Queue, RabbitMqBackend> {
    let handler = FnHandler::<Note, _>::new(move |_: Note, _: JobContext| {
        handle();
        async { Ok::<(), JobError>(()) }
    });
    let builder = Worker::<Queue, _>::builder(backend(place).await).close_backend_on_shutdown(true);
    builder.handler(handler).build().await.unwrap()
}

pub(crate) async fn consume(place: &Place, count: usize) -> f64 {
    let tally = Arc::new(Tally::of(count));
    let handled = Arc::clone(&tally);
    let worker = worker(place, move || handled.add()).await;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    tally.all().await;
    handle.shutdown();
    running.await.unwrap().unwrap();
    tally.rate()
}

pub(crate) async fn latency(place: &Place, count: usize) -> Vec<Duration> {
    let (tell, mut heard) = mpsc::unbounded_channel();
    let worker = worker(place, move || _ = tell.send(Instant::now())).await;
    let handle = worker.handle();
    let running = tokio::spawn(worker.run());
    let producer = Producer::<Queue, _>::new(backend(place).await).await.unwrap();
    // The worker is there when it has a job.
    producer.enqueue(&note()).await.unwrap();
    heard.recv().await.unwrap();
    let note = note();
    let delays = latencies(count, &mut heard, async || _ = producer.enqueue(&note).await.unwrap()).await;
    handle.shutdown();
    running.await.unwrap().unwrap();
    delays
}
