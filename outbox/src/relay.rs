//! Brings committed jobs to the broker: claim, publish, await every confirm, mark. A job that is published and not marked,
//! because of a crash in between, is published again; none is ever marked and not published.

use crate::{Outbox, Pool, sql::CHANNEL, store};
use futures_util::future::BoxFuture;
use queues::{Broker, PublishError, Publisher, Topology};
use sqlx::postgres::PgListener;
use std::{fmt, future::Future, pin::pin, time::Duration};
use tokio::{
    select,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};
use tracing::{debug, warn};

/// Jobs in one claim, all in flight on the broker together, and marked together.
const BATCH: usize = 500;
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// A row that is due and was not claimed is another relay's at this moment.
const SHORTEST_WAIT: Duration = Duration::from_millis(50);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Sweep = Box<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Publishes what is committed in the outbox. Run one in each process, or in some: they share the work.
#[must_use = "a relay does nothing until it is run"]
pub struct Relay {
    outbox: Outbox,
    pool: Pool,
    publisher: Publisher,
    topologies: Option<(Broker, Vec<Topology>)>,
    look_every: Duration,
    maintain_every: Duration,
    keep: Duration,
    sweep: Option<Sweep>,
}

impl Relay {
    /// A relay that looks when a commit wakes it, when a delay is over, and otherwise every 30 s on PostgreSQL and every
    /// second on SQLite; and keeps published rows for 7 days.
    pub fn new(outbox: &Outbox, pool: impl Into<Pool>, publisher: Publisher) -> Self {
        let pool = pool.into();
        let look_every = Duration::from_secs(if matches!(pool, Pool::Postgres(_)) { 30 } else { 1 });
        Self {
            outbox: outbox.clone(),
            pool,
            publisher,
            topologies: None,
            look_every,
            maintain_every: Duration::from_secs(60),
            keep: 7 * DAY,
            sweep: None,
        }
    }

    /// Declares these topologies whenever the broker is reached, and when it returns a job: a broker that was wiped has no
    /// queues.
    pub fn declare(mut self, broker: &Broker, topologies: impl IntoIterator<Item = Topology>) -> Self {
        self.topologies = Some((broker.clone(), topologies.into_iter().collect()));
        self
    }

    /// How often it looks when nothing wakes it.
    pub fn look_every(mut self, interval: Duration) -> Self {
        self.look_every = interval.max(SHORTEST_WAIT);
        self
    }

    /// How often it deletes old rows, measures the backlog, and calls the [sweep](Self::sweep): every minute unless set.
    pub fn maintain_every(mut self, interval: Duration) -> Self {
        self.maintain_every = interval.max(SHORTEST_WAIT);
        self
    }

    /// How long published rows are kept, for whoever asks what became of a job.
    pub fn keep(mut self, keep: Duration) -> Self {
        self.keep = keep;
        self
    }

