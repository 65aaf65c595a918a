//! The relay's side of the outbox table: claim, mark, give back, prune.
//!
//! A claim is a lease, not a lock: no transaction stays open while the broker is talked to, and the rows of a relay that
//! died come free by themselves.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, LockBehavior, LockType, Query};
use sea_orm::{ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::ledger::schema::outbox::{Column, Entity, Model};
use crate::ledger::{in_future, now};

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
    if ids.is_empty() {
        return Ok(());
    }
    Entity::update_many()
        .col_expr(Column::PublishedAt, Expr::value(Some(now())))
        .col_expr(Column::LastError, Expr::value(None::<String>))
        .filter(Column::Id.is_in(ids.iter().copied()))
        .exec(db)
        .await?;
    Ok(())
}

/// Gives rows back that the broker did not take, to be claimed again after `pause`.
pub(super) async fn give_back(
    db: &DatabaseConnection,
    ids: &[Uuid],
    pause: Duration,
    error: &str,
) -> Result<(), DbErr> {
    if ids.is_empty() {
        return Ok(());
    }
    Entity::update_many()
        .col_expr(Column::ClaimedUntil, Expr::value(Some(in_future(pause))))
        .col_expr(Column::LastError, Expr::value(Some(error.to_owned())))
        .filter(Column::Id.is_in(ids.iter().copied()))
        .filter(Column::PublishedAt.is_null())
        .exec(db)
        .await?;
    Ok(())
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

/// Deletes a batch of rows that were published long ago, and returns how many.
pub(super) async fn prune(db: &DatabaseConnection) -> Result<u64, DbErr> {
    let old = Query::select()
        .column(Column::Id)
        .from(Entity)
        .and_where(Column::PublishedAt.lt(now() - TimeDelta::days(KEEP_DAYS)))
        .limit(PRUNE_BATCH)
        .to_owned();
    Ok(Entity::delete_many().filter(Column::Id.in_subquery(old)).exec(db).await?.rows_affected)
}
