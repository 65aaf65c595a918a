//! One connection's life: connection → topology → channel → prefetch → consumer, then messages until any of them ends.

use super::job::{Desk, Received};
use crate::{
    Broker, BrokerError, Topology,
    acknowledge::Acks,
    broker::declare,
    connection::{close, close_channel, text},
};
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use lapin::{
    Channel, Connection, Consumer, ErrorKind, Event,
    message::Delivery as Message,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::info;

const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Session {
    connection: Connection,
    channel: Channel,
    queue: String,
    /// `None` while the worker is paused.
    consumer: Option<Consumer>,
    paused: watch::Receiver<bool>,
    acks: Acks,
    events: BoxStream<'static, Event>,
    /// When the session takes a larger prefetch.
    pub(super) widening: Option<(Instant, u16)>,
}

/// Why a session takes no more messages.
pub(super) enum Ended {
    Shutdown,
    Lost(String),
    /// A message came that lapin cannot read.
    Unreadable(String),
}

impl Ended {
    fn by(error: &lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ParsingError(_) => Self::Unreadable(text(error)),
            _ => Self::Lost(text(error)),
        }
    }
}

impl Session {
    pub(super) async fn open(
        broker: &Broker,
        topology: &Topology,
        prefetch: u16,
        paused: watch::Receiver<bool>,
    ) -> Result<Self, BrokerError> {
        let connection = broker.connect("consume").await?;
        let events = connection.events_listener().boxed();
        declare(broker, &connection, topology).await?;
        let consuming = async {
            let channel = connection.create_channel().await?;
            // Before consuming: a consumer keeps the prefetch of its channel at its start.
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let consumer = if *paused.borrow() { None } else { Some(consume(&channel, topology.queue()).await?) };
            lapin::Result::Ok((channel, consumer))
        };
        let queue = topology.queue().to_owned();
        match timeout(TIMEOUT, consuming).await {
            Ok(Ok((channel, consumer))) => {
                let acks = Acks::start(prefetch);
                Ok(Self { connection, channel, queue, consumer, paused, acks, events, widening: None })
            }
            Ok(Err(error)) => Err(broker.error(&error)),
            Err(_) => Err(broker.unreachable(format!("no consumer within {TIMEOUT:?}"))),
        }
    }

    /// Starts a job for each message, `concurrency` at a time. Further messages wait in the prefetch buffer.
    pub(super) async fn work(
        &mut self,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        desk: &Arc<Desk>,
        jobs: &mut JoinSet<()>,
    ) -> Ended {
        loop {
            if let Err(reason) = self.pause_or_resume().await {
                return Ended::Lost(reason);
            }
            select! {
                biased;
                () = &mut shutdown => return Ended::Shutdown,
                Some(ended) = jobs.join_next() => {
                    let mut ended = Some(ended);
                    // All that have ended, to make room.
                    while let Some(result) = ended {
                        if result.is_err() {
                            // Handlers' panics are caught; this one left its message unsettled until the channel ends.
                            return Ended::Lost("a job's task panicked outside of its handler".to_owned());
                        }
                        ended = jobs.try_join_next();
                    }
                }
                event = self.events.next() => match event {
                    Some(Event::Error(error)) => return Ended::by(&error),
                    Some(_) => {}
                    None => return Ended::Lost("the connection ended".to_owned()),
                },
                () = sleep_until(self.widening.map_or_else(Instant::now, |(at, _)| at)), if self.widening.is_some() => {
                    if let Err(reason) = self.widen().await {
                        return Ended::Lost(reason);
                    }
                }
                // An error means that no `WorkerControl` is left.
                Ok(()) = self.paused.changed() => {}
                message = next(&mut self.consumer), if jobs.len() < desk.worker.concurrency => {
                    let mut received = Some(message);
                    // All that are here already, as far as there is room.
                    while let Some(message) = received {
                        match message {
                            Some(Ok(message)) => {
                                let Message { delivery_tag, acker, properties, redelivered, data: payload, .. } = message;
                                let received = Box::new(Received { properties, redelivered, payload });
                                let unsettled = self.acks.unsettled(delivery_tag, acker);
                                jobs.spawn(Arc::clone(desk).process(received, unsettled));
                            }
                            Some(Err(error)) => return Ended::by(&error),
                            None => return Ended::Lost("the broker cancelled the consumer (was its queue deleted?)".to_owned()),
                        }
                        let has_room = jobs.len() < desk.worker.concurrency;
                        received = if has_room { next(&mut self.consumer).now_or_never() } else { None };
                    }
                }
            }
        }
    }

    /// Cancels the consumer or starts a new one on the same channel, which keeps its prefetch.
    async fn pause_or_resume(&mut self) -> Result<(), String> {
        let paused = *self.paused.borrow_and_update();
        match (paused, &self.consumer) {
            (true, Some(_)) => {
                self.give_back_waiting().await?;
                info!(queue = self.queue, "paused: taking no messages");
            }
            (false, None) => {
                let consuming = timeout(TIMEOUT, consume(&self.channel, &self.queue)).await;
                let consumer = consuming.map_err(|_| format!("no consumer within {TIMEOUT:?}"))?;
                self.consumer = Some(consumer.map_err(|error| text(&error))?);
                info!(queue = self.queue, "resumed: taking messages");
            }
            (true, None) | (false, Some(_)) => {}
        }
        Ok(())
    }

    /// Takes the larger prefetch: `pause_or_resume` then starts a new consumer, which gets it.
    async fn widen(&mut self) -> Result<(), String> {
        let Some((_, prefetch)) = self.widening.take() else { return Ok(()) };
        self.give_back_waiting().await?;
        let widened = timeout(TIMEOUT, self.channel.basic_qos(prefetch, BasicQosOptions::default())).await;
        widened.map_err(|_| format!("no prefetch within {TIMEOUT:?}"))?.map_err(|error| text(&error))
    }

    /// Stops taking messages and gives the waiting ones back at once, for other workers.
    ///
    /// # Errors
    /// The reason, when the connection is lost: the broker then takes everything back.
    pub(super) async fn give_back_waiting(&mut self) -> Result<(), String> {
        let Some(mut consumer) = self.consumer.take() else { return Ok(()) };
        let cancelled = self.channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        match timeout(TIMEOUT, cancelled).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(text(&error)),
            Err(_) => return Err(format!("the consumer could not be cancelled within {TIMEOUT:?}")),
        }
        while let Ok(Some(Ok(message))) = timeout(TIMEOUT, consumer.next()).await {
            // On an error the channel has ended, which gives them back too.
            let _ = self.acks.unsettled(message.delivery_tag, message.acker).give_back().await;
        }
        Ok(())
    }

    /// Writes the acknowledgements of finished jobs first.
    pub(super) async fn close(self) {
        self.acks.flush().await;
        close_channel(&self.channel).await;
        close(&self.connection).await;
    }
}

async fn consume(channel: &Channel, queue: &str) -> lapin::Result<Consumer> {
    channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// The next message; never anything while there is no consumer.
async fn next(consumer: &mut Option<Consumer>) -> Option<lapin::Result<lapin::message::Delivery>> {
    match consumer {
        Some(consumer) => consumer.next().await,
        None => std::future::pending().await,
    }
}
