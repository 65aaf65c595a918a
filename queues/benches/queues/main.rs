//! This library against bare lapin, on one broker and in one run: `./dev bench queues`. The same 300-byte message with the
//! same properties, quorum queues, interleaved rounds; what counts is the ratio within a run, because machines are noisy.
//! It needs `AMQP_URL`, deletes the queues that it makes, and measures nothing but speed: the tests are elsewhere.
//!
//! `-- --memory N` publishes and handles N jobs instead, and shows what this process holds of memory on the way.
//! `-- --order N` runs N jobs with an order, see `order.rs`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark ends by panicking, and prints"
)]

mod bare;
mod library;
mod memory;
mod order;
mod report;

use queues::{Broker, Job, Message, RetryPolicy, Topology};
use report::Samples;
use std::{env, time::Duration};
use uuid::Uuid;

const PARTITIONS: u16 = 8;
/// Together with its field's name and braces a body of 300 bytes.
const TEXT_BYTES: usize = 300 - r#"{"text":""}"#.len();

/// The job of every measurement.
#[derive(serde::Serialize, serde::Deserialize)]
pub(crate) struct Note {
    text: String,
}

impl Job for Note {
    const KIND: &'static str = "note";
}

/// Where a run takes place: queues of its own.
pub(crate) struct Place {
    url: String,
    broker: Broker,
    topology: Topology,
    policy: RetryPolicy,
}

impl Place {
    fn named(name: &str) -> Self {
        let url = env::var("AMQP_URL").expect("AMQP_URL is not set: run `./dev bench queues`, which starts a broker");
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 1);
        let topology = Topology::new(format!("{name}.jobs"), name, policy.delays()).unwrap();
        let broker = Broker::new(&url, name).unwrap();
        Self { url, broker, topology, policy }
    }

    /// The same with partitions, on queues of its own.
    async fn partitioned() -> Self {
        let mut place = Self::named(&format!("bench-{}", Uuid::now_v7()));
        place.topology = place.topology.partitioned(PARTITIONS).unwrap();
        place.broker.declare(&place.topology).await.unwrap();
        place
    }

    /// With partitions, of a thousand keys.
    fn messages(&self, count: usize) -> Vec<Message> {
        let job = Note { text: "x".repeat(TEXT_BYTES) };
        let message = |number: usize| {
            let message = Message::job(&self.topology, Uuid::now_v7(), &job).unwrap();
            match self.topology.is_partitioned() {
                true => message.with_key(&self.topology, format!("key-{}", number % 1000)),
                false => message,
            }
        };
        (0..count).map(message).collect()
    }

    async fn delete(&self) {
        bare::delete(self).await;
    }

    /// A broker may still be passing acknowledgements on to the queue when their channel ends, and then delivers those
    /// messages again: they must not be in the next measurement.
    async fn clear(&self, after: &str) {
        let left = bare::purge(self).await;
        if left > 0 {
            println!("{after}: {left} messages came back although they were acknowledged");
        }
    }
}

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().map_or(default, |value| value.parse().expect("the arguments are numbers"))
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = env::args().collect();
    if let Some([_, name, file]) = arguments.windows(3).find(|part| part[0] == "--order-worker") {
        return order::work(name, file).await;
    }
    let place = Place::named(&format!("bench-{}", Uuid::now_v7()));
    if let jobs @ 1.. = argument("--order", 0) {
        return order::run(place, jobs).await;
    }
    place.broker.declare(&place.topology).await.unwrap();
    match argument("--memory", 0) {
        0 => compare(&place, argument("--messages", 50_000), argument("--rounds", 9)).await,
        jobs => memory::run(&place, jobs).await,
    }
    place.delete().await;
}

async fn compare(place: &Place, messages: usize, rounds: usize) {
    let count = messages;
    // Each side with its best: what is good for lapin is not always good for a library that runs jobs side by side.
    let prefetch = best_prefetch(place, messages).await;
    println!("{messages} messages a round, {rounds} rounds after one for warming up, prefetch {prefetch}");
    let mut samples = Samples::default();
    for round in 0..=rounds {
        let mut sampled = Vec::new();
        // The order changes with the round, so that what a measurement leaves behind hits everybody.
        for turn in 0..4 {
            match (round + turn) % 4 {
                0 => {
                    sampled.push(("bare publish, one by one", bare::publish(place, place.messages(messages)).await));
                    sampled.push(("bare consume, ack one by one", bare::consume(place, messages, prefetch, 1).await));
                }
                1 => {
                    sampled.push(("library publish", library::publish(place, place.messages(messages)).await));
                    sampled.push(("library consume", library::consume(place, messages, prefetch).await));
                }
                2 => {
                    let partitions = Place::partitioned().await;
                    let messages = partitions.messages(messages);
                    sampled.push(("partitions publish", library::publish(&partitions, messages).await));
                    let each = (prefetch / PARTITIONS).max(1);
                    let rate = library::consume(&partitions, count, each).await;
                    sampled.push(("partitions consume", rate));
                    partitions.delete().await;
                }
                _ => {
                    let rate = bare::publish_buffered(place, place.messages(messages)).await;
                    sampled.push(("bare publish, buffered", rate));
                    let every = usize::from(prefetch / 4).max(1);
                    sampled.push(("bare consume, ack multiple", bare::consume(place, messages, prefetch, every).await));
                }
            }
            place.clear(sampled[sampled.len() - 1].0).await;
        }
        if round > 0 {
            sampled.into_iter().for_each(|(name, rate)| samples.add(name, rate));
        }
    }
    let latency = library::latency(place, 500).await;
    samples.print(latency);
}

async fn best_prefetch(place: &Place, messages: usize) -> u16 {
    let mut rates = Vec::new();
    for prefetch in [100, 300, 1000, 2000] {
        bare::publish(place, place.messages(messages)).await;
        let rate = bare::consume(place, messages, prefetch, usize::from(prefetch / 4)).await;
        place.clear("bare consume").await;
        println!("bare consume with prefetch {prefetch}: {rate:.0}/s");
        rates.push((rate, prefetch));
    }
    rates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, prefetch)| prefetch).unwrap()
}
