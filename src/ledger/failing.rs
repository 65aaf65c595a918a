//! A refund that takes nothing after all: its provider reports that it has failed, most often after it had succeeded, or that
//! the transfer was reversed together with it. Called by the intake, inside its transaction, under the payment's lock.
//!
//! A reversal for which Stripe has not been asked is called off: it ends, and is never asked for. What Stripe has been asked
//! for goes on as it is, and the refund's `attention` says what an operator has to do about it. Whether Stripe has been asked
//! is in `called_at`, which the worker commits before its first call: see `reversals`. What ends without having taken
//! anything is asked for no more, and not replayed. Nothing here undoes what Stripe has done.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ColumnTrait, Condition, DatabaseTransaction, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::attention::{self, reversed_by_the_provider};
use super::entities::{refund, reversal, transfer};
use super::history::Note;
use super::settling::{none_time, settle_transfer};
use super::state::{RefundStatus, ReversalEvent, ReversalStatus, TransferStatus};
use super::time::now;
use super::{LedgerError, ReversalTask, transition};

/// Why reversals are called off.
struct Because {
    /// The failure code that they get.
    code: &'static str,
    /// For the refund's attention.
    what: &'static str,
}

const REFUND_FAILED: Because = Because { code: "refund_failed", what: "the refund failed" };
const REVERSED_BY_PROVIDER: Because =
    Because { code: "reversed_by_provider", what: "the provider had reversed the transfer together with the refund" };

/// The failure codes of reversals that were called off.
pub(super) const CALLED_OFF: [&str; 2] = [REFUND_FAILED.code, REVERSED_BY_PROVIDER.code];

/// What became of the reversals of a refund that takes nothing after all.
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
        RefundStatus::Matched => call_off(txn, refund, &REFUND_FAILED, actor).await?,
        RefundStatus::NothingToReverse => {
            let so_far = Failed { called_off: 0, attention: refund.attention.clone() };
            so_far.and(Failed { called_off: 0, attention: Some(reversed_by_the_provider(&refund.refund_ref)) })
        }
        RefundStatus::Unmatched | RefundStatus::Conflicting => Failed::default(),
    };
    // Nothing will be taken back for one that waited for its payment.
    let status = match refund.status {
        RefundStatus::Unmatched => RefundStatus::NothingToReverse,
        as_it_was => as_it_was,
    };
    let reason = format!("{word} at its provider; {} reversals were called off", failed.called_off);
    let mut also = vec![
        (refund::Column::FailedAt, Expr::value(Some(now()))),
        (refund::Column::Attention, Expr::value(failed.attention.clone())),
    ];
    if status != refund.status {
        also.push((refund::Column::StatusReason, Expr::value(Some(reason.clone()))));
    }
    transition::refund(txn, refund, status, also, &Note::new(actor, reason)).await?;
    Ok(failed)
}

/// Records that the provider has reversed the transfer together with `refund`, which was recorded without that mark.
///
/// What Clawback has taken nevertheless stays the payment's, as what a failed refund has taken does: the next refund by
/// ratio takes that much less.
pub(super) async fn provider_reversed(
    txn: &DatabaseTransaction,
    refund: &refund::Model,
    actor: &str,
) -> Result<Failed, LedgerError> {
    let outcome = call_off(txn, refund, &REVERSED_BY_PROVIDER, actor).await?;
    let reason = format!("the provider reversed the transfer itself; {} reversals were called off", outcome.called_off);
    let also = vec![
        (refund::Column::StatusReason, Expr::value(Some(reason.clone()))),
        (refund::Column::MatchedAt, none_time()),
        (refund::Column::Attention, Expr::value(outcome.attention.clone())),
    ];
    transition::refund(txn, refund, RefundStatus::NothingToReverse, also, &Note::new(actor, reason)).await?;
    Ok(outcome)
}

