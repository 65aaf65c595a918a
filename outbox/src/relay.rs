//! Brings committed jobs to the broker: claim, publish, await every confirm, mark. A job that is published and not marked,
//! because of a crash in between, is published again; none is ever marked and not published.

use crate::{Handoff, Outbox, OutboxError, Refusal, StandardTable, Table, handoff::Taken};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use queues::{Broker, ConnectionState, Message, PublishError, Publisher, Topology};
#[cfg(feature = "postgres")]
use sqlx::postgres::PgListener;
use std::{
    collections::HashMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    select,
    time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at},
};
use tracing::{debug, warn};

/// Jobs in one claim, all in flight on the broker together, and marked together.
const BATCH: usize = 500;
/// How long a queue's confirms are waited for before the other queues' jobs go on without it.
const SLOW_AFTER: Duration = Duration::from_secs(1);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// A row that is due and was not claimed is another relay's at this moment.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The rows for one queue, and what the broker says of each.
type Results<R> = Vec<(R, Result<(), PublishError>)>;

type Sweep = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Publishes what is committed in the outbox. Run one in each process, or in some: they share the work.
#[must_use = "a relay does nothing until it is run"]
pub struct Relay<T: Table = StandardTable> {
    table: T,
    handoff: Arc<Handoff<T::Row>>,
    publisher: Publisher,
    topologies: Option<(Broker, Vec<Topology>)>,
    /// The broker has returned a job: the topologies are to be declared again.
    queue_missing: AtomicBool,
    look_every: Duration,
    maintain_every: Duration,
    keep: Duration,
    sweep: Option<Sweep>,
}

impl Relay {
    /// A relay for the crate's own table.
    pub fn new(outbox: &Outbox, table: impl Into<StandardTable>, publisher: Publisher) -> Self {
        Self::with_table(table.into(), &outbox.handoff, publisher)
    }
}

impl<T: Table> Relay<T> {
    /// A relay for a table of yours. It looks when a commit wakes it, when a row comes free, and otherwise every 30 s where
    /// commits are announced and every second where they are not; and keeps published rows for 7 days.
    pub fn with_table(table: T, handoff: &Arc<Handoff<T::Row>>, publisher: Publisher) -> Self {
        let look_every = Duration::from_secs(if announces(&table) { 30 } else { 1 });
        Self {
            table,
            handoff: Arc::clone(handoff),
            publisher,
            topologies: None,
            queue_missing: AtomicBool::new(false),
            look_every,
            maintain_every: Duration::from_secs(60),
            keep: 7 * DAY,
            sweep: None,
        }
    }

    /// Declares these topologies whenever the broker is reached, and when it returns a job: a broker that was wiped has no
    /// queues. None unless set; a second call replaces the first.
    pub fn declare(mut self, broker: &Broker, topologies: impl IntoIterator<Item = Topology>) -> Self {
        self.topologies = Some((broker.clone(), topologies.into_iter().collect()));
        self
    }

