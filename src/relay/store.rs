//! The relay's side of the outbox table: claim, mark, give back, prune.
//!
//! A claim is a lease, not a lock: no transaction stays open while the broker is talked to, and the rows of a relay that
//! died come free by themselves.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, Query};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Statement, Value,
};
use uuid::Uuid;

use crate::ledger::schema::outbox::{Column, Entity, Model};
use crate::ledger::{id_set, in_future, in_ids, now};

/// How long a claimed row stays with its relay: longer than the publisher waits for a connection and a confirm together.
const LEASE: Duration = Duration::from_secs(40);
/// How long published rows are kept, for whoever asks what became of a job.
const KEEP_DAYS: i64 = 7;
const PRUNE_BATCH: u64 = 1_000;

/// Claims at most `limit` unpublished rows, oldest first. Two relays never get the same row.
pub(super) async fn claim(db: &DatabaseConnection, limit: u64) -> Result<Vec<Model>, DbErr> {
    let free = Query::select()
        .column(Column::Id)
        .from(Entity)
        .cond_where(
            Condition::all()
                .add(Column::PublishedAt.is_null())
                .add(Condition::any().add(Column::ClaimedUntil.is_null()).add(Column::ClaimedUntil.lte(now()))),
        )
        .order_by(Column::Id, sea_orm::Order::Asc)
        .limit(limit)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .to_owned();
    let mut claimed = Entity::update_many()
        .col_expr(Column::ClaimedUntil, Expr::value(Some(in_future(LEASE))))
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .filter(Column::Id.in_subquery(free))
        .exec_with_returning(db)
        .await?;
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
    loop {
        let old = Query::select()
            .column(Column::Id)
            .from(Entity)
            .and_where(Column::PublishedAt.lt(now() - TimeDelta::days(KEEP_DAYS)))
            .limit(PRUNE_BATCH)
            .to_owned();
        let deleted = Entity::delete_many().filter(Column::Id.in_subquery(old)).exec(db).await?.rows_affected;
        if deleted < PRUNE_BATCH {
            return Ok(());
        }
    }
}
