//! Finds debts, and transfers to create, that no job is coming for, and gives them a new one. Called by the sweeper.
//!
//! The broker may lose everything; the rows here decide. A row whose job merely waits in a long queue gets a second job
//! too, which does no harm, but less and less often.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, LockBehavior, LockType, Query, SelectStatement};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::entities::{outbox, reversal, transfer};
use super::history::{self, Entity, Note};
use super::jobs::Job;
use super::state::{ReversalStatus, TransferStatus};
use super::time::{in_future, now};
use super::{Ledger, LedgerError, jobs};

/// The grace doubles with every sweep of the same row, this many times at most.
const MAX_DOUBLINGS: u32 = 6;
/// The transfers that Clawback has yet to create.
const UNCREATED: [TransferStatus; 2] = [TransferStatus::Pending, TransferStatus::Failed];

impl Ledger {
    /// Puts a new job into the outbox for each of at most `limit` pending reversals that are due, have had no news for
    /// longer than the grace, and have no job in the outbox. Returns how many there were. A reversal that waits for its
    /// transfer to be created needs no job.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; nothing was changed.
    pub async fn sweep(&self, limit: u64) -> Result<usize, LedgerError> {
        use reversal::Column as C;
        let at = now();
        let txn = self.begin().await?;
        let uncreated = Query::select()
            .column(transfer::Column::Id)
            .from(transfer::Entity)
            .and_where(transfer::Column::Status.is_in(UNCREATED))
            .to_owned();
        let lost = reversal::Entity::find()
            .filter(C::Status.eq(ReversalStatus::Pending))
            .filter(is_due(C::SweepAfter, at))
            .filter(is_due(C::NextRetryAt, at))
            .filter(C::Id.not_in_subquery(has_a_job()))
            .filter(C::TransferId.not_in_subquery(uncreated))
            .order_by_asc(C::SweepAfter)
            .limit(limit)
            // Another process may be sweeping too; it takes other rows.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .all(&txn)
            .await?;
        for row in &lost {
            reversal::Entity::update_many()
                .col_expr(C::SweepAfter, Expr::value(Some(next_sweep(self.sweep_grace, row.sweep_count))))
                .col_expr(C::SweepCount, Expr::value(row.sweep_count.saturating_add(1)))
                .filter(C::Id.eq(row.id))
                .exec(&txn)
                .await?;
            let status = row.status.to_string();
            history::append(&txn, Entity::Reversal, row.id, Some(&status), &status, &note()).await?;
        }
        jobs::append(&txn, lost.iter().map(|row| Job::reverse(row.id))).await?;
        self.commit(txn, lost.len()).await?;
        Ok(lost.len())
    }

    /// [`Self::sweep`], for transfers that are yet to be created.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; nothing was changed.
    pub async fn sweep_creations(&self, limit: u64) -> Result<usize, LedgerError> {
        use transfer::Column as C;
        let at = now();
        let txn = self.begin().await?;
        let lost = transfer::Entity::find()
            .filter(C::Status.is_in(UNCREATED))
            .filter(is_due(C::SweepAfter, at))
            .filter(is_due(C::NextRetryAt, at))
            .filter(C::Id.not_in_subquery(has_a_job()))
            .order_by_asc(C::SweepAfter)
            .limit(limit)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .all(&txn)
            .await?;
        for row in &lost {
            transfer::Entity::update_many()
                .col_expr(C::SweepAfter, Expr::value(Some(next_sweep(self.creation_grace, row.sweep_count))))
                .col_expr(C::SweepCount, Expr::value(row.sweep_count.saturating_add(1)))
                .filter(C::Id.eq(row.id))
                .exec(&txn)
                .await?;
            let status = row.status.to_string();
            history::append(&txn, Entity::Transfer, row.id, Some(&status), &status, &note()).await?;
        }
        jobs::append(&txn, lost.iter().map(|row| Job::create(row.id))).await?;
        self.commit(txn, lost.len()).await?;
        Ok(lost.len())
    }
}

fn is_due(column: impl ColumnTrait, at: DateTime<Utc>) -> Condition {
    Condition::any().add(column.is_null()).add(column.lte(at))
}

/// What has a job that the relay has yet to publish.
fn has_a_job() -> SelectStatement {
    Query::select()
        .column(outbox::Column::EntityId)
        .from(outbox::Entity)
        .and_where(outbox::Column::PublishedAt.is_null())
        .to_owned()
}

fn next_sweep(grace: Duration, sweeps: i32) -> DateTime<Utc> {
    let doublings = u32::try_from(sweeps).unwrap_or(0).min(MAX_DOUBLINGS);
    in_future(grace.saturating_mul(2_u32.pow(doublings)))
}

fn note() -> Note {
    Note::new("sweeper", "due, and no news of its job: a new job was made")
}
