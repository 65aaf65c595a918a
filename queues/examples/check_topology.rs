//! Is everything declared as wanted? A look at the broker through AMQP and its management API, which changes nothing.
//! It needs both: `AMQP_URL=amqp://… RABBITMQ_MANAGEMENT_URL=http://… cargo run --example check_topology --features testing,management`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use queues::{RetryPolicy, Topology, testing::TestQueue, url::Url};
use std::{env, error::Error, time::Duration};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let management = Url::parse(&env::var("RABBITMQ_MANAGEMENT_URL")?)?;
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(4), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    let (broker, topology) = (queue.broker(), queue.topology());
    print!("as declared: {}", broker.check_with_management(topology, &management).await?);

    // What the next version of a program wants: another retry after eight seconds.
    let longer = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(8), 4);
    let wanted = Topology::new(topology.exchange(), topology.queue(), longer.delays())?;
    let report = broker.check_with_management(&wanted, &management).await?;
    println!("{} difference before it is deployed:", report.differences.len());
    print!("{report}");
    queue.delete().await?;
    Ok(())
}
