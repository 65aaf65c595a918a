//! Takes messages from the parking queue, oldest first. What is not acknowledged by the end returns to its place.

use super::{Failure, interrupted};
use crate::{
    Broker, BrokerError, ParkingError, Topology,
    acknowledge::give_back_all,
    broker::{Counted, count_messages},
    connection::{Opened, close, text},
};
use futures_util::{StreamExt, stream::BoxStream};
use lapin::{
    Channel, Connection, Consumer, ErrorKind, Event,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{mem, time::Duration};
use tokio::time::{Instant, sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that delivers nothing for so long although messages are left will not.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks whether another consumer has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Within which lapin tells why a connection has ended, at times just after the failure.
const REASON_WAIT: Duration = Duration::from_millis(500);
const HELD_BY_OTHERS: &str = "another consumer holds messages of the parking queue, perhaps all of them";

pub(super) struct Taking {
    events: BoxStream<'static, Event>,
    connection: Opened,
    channel: Channel,
    consumer: Consumer,
    queue: String,
    /// How many of the messages counted at the start have not been taken. What is parked later (a replay that fails at
    /// once) is ignored, or the operation would never end.
    left: u32,
    /// How many were taken and are still there.
    held: u32,
    /// Another consumer was there: what it holds was not counted.
    others: bool,
}

impl Taking {
    /// Takes `reach` messages at most. One consumer takes them all: a quorum queue restores the order of what one consumer
    /// gives back. Another operation is given some time to end.
    pub(super) async fn open(broker: &Broker, topology: &Topology, reach: u32) -> Result<Self, Failure> {
        let connection = broker.connect("parking").await?;
        let mut events = connection.events_listener().boxed();
        let queue = topology.parked_queue();
        let counted = match counted_alone(broker, &connection, &queue).await {
            Ok(Some(counted)) => counted,
            Ok(None) => {
                close(&connection).await;
                return Err(ParkingError::NoQueue { queue }.into());
            }
            Err(error) => {
                let unreadable = met_unreadable(&mut events).await;
                return Err(Failure { error: error.into(), unreadable });
            }
        };
        let (left, others) = (counted.ready.min(reach), counted.consumers > 0);
        let consuming = async {
            let channel = connection.create_channel().await?;
            // AMQP counts the prefetch in 16 bits, and takes 0 for "unlimited".
            let prefetch = u16::try_from(left.max(1)).unwrap_or(u16::MAX);
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let consumer = consume(&channel, &queue).await?;
            lapin::Result::Ok((channel, consumer))
        };
        match timeout(TIMEOUT, consuming).await {
            Ok(Ok((channel, consumer))) => {
                Ok(Self { events, connection, channel, consumer, queue, left, held: 0, others })
            }
            Ok(Err(error)) => {
                let unreadable = met_unreadable(&mut events).await;
                Err(Failure { error: broker.error(&error).into(), unreadable })
            }
            Err(_) => Err(broker.unreachable(format!("no consumer within {TIMEOUT:?}")).into()),
        }
    }

    /// Ends an operation: `ended` is true when it has what it was to look for, whatever else there is.
    pub(super) async fn end(mut self, ended: Result<bool, String>) -> Result<(), Failure> {
        let unreadable = ended.is_err() && met_unreadable(&mut self.events).await;
        let others = self.others;
        let closed = self.close().await;
        let ended = match ended.and_then(|has_all| closed.map(|()| has_all)) {
            Ok(false) if others => Err(HELD_BY_OTHERS.to_owned()),
            ended => ended.map(drop),
        };
        ended.map_err(|reason| Failure { error: interrupted(Vec::new(), reason), unreadable })
    }

    /// The next message, or `None` when none is left or no more can be held. Cancel-safe.
    ///
    /// # Errors
    /// The reason, when the channel is lost or counted messages do not arrive.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, String> {
        if self.left == 0 || self.held >= u16::MAX.into() {
            return Ok(None);
        }
        match timeout(PATIENCE, self.consumer.next()).await {
            Ok(Some(Ok(message))) => {
                self.left -= 1;
                self.held += 1;
                Ok(Some(message))
            }
            Ok(Some(Err(error))) => Err(text(&error)),
            Ok(None) => Err("the broker cancelled the consumer".to_owned()),
            Err(_) => Err(format!(
                "none of {} more that were counted came within {PATIENCE:?} (does another consumer hold them?)",
                self.left
            )),
        }
    }

    /// One that was taken is acknowledged.
    pub(super) fn gone(&mut self) {
        self.held -= 1;
    }

    /// Gives back what is not acknowledged and starts again at the first of it, on the same channel, which keeps the order:
    /// nothing is counted again, and what is parked meanwhile stays behind.
    pub(super) async fn begin_again(&mut self) -> Result<(), String> {
        let beginning = async {
            self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await?;
            give_back_all(&self.channel).await?;
            consume(&self.channel, &self.queue).await
        };
        match timeout(TIMEOUT, beginning).await {
            Ok(Ok(consumer)) => self.consumer = consumer,
            Ok(Err(error)) => return Err(text(&error)),
            Err(_) => return Err(format!("no new consumer within {TIMEOUT:?}")),
        }
        self.left += mem::take(&mut self.held);
        Ok(())
    }

    /// Gives back what is not acknowledged. The cancellation first: beyond some 32 acknowledgements the broker's channel
    /// queues them for the quorum queue and loses them when it closes; a cancellation goes through the queue's log, behind
    /// them.
    async fn close(self) -> Result<(), String> {
        let closing = async {
            self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default()).await?;
            self.channel.close(200, "OK".into()).await
        };
        let closed = match timeout(TIMEOUT, closing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(text(&error)),
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        };
        close(&self.connection).await;
        closed
    }
}

/// Counts once no other consumer is there, or when that takes too long.
async fn counted_alone(broker: &Broker, connection: &Connection, queue: &str) -> Result<Option<Counted>, BrokerError> {
    let patience_ends = Instant::now() + PATIENCE;
    loop {
        let counted = count_messages(broker, connection, queue).await?;
        if counted.as_ref().is_none_or(|counted| counted.consumers == 0) || Instant::now() >= patience_ends {
            return Ok(counted);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Whether the connection has ended because lapin could not read a message.
async fn met_unreadable(events: &mut BoxStream<'static, Event>) -> bool {
    let told = async {
        while let Some(event) = events.next().await {
            if let Event::Error(error) = event {
                return matches!(error.kind(), ErrorKind::ParsingError(_));
            }
        }
        false
    };
    timeout(REASON_WAIT, told).await.unwrap_or(false)
}

async fn consume(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}
