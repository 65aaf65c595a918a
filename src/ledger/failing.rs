//! A refund that its provider reports as failed, most often after it had succeeded. Called by the intake, inside its
//! transaction, under the payment's lock.
//!
//! A reversal for which Stripe has not been asked is called off: it ends, and is never asked for. What Stripe has been asked
//! for goes on as it is, and the refund's `attention` says what an operator has to do about it. Whether Stripe has been asked
//! is in `called_at`, which the worker commits before its first call: see `reversals`. Nothing here undoes what Stripe has
//! done.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveEnum, ColumnTrait, Condition, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

use super::created::TRANSFER_NOT_CREATED;
use super::entities::{refund, reversal, transfer};
use super::history::{self, Entity, Note};
use super::settling::{none_time, settle_transfer};
use super::state::{RefundStatus, ReversalEvent, ReversalStatus, TransferStatus};
use super::time::now;
use super::{LedgerError, ReversalTask, transition};

/// The failure code of a reversal that was called off.
pub(super) const CALLED_OFF: &str = "refund_failed";

/// What a refund's failure led to.
#[derive(Debug, Default)]
pub(super) struct Failed {
    pub(super) called_off: usize,
    pub(super) attention: Option<String>,
}

impl Failed {
    /// Of two refunds in one event.
    pub(super) fn and(self, other: Self) -> Self {
        let attention: Vec<String> = [self.attention, other.attention].into_iter().flatten().collect();
        Self {
            called_off: self.called_off + other.called_off,
            attention: (!attention.is_empty()).then(|| attention.join(". ")),
        }
    }
}

/// Records that `refund` has failed at its provider, which calls that `word`.
pub(super) async fn fail(
    txn: &DatabaseTransaction,
    refund: &refund::Model,
    word: &str,
    actor: &str,
) -> Result<Failed, LedgerError> {
    let failed = match refund.status {
        RefundStatus::Matched => call_off(txn, refund, actor).await?,
        RefundStatus::NothingToReverse => {
            Failed { called_off: 0, attention: Some(reversed_by_the_provider(&refund.refund_ref)) }
        }
        RefundStatus::Unmatched | RefundStatus::Conflicting => Failed::default(),
    };
    // Nothing will be taken back for one that waited for its payment.
    let status = match refund.status {
        RefundStatus::Unmatched => RefundStatus::NothingToReverse,
        as_it_was => as_it_was,
    };
    let reason = format!("{word} at its provider; {} reversals were called off", failed.called_off);
    let mut update = refund::Entity::update_many()
        .col_expr(refund::Column::Status, Expr::value(status.to_value()))
        .col_expr(refund::Column::FailedAt, Expr::value(Some(now())))
        .col_expr(refund::Column::Attention, Expr::value(failed.attention.clone()));
    if status != refund.status {
        update = update.col_expr(refund::Column::StatusReason, Expr::value(Some(reason.clone())));
    }
    let updated = update
        .filter(refund::Column::Id.eq(refund.id))
        .filter(refund::Column::Status.eq(refund.status))
        .filter(refund::Column::FailedAt.is_null())
        .exec(txn)
        .await?;
    if updated.rows_affected != 1 {
        let expected = format!("{} and not failed", refund.status);
        return Err(LedgerError::Stale { entity: "refund", id: refund.id, expected });
    }
    let note = Note::new(actor, reason);
    let (from, to) = (refund.status.to_string(), status.to_string());
    history::append(txn, Entity::Refund, refund.id, Some(&from), &to, &note).await?;
    Ok(failed)
}