    /// How often it looks when nothing wakes it: unless set, every 30 s where commits are announced and every second where they
    /// are not; at least 50 ms.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.look_every = interval.max(SHORTEST_WAIT);
        self
    }

    /// How often it deletes old rows, measures the backlog, and calls the [sweep](Self::sweep): every minute unless set; at
    /// least 50 ms.
    pub fn maintain_every(mut self, interval: Duration) -> Self {
        self.maintain_every = interval.max(SHORTEST_WAIT);
        self
    }

    /// How long published rows are kept, for whoever asks what became of a job: 7 days unless set; zero deletes them at the next
    /// maintenance.
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Called at each maintenance, and the next one waits for it: the place to look in your own tables for work whose job was lost
    /// with the broker, and to enqueue it again. None unless set; a second call replaces the first.
    pub fn sweep<Fut: Future<Output = ()> + Send + 'static>(
        mut self,
        sweep: impl Fn() -> Fut + Send + Sync + 'static,
    ) -> Self {
        self.sweep = Some(Box::new(move || Box::pin(sweep())));
        self
    }

    /// Runs until `shutdown`; what is in flight then is still confirmed and marked. Dropping the future loses nothing
    /// either, but may publish some jobs twice.
    ///
    /// # Errors
    /// [`OutboxError::PublisherEnded`] once the publisher has ended: closed, or refused by the broker for longer than
    /// [`Broker::with_refusal_timeout`](queues::Broker::with_refusal_timeout) allows. Nothing is published any more, and the
    /// table grows: end the process, or run a new relay with a new publisher.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), OutboxError> {
        let mut shutdown = pin!(shutdown);
        // Boxed: nobody needs so large a future on the stack.
        let publishing = Box::pin(self.publish_until(shutdown.as_mut()));
        select! {
            ended = publishing => ended,
            () = self.listen() => Ok(()),
            () = self.maintain() => Ok(()),
        }
    }

    async fn publish_until(&self, mut shutdown: Pin<&mut impl Future<Output = ()>>) -> Result<(), OutboxError> {
        let mut state = self.publisher.state();
        let mut slow = Slow::new();
        let ended = loop {
            // Without a broker there is nothing to claim for: rows would only pile up attempts.
            let connected = async {
                select! {
                    biased;
                    () = &mut shutdown => None,
                    connected = state.wait_for(|state| state.is_connected()) => Some(connected.is_ok()),
                }
            };
            match self.settling(&mut slow, connected).await {
                Some(true) => {}
                Some(false) => break Err(OutboxError::PublisherEnded { reason: why_ended(&self.publisher) }),
                None => break Ok(()),
            }
            if !self.settling(&mut slow, self.declare_until(shutdown.as_mut())).await {
                break Ok(());
            }
            let open = self.handoff.open();
            let mut look_at = Instant::now();
            let stopped = loop {
                if look_at <= Instant::now() {
                    look_at = Instant::now() + self.publish_claimed(&mut slow).await;
                }
                let except = slow.queues.clone();
                if !self.publish_handed(&mut slow, &except).await {
                    look_at = look_at.min(Instant::now() + self.time_until_due(&slow.queues).await);
                }
                if self.queue_missing.swap(false, Ordering::Relaxed)
                    && !self.settling(&mut slow, self.declare_until(shutdown.as_mut())).await
                {
                    break true;
                }
                let slow_ended = select! {
                    biased;
                    () = &mut shutdown => break true,
                    _ = state.wait_for(|state| !state.is_connected()) => break false,
                    Some(results) = slow.next() => Some(results),
                    // A commit between the look and this wait has left its wake-up behind.
                    () = self.handoff.committed() => None,
                    () = self.handoff.handed() => continue,
                    () = sleep_until(look_at) => None,
                };
                look_at = Instant::now();
                if let Some(results) = slow_ended {
                    self.settle_slow(results).await;
                }
            };
            drop(open);
            // What can't be published any more is given back.
            while !self.handoff.is_empty() {
                self.publish_handed(&mut slow, &[]).await;
            }
            if stopped {
                break Ok(());
            }
        };
        while let Some(results) = slow.next().await {
            self.settle_slow(results).await;
        }
        ended
    }

    /// Waits for something, and settles meanwhile what slow queues have confirmed: its lease may end.
    async fn settling<'a, F: Future>(&'a self, slow: &mut Slow<'a, T::Row>, waiting: F) -> F::Output {
        let mut waiting = pin!(waiting);
        loop {
            let results = select! {
                biased;
                done = &mut waiting => return done,
                Some(results) = slow.next() => results,
            };
            self.settle_slow(results).await;
        }
    }

    /// Publishes some of what this process has handed over for other queues than those in `except`. Whether the broker took it
    /// all, and it is marked; false also when some waited too long, and is found in the table.
    async fn publish_handed<'a>(&'a self, slow: &mut Slow<'a, T::Row>, except: &[String]) -> bool {
        let is_wanted = |row: &T::Row| !except.iter().any(|queue| queue == self.table.queue(row));
        let Taken { rows, too_late } = self.handoff.take(BATCH, is_wanted);
        if too_late > 0 {
            warn!(too_late, "handed jobs waited too long behind others; they are published once their lease has ended");
        }
        if rows.is_empty() {
            return too_late == 0;
        }
        let published = self.publish(rows, slow).await.unwrap_or_else(|error| {
            warn!(%error, "the outbox cannot be marked; these jobs will be published again");
            false
        });
        published && too_late == 0
    }

    /// Publishes some of what is in the table, and answers how long to wait before looking again if nothing wakes the relay.
    async fn publish_claimed<'a>(&'a self, slow: &mut Slow<'a, T::Row>) -> Duration {
        let publishing = async {
            let rows = self.table.claim(BATCH, &slow.queues).await?;
            let claimed = rows.len();
            self.publish(rows, slow).await?;
            Ok::<_, T::Error>(claimed)
        };
        match publishing.await {
            Ok(BATCH..) => Duration::ZERO,
            Ok(_) => self.time_until_due(&slow.queues).await,
            Err(error) => {
                warn!(%error, "the outbox cannot be read or marked; trying again");
                PAUSE_AFTER_ERROR
            }
        }
    }

    /// Rows that are delayed, that another relay claimed and did not finish, or that the broker refused.
    async fn time_until_due(&self, except: &[String]) -> Duration {
        match self.table.next_free(except).await {
            Ok(Some(due)) => due.clamp(SHORTEST_WAIT, self.look_every),
            Ok(None) => self.look_every,
            Err(_) => PAUSE_AFTER_ERROR,
        }
    }

    /// Publishes rows that belong to this relay. Whether the broker took all whose queue is not slow.
    async fn publish<'a>(&'a self, rows: Vec<T::Row>, slow: &mut Slow<'a, T::Row>) -> Result<bool, T::Error> {
        let mut of_queues: HashMap<String, (Vec<T::Row>, Vec<Message>)> = HashMap::new();
        let mut refused = Vec::new();
        for mut row in rows {
            match self.table.message(&mut row) {
                Ok(message) => {
                    let queue = self.table.queue(&row).to_owned();
                    let (rows, messages) = of_queues.entry(queue).or_default();
                    rows.push(row);
                    messages.push(message);
                }
                Err(reason) => refused.push((row, Refusal::NoMessage(reason))),
            }
        }
        let mut publishing = Slow::new();
        for (queue, (rows, messages)) in of_queues {
            publishing
                .add(queue, async move { rows.into_iter().zip(self.publisher.publish_all(messages).await).collect() });
        }
        let (mut results, slow_from) = (Vec::new(), Instant::now() + SLOW_AFTER);
        while let Ok(Some(of_queue)) = timeout_at(slow_from, publishing.next()).await {
            results.extend(of_queue);
        }
        if !publishing.queues.is_empty() {
            warn!(queues = ?publishing.queues, "slow to confirm; the other queues' jobs go on");
        }
        slow.extend(publishing);
        self.settle(results, refused).await
    }

    /// Marks what the broker took, and gives back what it did not. Whether it took all.
    async fn settle(&self, results: Results<T::Row>, mut refused: Vec<(T::Row, Refusal)>) -> Result<bool, T::Error> {
        let mut confirmed = Vec::new();
        for (row, result) in results {
            match result {
                Ok(()) => confirmed.push(row),
                Err(error) => {
                    if let PublishError::Returned { .. } | PublishError::NoExchange { .. } = error {
                        self.queue_missing.store(true, Ordering::Relaxed);
                    }
                    refused.push((row, Refusal::Broker(error)));
                }
            }
        }
        if !confirmed.is_empty() {
            self.table.mark(&confirmed).await?;
            debug!(confirmed = confirmed.len(), "jobs published");
        }
        if let Some((_, first)) = refused.first() {
            warn!(refused = refused.len(), confirmed = confirmed.len(), %first, "jobs not taken by the broker");
            self.table.give_back(&refused).await?;
        }
        Ok(refused.is_empty())
    }

    async fn settle_slow(&self, results: Results<T::Row>) {
        if let Err(error) = self.settle(results, Vec::new()).await {
            warn!(%error, "the outbox cannot be marked; these jobs will be published again");
        }
    }

    /// Whether there is no shutdown yet: a sick broker may take half a minute for each topology.
    async fn declare_until(&self, shutdown: Pin<&mut impl Future<Output = ()>>) -> bool {
        select! {
            biased;
            () = shutdown => false,
            () = self.declare_all() => true,
        }
    }

    /// One by one: one that cannot be declared keeps no other from it.
    async fn declare_all(&self) {
        let Some((broker, topologies)) = &self.topologies else { return };
        for topology in topologies {
            if let Err(error) = broker.declare(topology).await {
                warn!(%error, queue = topology.queue(), "the queues could not be declared");
            }
        }
    }

    #[cfg(not(feature = "postgres"))]
    async fn listen(&self) {
        std::future::pending().await
    }

    /// Hears of commits in other processes. Where they are not announced the looks must do.
    #[cfg(feature = "postgres")]
    async fn listen(&self) {
        let Some((pool, channel)) = self.table.announcements() else { return std::future::pending().await };
        loop {
            let listening = async {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.listen(channel).await?;
                loop {
                    // What was committed before this, or while the connection was lost, is looked for, too.
                    self.handoff.wake();
                    listener.try_recv().await?;
                }
            };
            let ended: sqlx::Result<()> = listening.await;
            if let Err(error) = ended {
                warn!(%error, "not listening for commits of other processes; trying again");
            }
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        }
    }

    async fn maintain(&self) {
        let mut ticks = interval(self.maintain_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.table.maintain(self.keep).await {
                warn!(%error, "published jobs were not deleted, or the backlog not measured; trying again at the next interval");
            }
            if let Some(sweep) = &self.sweep {
                sweep().await;
            }
        }
    }
}

