//! Limits for each key: of each customer one job at a time, and five a second. A customer with many jobs holds up no other.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example limits_per_key --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Delivery, Job, KeyLimit, Message, Outcome, RetryPolicy, testing::TestQueue};
use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

#[derive(serde::Serialize, serde::Deserialize)]
struct SendReceipt;

impl Job for SendReceipt {
    const KIND: &'static str = "send_receipt";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    for (customer, receipts) in [("busy", 8), ("calm", 1)] {
        for number in 1..=receipts {
            let message = Message::job(queue.topology(), format!("{customer}-{number}"), &SendReceipt)?;
            queue.publish_message(message.with_key(queue.topology(), customer)).await?;
        }
    }

    let started = Instant::now();
    let worker = queue.worker().register(move |_: SendReceipt, delivery: Delivery| async move {
        println!("{:.1} s: {}", started.elapsed().as_secs_f64(), delivery.message_id);
        Outcome::Done
    });
    queue.start(worker.limit_per_key(KeyLimit::new().concurrency(1).rate(5, Duration::from_secs(1))));
    queue.drained(Duration::from_secs(20)).await?;
    println!("the calm customer's only receipt has not waited for the busy one's eight");
    queue.delete().await?;
    Ok(())
}
