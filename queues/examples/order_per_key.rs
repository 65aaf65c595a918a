//! Order for each key: the steps of one order run one after the other, also when one of them is retried. Other orders go on.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example order_per_key --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Delivery, Job, Message, Outcome, RetryPolicy, testing::TestQueue};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct Step {
    order: String,
    number: u32,
}

impl Job for Step {
    const KIND: &'static str = "step";
}

async fn take(step: Step, delivery: Delivery) -> Outcome {
    println!("order {}: step {}, attempt {}", step.order, step.number, delivery.attempt);
    match (step.order.as_str(), step.number, delivery.attempt) {
        ("A", 2, 1) => Outcome::retry("the warehouse does not answer"),
        _ => Outcome::Done,
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::new(Duration::from_millis(500), Duration::from_millis(500), 3);
    // It makes a `Topology` with a name of its own and deletes it in the end; your program keeps one, and a `Publisher`.
    let url = env::var("AMQP_URL")?;
    let queue = TestQueue::declare_with(&url, policy, |topology| topology.partitioned(4)).await?;
    queue.start(queue.worker().register(take));
    for number in 1..=3 {
        for order in ["A", "B"] {
            let step = Step { order: order.to_owned(), number };
            let message = Message::job(queue.topology(), format!("{order}-{number}"), &step)?;
            queue.publish_message(message.with_key(queue.topology(), order)).await?;
        }
    }
    queue.drained(Duration::from_secs(20)).await?;
    println!("step 3 of order A has waited for step 2; order B has not");
    queue.delete().await?;
    Ok(())
}
