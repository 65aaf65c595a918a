//! One connection's life: connection → topology → channels → prefetch → consumers, then messages until any of them ends.

use super::{
    admission::{Admission, Key, NotNow},
    consuming::STAY_CHECKS,
    intake::{Intake, Messages},
    job::{Desk, Open, Received},
    share::Share,
};
use crate::{
    Broker, BrokerError, Topology,
    broker::declare,
    connection::{Opened, close, text},
    headers,
};
use futures_util::{
    FutureExt, StreamExt,
    future::join_all,
    stream::{Abortable, BoxStream, SelectAll},
};
use lapin::{ErrorKind, Event, message::Delivery as Message};
use std::{future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc, time::Duration};
use tokio::{
    select,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Session {
    /// Dropped before the consumers.
    pub(super) connection: Opened,
    /// One for each queue; `None` for a partition that this worker does not wait for.
    pub(super) intakes: Vec<Option<Intake>>,
    pub(super) messages: SelectAll<Abortable<Messages>>,
    pub(super) queues: Vec<String>,
    pub(super) prefetch: u16,
    /// Where jobs of one key run in order. A consumer is then not cancelled before its channel is closed: the broker would
    /// hand the key's next jobs to another worker, while this one has older ones.
    pub(super) workers_queue: Option<String>,
    pub(super) share: Option<Share>,
    pub(super) check_stay_at: Instant,
    pub(super) paused: watch::Receiver<bool>,
    events: BoxStream<'static, Event>,
}

/// A job whose message is settled, or is to be processed again.
pub(super) struct EndedJob {
    key: Option<Key>,
    intake: usize,
    run_time: Duration,
    again: Option<(Open, Duration)>,
    panicked: bool,
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
        let queues = topology.work_queues();
        let mut session = Self {
            connection,
            intakes: queues.iter().map(|_| None).collect(),
            messages: SelectAll::new(),
            queues,
            prefetch,
            workers_queue: topology.workers_queue(),
            share: None,
            check_stay_at: Instant::now() + STAY_CHECKS,
            paused,
            events,
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

    pub(super) fn is_in_order(&self) -> bool {
        self.workers_queue.is_some()
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
            let adjusted = match self.is_in_order() {
                true => self.leave_and_return(admission).await,
                false => self.pause_or_resume(admission).await,
            };
            if let Err(reason) = adjusted {
                return Ended::Lost(reason);
            }
            while jobs.len() < desk.worker.concurrency
                && let Some((key, open)) = admission.as_mut().and_then(|admission| admission.next(Instant::now()))
            {
                if open.unsettled.is_usable() {
                    self.start(jobs, desk, key, open);
                } else if let (Some(key), Some(admission)) = (key, admission.as_mut()) {
                    // Its channel has ended: it may be another worker's by now.
                    admission.ended(&key, Duration::ZERO, None, Instant::now());
                }
            }
            let is_full = jobs.len() >= desk.worker.concurrency;
            let takes_more = admission.is_some() || !is_full;
            let wake_at = admission.as_ref().filter(|_| !is_full).and_then(Admission::wake_at);
            let share_at = self.share.as_ref().map(|share| share.check_at);
            select! {
                biased;
                () = &mut shutdown => return Ended::Shutdown,
                Some(ended) = jobs.join_next() => {
                    let mut ended = Some(ended);
                    // All that have ended, to make room.
                    while let Some(result) = ended {
                        let Ok(job @ EndedJob { panicked: false, .. }) = result else {
                            // Handlers' panics are caught; this one left its message unsettled until the channel ends.
                            return Ended::Lost("a job's task panicked outside of its handler".to_owned());
                        };
                        self.finish(job, admission);
                        ended = jobs.try_join_next();
                    }
                }
                event = self.events.next() => match event {
                    Some(Event::Error(error)) => return Ended::by(&error),
                    Some(_) => {}
                    None => return Ended::Lost("the connection ended".to_owned()),
                },
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
                () = sleep_until(self.check_stay_at), if self.is_in_order() => self.check_stay(admission),
                () = sleep_until(share_at.unwrap_or_else(Instant::now)), if share_at.is_some() => {
                    if let Err(error) = self.check_share(admission).await {
                        return Ended::by(&error);
                    }
                }
                // An error means that no `WorkerControl` is left.
                Ok(()) = self.paused.changed() => {}
                message = next(&mut self.messages), if takes_more => {
                    let mut received = Some(message);
                    // All that are here already, as far as there is room.
                    while let Some((intake, message)) = received {
                        match message {
                            Some(Ok(message)) => self.take(intake, message, desk, jobs, admission),
                            Some(Err(error)) => return Ended::by(&error),
                            None => return Ended::Lost("the broker cancelled the consumer (was its queue deleted?)".to_owned()),
                        }
                        let has_room = admission.is_some() || jobs.len() < desk.worker.concurrency;
                        received = if has_room { next(&mut self.messages).now_or_never() } else { None };
                    }
                }
            }
        }
    }

    /// Starts the message's job, or lets it wait for its turn here or in a queue.
    fn take(
        &mut self,
        number: usize,
        message: Message,
        desk: &Arc<Desk>,
        jobs: &mut JoinSet<EndedJob>,
        admission: &mut Option<Admission<Open>>,
    ) {
        // Dropped, it returns to its queue when its channel is closed.
        let Some(intake) = self.intakes[number].as_mut().filter(|intake| !intake.leaving) else { return };
        intake.active = true;
        let Message { delivery_tag, acker, properties, redelivered, data: payload, .. } = message;
        let unsettled = intake.unsettled(delivery_tag, acker);
        let now = Instant::now();
        // Where the delay with which it was published is not over, the job only delays it again.
        let is_due = || headers::due_at(&properties).is_none_or(|due_at| due_at <= (desk.worker.clock)());
        let key = admission.as_ref().and_then(|_| headers::key(&properties)).filter(|_| is_due());
        let (intake, arrived_at) = (number, now);
        let received = Received { properties, redelivered, payload, intake, arrived_at, not_now: None, held: None };
        let open = Open { received: Box::new(received), unsettled };
        let Some(admission) = admission else {
            self.start(jobs, desk, None, open);
            return;
        };
        if let Err(NotNow { message: mut open, delay }) = admission.arrive(key.as_deref(), open, now) {
            open.received.not_now = Some(delay);
            self.start(jobs, desk, None, open);
        }
    }

    /// A panic ends the job, and not the count of its key's jobs.
    fn start(&mut self, jobs: &mut JoinSet<EndedJob>, desk: &Arc<Desk>, key: Option<Key>, open: Open) {
        let number = open.received.intake;
        if let Some(intake) = &mut self.intakes[number] {
            intake.running += 1;
        }
        let processing = AssertUnwindSafe(Arc::clone(desk).process(open)).catch_unwind();
        jobs.spawn(async move {
            let started = Instant::now();
            let ended = processing.await;
            let panicked = ended.is_err();
            EndedJob { key, intake: number, run_time: started.elapsed(), again: ended.ok().flatten(), panicked }
        });
    }

    fn finish(&mut self, job: EndedJob, admission: &mut Option<Admission<Open>>) {
        let EndedJob { key, intake, run_time, mut again, .. } = job;
        if let Some(intake) = &mut self.intakes[intake] {
            // An earlier connection's jobs were not counted.
            intake.running = intake.running.saturating_sub(1);
            again = again.filter(|_| !intake.leaving);
        }
        if let (Some(key), Some(admission)) = (key, admission.as_mut()) {
            admission.ended(&key, run_time, again, Instant::now());
        }
    }

    /// Waits until the queues know of all that was acknowledged.
    pub(super) async fn settle(&mut self) {
        let intakes = self.intakes.iter().zip(&self.queues);
        join_all(intakes.filter_map(|(intake, queue)| Some(intake.as_ref()?.settle(queue)))).await;
    }

    pub(super) async fn close(self) {
        join_all(self.intakes.into_iter().flatten().map(Intake::close)).await;
        close(&self.connection).await;
    }
}

/// The next message; never anything while there is no consumer.
async fn next(messages: &mut SelectAll<Abortable<Messages>>) -> (usize, Option<lapin::Result<Message>>) {
    match messages.next().await {
        Some(message) => message,
        None => std::future::pending().await,
    }
}
