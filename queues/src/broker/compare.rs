//! Compares a topology with the broker through AMQP alone: what is missing, and what a declaration would be refused for.
//! Called by [`Broker::check`](super::Broker::check). It declares only what a passive declaration has just seen.

use super::{
    Broker, BrokerError,
    connection::{reply_code, text},
    declare::{arguments, look_at},
    report::{Difference, TopologyReport},
};
use crate::Topology;
use lapin::{
    Connection, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};

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
