//! The seam between the relay and the table that it publishes from.

use queues::{Message, PublishError};
use std::{fmt, future::Future, time::Duration};

/// A table with jobs to publish. [`StandardTable`](crate::StandardTable) is the crate's own; implement this for one that your
/// program has already, and run [`Relay::with_table`](crate::Relay::with_table).
///
/// Times are by the database's clock. No transaction stays open while the broker is talked to.
///
/// ```no_run
/// use outbox::{Handoff, OutboxError, Refusal, Relay, Table, queues::{Message, Publisher, Topology}, sqlx::{self, PgPool}};
/// use std::{collections::HashMap, mem, sync::Arc, time::Duration};
///
/// // CREATE TABLE jobs (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind TEXT NOT NULL, payload TEXT NOT NULL,
/// //   free_at TIMESTAMPTZ NOT NULL, published_at TIMESTAMPTZ, last_error TEXT)
/// type Row = (i64, String, String); // id, kind, payload
/// struct Jobs {
///     pool: PgPool,
///     topologies: HashMap<String, Topology>, // each kind has a queue
/// }
///
/// impl Table for Jobs {
///     type Row = Row;
///     type Error = sqlx::Error;
///
///     async fn claim(&self, limit: usize, except: &[String]) -> sqlx::Result<Vec<Row>> {
///         let claim = "WITH free AS MATERIALIZED (SELECT id FROM jobs WHERE published_at IS NULL AND free_at <= now()
///                          AND kind <> ALL($2) ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
///                      UPDATE jobs SET free_at = now() + interval '60 s' WHERE id IN (SELECT id FROM free)
///                      RETURNING id, kind, payload";
///         let mut rows: Vec<Row> = sqlx::query_as(claim).bind(limit as i64).bind(except).fetch_all(&self.pool).await?;
///         rows.sort_unstable();
///         Ok(rows)
///     }
///     fn queue<'a>(&'a self, row: &'a Row) -> &'a str {
///         &row.1
///     }
///     fn message(&self, (id, kind, payload): &mut Row) -> Result<Message, String> {
///         let topology = self.topologies.get(kind.as_str()).ok_or("this version knows no such kind of job")?;
///         Ok(Message::new(topology, kind.as_str(), id.to_string(), mem::take(payload).into_bytes()))
///     }
///     async fn mark(&self, published: &[Row]) -> sqlx::Result<()> {
///         let ids: Vec<i64> = published.iter().map(|row| row.0).collect();
///         let mark = "UPDATE jobs SET published_at = now() WHERE id = ANY($1)";
///         sqlx::query(mark).bind(ids).execute(&self.pool).await.map(drop)
///     }
///     async fn give_back(&self, refused: &[(Row, Refusal)]) -> sqlx::Result<()> {
///         let ids: Vec<i64> = refused.iter().map(|(row, _)| row.0).collect();
///         let first = refused.first().map(|(_, why)| why.to_string());
///         let give_back = "UPDATE jobs SET free_at = now() + interval '5 s', last_error = $2
///                          WHERE id = ANY($1) AND published_at IS NULL";
///         sqlx::query(give_back).bind(ids).bind(first).execute(&self.pool).await.map(drop)
///     }
///     async fn next_free(&self, except: &[String]) -> sqlx::Result<Option<Duration>> {
///         let next = "SELECT extract(epoch FROM min(free_at) - now())::float8 FROM jobs
///                     WHERE published_at IS NULL AND kind <> ALL($1)";
///         let seconds: Option<f64> = sqlx::query_scalar(next).bind(except).fetch_one(&self.pool).await?;
///         Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
///     }
/// }
///
/// async fn order(pool: &PgPool, handoff: &Handoff<Row>) -> sqlx::Result<()> {
///     let mut txn = pool.begin().await?;
///     // … your own statements …
///     let lease = handoff.lease(0);
///     let insert = "INSERT INTO jobs (kind, payload, free_at) VALUES ('send_receipt', $1, clock_timestamp() + $2)
///                   RETURNING id, kind, payload";
///     let free_in = lease.unwrap_or_default();
///     let row: Row = sqlx::query_as(insert).bind(r#"{"order":4711}"#).bind(free_in).fetch_one(&mut *txn).await?;
///     txn.commit().await?;
///     if lease.is_some() { handoff.hand([row]) } else { handoff.wake() }
///     Ok(())
/// }
///
/// async fn run(table: Jobs, publisher: Publisher) -> Result<(), OutboxError> {
///     let handoff = Arc::new(Handoff::new()); // shared with what calls `order`
///     Relay::with_table(table, &handoff, publisher).run(async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await
/// }
/// ```
pub trait Table: Send + Sync {
    /// A row that belongs to this process's relay.
    type Row: Send;
    /// What the database says when it refuses.
    type Error: fmt::Display + Send;

    /// Takes at most `limit` rows that are neither published nor another relay's, oldest first, under a lease: two relays
    /// never get the same row, and those of a relay that died come free again. The lease must be longer than the publisher
    /// waits for a connection, a place and a confirm together: 45 s. Rows for the queues in `except` stay.
    ///
    /// # Errors
    /// What the database says.
    fn claim(
        &self,
        limit: usize,
        except: &[String],
    ) -> impl Future<Output = Result<Vec<Self::Row>, Self::Error>> + Send;

    /// The queue that the row is for, or whatever stands for it in your table. While one is slow to confirm, the rows for
    /// others are published without waiting for it.
    fn queue<'a>(&'a self, row: &'a Self::Row) -> &'a str;

    /// The row's message; called once for each row.
    ///
    /// # Errors
    /// The reason why this program has none, when the row is a newer program's, say: it is given back.
    fn message(&self, row: &mut Self::Row) -> Result<Message, String>;

    /// Marks rows that the broker has confirmed, at least one.
    ///
    /// # Errors
    /// What the database says.
    fn mark(&self, published: &[Self::Row]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Ends the lease of rows that were not published, at least one, after some pause.
    ///
    /// # Errors
    /// What the database says.
    fn give_back(&self, refused: &[(Self::Row, Refusal)]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// How long until a row, of whatever relay, comes free; zero if one is, `None` if nothing waits for another queue than
    /// those in `except`.
    ///
    /// # Errors
    /// What the database says.
    fn next_free(&self, except: &[String]) -> impl Future<Output = Result<Option<Duration>, Self::Error>> + Send;

    /// Deletes rows that were published longer ago than `keep`, and measures what is to be measured. Does nothing unless written.
    ///
    /// # Errors
    /// What the database says.
    fn maintain(&self, keep: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = keep;
        async { Ok(()) }
    }

    /// Where commits of jobs are announced by NOTIFY: the pool for LISTEN, and the channel. `None`, nowhere, unless written: then
    /// the relay looks each second, or when it is [woken](crate::Handoff::wake).
    #[cfg(feature = "postgres")]
    fn announcements(&self) -> Option<(&sqlx::PgPool, &'static str)> {
        None
    }
}

/// Why a row was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has no message for this program.
    #[error("{0}")]
    NoMessage(String),
    /// The broker did not take it, or may not have.
    #[error(transparent)]
    Broker(#[from] PublishError),
}
