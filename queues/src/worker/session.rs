//! One connection's life: connection → topology → channel → prefetch → consumer, then messages until any of them ends.

use super::{
    admission::{Admission, Key, NotNow},
    consumers::Consumers,
    job::{Desk, Open, Received},
};
use crate::{
    Broker, BrokerError, Topology,
    acknowledge::Acks,
    broker::declare,
    connection::{Opened, close, close_channel, text},
    headers,
};
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use lapin::{Channel, ErrorKind, Event, message::Delivery as Message, options::BasicQosOptions};
use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tracing::info;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a message may wait behind others of its key; ten minutes before the broker closes the channel for it.
const LONGEST_STAY: Duration = Duration::from_secs(20 * 60);
/// How often that is looked at.
const STAY_CHECKS: Duration = Duration::from_secs(30);

pub(super) struct Session {
    /// Dropped before the consumers.
    connection: Opened,
    channel: Channel,
    /// `None` while the worker is paused.
    consumers: Option<Consumers>,
    queues: Vec<String>,
    /// Jobs of one key run in order. No consumer is then cancelled before the channel is closed: the broker would hand the
    /// key's next jobs to another worker, while this one has older ones.
    in_order: bool,
    /// Starts no more jobs; when none runs, the session ends and another begins.
    ending: bool,
    check_stay_at: Instant,
    paused: watch::Receiver<bool>,
    acks: Acks,
    events: BoxStream<'static, Event>,
    /// When the session takes a larger prefetch.
    pub(super) widening: Option<(Instant, u16)>,
}

/// A job whose message is settled, or is to be processed again.
pub(super) struct EndedJob {
    key: Option<Key>,
    run_time: Duration,
    again: Option<(Open, Duration)>,
    panicked: bool,
}

