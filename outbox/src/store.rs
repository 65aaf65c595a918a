//! The relay's side of the tables. A claim is a lease, not a lock: no transaction stays open while the broker is talked to,
//! and the rows of a relay that died come free again.

use crate::{
    Pool,
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

/// A claimed row.
pub(crate) struct Claimed {
    pub(crate) id: i64,
    /// As stored, without its payload.
    pub(crate) message: String,
    pub(crate) payload: Vec<u8>,
}

impl Claimed {
    pub(crate) fn message(&mut self) -> serde_json::Result<Message> {
        let mut message: Message = serde_json::from_str(&self.message)?;
        message.payload = std::mem::take(&mut self.payload);
        Ok(message)
    }
}

/// At most `limit` rows that are due, in the order of enqueueing.
pub(crate) async fn claim(pool: &Pool, limit: usize) -> sqlx::Result<Vec<Claimed>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut claimed = on!(pool, |pool, sql| {
        let rows = sql(CLAIM).bind(limit).bind(milliseconds(LEASE)).fetch_all(pool).await?;
        let claimed = rows
            .into_iter()
            .map(|row| Ok(Claimed { id: row.try_get(0)?, message: row.try_get(1)?, payload: row.try_get(2)? }));
        claimed.collect::<sqlx::Result<Vec<Claimed>>>()
    })?;
    claimed.sort_unstable_by_key(|row| row.id);
    Ok(claimed)
}

/// Rows that the broker has confirmed.
pub(crate) async fn mark(pool: &Pool, ids: &[i64]) -> sqlx::Result<()> {
    if ids.is_empty() {
        return Ok(());
    }
    on!(pool, |pool, sql| sql(MARK).bind(json!(ids).to_string()).execute(pool).await.map(drop))
}

/// Rows that the broker did not take.
pub(crate) async fn give_back(pool: &Pool, refused: &[(i64, String)]) -> sqlx::Result<()> {
    if refused.is_empty() {
        return Ok(());
    }
    let refused: Vec<_> = refused.iter().map(|(id, error)| json!({ "id": id, "error": error })).collect();
    on!(pool, |pool, sql| sql(GIVE_BACK).bind(json!(refused).to_string()).execute(pool).await.map(drop))
}

/// How long until a row is due; `None` if nothing waits.
pub(crate) async fn next_free(pool: &Pool) -> sqlx::Result<Option<Duration>> {
    let left: Option<i64> = on!(pool, |pool, sql| {
        let row = sql(NEXT_FREE).fetch_optional(pool).await?;
        row.map(|row| row.try_get(0)).transpose()
    })?;
    Ok(left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(0))))
}

/// How many jobs wait, and how old the oldest is.
pub(crate) async fn backlog(pool: &Pool) -> sqlx::Result<(i64, Duration)> {
    let (count, age): (i64, i64) = on!(pool, |pool, sql| {
        let row = sql(BACKLOG).fetch_one(pool).await?;
        (row.try_get(0)?, row.try_get(1)?)
    });
    Ok((count, Duration::from_millis(u64::try_from(age).unwrap_or(0))))
}

/// Deletes jobs that were published longer ago than `keep`, and keys whose period is over.
pub(crate) async fn prune(pool: &Pool, keep: Duration) -> sqlx::Result<()> {
    loop {
        let jobs = on!(pool, |pool, sql| {
            sql(PRUNE_JOBS).bind(milliseconds(keep)).execute(pool).await.map(|done| done.rows_affected())
        })?;
        let keys = on!(pool, |pool, sql| sql(PRUNE_KEYS).execute(pool).await.map(|done| done.rows_affected()))?;
        if jobs < PRUNED_AT_ONCE && keys < PRUNED_AT_ONCE {
            return Ok(());
        }
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(1 << 45).min(1 << 45)
}
