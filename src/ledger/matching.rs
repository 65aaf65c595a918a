//! Brings a refund and its payment together: shares the refund out, creates the reversals with their jobs, and moves the
//! transfers. Called by the intake and by the registration, each inside its own transaction, under the payment's lock.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DatabaseTransaction, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::LedgerError;
use super::allocation::{Share, allocate};
use super::created::{self, TRANSFER_NOT_CREATED};
use super::entities::{payment, refund, reversal, transfer};
use super::history::{self, Entity, Note};
use super::jobs::Job;
use super::state::{RefundStatus, ReversalStatus, TransferEvent, TransferStatus};
use super::time::{in_future, now};
use super::{jobs, transition};

/// Matches `refund` to `payment` and returns the ids of the reversals that it created.
pub(super) async fn match_refund(
    txn: &DatabaseTransaction,
    payment: &payment::Model,
    refund: &refund::Model,
    sweep_grace: Duration,
    actor: &str,
) -> Result<Vec<Uuid>, LedgerError> {
    if payment.currency != refund.currency {
        let reason = format!("the refund is in {}, the payment in {}", refund.currency, payment.currency);
        set_refund_status(txn, refund, None, RefundStatus::Conflicting, &Note::new(actor, reason)).await?;
        return Ok(Vec::new());
    }
    let note = Note::new(actor, format!("matched to payment {}", payment.payment_ref));
    set_refund_status(txn, refund, Some(payment.id), RefundStatus::Matched, &note).await?;

    // Locked in the order of their ids, as everywhere.
    let transfers = transfer::Entity::find()
        .filter(transfer::Column::PaymentId.eq(payment.id))
        .order_by_asc(transfer::Column::Id)
        .lock_exclusive()
        .all(txn)
        .await?;
    let shares = shares(txn, &transfers).await?;
    let refunded = refunded_so_far(txn, payment.id).await?;
    let asks = allocate(payment.amount, refunded, &shares);

    let (mut created, mut jobs) = (Vec::new(), Vec::new());
    let due = now();
    for (transfer, ask) in transfers.iter().zip(asks) {
        if ask > 0 {
            let (id, job) = owe(txn, transfer, refund, ask, in_future(sweep_grace), due, actor).await?;
            created.push(id);
            jobs.extend(job);
        }
    }
    jobs::append(txn, jobs).await?;
    Ok(created)
}

/// Records that `transfer` owes `amount` for `refund`. There is no job for it while the transfer is not created: see
/// `created`.
async fn owe(
    txn: &DatabaseTransaction,
    transfer: &transfer::Model,
    refund: &refund::Model,
    amount: i64,
    sweep_after: DateTime<Utc>,
    at: DateTime<Utc>,
    actor: &str,
) -> Result<(Uuid, Option<Job>), LedgerError> {
    let id = Uuid::now_v7();
    let mut note = Note::new(actor, format!("refund {}", refund.refund_ref));
    let is_uncreated = created::is_uncreated(transfer);
    let refused = match transfer.status {
        TransferStatus::ReversalPending => None,
        TransferStatus::Completed | TransferStatus::PartiallyReversed => {
            transition::transfer(txn, transfer.id, transfer.status, TransferEvent::RefundArrived, vec![], &note)
                .await?;
            None
        }
        TransferStatus::Pending | TransferStatus::Failed => {
            note.reason.push_str("; waits for its transfer to be created");
            None
        }
        TransferStatus::PermanentlyFailed if is_uncreated => {
            Some((TRANSFER_NOT_CREATED.to_owned(), created::not_created(transfer.id)))
        }
        // The debt is kept, but only an operator's replay may move such a transfer. Its job parks it with the reason.
        from @ (TransferStatus::PermanentlyFailed | TransferStatus::Reversed) => {
            Some((format!("transfer_{from}"), format!("the transfer was {from} when the refund arrived")))
        }
    };
    let (failure_code, failure_message) = refused.clone().unzip();
    let status = if refused.is_some() { ReversalStatus::PermanentlyFailed } else { ReversalStatus::Pending };
    let row = reversal::Model {
        id,
        refund_id: refund.id,
        transfer_id: transfer.id,
        amount,
        currency: transfer.currency.clone(),
        status,
        retry_count: 0,
        next_retry_at: None,
        epoch: 0,
        epoch_started_at: at,
        doubtful_since: None,
        absent_since: None,
        pending_reversal_id: None,
        stripe_reversal_id: None,
        externally_reversed: false,
        failure_code,
        failure_message,
        sweep_after: Some(sweep_after),
        sweep_count: 0,
        created_at: at,
        updated_at: at,
    };
    reversal::Entity::insert(row.into_active_model()).exec_without_returning(txn).await?;
    let note = refused.map_or(note, |(_, why)| Note::new(actor, why));
    history::append(txn, Entity::Reversal, id, None, &status.to_string(), &note).await?;
    Ok((id, (!is_uncreated).then(|| Job::reverse(id))))
}

/// What each transfer has been asked for so far, whatever became of it.
async fn shares(txn: &DatabaseTransaction, transfers: &[transfer::Model]) -> Result<Vec<Share>, LedgerError> {
    let asked: Vec<(Uuid, i64)> = reversal::Entity::find()
        .select_only()
        .column(reversal::Column::TransferId)
        .column(reversal::Column::Amount)
        .filter(reversal::Column::TransferId.is_in(transfers.iter().map(|transfer| transfer.id)))
        .into_tuple()
        .all(txn)
        .await?;
    let mut totals: HashMap<Uuid, i64> = HashMap::new();
    for (transfer_id, amount) in asked {
        *totals.entry(transfer_id).or_default() += amount;
    }
    let share = |transfer: &transfer::Model| Share {
        amount: transfer.amount,
        already_asked: totals.get(&transfer.id).copied().unwrap_or(0),
        currency: transfer.currency.clone(),
    };
    Ok(transfers.iter().map(share).collect())
}

/// The sum of the payment's matched refunds, the current one included.
async fn refunded_so_far(txn: &DatabaseTransaction, payment_id: Uuid) -> Result<i64, LedgerError> {
    let amounts: Vec<i64> = refund::Entity::find()
        .select_only()
        .column(refund::Column::Amount)
        .filter(refund::Column::PaymentId.eq(payment_id))
        .filter(refund::Column::Status.eq(RefundStatus::Matched))
        .into_tuple()
        .all(txn)
        .await?;
    Ok(amounts.into_iter().fold(0, i64::saturating_add))
}

async fn set_refund_status(
    txn: &DatabaseTransaction,
    refund: &refund::Model,
    payment_id: Option<Uuid>,
    to: RefundStatus,
    note: &Note,
) -> Result<(), LedgerError> {
    let updated = refund::Entity::update_many()
        .col_expr(refund::Column::Status, Expr::value(sea_orm::ActiveEnum::to_value(&to)))
        .col_expr(refund::Column::StatusReason, Expr::value(Some(note.reason.clone())))
        .col_expr(refund::Column::PaymentId, Expr::value(payment_id))
        .col_expr(refund::Column::MatchedAt, Expr::value(payment_id.map(|_| now())))
        .filter(refund::Column::Id.eq(refund.id))
        .filter(refund::Column::Status.eq(RefundStatus::Unmatched))
        .exec(txn)
        .await?;
    if updated.rows_affected != 1 {
        let expected = RefundStatus::Unmatched.to_string();
        return Err(LedgerError::Stale { entity: "refund", id: refund.id, expected });
    }
    history::append(txn, Entity::Refund, refund.id, Some(&refund.status.to_string()), &to.to_string(), note).await
}
