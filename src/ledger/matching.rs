//! Brings a refund and its payment together: shares the refund out, creates the reversals with their jobs, and moves the
//! transfers. Called by the intake, by the API's reports and by the registration, each inside its own transaction, under
//! the payment's lock.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, FromQueryResult, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
};
use uuid::Uuid;

use super::allocation::{Share, allocate};
use super::created::{self, TRANSFER_NOT_CREATED};
use super::entities::{payment, refund, reversal, transfer};
use super::history::{self, Entity, Note};
use super::jobs::Job;
use super::named_shares::{Conflict, resolve};
use super::state::{RefundStatus, ReversalStatus, TransferEvent, TransferStatus};
use super::time::{in_future, now};
use super::{LedgerError, NamedShare, failing, jobs, transition};

/// Matches `refund` to `payment` and returns the ids of the reversals that it created: none when the refund does not fit,
/// which is recorded with the reason.
pub(super) async fn match_refund(
    txn: &DatabaseTransaction,
    payment: &payment::Model,
    refund: &refund::Model,
    sweep_grace: Duration,
    actor: &str,
) -> Result<Vec<Uuid>, LedgerError> {
    match try_match(txn, payment, refund, sweep_grace, actor).await? {
        Ok(created) => Ok(created),
        Err(Conflict { problem, .. }) => {
            tracing::warn!(refund_ref = refund.refund_ref, problem, "the refund does not fit its payment");
            let note = Note::new(actor, problem);
            set_refund_status(txn, refund, None, RefundStatus::Conflicting, &note).await?;
            Ok(Vec::new())
        }
    }
}

/// Matches `refund` to `payment`, or says why it does not fit, and then has changed nothing.
pub(super) async fn try_match(
    txn: &DatabaseTransaction,
    payment: &payment::Model,
    refund: &refund::Model,
    sweep_grace: Duration,
    actor: &str,
) -> Result<Result<Vec<Uuid>, Conflict>, LedgerError> {
    if payment.currency != refund.currency {
        let problem = format!("the refund is in {}, the payment in {}", refund.currency, payment.currency);
        return Ok(Err(Conflict { field: "currency".to_owned(), problem }));
    }
    // Locked in the order of their ids, as everywhere.
    let transfers = transfer::Entity::find()
        .filter(transfer::Column::PaymentId.eq(payment.id))
        .order_by_asc(transfer::Column::Id)
        .lock_exclusive()
        .all(txn)
        .await?;
    let earlier = earlier_refunds(txn, payment.id).await?;
    let shares = shares(txn, &transfers, &earlier).await?;
    let asks = match &refund.shares {
        None => allocate(payment.amount, by_ratio_so_far(&earlier).saturating_add(refund.amount), &shares),
        Some(named) => {
            let asks = read_shares(named).and_then(|named| resolve(&named, &transfers, &shares));
            match asks {
                Ok(asks) => asks,
                Err(conflict) => return Ok(Err(conflict)),
            }
        }
    };

    let note = Note::new(actor, format!("matched to payment {}", payment.payment_ref));
    set_refund_status(txn, refund, Some(payment.id), RefundStatus::Matched, &note).await?;
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
    Ok(Ok(created))
}

fn read_shares(named: &str) -> Result<Vec<NamedShare>, Conflict> {
    serde_json::from_str(named).map_err(|error| Conflict {
        field: "transfers".to_owned(),
        problem: format!("the shares that were recorded can't be read: {error}"),
    })
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
        called_at: None,
    };
    reversal::Entity::insert(row.into_active_model()).exec_without_returning(txn).await?;
    let mut note = refused.map_or(note, |(_, why)| Note::new(actor, why));
    if !is_uncreated {
        note.reason.push_str("; its job is in the outbox");
    }
    history::append(txn, Entity::Reversal, id, None, &status.to_string(), &note).await?;
    Ok((id, (!is_uncreated).then(|| Job::reverse(id))))
}

/// What each transfer has been asked for so far, whatever became of it, unless it is not owed any more. What a refund that
/// failed has taken all the same counts as taken by ratio: the next refund does not take it again.
async fn shares(
    txn: &DatabaseTransaction,
    transfers: &[transfer::Model],
    earlier: &[EarlierRefund],
) -> Result<Vec<Share>, LedgerError> {
    let asked: Vec<(Uuid, Uuid, i64)> = reversal::Entity::find()
        .select_only()
        .columns([reversal::Column::TransferId, reversal::Column::RefundId, reversal::Column::Amount])
        .filter(reversal::Column::TransferId.is_in(transfers.iter().map(|transfer| transfer.id)))
        .filter(failing::not_called_off())
        .into_tuple()
        .all(txn)
        .await?;
    let by_name: HashSet<Uuid> =
        earlier.iter().filter(|it| it.shares.is_some() && it.failed_at.is_none()).map(|it| it.id).collect();
    let mut totals: HashMap<Uuid, (i64, i64)> = HashMap::new();
    for (transfer_id, refund_id, amount) in asked {
        let (ratio, name) = totals.entry(transfer_id).or_default();
        *if by_name.contains(&refund_id) { name } else { ratio } += amount;
    }
    let share = |transfer: &transfer::Model| {
        let (by_ratio, by_name) = totals.get(&transfer.id).copied().unwrap_or_default();
        Share { amount: transfer.amount, by_ratio, by_name, currency: transfer.currency.clone() }
    };
    Ok(transfers.iter().map(share).collect())
}

/// What counts of a refund that was matched before.
#[derive(FromQueryResult)]
struct EarlierRefund {
    id: Uuid,
    amount: i64,
    shares: Option<String>,
    failed_at: Option<DateTime<Utc>>,
}

async fn earlier_refunds(txn: &DatabaseTransaction, payment_id: Uuid) -> Result<Vec<EarlierRefund>, DbErr> {
    use refund::Column as C;
    refund::Entity::find()
        .select_only()
        .columns([C::Id, C::Amount, C::Shares, C::FailedAt])
        .filter(C::PaymentId.eq(payment_id))
        .filter(C::Status.eq(RefundStatus::Matched))
        .into_model()
        .all(txn)
        .await
}

/// The sum of the earlier refunds that were shared out by ratio and have not failed.
fn by_ratio_so_far(earlier: &[EarlierRefund]) -> i64 {
    let counting = earlier.iter().filter(|refund| refund.shares.is_none() && refund.failed_at.is_none());
    counting.fold(0, |sum, refund| sum.saturating_add(refund.amount))
}

async fn set_refund_status(
    txn: &DatabaseTransaction,
    refund: &refund::Model,
    payment_id: Option<Uuid>,
    to: RefundStatus,
    note: &Note,
) -> Result<(), LedgerError> {
    let also = vec![
        (refund::Column::StatusReason, Expr::value(Some(note.reason.clone()))),
        (refund::Column::PaymentId, Expr::value(payment_id)),
        (refund::Column::MatchedAt, Expr::value(payment_id.map(|_| now()))),
    ];
    transition::refund(txn, refund, to, also, note).await
}