/// Whether commits of every process are heard of.
fn announces(table: &impl Table) -> bool {
    #[cfg(feature = "postgres")]
    return table.announcements().is_some();
    #[cfg(not(feature = "postgres"))]
    {
        let _ = table;
        false
    }
}

/// What is being published to queues that are slow to confirm. Nothing more is taken for them until then.
struct Slow<'a, R> {
    queues: Vec<String>,
    publishing: FuturesUnordered<BoxFuture<'a, (String, Results<R>)>>,
}

impl<'a, R: Send + 'a> Slow<'a, R> {
    fn new() -> Self {
        Self { queues: Vec::new(), publishing: FuturesUnordered::new() }
    }

    fn add(&mut self, queue: String, publishing: impl Future<Output = Results<R>> + Send + 'a) {
        self.queues.push(queue.clone());
        self.publishing.push(Box::pin(async move { (queue, publishing.await) }));
    }

    fn extend(&mut self, other: Self) {
        self.queues.extend(other.queues);
        self.publishing.extend(other.publishing);
    }

    /// Waits for one of them.
    async fn next(&mut self) -> Option<Results<R>> {
        let (queue, results) = self.publishing.next().await?;
        self.queues.retain(|other| *other != queue);
        Some(results)
    }
}

fn why_ended(publisher: &Publisher) -> String {
    match &*publisher.state().borrow() {
        ConnectionState::Refused { error } => error.clone(),
        _ => "it was closed".to_owned(),
    }
}

impl<T: Table> fmt::Debug for Relay<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}
