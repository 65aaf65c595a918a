//! The rows of refunds: recording one, and finding the payment that it belongs to. Called by the intake and by the API's
//! reports, inside their transactions.

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect, TryInsertResult,
};
use uuid::Uuid;

use super::attention::reversed_by_the_provider;
use super::database::lock_payment_ref;
use super::entities::{payment, refund};
use super::history::{self, Entity, Note};
use super::state::RefundStatus;
use super::time::now;
use super::{LedgerError, NamedShare, RefundEvent, RefundProgress, Source};

/// A refund that was to be recorded.
pub(super) enum Recorded {
    /// It is now.
    New(refund::Model),
    /// It was there already, and is locked.
    Known(refund::Model),
}

/// Holds off everybody who works on the same payment, under whichever of its names. Always in the same order, so that two
/// transactions never wait for each other.
pub(super) async fn lock(txn: &DatabaseTransaction, event: &RefundEvent) -> Result<(), DbErr> {
    let mut refs = refs(event);
    refs.sort_unstable();
    refs.dedup();
    for payment_ref in refs {
        lock_payment_ref(txn, payment_ref).await?;
    }
    Ok(())
}

/// Writes the refund, unless it is there already: then another event has told of it.
pub(super) async fn record(
    txn: &DatabaseTransaction,
    source: Source,
    event: &RefundEvent,
    actor: &str,
) -> Result<Recorded, LedgerError> {
    let failed = matches!(event.progress, RefundProgress::Failed(_));
    let (status, reason) = if failed {
        (RefundStatus::NothingToReverse, "failed at its provider before it was seen to succeed")
    } else if event.transfer_already_reversed {
        (RefundStatus::NothingToReverse, "the provider reversed the transfer itself")
    } else {
        (RefundStatus::Unmatched, "no payment of its reference is registered yet")
    };
    let created_at = now();
    let refund = refund::Model {
        id: Uuid::now_v7(),
        source,
        refund_ref: event.refund_ref.clone(),
        payment_ref: event.payment_ref.clone(),
        charge_ref: event.charge_ref.clone(),
        payment_id: None,
        amount: event.amount,
        currency: event.currency.clone(),
        status,
        status_reason: Some(reason.to_owned()),
        created_at,
        matched_at: None,
        shares: event.shares.as_deref().map(to_json),
        failed_at: failed.then_some(created_at),
        attention: (failed && event.transfer_already_reversed).then(|| reversed_by_the_provider(&event.refund_ref)),
    };
    let row = refund.clone().into_active_model();
    let insert = refund::Entity::insert(row)
        .on_conflict(OnConflict::columns([refund::Column::Source, refund::Column::RefundRef]).do_nothing().to_owned());
    if !matches!(insert.try_insert().exec_without_returning(txn).await?, TryInsertResult::Inserted(1..)) {
        return Ok(Recorded::Known(known(txn, source, &event.refund_ref).await?));
    }
    let told = if status == RefundStatus::Unmatched { "reported" } else { reason };
    history::append(txn, Entity::Refund, refund.id, None, &status.to_string(), &Note::new(actor, told)).await?;
    Ok(Recorded::New(refund))
}

async fn known(txn: &DatabaseTransaction, source: Source, refund_ref: &str) -> Result<refund::Model, DbErr> {
    let found = refund::Entity::find()
        .filter(refund::Column::Source.eq(source))
        .filter(refund::Column::RefundRef.eq(refund_ref))
        .lock_exclusive()
        .one(txn)
        .await?;
    found.ok_or_else(|| DbErr::RecordNotFound(format!("refund {refund_ref}")))
}

/// The registered payment. The payment intent's registration wins over the charge's.
pub(super) async fn payment(txn: &DatabaseTransaction, event: &RefundEvent) -> Result<Option<payment::Model>, DbErr> {
    let refs = refs(event);
    let mut payments = payment::Entity::find().filter(payment::Column::PaymentRef.is_in(refs)).all(txn).await?;
    payments.sort_by_key(|payment| payment.payment_ref != event.payment_ref);
    Ok(payments.into_iter().next())
}

fn refs(event: &RefundEvent) -> Vec<&str> {
    [Some(event.payment_ref.as_str()), event.charge_ref.as_deref()].into_iter().flatten().collect()
}

/// As `refunds.shares` has it.
pub(super) fn to_json(shares: &[NamedShare]) -> String {
    serde_json::json!(shares).to_string()
}
