//! Takes messages from the parking queue, oldest first, and keeps them unacknowledged: what is not acknowledged by the
//! end goes back to its place. Used by every parking operation. It acknowledges nothing itself.

use super::ParkingError;
use crate::{
    Broker, Topology,
    broker::{close, count_messages, text},
};
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::time::Duration;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Messages that were counted and do not come are held by somebody else, who looks at them too.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Taking {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// How many messages were there in the beginning and have not been taken. What is parked later, for one by a replay
    /// that fails at once, is not looked at: the operation would never end.
    left: u32,
}

impl Taking {
    /// Takes `reach` messages at most. One consumer takes them all, because a quorum queue puts what one consumer gives
    /// back in order.
    pub(super) async fn open(broker: &Broker, topology: &Topology, reach: u32) -> Result<Self, ParkingError> {
        let connection = broker.connect("parking").await?;
        let queue = topology.parked_queue();
        let Some(count) = count_messages(broker, &connection, &queue).await? else {
            close(&connection).await;
            return Err(ParkingError::NoQueue { queue });
        };
        let left = count.min(reach);
        let consuming = async {
            let channel = connection.create_channel().await?;
            // AMQP counts the prefetch in 16 bits, and takes 0 for "unlimited".
            let prefetch = u16::try_from(left.max(1)).unwrap_or(u16::MAX);
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = channel.basic_consume(queue.as_str().into(), "".into(), options, none).await?;
            lapin::Result::Ok((channel, consumer))
        };
        match timeout(TIMEOUT, consuming).await {
            Ok(Ok((channel, consumer))) => Ok(Self { connection, channel, consumer, left }),
            Ok(Err(error)) => Err(broker.error(&error).into()),
            Err(_) => Err(broker.unreachable(format!("no consumer within {TIMEOUT:?}")).into()),
        }
    }

    pub(super) fn left(&self) -> u32 {
        self.left
    }

    /// The next message, or `None` when there are no more to look at. Safe to cancel.
    ///
    /// # Errors
    /// The reason, when the channel is lost.
    pub(super) async fn next(&mut self) -> Result<Option<Delivery>, String> {
        if self.left == 0 {
            return Ok(None);
        }
        match timeout(PATIENCE, self.consumer.next()).await {
            Ok(Some(Ok(message))) => {
                self.left -= 1;
                Ok(Some(message))
            }
            Ok(Some(Err(error))) => Err(text(&error)),
            Ok(None) => Err("the broker cancelled the consumer".to_owned()),
            Err(_) => Ok(None),
        }
    }

    /// Gives back what is not acknowledged, and sees to it that the acknowledgements arrive: beyond some 32 at a time the
    /// broker's channel keeps them waiting for the quorum queue, and loses those when it is closed. A cancellation goes
    /// through the queue's log, behind them.
    ///
    /// # Errors
    /// The reason, when there was no answer.
    pub(super) async fn close(self) -> Result<(), String> {
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
