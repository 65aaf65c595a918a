//! The task behind a publisher: owns the connection, its channels and everything in flight, and reconnects. It never
//! publishes a message twice: the caller decides about retries.

use super::{
    CONFIRM_TIMEOUT, PublishError,
    in_flight::{Answer, InFlight, Lost, Receipt},
    outgoing::Outgoing,
    places::Lane,
};
use crate::{
    Broker, ConnectionState,
    connection::{Reconnect, Refusals, close, close_channel, text},
    measure::PublisherMetrics,
};
use futures_util::{
    StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use lapin::{Channel, Connection, Event, options::ConfirmSelectOptions};
use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
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

/// How many messages may await their confirms on one channel. RabbitMQ reads nothing more from a whole connection once one of
/// its channels has 400 messages, or 200 at worst, that a silent queue keeps it from passing on (`credit_flow_default_credit`).
/// So a new channel has few; each confirm allows one more, since a queue that answers is worth the risk.
const FEW_IN_FLIGHT: usize = 200;
const MAX_IN_FLIGHT: usize = 1000;
/// A channel on which a message was refused is replaced, at most this often: RabbitMQ 3.10 picks a queue's node at a
/// channel's first message for it, and refuses all of them while that node is away, although another one leads by then.
const REFUSING_CHANNEL_LIFE: Duration = Duration::from_millis(500);
/// How long a closing publisher waits for confirms.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Those beyond are closed while nothing is in flight on them. Brokers allow 2,047 unless set.
const MAX_CHANNELS: usize = 200;
/// How many requests are received before the answers are looked at again.
const MAX_RECEIVED_AT_ONCE: usize = 1000;
/// How soon lapin tells why a channel was closed.
const CLOSING_PATIENCE: Duration = Duration::from_secs(1);
/// Even a disabled timer needs a time.
const FAR: Duration = Duration::from_secs(3600);

/// One message, and where its result goes.
pub(super) struct Request {
    pub(super) outgoing: Outgoing,
    pub(super) lane: Lane,
    pub(super) receipt: Receipt,
}

pub(super) struct Task {
    pub(super) broker: Broker,
    pub(super) requests: mpsc::Receiver<Request>,
    /// Received and not written: what has no room on its channel, and what a lost connection has left.
    pub(super) waiting: Waiting,
    /// How many these are, for a health check.
    pub(super) waiting_count: Arc<AtomicUsize>,
    pub(super) state: watch::Sender<ConnectionState>,
    pub(super) stop: CancellationToken,
    pub(super) metrics: PublisherMetrics,
}

/// In order, for each lane that has any.
pub(super) type Waiting = HashMap<Lane, VecDeque<Request>>;

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
        let mut unwritten: VecDeque<Request> = self.waiting.into_values().flatten().collect();
        while let Some(request) = self.requests.recv().await {
            unwritten.push_back(request);
        }
        for Request { outgoing, receipt, .. } in unwritten {
            let reason = match &last {
                ConnectionState::Refused { error } => error.clone(),
                _ => "the publisher is closed".to_owned(),
            };
            receipt.send(Err(PublishError::NotConnected { id: outgoing.id, reason }));
        }
        self.state.send_replace(last);
    }

    /// Serves requests until the publisher is closed (`Ok`) or the connection is lost (`Err`, with the reason).
    async fn serve(&mut self, connection: &Connection) -> Result<(), String> {
        let mut channels = Channels::new(connection, self.metrics.clone());
        let ended = self.serve_with(&mut channels).await;
        let reason = ended.as_ref().err().map_or("the publisher is closed", String::as_str).to_owned();
        channels.fail_all(&Lost { reason, no_exchange: false });
        if ended.is_ok() {
            channels.close().await;
        }
        ended
    }

    async fn serve_with(&mut self, channels: &mut Channels<'_>) -> Result<(), String> {
        let connection = channels.connection;
        let mut events = pin!(connection.events_listener());
        let mut blocked = false;
        let mut unblocked_at = Instant::now();
        let mut stop_by: Option<Instant> = None;
        let mut more = true;
        let mut received = Vec::new();
        while more || !self.waiting.is_empty() || channels.in_flight() > 0 {
            channels.replace_refusing();
            // A blocked connection is not read: what stays unwritten is known not to have been sent.
            if !blocked {
                channels.write_waiting(&mut self.waiting).await?;
            }
            self.waiting_count.store(self.waiting.values().map(VecDeque::len).sum(), Ordering::Relaxed);
            // The broker reads what was written before an alarm only after it.
            let confirm_by = channels.oldest().filter(|_| !blocked).map(|at| at.max(unblocked_at) + CONFIRM_TIMEOUT);
            let far = Instant::now() + FAR;
            select! {
                biased;
                change = poll_fn(|context| channels.poll_change(context)) => match change {
                    Change::Settled => {}
                    Change::Opened(lane, opened) => channels.opened(lane, opened)?,
                    Change::Ended(index, lost) => channels.lose(index, lost).await?,
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
                    Some(Event::Error(error)) if !connection.status().connected() => return Err(text(&error)),
                    Some(_) => {}
                    None => return Err("the connection ended".to_owned()),
                },
                () = self.stop.cancelled(), if stop_by.is_none() => {
                    self.requests.close();
                    stop_by = Some(Instant::now() + STOP_PATIENCE);
                }
                () = sleep_until(stop_by.unwrap_or(far)), if stop_by.is_some() => return Ok(()),
                () = sleep_until(confirm_by.unwrap_or(far)), if confirm_by.is_some() => {
                    channels.lose_silent(unblocked_at)?;
                }
                // Many at once: the callers that wait to hand over more are then woken once.
                count = self.requests.recv_many(&mut received, MAX_RECEIVED_AT_ONCE), if more && !blocked => {
                    more = count > 0;
                    for request in received.drain(..) {
                        self.waiting.entry(request.lane.clone()).or_default().push_back(request);
                    }
                }
            }
        }
        Ok(())
    }
}

