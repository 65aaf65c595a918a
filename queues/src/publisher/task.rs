//! The task behind a publisher: owns the connection, its channels and everything in flight, and reconnects. It never
//! publishes a message twice: the caller decides about retries.

use super::{
    PublishError,
    in_flight::{Answer, InFlight, Lost, Receipt},
    outgoing::Outgoing,
};
use crate::{
    Broker, ConnectionState,
    connection::{Reconnect, Refusals, close, close_channel, text},
    measure::PublisherMetrics,
};
use futures_util::{StreamExt, future::BoxFuture};
use lapin::{Channel, Connection, Event, options::ConfirmSelectOptions, types::ShortString};
use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

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
/// More exchanges than a program has; beyond them idle channels are closed.
const MAX_LANES: usize = 100;
/// How soon lapin tells why a channel was closed.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);
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
        let (mut reconnect, mut refusals) = (Reconnect::new(), Refusals::default());
        let mut last = ConnectionState::Closed;
        loop {
            let opened = select! {
                biased;
                () = stop.cancelled() => break,
                opened = self.broker.connect("publish") => opened,
            };
            let since = Instant::now();
            let ended = match opened {
                Ok(connection) => {
                    info!("publishing connection is open");
                    refusals.end();
                    self.state.send_replace(ConnectionState::Connected);
                    let ended = self.serve(&connection).await;
                    close(&connection).await;
                    ended
                }
                Err(error) if refusals.are_final(&error, self.broker.refusal_timeout()) => {
                    error!(%error, "the broker keeps refusing us; publishing has ended");
                    last = ConnectionState::Refused { error: error.to_string() };
                    break;
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
            let reason = match &last {
                ConnectionState::Refused { error } => error.clone(),
                _ => "the publisher is closed".to_owned(),
            };
            let _ = receipt.send(Err(PublishError::NotConnected { id: outgoing.id, reason }));
        }
        self.state.send_replace(last);
    }

    /// Serves requests until the publisher is closed (`Ok`) or the connection is lost (`Err`, with the reason).
    async fn serve(&mut self, connection: &Connection) -> Result<(), String> {
        let mut lanes = Lanes { connection, metrics: self.metrics.clone(), open: HashMap::new() };
        let ended = self.serve_with(&mut lanes).await;
        let reason = ended.as_ref().err().map_or("the publisher is closed", String::as_str).to_owned();
        let lost = Lost { reason, no_exchange: false };
        for (_, mut lane) in lanes.open {
            lane.flights.fail_all(&lost);
            if ended.is_ok() {
                close_channel(&lane.channel).await;
            }
        }
        ended
    }

    async fn serve_with(&mut self, lanes: &mut Lanes<'_>) -> Result<(), String> {
        let mut events = pin!(lanes.connection.events_listener());
        let mut blocked = false;
        let mut unblocked_at = Instant::now();
        let mut stop_by: Option<Instant> = None;
        let mut more = true;
        let mut batch = Vec::new();
        while more || lanes.in_flight() > 0 {
            // The broker reads what was written before an alarm only after it.
            let confirm_by = lanes.oldest().filter(|_| !blocked).map(|at| at.max(unblocked_at) + CONFIRM_PATIENCE);
            let now = Instant::now();
            let far = now + FAR;
            let replace_at = lanes.replace_at();
            let replace_now = replace_at.is_some_and(|at| at <= now);
            if replace_now && !blocked && lanes.drop_refusing(now) {
                continue;
            }
            let room = if replace_now { 0 } else { MAX_IN_FLIGHT.saturating_sub(lanes.in_flight()) };
            select! {
                biased;
                ended = poll_fn(|context| lanes.poll_settle(context)) => if let Some((exchange, lost)) = ended {
                    lanes.lose(&exchange, lost).await?;
                },
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
                    // A channel's errors come here, too; its messages hear of them.
                    Some(Event::Error(error)) if !lanes.connection.status().connected() => return Err(text(&error)),
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
                    for request in batch.drain(..) {
                        lanes.write(request).await?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A channel for each exchange: a missing exchange closes the channel, which must not cost other messages their confirms.
struct Lanes<'a> {
    connection: &'a Connection,
    metrics: PublisherMetrics,
    open: HashMap<ShortString, Lane>,
}

struct Lane {
    channel: Arc<Channel>,
    opened_at: Instant,
    flights: Flights,
}

impl Lanes<'_> {
    fn in_flight(&self) -> usize {
        self.open.values().map(|lane| lane.flights.len()).sum()
    }

    fn oldest(&self) -> Option<Instant> {
        self.open.values().filter_map(|lane| lane.flights.oldest()).min()
    }

    /// When the next channel on which a message was refused may be replaced.
    fn replace_at(&self) -> Option<Instant> {
        let refusing = self.open.values().filter(|lane| lane.flights.was_refused());
        refusing.map(|lane| lane.opened_at + REFUSING_CHANNEL_LIFE).min()
    }

    /// Drops such channels once they have nothing in flight; whether there was one.
    fn drop_refusing(&mut self, now: Instant) -> bool {
        let before = self.open.len();
        self.open.retain(|_, lane| {
            let is_due = lane.flights.was_refused() && lane.opened_at + REFUSING_CHANNEL_LIFE <= now;
            !(is_due && lane.flights.is_empty())
        });
        self.open.len() < before
    }

    /// Ready with `None` when messages were settled, and with the exchange of a lane that has ended.
    fn poll_settle(&mut self, context: &mut Context<'_>) -> Poll<Option<(ShortString, Lost)>> {
        let mut settled = Poll::Pending;
        for (exchange, lane) in &mut self.open {
            match lane.flights.poll_settle(context) {
                Poll::Ready(Ok(())) => settled = Poll::Ready(None),
                Poll::Ready(Err(lost)) => return Poll::Ready(Some((exchange.clone(), lost))),
                Poll::Pending => {}
            }
        }
        settled
    }

    /// Starts one message; waits only when it is the first for its exchange.
    ///
    /// # Errors
    /// The reason, when the connection is lost.
    async fn write(&mut self, Request { outgoing, receipt }: Request) -> Result<(), String> {
        if receipt.is_closed() {
            // Its caller gave up before it was written.
            return Ok(());
        }
        let frame_max = usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX);
        if let Some(problem) = outgoing.excess(frame_max) {
            let _ = receipt.send(Err(PublishError::Invalid { id: outgoing.id, problem }));
            return Ok(());
        }
        let exchange = outgoing.exchange.clone();
        if !self.open.contains_key(&exchange) {
            if self.open.len() >= MAX_LANES {
                self.open.retain(|_, lane| !lane.flights.is_empty());
            }
            let channel = timeout(CHANNEL_TIMEOUT, open_channel(self.connection))
                .await
                .map_err(|_| format!("no channel within {CHANNEL_TIMEOUT:?}"))?
                .map_err(|error| text(&error))?;
            let flights = Flights::new(self.metrics.clone());
            self.open.insert(exchange.clone(), Lane { channel, opened_at: Instant::now(), flights });
        }
        let Some(lane) = self.open.get_mut(&exchange) else { return Ok(()) };
        let (route, channel) = (outgoing.route(), Arc::clone(&lane.channel));
        match lane.flights.push(route, receipt, Box::pin(outgoing.send(channel))) {
            Ok(()) => Ok(()),
            Err(lost) => self.lose(&exchange, lost).await,
        }
    }

    /// Fails the messages of one exchange.
    ///
    /// # Errors
    /// The reason, when it is the connection that is lost.
    async fn lose(&mut self, exchange: &ShortString, lost: Lost) -> Result<(), String> {
        if !self.connection.status().connected() {
            return Err(lost.reason);
        }
        if let Some(mut lane) = self.open.remove(exchange) {
            let known = lost.clone();
            let lost = timeout(CLOSING_PATIENCE, lane.flights.closing_reason(lost)).await.unwrap_or(known);
            warn!(exchange = exchange.as_str(), reason = lost.reason, "a publishing channel was closed");
            lane.flights.fail_all(&lost);
        }
        Ok(())
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Arc<Channel>> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(Arc::new(channel))
}
