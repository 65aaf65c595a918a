//! The relay's side of the outbox. A claim is a lease, not a lock: no transaction stays open while the broker is talked to.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseConnection, DbBackend, DbErr, EntityTrait, FromQueryResult, QueryFilter,
    QueryOrder, QuerySelect, Statement, Value,
};
use uuid::Uuid;

use crate::ledger::schema::outbox::{Column, Entity, Model};
use crate::ledger::{id_set, in_future, in_ids, now};

/// How long a claimed row stays with its relay: longer than the publisher waits for a connection and a confirm together.
const LEASE: Duration = Duration::from_secs(40);
/// How long published rows are kept, for whoever asks what became of a job.
const KEEP_DAYS: i64 = 7;
const PRUNE_BATCH: i64 = 1_000;

/// Claims at most `limit` unpublished rows, oldest first. Two relays never get the same row.
pub(super) async fn claim(db: &DatabaseConnection, limit: u64) -> Result<Vec<Model>, DbErr> {
    let backend = db.get_database_backend();
    // Materialized: PostgreSQL may otherwise choose the rows several times over, each time others, and more than `limit`.
    let lock = if backend == DbBackend::Postgres { "FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = format!(
        "WITH free AS MATERIALIZED (SELECT id FROM outbox
            WHERE published_at IS NULL AND (claimed_until IS NULL OR claimed_until <= $1) ORDER BY id LIMIT $2 {lock})
        UPDATE outbox SET claimed_until = $3, attempts = attempts + 1 WHERE id IN (SELECT id FROM free) RETURNING *"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = [now().into(), limit.into(), in_future(LEASE).into()];
    let rows = db.query_all_raw(Statement::from_sql_and_values(backend, sql, values)).await?;
    let mut claimed = rows.iter().map(|row| Model::from_query_result(row, "")).collect::<Result<Vec<_>, _>>()?;
    claimed.sort_by_key(|row| row.id);
    Ok(claimed)
}

/// Marks rows that the broker has confirmed.
pub(super) async fn mark_published(db: &DatabaseConnection, ids: &[Uuid]) -> Result<(), DbErr> {
    set_rows(db, "published_at = $2, last_error = NULL", ids, vec![now().into()]).await
}

/// Gives rows back that the broker did not take, to be claimed again after `pause`.
pub(super) async fn give_back(
    db: &DatabaseConnection,
    ids: &[Uuid],
    pause: Duration,
    error: &str,
) -> Result<(), DbErr> {
    set_rows(db, "claimed_until = $2, last_error = $3", ids, vec![in_future(pause).into(), error.into()]).await
}

/// One statement whatever the number of rows, so its plan is kept.
async fn set_rows(db: &DatabaseConnection, set: &str, ids: &[Uuid], mut values: Vec<Value>) -> Result<(), DbErr> {
    if ids.is_empty() {
        return Ok(());
    }
    let backend = db.get_database_backend();
    let sql = format!("UPDATE outbox SET {set} WHERE id {} AND published_at IS NULL", in_ids(backend));
    values.insert(0, id_set(ids));
    db.execute_raw(Statement::from_sql_and_values(backend, sql, values)).await.map(drop)
}

/// When the next claimed row comes free, if any is claimed.
pub(super) async fn next_free(db: &DatabaseConnection) -> Result<Option<DateTime<Utc>>, DbErr> {
    let next: Option<Option<DateTime<Utc>>> = Entity::find()
        .select_only()
        .column(Column::ClaimedUntil)
        .filter(Column::PublishedAt.is_null())
        .filter(Column::ClaimedUntil.is_not_null())
        .order_by_asc(Column::ClaimedUntil)
        .into_tuple()
        .one(db)
        .await?;
    Ok(next.flatten())
}

/// Deletes the rows that were published long ago, a batch at a time.
pub(super) async fn prune(db: &DatabaseConnection) -> Result<(), DbErr> {
    let sql = "WITH old AS MATERIALIZED (SELECT id FROM outbox WHERE published_at < $1 ORDER BY published_at LIMIT $2)
        DELETE FROM outbox WHERE id IN (SELECT id FROM old)";
    let values: [Value; 2] = [(now() - TimeDelta::days(KEEP_DAYS)).into(), PRUNE_BATCH.into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    while db.execute_raw(statement.clone()).await?.rows_affected() == PRUNE_BATCH as u64 {}
    Ok(())
}
