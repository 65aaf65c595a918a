//! Periodic jobs: two schedulers on one SQLite database, and each tick fires once.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example periodic_jobs`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use outbox::{
    Missed, Outbox, Pool, Relay, Scheduler,
    queues::{Delivery, Job, Message, Outcome, Publisher, RetryPolicy, testing::TestQueue},
    sqlx::sqlite::SqlitePoolOptions,
};
use std::{env, error::Error, future::pending, time::Duration};
use tokio::{select, sync::mpsc};

#[derive(serde::Serialize, serde::Deserialize)]
struct Report {
    until: String,
}

impl Job for Report {
    const KIND: &'static str = "report";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::from(SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?);
    pool.create_tables().await?;
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    let (tell, mut reports) = mpsc::unbounded_channel();
    queue.start(queue.worker().register(move |job: Report, delivery: Delivery| {
        let _ = tell.send(format!("{} ({})", delivery.message_id, job.until));
        async { Outcome::Done }
    }));

    let outbox = Outbox::new();
    let relay = Relay::new(&outbox, pool.clone(), Publisher::start(queue.broker()));
    let scheduler = || {
        let topology = queue.topology().clone();
        // Every second; without the first field every minute.
        Scheduler::new(&outbox, pool.clone()).every("report", "* * * * * *", Missed::Latest, move |tick| {
            Message::new(&topology, Report::KIND, "", format!(r#"{{"until":"{tick}"}}"#).into_bytes())
        })
    };
    let (first, second) = (scheduler()?.run(pending()), scheduler()?.run(pending()));
    select! {
        () = first => {}
        () = second => {}
        ended = relay.run(pending()) => ended?,
        () = async {
            for number in 1..=3 {
                println!("{number}: {}", reports.recv().await.unwrap_or_default());
            }
        } => println!("three ticks, three reports, two schedulers"),
    }
    queue.delete().await?;
    Ok(())
}
