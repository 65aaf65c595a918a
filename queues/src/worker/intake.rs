//! One work queue's channel, with its consumer and its acknowledgements.

use crate::{
    acknowledge::{Acks, Unsettled},
    connection::close_channel,
};
use futures_util::{
    Stream, StreamExt,
    stream::{AbortHandle, Abortable, abortable},
};
use lapin::{
    Acker, Channel, Connection, Consumer,
    message::Delivery as Message,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::{FieldTable, ShortString},
};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::timeout;
use tracing::warn;

/// How long a queue is waited for when a channel is closed.
const SETTLING_PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Intake {
    channel: Channel,
    acks: Acks,
    /// `None` while it takes nothing.
    consumer: Option<(ShortString, AbortHandle)>,
    /// How many of its jobs run.
    pub(super) running: usize,
    /// Where the order counts: it starts no more jobs, and once none runs, its channel is closed.
    pub(super) leaving: bool,
    /// Whether anything has come. Of a queue with a single active consumer it is then the active one.
    pub(super) active: bool,
}

impl Intake {
    pub(super) async fn open(connection: &Connection, prefetch: u16) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        // Before consuming: a consumer keeps the prefetch of its channel at its start.
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let acks = Acks::start(prefetch);
        Ok(Self { channel, acks, consumer: None, running: 0, leaving: false, active: false })
    }

    /// The messages of the queue with this number.
    ///
    /// All consumers have the same priority, although from RabbitMQ 4.0 on different ones would spread queues with a single
    /// active consumer over the workers: on 4.3 a consumer that dies while it makes way for one of a higher priority
    /// stays in the queue's list of waiting consumers, and is later handed messages.
    pub(super) async fn consume(&mut self, number: usize, queue: &str) -> lapin::Result<Abortable<Messages>> {
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = self.channel.basic_consume(queue.into(), "".into(), options, none).await?;
        let tag = consumer.tag();
        let (messages, end) = abortable(Messages { number, consumer: Some(consumer) });
        self.consumer = Some((tag, end));
        Ok(messages)
    }

    pub(super) fn is_consuming(&self) -> bool {
        self.consumer.is_some()
    }

    pub(super) fn unsettled(&self, tag: u64, acker: Acker) -> Unsettled {
        self.acks.unsettled(tag, acker)
    }

    /// Takes no more; what was delivered before is still in the stream, which then ends.
    pub(super) async fn cancel(&mut self) -> lapin::Result<()> {
        match self.consumer.take() {
            Some((tag, _)) => self.channel.basic_cancel(tag, BasicCancelOptions::default()).await,
            None => Ok(()),
        }
    }

    /// Waits until the queue knows of all that was acknowledged, before the channel is closed in order.
    ///
    /// RabbitMQ's channel passes on 32 acknowledgements to a quorum queue; those beyond wait in the channel until the queue has
    /// applied these, and are lost when it is closed before that (<https://github.com/rabbitmq/rabbitmq-server/issues/10327>). A
    /// consumer begins and ends through the queue's log, behind them. It may be handed one message, which goes back with the
    /// channel.
    pub(super) async fn settle(&self, queue: &str) {
        self.acks.flush().await;
        let passing = async {
            self.channel.basic_qos(1, BasicQosOptions::default()).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = self.channel.basic_consume(queue.into(), "".into(), options, none).await?;
            self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
        };
        if !matches!(timeout(SETTLING_PATIENCE, passing).await, Ok(Ok(()))) {
            warn!(queue, "the queue does not answer: jobs that are done may be delivered again");
        }
    }

    /// Writes the acknowledgements of finished jobs first. The broker then takes back what is not settled, in its order. Only
    /// then is the consumer dropped, which would cancel it: the broker would hand what comes next to another one before.
    pub(super) async fn close(self) {
        self.acks.flush().await;
        close_channel(&self.channel).await;
        if let Some((_, end)) = self.consumer {
            end.abort();
        }
    }
}

/// One consumer's messages, and that it has ended (`None`): a merged stream would leave that out in silence.
pub(super) struct Messages {
    number: usize,
    consumer: Option<Consumer>,
}

impl Stream for Messages {
    type Item = (usize, Option<lapin::Result<Message>>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(consumer) = &mut self.consumer else { return Poll::Ready(None) };
        let message = ready!(consumer.poll_next_unpin(context));
        if message.is_none() {
            self.consumer = None;
        }
        Poll::Ready(Some((self.number, message)))
    }
}
