//! One connection's life: connection → topology → channel → prefetch → consumer, and taking messages until any of them
//! ends. Used by the worker's supervisor, which opens the next one. It never reconnects and never settles a job.

use super::{acknowledge::Acknowledgement, job::Desk};
use crate::{
    Broker, BrokerError, Topology,
    broker::{close, declare, text},
};
use futures_util::{StreamExt, stream::BoxStream};
use lapin::{
    Channel, Connection, Consumer, Event,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};
use tokio::{select, task::JoinSet, time::timeout};

const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Session {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    events: BoxStream<'static, Event>,
}

/// Why a session takes no more messages.
pub(super) enum Ended {
    Shutdown,
    Lost(String),
}

impl Session {
    pub(super) async fn open(broker: &Broker, topology: &Topology, prefetch: u16) -> Result<Self, BrokerError> {
        let connection = broker.connect("consume").await?;
        let events = connection.events_listener().boxed();
        declare(broker, &connection, topology).await?;
        let consuming = async {
            let channel = connection.create_channel().await?;
            // Before consuming: a consumer keeps the prefetch that its channel had when it began.
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
            let consumer = channel.basic_consume(topology.queue().into(), "".into(), options, none).await?;
            lapin::Result::Ok((channel, consumer))
        };
        match timeout(TIMEOUT, consuming).await {
            Ok(Ok((channel, consumer))) => Ok(Self { connection, channel, consumer, events }),
            Ok(Err(error)) => Err(broker.error(&error)),
            Err(_) => Err(broker.unreachable(format!("no consumer within {TIMEOUT:?}"))),
        }
    }

    /// Starts a job for each message, `concurrency` at a time. Messages beyond that wait where the prefetch put them.
    pub(super) async fn work(
        &mut self,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        desk: &Arc<Desk>,
        jobs: &mut JoinSet<()>,
        concurrency: usize,
    ) -> Ended {
        loop {
            select! {
                biased;
                () = &mut shutdown => return Ended::Shutdown,
                Some(ended) = jobs.join_next() => if ended.is_err() {
                    // Handlers' panics are caught; this one left its message unsettled, which only the channel's end heals.
                    return Ended::Lost("a job's task panicked outside of its handler".to_owned());
                },
                event = self.events.next() => match event {
                    Some(Event::Error(error)) => return Ended::Lost(text(&error)),
                    Some(_) => {}
                    None => return Ended::Lost("the connection ended".to_owned()),
                },
                message = self.consumer.next(), if jobs.len() < concurrency => match message {
                    Some(Ok(message)) => { jobs.spawn(Arc::clone(desk).process(message)); }
                    Some(Err(error)) => return Ended::Lost(text(&error)),
                    None => return Ended::Lost("the broker cancelled the consumer (was its queue deleted?)".to_owned()),
                },
            }
        }
    }

    /// Stops taking messages, and gives back at once those that wait here, so that others need not wait for our jobs.
    pub(super) async fn give_back_waiting(&mut self) {
        let cancelled = self.channel.basic_cancel(self.consumer.tag(), BasicCancelOptions::default());
        if !matches!(timeout(TIMEOUT, cancelled).await, Ok(Ok(()))) {
            // The connection is dead or dying: the broker takes everything back by itself.
            return;
        }
        while let Ok(Some(Ok(message))) = timeout(TIMEOUT, self.consumer.next()).await {
            // An error means that the channel has ended, which gives them back too.
            let _ = Acknowledgement::new(message.acker).give_back().await;
        }
    }

    pub(super) async fn close(self) {
        close(&self.connection).await;
    }
}
