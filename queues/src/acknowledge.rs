//! The one place that acknowledges. Used when a job is settled, when waiting messages are given back, and when a parked
//! job is replayed, discarded or given back. It decides nothing.

use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use std::{future::Future, time::Duration};
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The right to acknowledge one delivery, once.
pub(crate) struct Acknowledgement(Acker);

/// The delivery's channel has ended, or does not answer: the broker delivers the message again.
#[derive(Debug)]
pub(crate) struct ChannelEnded;

impl Acknowledgement {
    pub(crate) fn new(acker: Acker) -> Self {
        Self(acker)
    }

    /// Whether it can still be used: false once the channel has ended.
    pub(crate) fn is_usable(&self) -> bool {
        self.0.usable()
    }

    /// The message is dealt with.
    #[expect(clippy::disallowed_methods, reason = "the one place that acknowledges")]
    pub(crate) async fn ack(&self) -> Result<(), ChannelEnded> {
        written(self.0.ack(BasicAckOptions { multiple: false })).await
    }

    /// This message and every older one of its channel that is still out are dealt with.
    #[expect(clippy::disallowed_methods, reason = "the one place that acknowledges")]
    pub(crate) async fn ack_with_all_before(&self) -> Result<(), ChannelEnded> {
        written(self.0.ack(BasicAckOptions { multiple: true })).await
    }

    /// Back to the queue, for whoever comes next.
    #[expect(clippy::disallowed_methods, reason = "the one place that gives back")]
    pub(crate) async fn give_back(&self) -> Result<(), ChannelEnded> {
        written(self.0.nack(BasicNackOptions { multiple: false, requeue: true })).await
    }
}

/// Back to the queue with all that a channel has out.
pub(crate) async fn give_back_all(channel: &Channel) -> lapin::Result<()> {
    /// AMQP's "every message so far".
    const ALL: u64 = 0;
    channel.basic_nack(ALL, BasicNackOptions { multiple: true, requeue: true }).await
}

/// lapin says `Ok(false)` when the channel was lost before.
async fn written(sent: impl Future<Output = lapin::Result<bool>>) -> Result<(), ChannelEnded> {
    match timeout(TIMEOUT, sent).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false) | Err(_)) | Err(_) => Err(ChannelEnded),
    }
}