/// Calls off what Stripe has not been asked for: what is pending, and what was given up before it could be asked for.
async fn call_off(
    txn: &DatabaseTransaction,
    refund: &refund::Model,
    because: &Because,
    actor: &str,
) -> Result<Failed, LedgerError> {
    let of_the_refund = || reversal::Entity::find().filter(reversal::Column::RefundId.eq(refund.id));
    let transfer_ids: Vec<Uuid> =
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
        if row.called_at.is_some() || row.status == ReversalStatus::Reversed {
            stay.push((row, parent));
            continue;
        }
        let message = format!("called off before Stripe was asked: {} ({})", because.what, refund.refund_ref);
        let note = Note::new(actor, &message);
        let also = vec![
            (reversal::Column::NextRetryAt, none_time()),
            (reversal::Column::FailureCode, Expr::value(Some(because.code))),
            (reversal::Column::FailureMessage, Expr::value(Some(message))),
        ];
        if row.status == ReversalStatus::PermanentlyFailed {
            transition::keep_reversal(txn, row, also, &note).await?;
        } else {
            transition::reversal(txn, row.id, row.status, ReversalEvent::FailedForGood, also, &note).await?;
        }
        if parent.status == TransferStatus::ReversalPending {
            settle_transfer(txn, parent, parent.amount_reversed, &note).await?;
        }
        called_off += 1;
    }
    let attention = (!stay.is_empty()).then(|| attention::not_called_off(because.what, called_off, rows.len(), &stay));
    Ok(Failed { called_off, attention })
}

impl ReversalTask {
    /// Whether it ended before Stripe was asked, because its refund takes nothing after all. Then nothing is owed, and
    /// nothing to be parked.
    #[must_use]
    pub fn was_called_off(&self) -> bool {
        is_called_off(self.failure_code.as_deref(), self.called_at)
    }
}

fn is_called_off(failure_code: Option<&str>, called_at: Option<DateTime<Utc>>) -> bool {
    failure_code.is_some_and(|code| CALLED_OFF.contains(&code)) && called_at.is_none()
}

/// Errors if the reversal was called off: it is not replayed, since nothing is owed for it.
pub(super) fn refuse_if_called_off(row: &reversal::Model) -> Result<(), LedgerError> {
    if !is_called_off(row.failure_code.as_deref(), row.called_at) {
        return Ok(());
    }
    let why = row.failure_message.as_deref().unwrap_or("called off");
    Err(LedgerError::Conflict(format!(
        "reversal {}: {why}; nothing is owed for it, so that it is not replayed",
        row.id
    )))
}

/// Why nothing is owed for `refund_id` any more, if so. The caller holds the lock of the reversal's transfer, so that a
/// failure of the refund comes either before this or after its transaction.
pub(super) async fn nothing_owed(txn: &DatabaseTransaction, refund_id: Uuid) -> Result<Option<String>, LedgerError> {
    let Some(refund) = refund::Entity::find_by_id(refund_id).one(txn).await? else { return Ok(None) };
    let because = match refund.status {
        _ if refund.failed_at.is_some() => REFUND_FAILED,
        RefundStatus::NothingToReverse => REVERSED_BY_PROVIDER,
        RefundStatus::Matched | RefundStatus::Unmatched | RefundStatus::Conflicting => return Ok(None),
    };
    Ok(Some(format!("{} ({})", because.what, refund.refund_ref)))
}

/// Reversals that ask for money, or have. Not those that were called off, nor those that were given up and whose refund
/// takes nothing after all: they are never asked for again.
pub(super) fn not_called_off() -> Condition {
    let takes_nothing = Query::select()
        .expr(Expr::value(1))
        .from(refund::Entity)
        .and_where(
            Expr::col((refund::Entity, refund::Column::Id)).equals((reversal::Entity, reversal::Column::RefundId)),
        )
        .and_where(refund::Column::FailedAt.is_not_null().or(refund::Column::Status.eq(RefundStatus::NothingToReverse)))
        .to_owned();
    let not_by_its_code = Condition::any()
        .add(reversal::Column::FailureCode.is_null())
        .add(reversal::Column::FailureCode.is_not_in(CALLED_OFF))
        .add(reversal::Column::CalledAt.is_not_null());
    let owed = Condition::all().add(not_by_its_code).add(Expr::exists(takes_nothing).not());
    Condition::any().add(reversal::Column::Status.ne(ReversalStatus::PermanentlyFailed)).add(owed)
}
