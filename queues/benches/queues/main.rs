//! This library against bare lapin, on one broker and in one run: `./dev bench queues`. The same 300-byte message with the
//! same properties, quorum queues, interleaved rounds; what counts is the ratio within a run, because machines are noisy.
//! It needs `AMQP_URL`, deletes the queues that it makes, and measures nothing but speed: the tests are elsewhere. It fails when
//! a ratio is below its target.
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
mod place;
mod report;
mod tally;

use place::argument;
pub(crate) use place::{Note, Place};
use report::Samples;
use std::{env, process::ExitCode};

const PARTITIONS: u16 = 8;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let Some([_, name, file]) = arguments.windows(3).find(|part| part[0] == "--order-worker") {
        order::work(name, file).await;
        return ExitCode::SUCCESS;
    }
    let place = Place::new();
    if let jobs @ 1.. = argument("--order", 0) {
        order::run(place, jobs).await;
        return ExitCode::SUCCESS;
    }
    place.broker.declare(&place.topology).await.unwrap();
    let mut fast_enough = true;
    match argument("--memory", 0) {
        0 => fast_enough = compare(&place, argument("--messages", 50_000), argument("--rounds", 9)).await,
        jobs => memory::run(&place, jobs).await,
    }
    bare::delete(&place).await;
    if fast_enough { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// With partitions, on queues of its own.
async fn partitioned() -> Place {
    let mut place = Place::new();
    place.topology = place.topology.partitioned(PARTITIONS).unwrap();
    place.broker.declare(&place.topology).await.unwrap();
    place
}

/// Whether the library is as fast as it has to be.
async fn compare(place: &Place, messages: usize, rounds: usize) -> bool {
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
                    let partitions = partitioned().await;
                    let messages = partitions.messages(messages);
                    sampled.push(("partitions publish", library::publish(&partitions, messages).await));
                    let each = (prefetch / PARTITIONS).max(1);
                    let rate = library::consume(&partitions, count, each).await;
                    sampled.push(("partitions consume", rate));
                    bare::delete(&partitions).await;
                }
                _ => {
                    let rate = bare::publish_buffered(place, place.messages(messages)).await;
                    sampled.push(("bare publish, buffered", rate));
                    let every = usize::from(prefetch / 4).max(1);
                    sampled.push(("bare consume, ack multiple", bare::consume(place, messages, prefetch, every).await));
                }
            }
            place.clear(place.topology.queue(), sampled[sampled.len() - 1].0).await;
        }
        if round > 0 {
            sampled.into_iter().for_each(|(name, rate)| samples.add(name, rate));
        }
    }
    samples.print(&bare::latency(place, 500).await, &library::latency(place, 500).await)
}

async fn best_prefetch(place: &Place, messages: usize) -> u16 {
    let mut rates = Vec::new();
    for prefetch in [100, 300, 1000, 2000] {
        bare::publish(place, place.messages(messages)).await;
        let rate = bare::consume(place, messages, prefetch, usize::from(prefetch / 4)).await;
        place.clear(place.topology.queue(), "bare consume").await;
        println!("bare consume with prefetch {prefetch}: {rate:.0}/s");
        rates.push((rate, prefetch));
    }
    rates.into_iter().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, prefetch)| prefetch).unwrap()
}