/// A channel for each lane: a queue that is silent, and an exchange that is missing, cost no other messages their confirms.
struct Channels<'a> {
    connection: &'a Connection,
    metrics: PublisherMetrics,
    /// Nothing waits for them: a broker that blocks us, or reads nothing, answers late.
    opening: FuturesUnordered<BoxFuture<'a, (Lane, lapin::Result<Arc<Channel>>)>>,
    /// Their lanes, and since when.
    opening_since: HashMap<Lane, Instant>,
    open: Vec<OpenChannel>,
    /// When any queue last confirmed something.
    confirmed_at: Instant,
}

/// What the broker has answered.
enum Change {
    Settled,
    Opened(Lane, lapin::Result<Arc<Channel>>),
    /// A channel, by its index, has ended.
    Ended(usize, Lost),
}

struct OpenChannel {
    lane: Lane,
    channel: Arc<Channel>,
    opened_at: Instant,
    flights: Flights,
    /// How many of them there may be.
    window: usize,
    /// Nothing more is written to it.
    replaced: bool,
}

impl<'a> Channels<'a> {
    fn new(connection: &'a Connection, metrics: PublisherMetrics) -> Self {
        let (opening, opening_since) = (FuturesUnordered::new(), HashMap::new());
        Self { connection, metrics, opening, opening_since, open: Vec::new(), confirmed_at: Instant::now() }
    }

    fn in_flight(&self) -> usize {
        self.open.iter().map(|open| open.flights.len()).sum()
    }

    /// Since when the broker owes its oldest answer.
    fn oldest(&self) -> Option<Instant> {
        self.open.iter().filter_map(|open| open.flights.oldest()).chain(self.opening_since.values().copied()).min()
    }

    /// Has what comes next written to a new channel where a message was refused.
    fn replace_refusing(&mut self) {
        self.open.retain_mut(|open| {
            open.replaced |= open.flights.was_refused() && open.opened_at.elapsed() >= REFUSING_CHANNEL_LIFE;
            !(open.replaced && open.flights.is_empty())
        });
    }

    fn poll_change(&mut self, context: &mut Context<'_>) -> Poll<Change> {
        let mut settled = Poll::Pending;
        for (index, open) in self.open.iter_mut().enumerate() {
            let in_flight = open.flights.len();
            match open.flights.poll_settle(context) {
                Poll::Ready(Ok(())) => {
                    open.window = (open.window + in_flight - open.flights.len()).min(MAX_IN_FLIGHT);
                    self.confirmed_at = Instant::now();
                    settled = Poll::Ready(Change::Settled);
                }
                Poll::Ready(Err(lost)) => return Poll::Ready(Change::Ended(index, lost)),
                Poll::Pending => {}
            }
        }
        match self.opening.poll_next_unpin(context) {
            Poll::Ready(Some((lane, opened))) => Poll::Ready(Change::Opened(lane, opened)),
            _ => settled,
        }
    }

    /// Writes what there is room for on the channels.
    ///
    /// # Errors
    /// The reason, when the connection is lost.
    async fn write_waiting(&mut self, waiting: &mut Waiting) -> Result<(), String> {
        for (lane, requests) in waiting.iter_mut() {
            self.write(lane, requests).await?;
        }
        waiting.retain(|_, requests| !requests.is_empty());
        Ok(())
    }

