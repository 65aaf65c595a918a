//! A job that is enqueued in a transaction of sea-orm's, here on SQLite, as a batch of one.
//! It needs a broker: `AMQP_URL=amqp://… cargo run --example sea_orm_transaction --features sea-orm`
#![expect(clippy::print_stdout, reason = "an example tells what it does")]
#![expect(clippy::disallowed_methods, reason = "its transactions are sea-orm's own")]

use outbox::{
    Outbox, Pool, Relay,
    queues::{Delivery, Job, Message, Outcome, Publisher, RetryPolicy, testing::TestQueue},
    sea_orm::{ConnectionTrait, Database, TransactionTrait},
};
use std::{env, error::Error, time::Duration};

#[derive(serde::Serialize, serde::Deserialize)]
struct Ship {
    order: u32,
}

impl Job for Ship {
    const KIND: &'static str = "ship";
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let db = Database::connect("sqlite::memory:").await?;
    let pool = Pool::try_from(&db)?;
    pool.create_tables().await?;
    db.execute_unprepared("CREATE TABLE orders (number INTEGER)").await?;
    let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 3);
    let queue = TestQueue::declare(&env::var("AMQP_URL")?, policy).await?;
    let (tell, mut shipped) = tokio::sync::mpsc::unbounded_channel();
    queue.start(queue.worker().register(move |Ship { order }: Ship, _: Delivery| {
        println!("order {order} is shipped");
        let _ = tell.send(());
        async { Outcome::Done }
    }));
    let outbox = Outbox::new();

    let (txn, mut jobs) = (db.begin().await?, outbox.batch());
    txn.execute_unprepared("INSERT INTO orders VALUES (4711)").await?;
    let message = Message::job(queue.topology(), "ship-4711", &Ship { order: 4711 })?;
    jobs.enqueue(&txn, message).await?;
    txn.commit().await?;
    jobs.committed();
    println!("order 4711 is committed, and its job with it");

    let until_shipped = async { _ = shipped.recv().await };
    Relay::new(&outbox, pool, Publisher::start(queue.broker())).run(until_shipped).await?;
    queue.delete().await?;
    Ok(())
}
