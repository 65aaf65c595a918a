//! A worker of a partitioned queue: `ordered_worker AMQP_URL QUEUE PARTITIONS`. It reports each job when it begins it, as a
//! line of its standard output: the time in nanoseconds, the process id, the job's id. The tests start it, and kill it.
#![expect(clippy::print_stdout, reason = "its output is read by the tests")]

use queues::{Broker, Delivery, Outcome, RetryPolicy, Topology, Worker};
use std::{
    env,
    error::Error,
    process,
    time::{Duration, SystemTime},
};
use tokio::time::sleep;

#[derive(serde::Serialize, serde::Deserialize)]
struct Count {
    number: u32,
}

impl queues::Job for Count {
    const KIND: &'static str = "count";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().collect();
    let [_, url, queue, partitions] = arguments.as_slice() else {
        return Err("usage: ordered_worker AMQP_URL QUEUE PARTITIONS".into());
    };
    let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(100), 2);
    let topology = Topology::new(format!("{queue}.jobs"), queue, policy.delays())?.partitioned(partitions.parse()?)?;
    Worker::new(&Broker::new(url, queue)?, topology, policy)
        .prefetch(20)
        .register(|_: Count, delivery: Delivery| async move {
            let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
            println!("{now} {} {}", process::id(), delivery.message_id);
            sleep(Duration::from_millis(5)).await;
            Outcome::Done
        })
        .run(std::future::pending())
        .await?;
    Ok(())
}