    /// Writes messages of one lane, or has its channel opened first.
    async fn write(&mut self, lane: &Lane, requests: &mut VecDeque<Request>) -> Result<(), String> {
        let frame_max = usize::try_from(self.connection.configuration().frame_max()).unwrap_or(usize::MAX);
        while !requests.is_empty() {
            let Some(index) = self.open.iter().position(|open| open.lane == *lane && !open.replaced) else {
                self.open(lane);
                break;
            };
            let Some(OpenChannel { channel, flights, window, .. }) = self.open.get_mut(index) else { break };
            if flights.len() >= *window {
                break;
            }
            let Some(Request { outgoing, receipt, .. }) = requests.pop_front() else { break };
            if receipt.result.is_closed() {
                // Its caller gave up before it was written.
                continue;
            }
            if let Some(problem) = outgoing.excess(frame_max) {
                receipt.send(Err(PublishError::Invalid { id: outgoing.id, problem }));
                continue;
            }
            let route = outgoing.route();
            let started = flights.push(route, receipt, Box::pin(outgoing.send(Arc::clone(channel))));
            if let Err(lost) = started {
                self.lose(index, lost).await?;
            }
        }
        Ok(())
    }

    fn open(&mut self, lane: &Lane) {
        if self.opening_since.contains_key(lane) {
            return;
        }
        if self.open.len() >= MAX_CHANNELS {
            self.open.retain(|open| !open.flights.is_empty());
        }
        self.opening_since.insert(lane.clone(), Instant::now());
        let (connection, lane) = (self.connection, lane.clone());
        self.opening.push(Box::pin(async move { (lane, open_channel(connection).await) }));
    }

    /// # Errors
    /// The reason, when the connection is lost.
    fn opened(&mut self, lane: Lane, opened: lapin::Result<Arc<Channel>>) -> Result<(), String> {
        let channel = opened.map_err(|error| text(&error))?;
        self.opening_since.remove(&lane);
        let (flights, opened_at) = (Flights::new(self.metrics.clone()), Instant::now());
        self.open.push(OpenChannel { lane, channel, opened_at, flights, window: FEW_IN_FLIGHT, replaced: false });
        Ok(())
    }

    /// Fails the messages of a channel that has ended.
    ///
    /// # Errors
    /// The reason, when it is the connection that is lost.
    async fn lose(&mut self, index: usize, lost: Lost) -> Result<(), String> {
        if !self.connection.status().connected() {
            return Err(lost.reason);
        }
        let OpenChannel { lane, mut flights, .. } = self.open.swap_remove(index);
        let known = lost.clone();
        let lost = timeout(CLOSING_PATIENCE, flights.closing_reason(lost)).await.unwrap_or(known);
        warn!(exchange = lane.exchange.as_str(), reason = lost.reason, "a publishing channel was closed");
        flights.fail_all(&lost);
        Ok(())
    }

    /// Fails the messages of queues that have confirmed nothing for too long, and closes their channels.
    ///
    /// # Errors
    /// The reason, when no queue has confirmed anything, so it is the connection that is lost.
    fn lose_silent(&mut self, unblocked_at: Instant) -> Result<(), String> {
        let is_due = |since: Instant| since.max(unblocked_at).elapsed() >= CONFIRM_TIMEOUT;
        let is_silent = |open: &OpenChannel| open.flights.oldest().is_some_and(is_due);
        let opens_nothing = self.opening_since.values().any(|since| is_due(*since));
        let confirmed_at = self.confirmed_at;
        let none_confirms = |open: &OpenChannel| open.flights.oldest().is_some_and(|oldest| oldest > confirmed_at);
        if opens_nothing || self.open.iter().any(|open| is_silent(open) && none_confirms(open)) {
            return Err(format!("the broker answered nothing for {CONFIRM_TIMEOUT:?}"));
        }
        for mut silent in self.open.extract_if(.., |open| is_silent(open)) {
            warn!(lane = %silent.lane, "a queue confirmed nothing for {CONFIRM_TIMEOUT:?}; its publishing channel is replaced");
            silent.flights.time_out();
        }
        Ok(())
    }

    fn fail_all(&mut self, lost: &Lost) {
        self.open.iter_mut().for_each(|open| open.flights.fail_all(lost));
    }

    async fn close(self) {
        let channels: Vec<Arc<Channel>> = self.open.into_iter().map(|open| open.channel).collect();
        join_all(channels.iter().map(|channel| close_channel(channel))).await;
    }
}

async fn open_channel(connection: &Connection) -> lapin::Result<Arc<Channel>> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(Arc::new(channel))
}
