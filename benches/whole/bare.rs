//! The yardstick: what lapin, reqwest and one guarded UPDATE a job can do without any of Clawback's promises. A process of its own.

#![expect(clippy::disallowed_methods, reason = "what the library has its own places for is measured without it")]

use std::{env, sync::Arc};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
        QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable},
};
use sea_orm::sqlx::{PgPool, postgres::PgPoolOptions, query};
use tokio::{process::Command, sync::Semaphore, task::JoinSet};

use crate::{
    children::Child,
    database::{self, MEASURED},
    place::{Place, variable},
    program::TRANSFER_AMOUNT,
};

const QUEUE: &str = "bench-bare";
/// Its jobs in the database.
pub(crate) const TABLE: &str = "bare_jobs";
/// The defaults of `clawback worker`: REVERSAL_PREFETCH, REVERSAL_CONCURRENCY, and its database pool.
const PREFETCH: u16 = 256;
const CONCURRENCY: usize = 128;
const DATABASE_CONNECTIONS: u32 = 20;
const CONFIRMS: usize = 500;

pub(crate) fn transfer_id(number: u32) -> String {
    format!("tr_bare{number:08}")
}

/// Puts `count` jobs on a quorum queue, without a worker.
///
/// # Errors
/// The broker's and the database's.
pub(crate) async fn prepare(place: &Place, db: &PgPool, count: u32) -> Result<()> {
    database::make_jobs(db, TABLE, count).await?;
    let (connection, channel) = open(&place.amqp_url).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(QUEUE.into(), durable, arguments).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut confirms =
        futures_util::stream::iter(0..count)
            .map(|number| {
                let properties = BasicProperties::default().with_delivery_mode(2);
                let (options, body) = (BasicPublishOptions::default(), number.to_string());
                let channel = &channel;
                async move {
                    channel.basic_publish("".into(), QUEUE.into(), options, body.as_bytes(), properties).await?.await
                }
            })
            .buffered(CONFIRMS);
    while let Some(confirm) = confirms.next().await {
        ensure!(confirm?.is_ack(), "the broker did not confirm a message");
    }
    drop(confirms);
    connection.close(200, "OK".into()).await?;
    Ok(())
}

/// Starts the process that drains them and does nothing else.
///
/// # Errors
/// When it can't be started.
pub(crate) fn start(place: &Place) -> Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command
        .arg("--bare-worker")
        .env("BENCH_DATABASE_URL", place.database_url_of(MEASURED, MEASURED)?)
        .env("BENCH_STRIPE", place.simulator_url());
    Child::start(place, "bare", &mut command)
}

struct Worker {
    http: reqwest::Client,
    stripe: String,
    db: PgPool,
}

/// What the process of its own does, until it is killed.
///
/// # Errors
/// The first one of any job: nothing is retried.
pub(crate) async fn work() -> Result<()> {
    let worker = Arc::new(Worker {
        http: reqwest::Client::builder().no_proxy().retry(reqwest::retry::never()).build()?,
        stripe: variable("BENCH_STRIPE")?,
        db: PgPoolOptions::new()
            .max_connections(DATABASE_CONNECTIONS)
            .connect(&variable("BENCH_DATABASE_URL")?)
            .await?,
    });
    let (_connection, channel) = open(&variable("AMQP_URL")?).await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(QUEUE.into(), "".into(), options, none).await?;
    let (free, mut jobs) = (Arc::new(Semaphore::new(CONCURRENCY)), JoinSet::new());
    while let Some(delivery) = consumer.next().await {
        let (delivery, worker, turn) = (delivery?, Arc::clone(&worker), Arc::clone(&free).acquire_owned().await?);
        jobs.spawn(async move {
            let _until_done = turn;
            worker.run(delivery).await
        });
        while let Some(ended) = jobs.try_join_next() {
            ended??;
        }
    }
    Ok(())
}

impl Worker {
    async fn run(&self, delivery: Delivery) -> Result<()> {
        let number: u32 = std::str::from_utf8(&delivery.data)?.parse().context("a body must be a number")?;
        let (id, key) = (transfer_id(number), format!("bare-{number}-0"));
        let request =
            self.http.post(format!("{}/v1/transfers/{id}/reversals", self.stripe)).bearer_auth("sk_test_bench");
        let form = [("amount", TRANSFER_AMOUNT.to_string()), ("metadata[clawback_claim]", key.clone())];
        let answer = request.header("idempotency-key", key).form(&form).send().await?.error_for_status()?;
        let _body = answer.bytes().await?;
        let update = "UPDATE bare_jobs SET status = 'reversed' WHERE id = $1 AND status = 'pending'";
        let updated = query(update).bind(i64::from(number)).execute(&self.db).await?.rows_affected();
        ensure!(updated == 1, "job {number} was not pending");
        delivery.acker.ack(BasicAckOptions::default()).await?;
        Ok(())
    }
}

/// A connection and a channel.
///
/// # Errors
/// The broker's.
pub(crate) async fn open(url: &str) -> Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}
