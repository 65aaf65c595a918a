//! Compares a topology with the broker through AMQP alone: what is missing, what a declaration would be refused for, and
//! which queues have no leader. Called by [`Broker`]'s checks. It declares only what a passive declaration has just seen.

use super::{
    Broker, BrokerError,
    connection::{reply_code, text},
    declare::{arguments, count_messages, look_at},
    report::{Difference, TopologyReport},
};
use crate::Topology;
use futures_util::future::join_all;
use lapin::{
    Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::time::Duration;
use tokio::time::timeout;

/// How long a queue's leader may take to say how full the queue is. Elections take about a second.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// The queues that are declared, but for which nobody answers. Only asking them tells: `rabbitmqctl list_queues` of 3.10.8 shows
/// such a queue as running, with a leader.
pub(super) async fn without_leader(broker: &Broker, connection: &Connection, topology: &Topology) -> Vec<Difference> {
    let asked = topology.queues().into_iter().map(async |queue| {
        // An error, or a queue that is missing, is an answer: whoever compares finds that by himself.
        let answered = timeout(LEADER_PATIENCE, count_messages(broker, connection, &queue.name)).await;
        answered.err().map(|_| {
            let (wanted, found) = ("an answer".to_owned(), format!("silent for {LEADER_PATIENCE:?}"));
            Difference::new(&format!("queue `{}`", queue.name), "leader", Some(wanted), Some(found))
        })
    });
    join_all(asked).await.into_iter().flatten().collect()
}

pub(super) async fn compare(
    broker: &Broker,
    connection: &Connection,
    topology: &Topology,
) -> Result<TopologyReport, BrokerError> {
    let mut differences = Vec::new();
    for queue in topology.queues() {
        let object = format!("queue `{}`", queue.name);
        if look_at(broker, connection, &queue.name).await?.is_none() {
            differences.push(Difference::missing(&object));
            continue;
        }
        let channel = connection.create_channel().await.map_err(|error| broker.error(&error))?;
        let options = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments(&queue)).await;
        differences.extend(refusal(broker, &object, declared.map(drop))?);
    }
    let exchange = topology.exchange();
    let object = format!("exchange `{exchange}`");
    let passive = ExchangeDeclareOptions { passive: true, durable: true, ..ExchangeDeclareOptions::default() };
    for (step, options) in [passive, ExchangeDeclareOptions { passive: false, ..passive }].into_iter().enumerate() {
        let channel = connection.create_channel().await.map_err(|error| broker.error(&error))?;
        let none = FieldTable::default();
        match channel.exchange_declare(exchange.into(), ExchangeKind::Direct, options, none).await {
            Err(error) if step == 0 && reply_code(&error) == Some(404) => {
                differences.push(Difference::missing(&object));
                break;
            }
            declared => differences.extend(refusal(broker, &object, declared)?),
        }
    }
    differences.extend(without_leader(broker, connection, topology).await);
    Ok(TopologyReport { broker_version: None, differences })
}

/// The broker's reply names one argument, and its value on both sides.
fn refusal(broker: &Broker, object: &str, declared: lapin::Result<()>) -> Result<Option<Difference>, BrokerError> {
    match declared {
        Ok(()) => Ok(None),
        Err(error) if matches!(reply_code(&error), Some(405 | 406)) => {
            let wanted = "as by this topology".to_owned();
            Ok(Some(Difference::new(object, "declaration", Some(wanted), Some(format!("refused: {}", text(&error))))))
        }
        Err(error) => Err(broker.error(&error)),
    }
}
