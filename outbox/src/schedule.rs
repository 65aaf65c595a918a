//! Periodic jobs. Each has a row with its last tick; moving that, and enqueueing the job, are one transaction: of all
//! schedulers one fires a tick, whatever dies when.

use crate::{
    Outbox, OutboxError, OutboxJob, Pool,
    pool::on,
    sql::{FIRST_TICK, LAST_TICK, MOVE_TICK},
};
use chrono::{DateTime, SecondsFormat, SubsecRound, TimeDelta, Utc};
use croner::Cron;
use queues::Message;
use sqlx::Row;
use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    str::FromStr,
    time::Duration,
};
use tokio::{select, time::sleep};
use tracing::{info, warn};

/// In one transaction.
const MOST_TICKS: usize = 100;
/// A tick that is later was missed.
const IN_TIME: TimeDelta = TimeDelta::minutes(1);
/// So a clock that is set, or a new schedule in the tables, is seen.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// What becomes of ticks at which no scheduler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// Each is fired.
    All,
    /// The last of them is fired.
    Latest,
    /// None is fired that is more than a minute old.
    Skip,
}

struct Periodic {
    name: String,
    cron: Cron,
    missed: Missed,
    message: Box<dyn Fn(DateTime<Utc>) -> Message + Send + Sync>,
}

/// Enqueues periodic jobs. Run one in each process: every tick fires once over all of them.
///
/// ```no_run
/// # use outbox::{Missed, Outbox, OutboxError, Pool, Scheduler};
/// # use outbox::queues::{Message, Topology};
/// # async fn run(outbox: Outbox, pool: Pool, topology: Topology) -> Result<(), OutboxError> {
/// let scheduler = Scheduler::new(&outbox, pool).every("nightly-report", "0 3 * * *", Missed::Latest, move |tick| {
///     Message::new(&topology, "report", "", format!(r#"{{"until":"{tick}"}}"#).into_bytes())
/// })?;
/// scheduler.run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await;
/// # Ok(())
/// # }
/// ```
#[must_use = "a scheduler does nothing until it is run"]
pub struct Scheduler {
    outbox: Outbox,
    pool: Pool,
    periodics: Vec<Periodic>,
}

impl Scheduler {
    /// A scheduler without schedules.
    pub fn new(outbox: &Outbox, pool: impl Into<Pool>) -> Self {
        Self { outbox: outbox.clone(), pool: pool.into(), periodics: Vec::new() }
    }

    /// Adds a job with a stable name and a cron expression in UTC: minute, hour, day of the month, month, day of the week;
    /// with a second before them if there are six. The first tick is the first one after the name is first seen.
    ///
    /// `message` makes the job of a tick. Its id becomes `NAME@TICK`, the same from every scheduler; it must fit in 255 bytes, so
    /// the name in 234. While `message` panics, or makes what no broker could take, this job's tick waits; the others go on.
    ///
    /// # Errors
    /// [`OutboxError::Schedule`] when the expression is none, [`OutboxError::DuplicateSchedule`] when another job has the name.
    pub fn every(
        mut self,
        name: impl Into<String>,
        expression: &str,
        missed: Missed,
        message: impl Fn(DateTime<Utc>) -> Message + Send + Sync + 'static,
    ) -> Result<Self, OutboxError> {
        let name = name.into();
        if self.periodics.iter().any(|periodic| periodic.name == name) {
            return Err(OutboxError::DuplicateSchedule { name });
        }
        let cron = Cron::from_str(expression).map_err(|error| OutboxError::Schedule {
            name: name.clone(),
            expression: expression.to_owned(),
            reason: error.to_string(),
        })?;
        self.periodics.push(Periodic { name, cron, missed, message: Box::new(message) });
        Ok(self)
    }

