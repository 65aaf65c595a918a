//! Delays of any number of seconds, up to 97 days in the queues and as long as you like by way of a worker.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example long_delays --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Delivery, Job, Message, Outcome, RetryPolicy, Topology, testing::TestQueue};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct Remind {
    after_seconds: u64,
}

impl Job for Remind {
    const KIND: &'static str = "remind";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(60), 3);
    let queue = TestQueue::declare_with(&env::var("AMQP_URL")?, policy, Topology::with_long_delays).await?;
    queue.start(queue.worker().register(|job: Remind, delivery: Delivery| async move {
        let age = delivery.age().unwrap_or_default().as_secs_f64();
        println!("asked for {} s, came after {age:.1} s", job.after_seconds);
        Outcome::Done
    }));
    for after_seconds in [3, 1] {
        let message = Message::job(queue.topology(), format!("after-{after_seconds}"), &Remind { after_seconds })?;
        queue.publish_message(message.with_delay(queue.topology(), Duration::from_secs(after_seconds))).await?;
    }
    println!("three seconds are two and one: a queue for each binary digit of a delay, and none for each delay");
    queue.drained(Duration::from_secs(20)).await?;
    queue.delete().await?;
    Ok(())
}