/// Why a session takes no more messages.
pub(super) enum Ended {
    Shutdown,
    /// Nothing is wrong: the worker is paused or resumed, or messages have waited here for long.
    Renewal,
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
        let opening = async {
            let channel = connection.create_channel().await?;
            // Before consuming: a consumer keeps the prefetch of its channel at its start.
            channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
            lapin::Result::Ok(channel)
        };
        let channel = match timeout(TIMEOUT, opening).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return Err(broker.error(&error)),
            Err(_) => return Err(broker.unreachable(format!("no channel within {TIMEOUT:?}"))),
        };
        let mut session = Self {
            acks: Acks::start(prefetch),
            connection,
            channel,
            consumers: None,
            queues: topology.work_queues(),
            in_order: topology.is_partitioned(),
            ending: false,
            check_stay_at: Instant::now() + STAY_CHECKS,
            paused,
            events,
            widening: None,
        };
        let is_paused = *session.paused.borrow();
        if !is_paused {
            match timeout(TIMEOUT, session.consume()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(broker.error(&error)),
                Err(_) => return Err(broker.unreachable(format!("no consumer within {TIMEOUT:?}"))),
            }
        }
        Ok(session)
    }

    async fn consume(&mut self) -> lapin::Result<()> {
        let consumers = self.consumers.insert(Consumers::new());
        for queue in &self.queues {
            consumers.start(&self.channel, queue, self.in_order).await?;
        }
        Ok(())
    }

    /// Starts a job for each message, `concurrency` at a time, and each when it is admitted. Further messages wait in the
    /// prefetch buffer.
    pub(super) async fn work(
        &mut self,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
        desk: &Arc<Desk>,
        jobs: &mut JoinSet<EndedJob>,
        admission: &mut Option<Admission<Open>>,
    ) -> Ended {
        loop {
            if self.in_order {
                // Paused with consumers, or resumed without.
                self.ending |= *self.paused.borrow_and_update() == self.consumers.is_some();
                if self.ending && jobs.is_empty() {
                    return Ended::Renewal;
                }
            } else if let Err(reason) = self.pause_or_resume(admission).await {
                return Ended::Lost(reason);
            }
            while !self.ending
                && jobs.len() < desk.worker.concurrency
                && let Some((key, open)) = admission.as_mut().and_then(|admission| admission.next(Instant::now()))
            {
                if open.unsettled.is_usable() {
                    start(jobs, desk, key, open);
                } else if let (Some(key), Some(admission)) = (key, admission.as_mut()) {
                    // Its channel has ended: it may be another worker's by now.
                    admission.ended(&key, Duration::ZERO, None, Instant::now());
                }
            }
            let is_full = jobs.len() >= desk.worker.concurrency;
            let takes_more = !self.ending && (admission.is_some() || !is_full);
            let wake_at = admission.as_ref().filter(|_| !is_full && !self.ending).and_then(Admission::wake_at);
            select! {
                biased;
                () = &mut shutdown => return Ended::Shutdown,
                Some(ended) = jobs.join_next() => {
                    let mut ended = Some(ended);
                    // All that have ended, to make room.
                    while let Some(result) = ended {
                        let Ok(EndedJob { key, run_time, again, panicked: false }) = result else {
                            // Handlers' panics are caught; this one left its message unsettled until the channel ends.
                            return Ended::Lost("a job's task panicked outside of its handler".to_owned());
                        };
                        if let (Some(key), Some(admission)) = (key, admission.as_mut()) {
                            admission.ended(&key, run_time, again, Instant::now());
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
                    if let Err(reason) = self.widen(admission).await {
                        return Ended::Lost(reason);
                    }
                }
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
                () = sleep_until(self.check_stay_at), if self.in_order => self.check_stay(admission),
                // An error means that no `WorkerControl` is left.
                Ok(()) = self.paused.changed() => {}
                message = next(&mut self.consumers), if takes_more => {
                    let mut received = Some(message);
                    // All that are here already, as far as there is room.
                    while let Some(message) = received {
                        match message {
                            Some(Ok(message)) => self.take(message, desk, jobs, admission),
                            Some(Err(error)) => return Ended::by(&error),
                            None => return Ended::Lost("the broker cancelled the consumer (was its queue deleted?)".to_owned()),
                        }
                        let has_room = admission.is_some() || jobs.len() < desk.worker.concurrency;
                        received = if has_room { next(&mut self.consumers).now_or_never() } else { None };
                    }
                }
            }
        }
    }

    /// Starts the message's job, or lets it wait for its turn here or in a queue.
    fn take(
        &mut self,
        message: Message,
        desk: &Arc<Desk>,
        jobs: &mut JoinSet<EndedJob>,
        admission: &mut Option<Admission<Open>>,
    ) {
        let Message { delivery_tag, acker, properties, redelivered, data: payload, .. } = message;
        let unsettled = self.acks.unsettled(delivery_tag, acker);
        let now = Instant::now();
        // Where the delay with which it was published is not over, the job only delays it again.
        let is_due = || headers::due_at(&properties).is_none_or(|due_at| due_at <= (desk.worker.clock)());
        let key = admission.as_ref().and_then(|_| headers::key(&properties)).filter(|_| is_due());
        let received = Received { properties, redelivered, payload, arrived_at: now, not_now: None, held: None };
        let open = Open { received: Box::new(received), unsettled };
        let Some(admission) = admission else {
            start(jobs, desk, None, open);
            return;
        };
        if let Err(NotNow { message: mut open, delay }) = admission.arrive(key.as_deref(), open, now) {
            open.received.not_now = Some(delay);
            start(jobs, desk, None, open);
        }
    }

    /// Messages that have waited for long behind others of their key are taken anew, before the broker closes the channel
    /// for them. They return to their places.
    fn check_stay(&mut self, admission: &Option<Admission<Open>>) {
        self.check_stay_at = Instant::now() + STAY_CHECKS;
        let mut oldest = admission.iter().flat_map(Admission::oldest);
        self.ending |= oldest.any(|open| open.received.arrived_at.elapsed() > LONGEST_STAY);
    }

    /// Cancels the consumer or starts a new one on the same channel, which keeps its prefetch.
    async fn pause_or_resume(&mut self, admission: &mut Option<Admission<Open>>) -> Result<(), String> {
        let paused = *self.paused.borrow_and_update();
        match (paused, &self.consumers) {
            (true, Some(_)) => {
                self.give_back_waiting(admission).await?;
                info!(queue = self.queues[0], "paused: taking no messages");
            }
            (false, None) => {
                let consuming = timeout(TIMEOUT, self.consume()).await;
                consuming.map_err(|_| format!("no consumer within {TIMEOUT:?}"))?.map_err(|error| text(&error))?;
                info!(queue = self.queues[0], "resumed: taking messages");
            }
            (true, None) | (false, Some(_)) => {}
        }
        Ok(())
    }

    /// Takes the larger prefetch: `pause_or_resume` then starts a new consumer, which gets it.
    async fn widen(&mut self, admission: &mut Option<Admission<Open>>) -> Result<(), String> {
        let Some((_, prefetch)) = self.widening.take() else { return Ok(()) };
        if self.in_order {
            self.ending = true;
            return Ok(());
        }
        self.give_back_waiting(admission).await?;
        let widened = timeout(TIMEOUT, self.channel.basic_qos(prefetch, BasicQosOptions::default())).await;
        widened.map_err(|_| format!("no prefetch within {TIMEOUT:?}"))?.map_err(|error| text(&error))
    }

    /// Stops taking messages and gives the waiting ones back at once, for other workers; where the order counts, when the
    /// session is closed.
    ///
    /// # Errors
    /// The reason, when the connection is lost: the broker then takes everything back.
    pub(super) async fn give_back_waiting(&mut self, admission: &mut Option<Admission<Open>>) -> Result<(), String> {
        if self.in_order {
            return Ok(());
        }
        let Some(consumers) = self.consumers.take() else { return Ok(()) };
        let mut messages = consumers.cancel(&self.channel, TIMEOUT).await?;
        for open in admission.iter_mut().flat_map(|admission| admission.clear(false)) {
            // On an error the channel has ended, which gives it back too.
            let _ = open.unsettled.give_back().await;
        }
        while let Ok(Some(Some(Ok(message)))) = timeout(TIMEOUT, messages.next()).await {
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

/// A panic ends the job, and not the count of its key's jobs.
fn start(jobs: &mut JoinSet<EndedJob>, desk: &Arc<Desk>, key: Option<Key>, open: Open) {
    let processing = AssertUnwindSafe(Arc::clone(desk).process(open)).catch_unwind();
    jobs.spawn(async move {
        let started = Instant::now();
        let ended = processing.await;
        let panicked = ended.is_err();
        EndedJob { key, run_time: started.elapsed(), again: ended.ok().flatten(), panicked }
    });
}

/// The next message; never anything while there is no consumer.
async fn next(consumers: &mut Option<Consumers>) -> Option<lapin::Result<Message>> {
    match consumers {
        Some(consumers) => consumers.next().await.flatten(),
        None => std::future::pending().await,
    }
}
