//! A worker that reports each job that it has handled as a line of its standard output: `fault_worker AMQP_URL QUEUE`. The
//! fault tests start it, and kill it.
#![expect(clippy::print_stdout, reason = "its output is read by the tests")]

use queues::{Broker, Delivery, Outcome, RetryPolicy, Topology, Worker};
use std::{env, error::Error, time::Duration};
use tokio::time::sleep;

#[derive(serde::Serialize, serde::Deserialize)]
struct Job {
    number: u32,
}

impl queues::Job for Job {
    const KIND: &'static str = "numbered";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, url, queue] = arguments.as_slice() else { return Err("usage: fault_worker AMQP_URL QUEUE".into()) };
    let policy = RetryPolicy::new(Duration::from_millis(200), Duration::from_millis(200), 1);
    let topology = Topology::new(format!("{queue}.jobs"), queue, policy.delays())?;
    let broker = Broker::new(url, queue)?;
    Worker::new(&broker, topology, policy)
        .prefetch(200)
        .concurrency(50)
        .register(|job: Job, delivery: Delivery| async move {
            // So that some are in flight at any time.
            sleep(Duration::from_millis(5)).await;
            if job.number % 10 == 1 && delivery.attempt == 1 {
                return Outcome::Retry { reason: "once".to_owned() };
            }
            println!("{}", job.number);
            if job.number % 100 == 7 {
                return Outcome::Park { reason: "for a person".to_owned() };
            }
            Outcome::Done
        })
        .run(std::future::pending())
        .await?;
    Ok(())
}