    /// Called at each maintenance: the place to look in your own tables for work whose job was lost with the broker, and to
    /// enqueue it again.
    pub fn sweep<Fut: Future<Output = ()> + Send + 'static>(
        mut self,
        sweep: impl Fn() -> Fut + Send + Sync + 'static,
    ) -> Self {
        self.sweep = Some(Box::new(move || Box::pin(sweep())));
        self
    }

    /// Runs until `shutdown`; what is in flight then is still confirmed and marked. Dropping the future loses nothing
    /// either, but may publish some jobs twice.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        select! {
            () = self.publish_until(shutdown.as_mut()) => {}
            () = self.listen() => {}
            () = self.maintain() => {}
        }
    }

    async fn publish_until(&self, mut shutdown: std::pin::Pin<&mut impl Future<Output = ()>>) {
        let mut state = self.publisher.state();
        loop {
            // Without a broker there is nothing to claim for.
            select! {
                biased;
                () = &mut shutdown => return,
                connected = state.wait_for(|state| state.is_connected()) => if connected.is_err() { return },
            }
            self.declare_all().await;
            while state.borrow().is_connected() {
                let wait = match self.publish_claimed().await {
                    Ok(BATCH..) => Duration::ZERO,
                    Ok(_) => self.time_until_due().await,
                    Err(error) => {
                        warn!(%error, "the outbox cannot be read or marked; trying again");
                        PAUSE_AFTER_ERROR
                    }
                };
                let next = Instant::now() + wait;
                select! {
                    biased;
                    () = &mut shutdown => return,
                    _ = state.wait_for(|state| !state.is_connected()) => {}
                    // A commit between the look and this wait has left its wake-up behind.
                    () = self.outbox.committed.notified() => {}
                    () = sleep_until(next) => {}
                }
            }
        }
    }

    async fn time_until_due(&self) -> Duration {
        match store::next_free(&self.pool).await {
            Ok(Some(due)) => due.clamp(SHORTEST_WAIT, self.look_every),
            Ok(None) => self.look_every,
            Err(_) => PAUSE_AFTER_ERROR,
        }
    }

    /// Answers how many rows were claimed.
    async fn publish_claimed(&self) -> sqlx::Result<usize> {
        let claimed = store::claim(&self.pool, BATCH).await?;
        let count = claimed.len();
        let (mut ids, mut messages, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for mut row in claimed {
            match row.message() {
                Ok(message) => {
                    ids.push(row.id);
                    messages.push(message);
                }
                // A newer program's, or one that somebody has changed by hand.
                Err(error) => refused.push((row.id, format!("the stored message cannot be read: {error}"))),
            }
        }
        let mut confirmed = Vec::new();
        let mut no_queue = false;
        for (id, result) in ids.into_iter().zip(self.publisher.publish_all(messages).await) {
            match result {
                Ok(()) => confirmed.push(id),
                Err(error) => {
                    no_queue |= matches!(error, PublishError::Returned { .. } | PublishError::NoExchange { .. });
                    refused.push((id, error.to_string()));
                }
            }
        }
        store::mark(&self.pool, &confirmed).await?;
        metrics::counter!("outbox_jobs_published_total").increment(confirmed.len() as u64);
        if let Some((_, first)) = refused.first() {
            warn!(refused = refused.len(), confirmed = confirmed.len(), first, "jobs not taken by the broker");
            metrics::counter!("outbox_jobs_refused_total").increment(refused.len() as u64);
            store::give_back(&self.pool, &refused).await?;
        } else if count > 0 {
            debug!(confirmed = confirmed.len(), "jobs published");
        }
        if no_queue {
            self.declare_all().await;
        }
        Ok(count)
    }

    async fn declare_all(&self) {
        let Some((broker, topologies)) = &self.topologies else { return };
        if let Err(error) = broker.declare_all(topologies).await {
            warn!(%error, "the queues could not be declared");
        }
    }

    /// Hears of commits in other processes. On SQLite the looks must do.
    async fn listen(&self) {
        let Pool::Postgres(pool) = &self.pool else { return std::future::pending().await };
        loop {
            let listening = async {
                let mut listener = PgListener::connect_with(pool).await?;
                listener.listen(CHANNEL).await?;
                loop {
                    // What was committed before this, or while the connection was lost, is looked for, too.
                    self.outbox.wake();
                    listener.try_recv().await?;
                }
            };
            let ended: sqlx::Result<()> = listening.await;
            if let Err(error) = ended {
                warn!(%error, "not listening for commits of other processes; trying again");
            }
            sleep(PAUSE_AFTER_ERROR).await;
        }
    }

    async fn maintain(&self) {
        let mut ticks = interval(self.maintain_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = store::prune(&self.pool, self.keep).await {
                warn!(%error, "published jobs were not deleted; trying again at the next interval");
            }
            match store::backlog(&self.pool).await {
                Ok((jobs, age)) => {
                    metrics::gauge!("outbox_jobs_waiting").set(jobs as f64);
                    metrics::gauge!("outbox_oldest_seconds").set(age.as_secs_f64());
                }
                Err(error) => warn!(%error, "the backlog was not measured"),
            }
            if let Some(sweep) = &self.sweep {
                sweep().await;
            }
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}
