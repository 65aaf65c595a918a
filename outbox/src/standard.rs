//! The crate's own table, as the relay uses it.

use crate::{
    Pool, Refusal, Table,
    pool::on,
    sql::{BACKLOG, CLAIM, GIVE_BACK, MARK, NEXT_FREE, PRUNE_JOBS, PRUNE_KEYS},
};
use queues::Message;
use serde_json::json;
use sqlx::Row;
use std::time::Duration;

/// Longer than the publisher waits for a connection, a place and a confirm together.
const LEASE: Duration = Duration::from_secs(60);
/// As many as one statement of a pruning deletes at most.
const PRUNED_AT_ONCE: u64 = 1000;

/// The table `queue_outbox` of [`schema`](crate::schema()).
#[derive(Debug, Clone)]
pub struct StandardTable {
    pool: Pool,
}

/// A row of a [`StandardTable`] that belongs to this process's relay.
#[derive(Debug)]
pub struct StandardRow {
    id: i64,
    queue: String,
    /// Taken when it is published.
    message: Result<Message, String>,
}

impl StandardRow {
    pub(crate) fn new(id: i64, message: Message) -> Self {
        Self { id, queue: message.routing_key.clone(), message: Ok(message) }
    }

    fn stored((id, queue, message, payload): (i64, String, &str, Vec<u8>)) -> Self {
        let message = serde_json::from_str(message).map(|mut message: Message| {
            message.payload = payload;
            message
        });
        // A newer program's, or one that somebody has changed by hand.
        Self { id, queue, message: message.map_err(|error| format!("the stored message cannot be read: {error}")) }
    }
}

impl<P: Into<Pool>> From<P> for StandardTable {
    fn from(pool: P) -> Self {
        Self { pool: pool.into() }
    }
}

impl Table for StandardTable {
    type Row = StandardRow;
    type Error = sqlx::Error;

    async fn claim(&self, limit: usize, except: &[String]) -> sqlx::Result<Vec<StandardRow>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut claimed = on!(&self.pool, |pool, sql| {
            let claim = sql(CLAIM).bind(json!(except).to_string()).bind(limit).bind(milliseconds(LEASE));
            let rows = claim.fetch_all(pool).await?;
            let rows = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)));
            rows.map(|row| row.map(StandardRow::stored)).collect::<sqlx::Result<Vec<_>>>()
        })?;
        claimed.sort_unstable_by_key(|row| row.id);
        Ok(claimed)
    }

    fn queue<'a>(&'a self, row: &'a StandardRow) -> &'a str {
        &row.queue
    }

    fn message(&self, row: &mut StandardRow) -> Result<Message, String> {
        std::mem::replace(&mut row.message, Err("its message was taken before".to_owned()))
    }

    async fn mark(&self, published: &[StandardRow]) -> sqlx::Result<()> {
        let ids: Vec<i64> = published.iter().map(|row| row.id).collect();
        on!(&self.pool, |pool, sql| sql(MARK).bind(json!(ids).to_string()).execute(pool).await.map(drop))?;
        metrics::counter!("outbox_jobs_published_total").increment(published.len() as u64);
        Ok(())
    }

    async fn give_back(&self, refused: &[(StandardRow, Refusal)]) -> sqlx::Result<()> {
        metrics::counter!("outbox_jobs_refused_total").increment(refused.len() as u64);
        let refused = refused.iter().map(|(row, why)| json!({ "id": row.id, "error": why.to_string() }));
        let refused = serde_json::Value::from_iter(refused).to_string();
        on!(&self.pool, |pool, sql| sql(GIVE_BACK).bind(refused).execute(pool).await.map(drop))
    }

    async fn next_free(&self, except: &[String]) -> sqlx::Result<Option<Duration>> {
        let left: Option<i64> = on!(&self.pool, |pool, sql| {
            let row = sql(NEXT_FREE).bind(json!(except).to_string()).fetch_optional(pool).await?;
            row.map(|row| row.try_get(0)).transpose()
        })?;
        Ok(left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(0))))
    }

    /// Also deletes keys whose period is over.
    async fn maintain(&self, keep: Duration) -> sqlx::Result<()> {
        loop {
            let jobs = on!(&self.pool, |pool, sql| {
                sql(PRUNE_JOBS).bind(milliseconds(keep)).execute(pool).await.map(|done| done.rows_affected())
            })?;
            let keys =
                on!(&self.pool, |pool, sql| sql(PRUNE_KEYS).execute(pool).await.map(|done| done.rows_affected()))?;
            if jobs < PRUNED_AT_ONCE && keys < PRUNED_AT_ONCE {
                break;
            }
        }
        let (jobs, milliseconds): (i64, i64) = on!(&self.pool, |pool, sql| {
            let row = sql(BACKLOG).fetch_one(pool).await?;
            (row.try_get(0)?, row.try_get(1)?)
        });
        metrics::gauge!("outbox_jobs_waiting").set(jobs as f64);
        metrics::gauge!("outbox_oldest_seconds").set(milliseconds.max(0) as f64 / 1000.0);
        Ok(())
    }

    #[cfg(feature = "postgres")]
    fn announcements(&self) -> Option<(&sqlx::PgPool, &'static str)> {
        match &self.pool {
            Pool::Postgres(pool) => Some((pool, crate::sql::CHANNEL)),
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(_) => None,
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(1 << 45).min(1 << 45)
}
