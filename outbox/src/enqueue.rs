//! Writing jobs into the outbox, in the transaction that makes them necessary.

use crate::{
    Connection, Handoff, OutboxError, StandardRow,
    connection::Value,
    sql::{CANCEL, INSERT, INSERT_LEASED, INSERT_UNIQUE, INSERT_UNIQUE_LEASED, TAKE_BACK, TAKE_KEY},
};
use queues::Message;
use std::{sync::Arc, time::Duration};

/// The outbox: jobs that a [`Relay`](crate::Relay) brings to the broker once their transaction is committed. Clones share
/// their wake-ups.
#[derive(Debug, Clone, Default)]
pub struct Outbox {
    pub(crate) handoff: Arc<Handoff<StandardRow>>,
}

/// A message for the outbox, and when it may go.
#[derive(Debug, Clone)]
#[must_use = "it is enqueued by `Outbox::enqueue`"]
pub struct OutboxJob {
    message: Message,
    delay: Duration,
    unique: Option<(String, Duration)>,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enqueued {
    /// It is in the outbox as soon as the transaction is committed.
    Added,
    /// Another job has its key, and the key's period is not over: nothing was written.
    Duplicate,
}

impl OutboxJob {
    /// A job that may go at once.
    pub fn new(message: Message) -> Self {
        Self { message, delay: Duration::ZERO, unique: None }
    }

    /// Keeps it in the database for `delay`, of any length; until then it can be [cancelled](Outbox::cancel). Zero unless set.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Makes it the only job with this key that is enqueued within `period` from now. Exact: two transactions with one key
    /// wait for each other, and if the first is rolled back, the second is added. A zero period excludes nothing.
    ///
    /// Outside of a transaction the job and its key are two statements on SQLite: a crash in between leaves the job without its key.
    pub fn unique(mut self, key: impl Into<String>, period: Duration) -> Self {
        self.unique = Some((key.into(), period));
        self
    }
}

impl From<Message> for OutboxJob {
    fn from(message: Message) -> Self {
        Self::new(message)
    }
}

impl Outbox {
    /// An outbox in the tables of [`schema`](crate::schema()). All of a process's parts should share one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a job within your transaction: it goes to the broker if, and only if, that is committed.
    ///
    /// On PostgreSQL the commit wakes every relay. On SQLite call [`wake`](Self::wake) after it, or the relay finds the job at
    /// its next look.
    ///
    /// # Errors
    /// [`OutboxError::Invalid`] for a message that no broker could take, [`OutboxError::Message`] for one without JSON. When the
    /// database refuses [`OutboxError::Database`], or `OutboxError::SeaOrm` by way of sea-orm. [`OutboxError::Backend`] for a
    /// database that is neither PostgreSQL nor SQLite.
    pub async fn enqueue(
        &self,
        connection: impl Connection,
        job: impl Into<OutboxJob>,
    ) -> Result<Enqueued, OutboxError> {
        Ok(insert(connection, job.into(), None).await?.map_or(Enqueued::Duplicate, |_| Enqueued::Added))
    }

    /// The jobs of one transaction, which this process's relay is to publish at once.
    pub fn batch(&self) -> Batch {
        Batch { outbox: self.clone(), rows: Vec::new(), in_table: false }
    }

    /// Takes a job back that no relay has touched, by its message's id; `false` if there is none, or it is too late. Its key
    /// stays taken.
    ///
    /// # Errors
    /// [`OutboxError::Database`], `OutboxError::SeaOrm` and [`OutboxError::Backend`], as from [`enqueue`](Self::enqueue).
    pub async fn cancel(&self, mut connection: impl Connection, message_id: &str) -> Result<bool, OutboxError> {
        Ok(connection.first(CANCEL, vec![Value::Text(message_id.to_owned())]).await?.is_some())
    }

