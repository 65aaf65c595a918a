//! Typed errors: a handler returns `Result<(), E>`, and `E` says what becomes of the job.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example typed_errors --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Delivery, Job, Outcome, RetryPolicy, Selection, testing::TestQueue};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct Charge {
    card: String,
}

impl Job for Charge {
    const KIND: &'static str = "charge";
}

enum ChargeError {
    BankIsBusy,
    NoSuchCard(String),
}

impl From<ChargeError> for Outcome {
    fn from(error: ChargeError) -> Self {
        match error {
            ChargeError::BankIsBusy => Self::retry("the bank is busy"),
            ChargeError::NoSuchCard(card) => Self::park(format!("there is no card {card}")),
        }
    }
}

async fn charge(job: Charge, delivery: Delivery) -> Result<(), ChargeError> {
    println!("card {}, attempt {}", job.card, delivery.attempt);
    match (job.card.as_str(), delivery.attempt) {
        ("1234", 1) => Err(ChargeError::BankIsBusy),
        ("1234", _) => Ok(()),
        _ => Err(ChargeError::NoSuchCard(job.card)),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(100), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    queue.start(queue.worker().register(charge));
    for card in ["1234", "9999"] {
        queue.publish(&format!("charge-{card}"), &Charge { card: card.to_owned() }).await?;
    }
    queue.drained(Duration::from_secs(20)).await?;
    for job in queue.parking().list(&Selection::all()).await? {
        println!("parked: {} ({})", job.id, job.reason.unwrap_or_default());
    }
    queue.delete().await?;
    Ok(())
}
