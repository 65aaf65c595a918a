//! Batch handlers: up to three pages in one call, or what has come within 200 ms; each page is settled by its own outcome.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example batches --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Delivery, Job, Outcome, RetryPolicy, Selection, testing::TestQueue};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct IndexPage {
    number: u32,
}

impl Job for IndexPage {
    const KIND: &'static str = "index_page";
}

/// An outcome for each page, in their order.
async fn index(pages: Vec<(IndexPage, Delivery)>) -> Vec<Result<(), Outcome>> {
    let numbers: Vec<u32> = pages.iter().map(|(page, _)| page.number).collect();
    println!("one insert of {} pages: {numbers:?}", numbers.len());
    let index = |number: u32| if number == 4 { Err(Outcome::park("there is no page 4")) } else { Ok(()) };
    numbers.into_iter().map(index).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(100), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    for number in 1..=7 {
        queue.publish(&format!("page-{number}"), &IndexPage { number }).await?;
    }
    queue.start(queue.worker().register_batch(3, Duration::from_millis(200), index));
    queue.drained(Duration::from_secs(20)).await?;
    for job in queue.parking().list(&Selection::all()).await? {
        println!("parked: {} ({}); its batch is done", job.id, job.reason.unwrap_or_default());
    }
    queue.delete().await?;
    Ok(())
}
