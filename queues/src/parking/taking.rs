//! Takes messages from the parking queue, oldest first, and keeps them unacknowledged: what is not acknowledged by the
//! end goes back to its place. Used by every parking operation, which acknowledges what is to go.

use super::ParkingError;
use crate::{
    Broker, Topology,
    acknowledge::give_back_all,
    broker::{close, count_messages, text},
};
use futures_util::StreamExt;
use lapin::{
    Channel, Connection, Consumer,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{mem, time::Duration};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that delivers nothing for so long, although there are messages left, is not going to.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Taking {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    queue: String,
    /// How many messages were there in the beginning and have not been taken. What is parked later, for one by a replay
    /// that fails at once, is not looked at: the operation would never end.
    left: u32,
    /// How many were taken and are still there.
    held: u32,
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
            let consumer = consume(&channel, &queue).await?;
            lapin::Result::Ok((channel, consumer))
        };
        match timeout(TIMEOUT, consuming).await {
            Ok(Ok((channel, consumer))) => Ok(Self { connection, channel, consumer, queue, left, held: 0 }),
            Ok(Err(error)) => Err(broker.error(&error).into()),
            Err(_) => Err(broker.unreachable(format!("no consumer within {TIMEOUT:?}")).into()),
        }
    }

    /// The next message, or `None` when there are no more to look at, or no more can be held. Safe to cancel.
    ///
    /// # Errors
    /// The reason, when the channel is lost, or the broker is silent about messages that it has counted.
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
                "none of {} more that were counted came within {PATIENCE:?} (does somebody else hold them?)",
                self.left
            )),
        }
    }

    /// One that was taken is acknowledged.
    pub(super) fn gone(&mut self) {
        self.held -= 1;
    }

    /// Gives back what is not acknowledged, and begins at the first of it again. On the same channel, where the broker does
    /// one thing after the other: nothing is counted anew, and what is parked meanwhile stays behind.
    ///
    /// # Errors
    /// The reason, when the channel is lost.
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

async fn consume(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}
