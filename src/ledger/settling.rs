//! How a reversal ends, and begins anew on a replay; and what follows for its transfer.
//!
//! The transfer's row is locked first, so that of two reversals that end at once the second sees the first.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::entities::{reversal, transfer};
use super::history::{self, Entity, Note};
use super::state::{ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use super::time::{in_future, now};
use super::{Failure, Ledger, LedgerError, ReversalTask, created, failing, reversals, transition};

/// The failure code of a reversal that Stripe has accepted and then ended without taking the money back.
pub const REVERSAL_ENDED: &str = "reversal_ended";

impl Ledger {
    /// Records that Stripe has reversed: under `stripe_reversal_id`, which somebody else made if `externally`. When a
    /// reversal of ours is recorded already under another id, the seller has been taken from twice: that goes into the
    /// history and the log, and changes nothing else.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the reversal is not pending any more; [`LedgerError::Database`].
    pub async fn succeed(
        &self,
        task: &ReversalTask,
        stripe_reversal_id: &str,
        externally: bool,
        note: &Note,
    ) -> Result<(), LedgerError> {
        use reversal::Column as C;
        let txn = self.begin().await?;
        let parent = lock_transfer(&txn, task.transfer_id).await?;
        let row = reversal::Entity::find_by_id(task.id).one(&txn).await?;
        if let Some((row, known)) = row.and_then(|row| row.stripe_reversal_id.clone().map(|known| (row, known)))
            && known != stripe_reversal_id
            && !externally
        {
            tracing::error!(reversal_id = %row.id, known, stripe_reversal_id, "reversed twice: Stripe has two reversals");
            let reason = format!("reversed twice: Stripe has {stripe_reversal_id} beside {known}");
            let (status, note) = (row.status.to_string(), Note { reason, ..note.clone() });
            history::append(&txn, Entity::Reversal, row.id, Some(&status), &status, &note).await?;
            self.commit(txn, 0).await?;
            return Err(LedgerError::Stale { entity: "reversal", id: row.id, expected: "pending".to_owned() });
        }
        let also = vec![
            (C::StripeReversalId, Expr::value(Some(stripe_reversal_id.to_owned()))),
            (C::ExternallyReversed, Expr::value(externally)),
            (C::NextRetryAt, none_time()),
            (C::PendingReversalId, Expr::value(None::<String>)),
            (C::FailureCode, Expr::value(None::<String>)),
            (C::FailureMessage, Expr::value(None::<String>)),
        ];
        transition::reversal(&txn, task.id, ReversalStatus::Pending, ReversalEvent::Succeeded, also, note).await?;
        let amount_reversed = parent.amount_reversed.saturating_add(task.amount).min(parent.amount);
        settle_transfer(&txn, &parent, amount_reversed, note).await?;
        self.commit(txn, 0).await
    }

    /// Records that the reversal is given up.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says: it may have been replayed since, or be on its way
    /// with another worker; [`LedgerError::Database`].
    pub async fn fail(&self, task: &ReversalTask, failure: &Failure, note: &Note) -> Result<(), LedgerError> {
        use reversal::Column as C;
        let txn = self.begin().await?;
        let parent = lock_transfer(&txn, task.transfer_id).await?;
        reversals::lock_as_read(&txn, task).await?;
        let mut also = vec![
            (C::NextRetryAt, none_time()),
            (C::FailureCode, Expr::value(Some(failure.code.clone()))),
            (C::FailureMessage, Expr::value(Some(failure.message.clone()))),
        ];
        if failure.code == REVERSAL_ENDED {
            // Stripe is not working on it any more: after a replay there may be a new call.
            also.push((C::PendingReversalId, Expr::value(None::<String>)));
        }
        transition::reversal(&txn, task.id, ReversalStatus::Pending, ReversalEvent::FailedForGood, also, note).await?;
        settle_transfer(&txn, &parent, parent.amount_reversed, note).await?;
        self.commit(txn, 0).await
    }

    /// Makes a reversal that was given up pending again, with fresh retries and in an epoch of its own, by which it differs
    /// from what workers have read before. Stripe's list is read before the first call, since the earlier tries may have had
    /// an effect after all.
    ///
    /// The caller holds the job; none is put into the outbox.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the reversal is not permanently failed any more; [`LedgerError::Conflict`] when its
    /// transfer is not created, or when it was called off since its refund failed, so that nothing is owed;
    /// [`LedgerError::Illegal`] when its transfer is not in a state to be reversed; [`LedgerError::Database`].
    pub async fn replay(&self, task: &ReversalTask, note: &Note) -> Result<ReversalTask, LedgerError> {
        let txn = self.begin().await?;
        let (epoch, at) = replay(&txn, task.id, task.transfer_id, in_future(self.sweep_grace), note).await?;
        self.commit(txn, 0).await?;
        Ok(ReversalTask {
            status: ReversalStatus::Pending,
            retry_count: 0,
            epoch,
            epoch_started_at: at,
            doubtful_since: Some(at),
            absent_since: None,
            ..task.clone()
        })
    }
}

/// Makes a reversal that was given up pending again inside `txn`, and returns its new epoch, and since when that is and
/// what Stripe has is in doubt. The doubt keeps the new key from being used before Stripe's list was read.
pub(super) async fn replay(
    txn: &DatabaseTransaction,
    reversal_id: Uuid,
    transfer_id: Uuid,
    sweep_after: DateTime<Utc>,
    note: &Note,
) -> Result<(i32, DateTime<Utc>), LedgerError> {
    use reversal::Column as C;
    let parent = lock_transfer(txn, transfer_id).await?;
    if created::is_uncreated(&parent) {
        return Err(LedgerError::Conflict(created::not_created(transfer_id)));
    }
    let row = reversal::Entity::find_by_id(reversal_id).one(txn).await?;
    let row = row.ok_or(LedgerError::NotFound { entity: "reversal", id: reversal_id })?;
    failing::refuse_if_called_off(&row)?;
    let (epoch, at) = (row.epoch + 1, now());
    let also = vec![
        (C::RetryCount, Expr::value(0)),
        (C::Epoch, Expr::value(epoch)),
        (C::EpochStartedAt, Expr::value(at)),
        (C::DoubtfulSince, Expr::value(Some(at))),
        (C::AbsentSince, none_time()),
        (C::SweepAfter, Expr::value(Some(sweep_after))),
        (C::SweepCount, Expr::value(0)),
    ];
    let from = ReversalStatus::PermanentlyFailed;
    transition::reversal(txn, reversal_id, from, ReversalEvent::Replayed, also, note).await?;
    match parent.status {
        // Another reversal of it is on its way already.
        TransferStatus::ReversalPending => {}
        from => {
            let event = match from {
                TransferStatus::Completed | TransferStatus::PartiallyReversed => TransferEvent::RefundArrived,
                _ => TransferEvent::ReversalReplayed,
            };
            transition::transfer(txn, parent.id, from, event, vec![], note).await?;
        }
    }
    Ok((epoch, at))
}

pub(super) async fn lock_transfer(txn: &DatabaseTransaction, id: Uuid) -> Result<transfer::Model, DbErr> {
    let found = transfer::Entity::find_by_id(id).lock_exclusive().one(txn).await?;
    found.ok_or_else(|| DbErr::RecordNotFound(format!("transfer {id}")))
}

/// Writes what is back, and once no reversal is pending any more, the status that follows from all of them. Those that
/// were called off don't count.
pub(super) async fn settle_transfer(
    txn: &DatabaseTransaction,
    parent: &transfer::Model,
    amount_reversed: i64,
    note: &Note,
) -> Result<(), LedgerError> {
    if created::is_uncreated(parent) {
        return Ok(()); // Its status says how creating it goes on.
    }
    let statuses: Vec<ReversalStatus> = reversal::Entity::find()
        .select_only()
        .column(reversal::Column::Status)
        .filter(reversal::Column::TransferId.eq(parent.id))
        .filter(failing::not_called_off())
        .into_tuple()
        .all(txn)
        .await?;
    let event = if statuses.contains(&ReversalStatus::Pending) {
        return note_amount(txn, parent.id, amount_reversed).await;
    } else if statuses.contains(&ReversalStatus::PermanentlyFailed) {
        TransferEvent::ReversalFailedForGood
    } else if amount_reversed == parent.amount {
        TransferEvent::AllReversed
    } else if amount_reversed > 0 {
        TransferEvent::PartReversed
    } else {
        TransferEvent::CalledOff
    };
    let also = vec![(transfer::Column::AmountReversed, Expr::value(amount_reversed))];
    transition::transfer(txn, parent.id, parent.status, event, also, note).await?;
    Ok(())
}

/// Another reversal is still pending: the status stays.
async fn note_amount(txn: &DatabaseTransaction, id: Uuid, amount_reversed: i64) -> Result<(), LedgerError> {
    transfer::Entity::update_many()
        .col_expr(transfer::Column::AmountReversed, Expr::value(amount_reversed))
        .col_expr(transfer::Column::UpdatedAt, Expr::value(now()))
        .filter(transfer::Column::Id.eq(id))
        .exec(txn)
        .await?;
    Ok(())
}

pub(super) fn none_time() -> SimpleExpr {
    Expr::value(None::<DateTime<Utc>>)
}
