//! Compares a topology with the broker through AMQP alone, and reports what differs. It declares only what a passive
//! declaration has just seen.

use super::{
    Broker, BrokerError,
    declare::{arguments, count_messages, durable_exchange, exchange_kind, look_at},
};
use crate::{
    ExchangeSpec, Topology,
    connection::{reply_code, text},
};
use futures_util::future::join_all;
use lapin::{
    Connection,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::{collections::BTreeMap, fmt, time::Duration};
use tokio::time::timeout;

/// How long a queue's leader may take to answer. Elections take about a second.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);

/// How the broker differs from a topology.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TopologyReport {
    /// The broker's version, if known.
    pub broker_version: Option<String>,
    /// In the order of declaration; empty when everything is as wanted.
    pub differences: Vec<Difference>,
    /// Messages that consumers hold, by queue, some seconds late; only the management API knows them.
    pub unacknowledged: BTreeMap<String, u64>,
}

/// One thing that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// ``queue `NAME` ``, ``exchange `NAME` ``, ``binding `NAME` `` or `broker`.
    pub object: String,
    /// An argument's or a policy's name (`x-message-ttl`, `policy message-ttl`), or `type`, `durable`, `declaration`,
    /// `existence`, `leader`, `version`, `feature flag stream_queue`.
    pub property: String,
    /// The wanted value; `None` if nothing should be set.
    pub wanted: Option<String>,
    /// The actual value; `None` if there is none.
    pub found: Option<String>,
}

impl Difference {
    /// A difference found elsewhere, for a report that shows both.
    #[must_use]
    pub fn new(object: &str, property: &str, wanted: Option<String>, found: Option<String>) -> Self {
        Self { object: object.to_owned(), property: property.to_owned(), wanted, found }
    }

    pub(super) fn missing(object: &str) -> Self {
        Self::new(object, "existence", Some("declared".to_owned()), None)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} is {}, wanted {}", self.object, self.property, value(&self.found), value(&self.wanted))
    }
}

impl fmt::Display for TopologyReport {
    /// One line for each difference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.differences.is_empty() {
            return writeln!(f, "everything is declared as wanted");
        }
        self.differences.iter().try_for_each(|difference| writeln!(f, "{difference}"))
    }
}

/// Declared queues whose leader does not answer. Only asking reveals them: `rabbitmqctl list_queues` of 3.10.8 shows such a
/// queue as running, with a leader.
pub(super) async fn without_leader(broker: &Broker, connection: &Connection, topology: &Topology) -> Vec<Difference> {
    let asked = topology.queues().into_iter().map(async |queue| {
        // An error and a missing queue are answers too; the comparison reports them.
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
    for ExchangeSpec { name, kind } in topology.exchanges() {
        let object = format!("exchange `{name}`");
        let passive = ExchangeDeclareOptions { passive: true, ..durable_exchange() };
        for (step, options) in [passive, durable_exchange()].into_iter().enumerate() {
            let channel = connection.create_channel().await.map_err(|error| broker.error(&error))?;
            let none = FieldTable::default();
            match channel.exchange_declare(name.as_str().into(), exchange_kind(kind), options, none).await {
                Err(error) if step == 0 && reply_code(&error) == Some(404) => {
                    differences.push(Difference::missing(&object));
                    break;
                }
                declared => differences.extend(refusal(broker, &object, declared)?),
            }
        }
    }
    differences.extend(without_leader(broker, connection, topology).await);
    Ok(TopologyReport { broker_version: None, differences, unacknowledged: BTreeMap::new() })
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
