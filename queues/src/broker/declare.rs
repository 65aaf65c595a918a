//! Declares a topology on an open connection, or looks at it. Called by [`Broker`], and by the worker each time that it
//! (re)connects. It never deletes or changes what exists.

use super::{
    Broker, BrokerError,
    connection::{close_channel, reply_code, text},
};
use crate::{Argument, QueueSpec, Topology, acknowledge::Acknowledgement};
use lapin::{
    Channel, Connection, ExchangeKind, Queue,
    options::{BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use std::time::Duration;
use tokio::time::timeout;

pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A queue as it is on the broker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct QueueStatus {
    /// The queue's name.
    pub name: String,
    /// Whether it is there; when it is not, the numbers are 0.
    pub exists: bool,
    /// Messages that are ready for delivery: not those that a worker has. RabbitMQ says 0, too, for a queue that does not
    /// answer it within 250 ms: on an overloaded broker, or while the queue has no leader.
    pub messages: u32,
    /// Consumers of the queue.
    pub consumers: u32,
}

/// Declares on a channel of its own, because an error closes the channel.
pub(crate) async fn declare(broker: &Broker, connection: &Connection, topology: &Topology) -> Result<(), BrokerError> {
    let work = async {
        let channel = connection.create_channel().await.map_err(|error| broker.error(&error))?;
        for queue in topology.queues() {
            let options = QueueDeclareOptions::durable();
            let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments(&queue)).await;
            declared.map_err(|error| mismatch(broker, format!("queue `{}`", queue.name), &error))?;
        }
        declare_exchange(&channel, topology)
            .await
            .map_err(|error| mismatch(broker, format!("exchange `{}`", topology.exchange()), &error))?;
        close_channel(&channel).await;
        Ok(())
    };
    timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(too_slow(broker)))
}

/// The exchange comes last: once it is there, a publisher can reach queues that are complete.
async fn declare_exchange(channel: &Channel, topology: &Topology) -> lapin::Result<()> {
    let (exchange, queue) = (topology.exchange(), topology.queue());
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, FieldTable::default()).await?;
    let (options, none) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(queue.into(), exchange.into(), queue.into(), options, none).await
}

/// Passive declarations. A missing queue closes the channel, so that each queue is given its own.
pub(super) async fn look(
    broker: &Broker,
    connection: &Connection,
    topology: &Topology,
) -> Result<Vec<QueueStatus>, BrokerError> {
    let work = async {
        let mut statuses = Vec::new();
        for QueueSpec { name, .. } in topology.queues() {
            let queue = look_at(broker, connection, &name).await?;
            let (messages, consumers) =
                queue.as_ref().map_or((0, 0), |queue| (queue.message_count(), queue.consumer_count()));
            statuses.push(QueueStatus { name, exists: queue.is_some(), messages, consumers });
        }
        Ok(statuses)
    };
    timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(too_slow(broker)))
}

/// How many messages are ready in a queue, or `None` when it is missing. A quorum queue that does not answer the broker within
/// 250 ms is said to have none, so a 0 is believed when the queue itself says it, and not before.
pub(crate) async fn count_messages(
    broker: &Broker,
    connection: &Connection,
    queue: &str,
) -> Result<Option<u32>, BrokerError> {
    let counting = async {
        match look_at(broker, connection, queue).await?.map(|queue| queue.message_count()) {
            Some(0) => Ok(Some(ask_for_count(connection, queue).await.map_err(|error| broker.error(&error))?)),
            count => Ok(count),
        }
    };
    timeout(TIMEOUT, counting).await.unwrap_or_else(|_| Err(too_slow(broker)))
}

/// Takes a message, which tells how many are left, and gives it back: through the queue's log, in front of whoever consumes
/// after this.
async fn ask_for_count(connection: &Connection, queue: &str) -> lapin::Result<u32> {
    let channel = connection.create_channel().await?;
    let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? else { return Ok(0) };
    // An error means that the channel has ended, which gives it back too.
    let _ = Acknowledgement::new(got.delivery.acker).give_back().await;
    channel.close(200, "OK".into()).await?;
    Ok(got.message_count + 1)
}

/// The queue as it is, or `None` when it is missing.
pub(super) async fn look_at(
    broker: &Broker,
    connection: &Connection,
    queue: &str,
) -> Result<Option<Queue>, BrokerError> {
    const NOT_FOUND: u16 = 404;
    let channel = connection.create_channel().await.map_err(|error| broker.error(&error))?;
    let options = QueueDeclareOptions::durable().passive();
    match channel.queue_declare(queue.into(), options, FieldTable::default()).await {
        Ok(queue) => {
            close_channel(&channel).await;
            Ok(Some(queue))
        }
        Err(error) if reply_code(&error) == Some(NOT_FOUND) => Ok(None),
        Err(error) => Err(broker.error(&error)),
    }
}

pub(super) fn arguments(queue: &QueueSpec) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            Argument::Text(text) => AMQPValue::LongString(text.as_str().into()),
            Argument::Integer(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// `PRECONDITION_FAILED` (other arguments) and `RESOURCE_LOCKED` (somebody's exclusive queue) are about this object.
fn mismatch(broker: &Broker, object: String, error: &lapin::Error) -> BrokerError {
    match reply_code(error) {
        Some(405 | 406) => BrokerError::Mismatch { object, reply: text(error) },
        _ => broker.error(error),
    }
}

pub(super) fn too_slow(broker: &Broker) -> BrokerError {
    broker.unreachable(format!("the queues could not be declared or read within {TIMEOUT:?}"))
}
