//! A job that is published, fails, is retried and is parked. It needs a broker: `AMQP_URL=amqp://… cargo run --example first_job`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Broker, Delivery, Job, Message, Outcome, Publisher, RetryPolicy, Topology, Worker};
use std::{env, error::Error, sync::Arc, time::Duration};
use tokio::sync::Notify;

#[derive(serde::Serialize, serde::Deserialize)]
struct SendReceipt {
    order: String,
}

impl Job for SendReceipt {
    const KIND: &'static str = "send_receipt";
}

/// Publishes one job and works until it is parked.
#[tokio::main]
pub async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned());
    let broker = Broker::new(&url, "first_job")?;

    // One retry, after half a second.
    let policy = RetryPolicy::new(Duration::from_millis(500), Duration::from_secs(10), 1);
    let topology = Topology::new("example.jobs", "example.receipts", policy.delays())?;
    broker.declare(&topology).await?;

    let publisher = Publisher::start(&broker);
    let job = SendReceipt { order: "4711".to_owned() };
    publisher.publish(Message::job(&topology, "receipt-4711", &job)?).await?;
    println!("published: a queue has it on disk");

    let exhausted = Arc::new(Notify::new());
    let last_attempt = Arc::clone(&exhausted);
    Worker::new(&broker, topology.clone(), policy)
        .register(move |job: SendReceipt, delivery: Delivery| {
            println!("attempt {} of order {}: no printer", delivery.attempt, job.order);
            if delivery.attempt == 2 {
                last_attempt.notify_one();
            }
            async { Outcome::Retry { reason: "no printer".to_owned() } }
        })
        // The worker finishes, settles and acknowledges what it has begun before it stops.
        .run(exhausted.notified())
        .await?;

    for queue in broker.verify(&topology).await? {
        println!("{:28} {} messages", queue.name, queue.messages);
    }
    Ok(())
}