/// Calls off what Stripe has not been asked for.
async fn call_off(txn: &DatabaseTransaction, refund: &refund::Model, actor: &str) -> Result<Failed, LedgerError> {
    let of_the_refund = || reversal::Entity::find().filter(reversal::Column::RefundId.eq(refund.id));
    let transfer_ids: Vec<uuid::Uuid> =
        of_the_refund().select_only().column(reversal::Column::TransferId).into_tuple().all(txn).await?;
    // Locked in the order of their ids, as everywhere, and before the reversals. Then neither a worker's report nor the mark
    // that it is about to call can come in between.
    let transfers = transfer::Entity::find()
        .filter(transfer::Column::Id.is_in(transfer_ids))
        .order_by_asc(transfer::Column::Id)
        .lock_exclusive()
        .all(txn)
        .await?;
    let rows = of_the_refund().order_by_asc(reversal::Column::Id).lock_exclusive().all(txn).await?;

    let mut called_off = 0;
    let mut stay = Vec::new();
    for row in &rows {
        let Some(parent) = transfers.iter().find(|transfer| transfer.id == row.transfer_id) else { continue };
        // One that ended with its transfer's creation would come back with it.
        let not_created = row.failure_code.as_deref() == Some(TRANSFER_NOT_CREATED);
        if row.called_at.is_none() && (row.status == ReversalStatus::Pending || not_created) {
            let message = format!("called off: refund {} failed before Stripe was asked", refund.refund_ref);
            let note = Note::new(actor, &message);
            let also = vec![
                (reversal::Column::NextRetryAt, none_time()),
                (reversal::Column::FailureCode, Expr::value(Some(CALLED_OFF))),
                (reversal::Column::FailureMessage, Expr::value(Some(message))),
            ];
            if not_created {
                transition::keep_reversal(txn, row, also, &note).await?;
            } else {
                transition::reversal(txn, row.id, row.status, ReversalEvent::FailedForGood, also, &note).await?;
            }
            if parent.status == TransferStatus::ReversalPending {
                settle_transfer(txn, parent, parent.amount_reversed, &note).await?;
            }
            called_off += 1;
        } else {
            stay.push((row, parent));
        }
    }
    let attention = (!stay.is_empty()).then(|| attention(called_off, rows.len(), &stay));
    Ok(Failed { called_off, attention })
}

/// What an operator has to do about the reversals that could not be called off.
fn attention(called_off: usize, of: usize, stay: &[(&reversal::Model, &transfer::Model)]) -> String {
    let each: Vec<String> = stay.iter().map(|(row, parent)| about(row, parent)).collect();
    format!(
        "the refund failed, and {called_off} of its {of} reversals could be called off. {} (amounts in minor units). What was \
         taken back counts towards the same seller's part of the payment's next refund by ratio; if none will follow, pay \
         the seller back with a new transfer",
        each.join("; "),
    )
}

fn about(row: &reversal::Model, parent: &transfer::Model) -> String {
    let (id, amount, currency) = (row.id, row.amount, &row.currency);
    let transfer = parent.stripe_transfer_id.clone().unwrap_or_else(|| parent.id.to_string());
    match row.status {
        ReversalStatus::Reversed => {
            let at_stripe = row.stripe_reversal_id.as_deref().unwrap_or("without an id");
            format!(
                "{amount} {currency} were taken back from transfer {transfer} (reversal {id}, {at_stripe} at Stripe)"
            )
        }
        ReversalStatus::Pending => {
            format!(
                "{amount} {currency} are being taken back from transfer {transfer}: Stripe was asked (reversal {id})"
            )
        }
        ReversalStatus::PermanentlyFailed => {
            let code = row.failure_code.as_deref().unwrap_or("no code");
            format!(
                "{amount} {currency} of transfer {transfer} had been given up ({code}): do not replay reversal {id}"
            )
        }
    }
}

/// What an operator has to do when the provider had reversed the transfer itself.
pub(super) fn reversed_by_the_provider(refund_ref: &str) -> String {
    format!(
        "refund {refund_ref} failed after its provider had reversed the transfer together with it: look there whether the \
         seller has the money again, and pay it back with a new transfer if not"
    )
}

impl ReversalTask {
    /// Whether it ended because its refund failed before Stripe was asked. Then nothing is owed, and nothing to be parked.
    #[must_use]
    pub fn was_called_off(&self) -> bool {
        self.failure_code.as_deref() == Some(CALLED_OFF) && self.called_at.is_none()
    }
}

/// Errors if the reversal was called off: it is not replayed, since nothing is owed for a refund that failed.
pub(super) fn refuse_if_called_off(row: &reversal::Model) -> Result<(), LedgerError> {
    if row.failure_code.as_deref() != Some(CALLED_OFF) || row.called_at.is_some() {
        return Ok(());
    }
    let why = "was called off, since its refund failed: nothing is owed for it, so that it is not replayed";
    Err(LedgerError::Conflict(format!("reversal {} {why}", row.id)))
}

/// Reversals that ask for money, or have.
pub(super) fn not_called_off() -> Condition {
    Condition::any()
        .add(reversal::Column::FailureCode.is_null())
        .add(reversal::Column::FailureCode.ne(CALLED_OFF))
        .add(reversal::Column::CalledAt.is_not_null())
}