    /// Has this process's relay look now.
    pub fn wake(&self) {
        self.handoff.wake();
    }
}

/// The jobs of one transaction. They are committed with a lease for the relay of this process and handed to it in memory: it
/// publishes them without a look at the table, and no other process is told. Should this one die first, another relay
/// publishes them once the lease of 15 s has ended.
///
/// What must wait, or finds more than 1,000 jobs waiting or no relay that is connected to the broker, goes by way of the table
/// as from [`Outbox::enqueue`].
///
/// ```no_run
/// # use outbox::{Outbox, OutboxError, queues::Message, sqlx::PgPool};
/// # async fn order(outbox: Outbox, pool: PgPool, message: Message) -> Result<(), OutboxError> {
/// let (mut txn, mut jobs) = (pool.begin().await?, outbox.batch());
/// // … your own statements …
/// jobs.enqueue(&mut *txn, message).await?;
/// txn.commit().await?;
/// jobs.committed();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "after the commit the jobs are handed over by `committed`"]
pub struct Batch {
    outbox: Outbox,
    rows: Vec<StandardRow>,
    /// Whether some must be looked for.
    in_table: bool,
}

impl Batch {
    /// Writes a job within your transaction, the same for all jobs of the batch.
    ///
    /// # Errors
    /// As from [`Outbox::enqueue`].
    pub async fn enqueue(
        &mut self,
        connection: impl Connection,
        job: impl Into<OutboxJob>,
    ) -> Result<Enqueued, OutboxError> {
        let job = job.into();
        let lease = self.outbox.handoff.lease(self.rows.len()).filter(|_| job.delay.is_zero());
        let message = lease.is_some().then(|| job.message.clone());
        let Some(id) = insert(connection, job, lease).await? else { return Ok(Enqueued::Duplicate) };
        match message {
            Some(message) => self.rows.push(StandardRow::new(id, message)),
            None => self.in_table = true,
        }
        Ok(Enqueued::Added)
    }

    /// Hands the jobs to the relay. Call it when the commit has succeeded, and only then: they are published.
    pub fn committed(self) {
        let Self { outbox, rows, in_table } = self;
        if !rows.is_empty() {
            outbox.handoff.hand(rows);
        }
        if in_table {
            outbox.wake();
        }
    }
}

/// The id of the new row; `None` for a duplicate.
async fn insert(
    mut connection: impl Connection,
    job: OutboxJob,
    lease: Option<Duration>,
) -> Result<Option<i64>, OutboxError> {
    let OutboxJob { mut message, delay, unique } = job;
    message.validate().map_err(OutboxError::Invalid)?;
    let payload = std::mem::take(&mut message.payload);
    let envelope = serde_json::to_string(&message)?;
    let Message { id, kind, routing_key, .. } = message;
    let message_id = id.clone();
    let texts = [id, kind, routing_key, envelope].map(Value::Text);
    let free_in = milliseconds(lease.unwrap_or(delay));
    let mut values: Vec<Value> = texts.into_iter().chain([Value::Bytes(payload), free_in]).collect();
    let id = match unique {
        None => connection.first(if lease.is_some() { INSERT_LEASED } else { INSERT }, values).await?,
        Some((key, period)) => {
            let (key, period) = (Value::Text(key), milliseconds(period));
            let sql = if lease.is_some() { INSERT_UNIQUE_LEASED } else { INSERT_UNIQUE };
            values.push(key.clone());
            if connection.is_sqlite()? {
                let Some(id) = connection.first(sql, values).await? else { return Ok(None) };
                // Within a transaction the key is still free: SQLite has one writer.
                let taken = connection.first(TAKE_KEY, vec![key, Value::Text(message_id), period]).await?.is_some();
                let stays = taken || connection.first(TAKE_BACK, vec![Value::Integer(id)]).await?.is_none();
                stays.then_some(id)
            } else {
                values.push(period);
                connection.first(sql, values).await?
            }
        }
    };
    if id.is_none() {
        return Ok(None);
    }
    metrics::counter!("outbox_jobs_enqueued_total").increment(1);
    Ok(id)
}

fn milliseconds(duration: Duration) -> Value {
    /// Some thousand years: sums with the time of day still fit.
    const LONGEST: i64 = 1 << 45;
    Value::Integer(i64::try_from(duration.as_millis()).unwrap_or(LONGEST).min(LONGEST))
}
