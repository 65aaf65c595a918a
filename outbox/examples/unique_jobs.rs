//! A job that is enqueued in your own transaction, on SQLite, once for its key.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example unique_jobs`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use outbox::{
    Outbox, OutboxJob, Pool, Relay,
    queues::{Delivery, Job, Message, Outcome, Publisher, RetryPolicy, testing::TestQueue},
    sqlx::{self, sqlite::SqlitePoolOptions},
};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct SendReceipt {
    order: u32,
}

impl Job for SendReceipt {
    const KIND: &'static str = "send_receipt";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await?;
    Pool::from(pool.clone()).create_tables().await?;
    sqlx::query("CREATE TABLE paid (number INTEGER)").execute(&pool).await?;
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    let outbox = Outbox::new();

    for (order, committed) in [(1, true), (1, true), (2, false), (3, true)] {
        let mut txn = pool.begin().await?;
        sqlx::query("INSERT INTO paid VALUES (?)").bind(order).execute(&mut *txn).await?;
        let message = Message::job(queue.topology(), format!("receipt-{order}"), &SendReceipt { order })?;
        let job = OutboxJob::new(message).unique(format!("receipt-{order}"), Duration::from_secs(3600));
        let enqueued = outbox.enqueue(&mut *txn, job).await?;
        println!("order {order}: {enqueued:?}, {}", if committed { "committed" } else { "rolled back" });
        if committed { txn.commit().await? } else { txn.rollback().await? }
    }

    let (tell, mut sent) = tokio::sync::mpsc::unbounded_channel();
    queue.start(queue.worker().register(move |job: SendReceipt, _: Delivery| {
        println!("receipt for order {}", job.order);
        let _ = tell.send(());
        async { Outcome::Done }
    }));
    let relay = Relay::new(&outbox, pool, Publisher::start(queue.broker()));
    let both = async { assert!(sent.recv().await.is_some() && sent.recv().await.is_some()) };
    relay.run(both).await?;
    println!("one receipt for order 1, none for order 2");
    queue.delete().await?;
    Ok(())
}
