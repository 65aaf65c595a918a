//! The consumers of a worker's queues on one channel, as one stream of messages.

use futures_util::{
    Stream, StreamExt,
    stream::{FusedStream, SelectAll},
};
use lapin::{
    Channel, Consumer,
    message::Delivery as Message,
    options::{BasicCancelOptions, BasicConsumeOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::timeout;
use uuid::Uuid;

/// Of each queue the messages, and `None` when the broker cancels its consumer.
pub(super) struct Consumers {
    messages: SelectAll<Messages>,
    tags: Vec<ShortString>,
}

impl Consumers {
    pub(super) fn new() -> Self {
        Self { messages: SelectAll::new(), tags: Vec::new() }
    }

    /// Adds a queue's consumer. With `spread` it gets a random priority: from RabbitMQ 4.0 on, the highest of a queue with a
    /// single active consumer is the active one, so the queues are spread over the workers, also over one that starts later.
    /// Before that it is the first.
    pub(super) async fn start(&mut self, channel: &Channel, queue: &str, spread: bool) -> lapin::Result<()> {
        let mut arguments = FieldTable::default();
        if spread {
            // The last four bytes of a UUID are random.
            let priority = i32::try_from(Uuid::now_v7().as_u128() & 0x7fff_ffff).unwrap_or_default();
            arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        }
        let consumer =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments).await?;
        self.tags.push(consumer.tag());
        self.messages.push(Messages(Some(consumer)));
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Option<Option<lapin::Result<Message>>> {
        self.messages.next().await
    }

    /// Takes no more; what was delivered before is still in the stream, which then ends.
    ///
    /// # Errors
    /// The reason, when the connection is lost.
    pub(super) async fn cancel(
        self,
        channel: &Channel,
        patience: Duration,
    ) -> Result<impl FusedStream<Item = Option<lapin::Result<Message>>> + Unpin, String> {
        for tag in self.tags {
            match timeout(patience, channel.basic_cancel(tag, BasicCancelOptions::default())).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(crate::connection::text(&error)),
                Err(_) => return Err(format!("the consumer could not be cancelled within {patience:?}")),
            }
        }
        Ok(self.messages)
    }
}

/// One consumer's messages, and that it has ended: a merged stream would leave it out in silence.
struct Messages(Option<Consumer>);

impl Stream for Messages {
    type Item = Option<lapin::Result<Message>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(consumer) = &mut self.0 else { return Poll::Ready(None) };
        let message = ready!(consumer.poll_next_unpin(context));
        if message.is_none() {
            self.0 = None;
        }
        Poll::Ready(Some(message))
    }
}
