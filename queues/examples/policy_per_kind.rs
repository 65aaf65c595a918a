//! A retry policy for each kind: two kinds share a queue and its worker, and one of them is given up sooner.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example policy_per_kind --features testing`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Delivery, Job, Outcome, RetryPolicy, Selection, Topology, testing::TestQueue};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct SendInvoice;

impl Job for SendInvoice {
    const KIND: &'static str = "send_invoice";
}

#[derive(serde::Serialize, serde::Deserialize)]
struct SendNewsletter;

impl Job for SendNewsletter {
    const KIND: &'static str = "send_newsletter";
}

async fn fail(delivery: Delivery) -> Outcome {
    println!("{}: attempt {} of {:?}", delivery.kind, delivery.attempt, delivery.max_attempts);
    Outcome::retry("the mail server does not answer")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let patient = RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(400), 4);
    let impatient = RetryPolicy::new(Duration::from_millis(50), Duration::from_millis(50), 1);
    // The queue declares the delays of both.
    let delays = [patient.delays(), impatient.delays()].concat();
    let shape = |plain: Topology| Topology::new(plain.exchange(), plain.queue(), delays);
    let queue = TestQueue::declare_with(&env::var("AMQP_URL")?, patient, shape).await?;

    let worker = queue.worker().register(|_: SendInvoice, delivery: Delivery| fail(delivery));
    let newsletter = |_: SendNewsletter, delivery: Delivery| fail(delivery);
    queue.start(worker.register_with_policy(impatient, newsletter));
    queue.publish("invoice-1", &SendInvoice).await?;
    queue.publish("newsletter-1", &SendNewsletter).await?;
    queue.drained(Duration::from_secs(20)).await?;
    for job in queue.parking().list(&Selection::all()).await? {
        println!("parked: {} ({})", job.id, job.reason.unwrap_or_default());
    }
    queue.delete().await?;
    Ok(())
}
