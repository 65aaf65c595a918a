//! A job that is published, fails, is retried, is parked, and is replayed when its cause is gone.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example first_job`
//! Its queues (`example.receipts…`) and its exchange (`example.jobs`) stay.
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{Broker, Delivery, Job, Message, Outcome, Parking, Publisher, RetryPolicy, Selection, Topology, Worker};
use std::{env, error::Error, time::Duration};
use tokio::sync::mpsc;

#[derive(serde::Serialize, serde::Deserialize)]
struct SendReceipt {
    order: String,
}

impl Job for SendReceipt {
    const KIND: &'static str = "send_receipt";
}

/// Publishes one job and works until it is done.
#[tokio::main]
pub async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AMQP_URL").unwrap_or_else(|_| "amqp://guest:guest@127.0.0.1:5672/%2f".to_owned());
    let broker = Broker::new(&url, "first_job")?;
    // One retry, after half a second.
    let policy = RetryPolicy::new(Duration::from_millis(500), Duration::from_secs(10), 1);
    let topology = Topology::new("example.jobs", "example.receipts", policy.delays())?;
    broker.declare(&topology).await?;

    let job = SendReceipt { order: "4711".to_owned() };
    Publisher::start(&broker).publish(Message::job(&topology, "receipt-4711", &job)?).await?;
    println!("published: a queue has it on disk");

    let (tell, mut done) = mpsc::channel(1);
    let worker =
        Worker::new(&broker, topology.clone(), policy).register(move |job: SendReceipt, delivery: Delivery| {
            println!("order {}, attempt {}, parked before: {:?}", job.order, delivery.attempt, delivery.parked_reason);
            let tell = tell.clone();
            async move {
                if delivery.parked_reason.is_none() {
                    return Outcome::Retry { reason: "no printer".to_owned() };
                }
                let _ = tell.send(()).await;
                Outcome::Done
            }
        });
    // It settles what it has begun before it stops.
    let working = worker.run(async move { done.recv().await.unwrap_or_default() });
    let operating = async {
        let parking = Parking::new(&broker, topology);
        while parking.list(&Selection::all()).await?.is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("parked; somebody mends the printer, and replays it");
        parking.replay(&Selection::id("receipt-4711"), Duration::ZERO).await
    };
    let (worked, replayed) = tokio::join!(working, operating);
    worked?;
    println!("replayed and done: {:?}", replayed?);
    Ok(())
}
