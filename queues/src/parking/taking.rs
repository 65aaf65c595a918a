//! Takes messages from the parking queue, oldest first. What is not acknowledged by the end returns to its place.

use super::ParkingError;
use crate::{
    Broker, Topology,
    acknowledge::give_back_all,
    broker::count_messages,
    connection::{Opened, close, text},
};
use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{mem, time::Duration};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that delivers nothing for so long although messages are left will not.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Taking {
    connection: Opened,
    channel: Channel,
    consumer: Consumer,
    queue: String,
    /// How many of the messages counted at the start have not been taken. What is parked later (a replay that fails at
    /// once) is ignored, or the operation would never end.
    left: u32,
    /// How many were taken and are still there.
    held: u32,
}

impl Taking {
    /// Takes `reach` messages at most. One consumer takes them all: a quorum queue restores the order of what one consumer
    /// gives back.
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
