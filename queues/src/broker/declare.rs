//! Declares a topology on an open connection, or looks at it. It never deletes or changes what exists.

use super::{Broker, BrokerError};
use crate::{
    Argument, Binding, ExchangeSpec, QueueSpec, Topology,
    acknowledge::Acknowledgement,
    connection::{close_channel, reply_code, text},
};
use lapin::{
    Channel, Connection, ExchangeKind, Queue,
    options::{BasicGetOptions, ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use std::time::Duration;
use tokio::time::timeout;

pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// A queue as it is on the broker.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct QueueStatus {
    /// The queue's name.
    pub name: String,
    /// Whether it exists; if not, the numbers are 0.
    pub exists: bool,
    /// Messages ready for delivery, without those that a worker holds. RabbitMQ also says 0 for a queue that does not answer
    /// within 250 ms: on an overloaded broker, or while the queue has no leader.
    pub messages: u32,
    /// Consumers of the queue.
    pub consumers: u32,
}

/// Uses its own channel, because an error closes it.
pub(crate) async fn declare(broker: &Broker, connection: &Connection, topology: &Topology) -> Result<(), BrokerError> {
    let work = async {
        let channel = connection.create_channel().await.map_err(|error| broker.error(&error))?;
        for queue in topology.queues() {
            let options = QueueDeclareOptions::durable();
            let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments(&queue)).await;
            declared.map_err(|error| mismatch(broker, format!("queue `{}`", queue.name), &error))?;
        }
        for ExchangeSpec { name, kind } in topology.exchanges() {
            let (options, none) = (durable_exchange(), FieldTable::default());
            let declared = channel.exchange_declare(name.as_str().into(), exchange_kind(kind), options, none).await;
            declared.map_err(|error| mismatch(broker, format!("exchange `{name}`"), &error))?;
        }
        bind(&channel, &topology.bindings()).await.map_err(|error| broker.error(&error))?;
        close_channel(&channel).await;
        Ok(())
    };
    timeout(TIMEOUT, work).await.unwrap_or_else(|_| Err(too_slow(broker)))
}

async fn bind(channel: &Channel, bindings: &[Binding]) -> lapin::Result<()> {
    for Binding { source, destination, to_queue, routing_key } in bindings {
        let (source, destination, key) = (source.as_str(), destination.as_str(), routing_key.as_str());
        let none = FieldTable::default();
        if *to_queue {
            let options = QueueBindOptions::default();
            channel.queue_bind(destination.into(), source.into(), key.into(), options, none).await?;
        } else {
            let options = ExchangeBindOptions::default();
            channel.exchange_bind(destination.into(), source.into(), key.into(), options, none).await?;
        }
    }
    Ok(())
}

pub(super) fn durable_exchange() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() }
}

pub(super) fn exchange_kind(kind: &str) -> ExchangeKind {
    match kind {
        "fanout" => ExchangeKind::Fanout,
        "topic" => ExchangeKind::Topic,
        _ => ExchangeKind::Direct,
    }
}

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

/// What is in a queue, as far as the broker tells.
pub(crate) struct Counted {
    /// Without those that consumers hold.
    pub(crate) ready: u32,
    pub(crate) consumers: u32,
}

/// How many messages are ready in a queue, or `None` when it is missing. The broker says 0 for a quorum queue that does not
/// answer within 250 ms, so a 0 is believed only when the queue itself says so.
pub(crate) async fn count_messages(
    broker: &Broker,
    connection: &Connection,
    queue: &str,
) -> Result<Option<Counted>, BrokerError> {
    let counting = async {
        let Some(found) = look_at(broker, connection, queue).await? else { return Ok(None) };
        let ready = match found.message_count() {
            0 => ask_for_count(connection, queue).await.map_err(|error| broker.error(&error))?,
            count => count,
        };
        Ok(Some(Counted { ready, consumers: found.consumer_count() }))
    };
    timeout(TIMEOUT, counting).await.unwrap_or_else(|_| Err(too_slow(broker)))
}

/// Takes a message, which tells how many are left, and gives it back through the queue's log, ahead of later consumers.
async fn ask_for_count(connection: &Connection, queue: &str) -> lapin::Result<u32> {
    let channel = connection.create_channel().await?;
    let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await? else { return Ok(0) };
    // On an error the channel has ended, which gives it back too.
    let _ = Acknowledgement::new(got.delivery.acker).give_back().await;
    channel.close(200, "OK".into()).await?;
    Ok(got.message_count + 1)
}

/// A passive declaration, on its own channel, which a missing queue (`None`) closes.
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
            Argument::Flag(flag) => AMQPValue::Boolean(*flag),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// `PRECONDITION_FAILED` (other arguments) and `RESOURCE_LOCKED` (an exclusive queue) are about this object.
fn mismatch(broker: &Broker, object: String, error: &lapin::Error) -> BrokerError {
    match reply_code(error) {
        Some(405 | 406) => BrokerError::Mismatch { object, reply: text(error) },
        _ => broker.error(error),
    }
}

pub(super) fn too_slow(broker: &Broker) -> BrokerError {
    broker.unreachable(format!("the queues could not be declared or read within {TIMEOUT:?}"))
}
