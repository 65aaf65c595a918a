//! Middleware: tower layers around every handler of a worker, here a timeout and a line for each attempt.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example middleware --features testing,tower`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Attempt, Delivery, Job, Outcome, RetryPolicy, testing::TestQueue};
use std::{env, error::Error, time::Duration};
use tower::{timeout::TimeoutLayer, util::MapRequestLayer};

#[derive(serde::Serialize, serde::Deserialize)]
struct CallPartner;

impl Job for CallPartner {
    const KIND: &'static str = "call_partner";
}

async fn call(_: CallPartner, delivery: Delivery) -> Outcome {
    if delivery.attempt == 1 {
        println!("the partner does not answer");
        std::future::pending::<()>().await;
    }
    println!("the partner has answered");
    Outcome::Done
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(100), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    let tell = MapRequestLayer::new(|attempt: Attempt| {
        println!("{}: attempt {} begins", attempt.delivery.message_id, attempt.delivery.attempt);
        attempt
    });
    // The last layer is the outermost. An error of a layer is a failed attempt.
    let worker = queue.worker().register(call).layer(TimeoutLayer::new(Duration::from_millis(200))).layer(tell);
    queue.start(worker);
    queue.publish("call-1", &CallPartner).await?;
    queue.drained(Duration::from_secs(20)).await?;
    queue.delete().await?;
    Ok(())
}
