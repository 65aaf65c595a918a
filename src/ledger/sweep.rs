//! Finds debts that no job is coming for, and gives them a new one. Called by the sweeper.
//!
//! The broker may lose everything; the rows here decide. A row whose job merely waits in a long queue gets a second job
//! too, which does no harm, but less and less often.

use sea_orm::sea_query::{Expr, LockBehavior, LockType, Query};
use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::entities::{outbox, reversal};
use super::history::{self, Entity, Note};
use super::jobs::Job;
use super::state::ReversalStatus;
use super::time::{in_future, now};
use super::{Ledger, LedgerError, jobs};

/// The grace doubles with every sweep of the same row, this many times at most.
const MAX_DOUBLINGS: u32 = 6;

impl Ledger {
    /// Puts a new job into the outbox for each of at most `limit` pending reversals that are due, have had no news for
    /// longer than the grace, and have no job in the outbox. Returns how many there were.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; nothing was changed.
    pub async fn sweep(&self, limit: u64) -> Result<usize, LedgerError> {
        use reversal::Column as C;
        let at = now();
        let txn = self.begin().await?;
        let due = |column: C| Condition::any().add(column.is_null()).add(column.lte(at));
        let job_waits = Query::select()
            .column(outbox::Column::EntityId)
            .from(outbox::Entity)
            .and_where(outbox::Column::PublishedAt.is_null())
            .to_owned();
        let lost = reversal::Entity::find()
            .filter(C::Status.eq(ReversalStatus::Pending))
            .filter(due(C::SweepAfter))
            .filter(due(C::NextRetryAt))
            .filter(C::Id.not_in_subquery(job_waits))
            .order_by_asc(C::SweepAfter)
            .limit(limit)
            // Another process may be sweeping too; it takes other rows.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .all(&txn)
            .await?;
        for row in &lost {
            let doublings = u32::try_from(row.sweep_count).unwrap_or(0).min(MAX_DOUBLINGS);
            let grace = self.sweep_grace.saturating_mul(2_u32.pow(doublings));
            reversal::Entity::update_many()
                .col_expr(C::SweepAfter, Expr::value(Some(in_future(grace))))
                .col_expr(C::SweepCount, Expr::value(row.sweep_count.saturating_add(1)))
                .filter(C::Id.eq(row.id))
                .exec(&txn)
                .await?;
            let status = row.status.to_string();
            let note = Note::new("sweeper", "due, and no news of its job: a new job was made");
            history::append(&txn, Entity::Reversal, row.id, Some(&status), &status, &note).await?;
        }
        jobs::append(&txn, lost.iter().map(|row| Job::reverse(row.id))).await?;
        self.commit(txn, lost.len()).await?;
        Ok(lost.len())
    }
}
