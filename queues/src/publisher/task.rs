//! The task behind a publisher: owns the connection, the channel and everything in flight, and reconnects. It never
//! publishes a message twice: the caller decides about retries.

use super::{
    PublishError,
    in_flight::{Answer, InFlight, Receipt},
    outgoing::Outgoing,
};
use crate::{
    Broker, BrokerError, ConnectionState,
    connection::{Reconnect, close, close_channel, text},
    measure::PublisherMetrics,
};
use futures_util::{StreamExt, future::BoxFuture};
use lapin::{Channel, Connection, Event, options::ConfirmSelectOptions};
use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How many messages may await their confirm; further ones wait in the channel of requests.
const MAX_IN_FLIGHT: usize = 1000;
/// A broker that confirms nothing for so long, without having blocked us, counts as lost.
const CONFIRM_PATIENCE: Duration = Duration::from_secs(30);
/// A channel on which a message was refused is replaced, at most this often: RabbitMQ 3.10 picks a queue's node at a
/// channel's first message for it, and refuses all of them while that node is away, although another one leads by then.
const REFUSING_CHANNEL_LIFE: Duration = Duration::from_millis(500);
/// How long a closing publisher waits for confirms.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
const CHANNEL_TIMEOUT: Duration = Duration::from_secs(10);
/// Even a disabled timer needs a time.
const FAR: Duration = Duration::from_secs(3600);

/// One message, and where its result goes.
pub(super) struct Request {
    pub(super) outgoing: Outgoing,
    pub(super) receipt: Receipt,
}

pub(super) struct Task {
    pub(super) broker: Broker,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) state: watch::Sender<ConnectionState>,
    pub(super) stop: CancellationToken,
    pub(super) metrics: PublisherMetrics,
}

type Flights = InFlight<BoxFuture<'static, Answer>>;

impl Task {
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut reconnect = Reconnect::new();
        loop {
            let opened = select! {
                biased;
                () = stop.cancelled() => break,
                opened = open(&self.broker) => opened,
            };
            let since = Instant::now();
            let ended = match opened {
                Ok((connection, channel)) => {
                    info!("publishing connection is open");
                    self.state.send_replace(ConnectionState::Connected);
                    let ended = self.serve(&connection, channel).await;
                    close(&connection).await;
                    ended
                }
                Err(error) => Err(error.to_string()),
            };
            let Err(reason) = ended else { break };
            warn!(reason, "publishing connection is lost");
            self.state.send_modify(|state| *state = state.after_failure(reason));
            select! {
                () = stop.cancelled() => break,
                () = sleep(reconnect.delay_after(since.elapsed())) => {}
            }
        }
        self.requests.close();
        while let Some(Request { outgoing, receipt }) = self.requests.recv().await {
            let reason = "the publisher is closed".to_owned();
            let _ = receipt.send(Err(PublishError::NotConnected { id: outgoing.id, reason }));
        }
        self.state.send_replace(ConnectionState::Closed);
    }

    /// Serves requests until the publisher is closed (`Ok`) or the connection is lost (`Err`, with the reason).
    async fn serve(&mut self, connection: &Connection, mut channel: Arc<Channel>) -> Result<(), String> {
        let mut flights = Flights::new(self.metrics.clone());
        let ended = self.serve_with(&mut flights, connection, &mut channel).await;
        flights.fail_all(ended.as_ref().err().map_or("the publisher is closed", String::as_str));
        if ended.is_ok() {
            close_channel(&channel).await;
        }
        ended
    }

    async fn serve_with(
        &mut self,
        flights: &mut Flights,
        connection: &Connection,
        channel: &mut Arc<Channel>,
    ) -> Result<(), String> {
        let mut opened_at = Instant::now();
        let mut events = pin!(connection.events_listener());
        let mut blocked = false;
        let mut unblocked_at = opened_at;
        let mut stop_by: Option<Instant> = None;
        let mut more = true;
        let mut batch = Vec::new();
        while more || !flights.is_empty() {
            // The broker reads what was written before an alarm only after it.
            let confirm_by = flights.oldest().filter(|_| !blocked).map(|at| at.max(unblocked_at) + CONFIRM_PATIENCE);
            let now = Instant::now();
            let far = now + FAR;
            let replace_at = flights.was_refused().then(|| opened_at + REFUSING_CHANNEL_LIFE);
            let replace_now = replace_at.is_some_and(|at| at <= now);
            if replace_now && !blocked && flights.is_empty() {
                *channel = timeout(CHANNEL_TIMEOUT, open_channel(connection))
                    .await
                    .map_err(|_| format!("no channel within {CHANNEL_TIMEOUT:?}"))?
                    .map_err(|error| text(&error))?;
                opened_at = Instant::now();
                flights.forget_refusals();
                continue;
            }
            let room = if replace_now { 0 } else { MAX_IN_FLIGHT.saturating_sub(flights.len()) };
            select! {
                biased;
                settled = poll_fn(|context| flights.poll_settle(context)) => settled?,
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        warn!(reason, "the broker blocks publishing");
                        blocked = true;
                        self.state.send_replace(ConnectionState::Blocked);
                    }
                    Some(Event::ConnectionUnblocked) => {
                        info!("the broker takes messages again");
                        blocked = false;
                        unblocked_at = Instant::now();
                        self.state.send_replace(ConnectionState::Connected);
                    }
                    Some(Event::Error(error)) => return Err(text(&error)),
                    Some(_) => {}
                    None => return Err("the connection ended".to_owned()),
                },
                () = self.stop.cancelled(), if stop_by.is_none() => {
                    self.requests.close();
                    stop_by = Some(Instant::now() + STOP_PATIENCE);
                }
                () = sleep_until(stop_by.unwrap_or(far)), if stop_by.is_some() => return Ok(()),
                () = sleep_until(confirm_by.unwrap_or(far)), if confirm_by.is_some() => {
                    return Err(format!("the broker confirmed nothing for {CONFIRM_PATIENCE:?}"));
                }
                () = sleep_until(replace_at.unwrap_or(far)), if replace_at.is_some() && !replace_now => {}
                // A blocked connection is not read: what stays unwritten is known not to have been sent. Many at once: the
                // callers that wait to hand over more are then woken once.
                count = self.requests.recv_many(&mut batch, room), if more && !blocked && room > 0 => {
                    more = count > 0;
                    batch.drain(..).try_for_each(|request| write(flights, channel, request))?;
                }
            }
        }
        Ok(())
    }
}

/// Starts one message without waiting.
fn write(flights: &mut Flights, channel: &Arc<Channel>, request: Request) -> Result<(), String> {
    let Request { outgoing, receipt } = request;
    if receipt.is_closed() {
        // Its caller gave up before it was written.
        return Ok(());
    }
    let route = outgoing.route();
    flights.push(route, receipt, Box::pin(outgoing.send(Arc::clone(channel))))
}

async fn open(broker: &Broker) -> Result<(Connection, Arc<Channel>), BrokerError> {
    let connection = broker.connect("publish").await?;
    match timeout(CHANNEL_TIMEOUT, open_channel(&connection)).await {
        Ok(Ok(channel)) => Ok((connection, channel)),
        Ok(Err(error)) => Err(broker.error(&error)),
        Err(_) => Err(broker.unreachable(format!("no channel within {CHANNEL_TIMEOUT:?}"))),
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Arc<Channel>> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(Arc::new(channel))
}