    /// Fires ticks as they become due, until `shutdown`. Dropping the future fires none twice, either.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        loop {
            let pause = match self.fire_due(Utc::now()).await {
                Ok(_) => self.time_until_next(Utc::now()),
                Err(_) => PAUSE_AFTER_ERROR,
            };
            select! {
                biased;
                () = &mut shutdown => return,
                () = sleep(pause) => {}
            }
        }
    }

    /// Enqueues the jobs of all ticks up to `now` that nobody has fired, and answers how many. [`run`](Self::run) calls it.
    ///
    /// # Errors
    /// The first error of a job: [`OutboxError::Database`]; [`OutboxError::PeriodicMessage`] when its closure panicked;
    /// [`OutboxError::Invalid`] or [`OutboxError::Message`] when its message is none. The other jobs are fired nevertheless.
    pub async fn fire_due(&self, now: DateTime<Utc>) -> Result<usize, OutboxError> {
        let (mut fired, mut first_error) = (0, None);
        for periodic in &self.periodics {
            loop {
                match self.fire(periodic, now).await {
                    Ok(Some(more)) => fired += more,
                    Ok(None) => break,
                    Err(error) => {
                        warn!(name = periodic.name, %error, "a periodic job was not enqueued; trying again");
                        first_error = first_error.or(Some(error));
                        break;
                    }
                }
            }
        }
        if fired > 0 {
            self.outbox.wake();
        }
        first_error.map_or(Ok(fired), Err)
    }

    /// One transaction: `None` when no tick was left.
    async fn fire(&self, periodic: &Periodic, now: DateTime<Utc>) -> Result<Option<usize>, OutboxError> {
        let name = periodic.name.as_str();
        let last: Option<i64> = on!(&self.pool, |pool, sql| {
            let row = sql(LAST_TICK).bind(name).fetch_optional(pool).await?;
            row.map(|row| row.try_get(0)).transpose()
        })?;
        let Some(last) = last else {
            let first = now.timestamp_millis();
            on!(&self.pool, |pool, sql| sql(FIRST_TICK).bind(name).bind(first).execute(pool).await.map(drop))?;
            return Ok(None);
        };
        let after = DateTime::from_timestamp_millis(last).unwrap_or(now);
        let ticks = periodic.due(after, now);
        let Some(newest) = ticks.last() else { return Ok(None) };
        let newest = newest.timestamp_millis();
        let messages = ticks.iter().map(|tick| periodic.message_of(*tick)).collect::<Result<Vec<_>, _>>()?;
        let moved = on!(&self.pool, |pool, sql| {
            let mut txn = pool.begin().await?;
            let moved = sql(MOVE_TICK).bind(name).bind(last).bind(newest).execute(&mut *txn).await?.rows_affected();
            if moved == 1 {
                for message in messages {
                    self.outbox.enqueue(&mut *txn, OutboxJob::new(message)).await?;
                }
            }
            txn.commit().await?;
            moved
        });
        // Another scheduler was faster: look again.
        let fired = if moved == 1 { ticks.len() } else { 0 };
        if fired > 0 {
            info!(name, fired, "periodic job enqueued");
        }
        Ok(Some(fired))
    }

    fn time_until_next(&self, now: DateTime<Utc>) -> Duration {
        let next = self.periodics.iter().filter_map(|periodic| periodic.next(now)).min();
        let pause = next.and_then(|next| (next - now).to_std().ok()).unwrap_or(LONGEST_SLEEP);
        // A timer may be early by a millisecond.
        (pause + Duration::from_millis(1)).min(LONGEST_SLEEP)
    }
}

impl Periodic {
    fn message_of(&self, tick: DateTime<Utc>) -> Result<Message, OutboxError> {
        let made = catch_unwind(AssertUnwindSafe(|| (self.message)(tick)));
        let mut message = made.map_err(|_| OutboxError::PeriodicMessage { name: self.name.clone() })?;
        message.id = format!("{}@{}", self.name, tick.to_rfc3339_opts(SecondsFormat::Secs, true));
        Ok(message)
    }

    fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.cron.find_next_occurrence(&after.trunc_subsecs(0), false).ok()
    }

    /// The ticks to deal with now, ascending.
    fn due(&self, after: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        // Croner takes any moment of a matching second for a tick.
        let now = now.trunc_subsecs(0);
        let after = match self.missed {
            Missed::All => after,
            Missed::Skip => after.max(now - IN_TIME - TimeDelta::seconds(1)),
            Missed::Latest => {
                let latest = self.cron.find_previous_occurrence(&now, true).ok();
                return latest.filter(|tick| *tick > after).into_iter().collect();
            }
        };
        let ticks = std::iter::successors(self.next(after), |tick| self.next(*tick));
        ticks.take_while(|tick| *tick <= now).take(MOST_TICKS).collect()
    }
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.periodics.iter().map(|periodic| periodic.name.as_str()).collect();
        f.debug_struct("Scheduler").field("periodics", &names).finish_non_exhaustive()
    }
}
