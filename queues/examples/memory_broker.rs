//! The broker in memory: a test of a job that is retried for days needs neither RabbitMQ nor days.
//! `cargo run --example memory_broker --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{
    Delivery, Job, Outcome, RetryPolicy, Selection,
    testing::{MemoryBroker, TestQueue},
};
use std::{
    error::Error,
    time::{Duration, Instant},
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(serde::Serialize, serde::Deserialize)]
struct CloseAccount;

impl Job for CloseAccount {
    const KIND: &'static str = "close_account";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let broker = MemoryBroker::start().await?;
    let queue = TestQueue::declare(&broker.url(), RetryPolicy::new(DAY, 4 * DAY, 3)).await?;
    queue.start(queue.worker().register(|_: CloseAccount, delivery: Delivery| async move {
        println!("attempt {}: the account has money", delivery.attempt);
        Outcome::retry("the account has money")
    }));
    queue.publish("close-7", &CloseAccount).await?;
    for _ in 0..3 {
        println!("{} days later", broker.skip_delay().await.as_secs() / DAY.as_secs());
    }
    queue.drained(Duration::from_secs(20)).await?;
    let parked = queue.parking().list(&Selection::all()).await?;
    println!("parked: {:?}; a week has taken {:.1} s", parked[0].reason, started.elapsed().as_secs_f64());
    queue.delete().await?;
    Ok(())
}
