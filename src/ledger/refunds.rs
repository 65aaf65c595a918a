//! The rows of refunds: recording one, and finding the payment that it belongs to. Called by the intake and by the API's
//! reports, inside their transactions.

use std::collections::BTreeSet;

use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{
    ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect, Select,
    TryInsertResult,
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

/// Writes the refund, unless it is there already: then another event has told of it. From here on until the transaction
/// ends, nobody else works on its payment, under any of the names that the event or the refund's row has for it.
///
/// # Errors
/// [`LedgerError::Stale`] when the row has got another name meanwhile: to be run again.
pub(super) async fn record(
    txn: &DatabaseTransaction,
    source: Source,
    event: &RefundEvent,
    actor: &str,
) -> Result<Recorded, LedgerError> {
    let locked = lock_names(txn, source, event).await?;
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
        let known = known(txn, source, &event.refund_ref).await?;
        if !names(&known).is_subset(&locked) {
            let expected = "known under the names that were locked".to_owned();
            return Err(LedgerError::Stale { entity: "refund", id: known.id, expected });
        }
        return Ok(Recorded::Known(known));
    }
    let told = if status == RefundStatus::Unmatched { "reported" } else { reason };
    history::append(txn, Entity::Refund, refund.id, None, &status.to_string(), &Note::new(actor, told)).await?;
    Ok(Recorded::New(refund))
}

/// Locks the payment under every name that is known of it, and returns these. Always in the same order, so that two
/// transactions never wait for each other; therefore the row's names are read before anything is locked.
async fn lock_names(txn: &DatabaseTransaction, source: Source, event: &RefundEvent) -> Result<BTreeSet<String>, DbErr> {
    let mut all = event_names(event);
    if let Some(row) = by_ref(source, &event.refund_ref).one(txn).await? {
        all.extend(names(&row));
    }
    for name in &all {
        lock_payment_ref(txn, name).await?;
    }
    Ok(all)
}

async fn known(txn: &DatabaseTransaction, source: Source, refund_ref: &str) -> Result<refund::Model, DbErr> {
    let found = by_ref(source, refund_ref).lock_exclusive().one(txn).await?;
    found.ok_or_else(|| DbErr::RecordNotFound(format!("refund {refund_ref}")))
}

fn by_ref(source: Source, refund_ref: &str) -> Select<refund::Entity> {
    refund::Entity::find().filter(refund::Column::Source.eq(source)).filter(refund::Column::RefundRef.eq(refund_ref))
}

/// The registered payment. The payment intent's registration wins over the charge's.
pub(super) async fn payment(txn: &DatabaseTransaction, row: &refund::Model) -> Result<Option<payment::Model>, DbErr> {
    let names = names(row);
    let mut payments = payment::Entity::find().filter(payment::Column::PaymentRef.is_in(names)).all(txn).await?;
    payments.sort_by_key(|payment| payment.payment_ref != row.payment_ref);
    Ok(payments.into_iter().next())
}

/// A refund that waits for its payment, with the names that `event` adds: who told of it first may have known the payment
/// intent alone, or the charge alone.
pub(super) async fn with_names(
    txn: &DatabaseTransaction,
    row: refund::Model,
    event: &RefundEvent,
) -> Result<refund::Model, LedgerError> {
    let (known, told) = (names(&row), event_names(event));
    if known.is_disjoint(&told) {
        tracing::warn!(
            refund_ref = row.refund_ref,
            ?known,
            ?told,
            "a refund is told of under another payment; ignored"
        );
    }
    if known == told || !known.is_subset(&told) {
        return Ok(row);
    }
    refund::Entity::update_many()
        .col_expr(refund::Column::PaymentRef, Expr::value(event.payment_ref.clone()))
        .col_expr(refund::Column::ChargeRef, Expr::value(event.charge_ref.clone()))
        .filter(refund::Column::Id.eq(row.id))
        .exec(txn)
        .await?;
    Ok(refund::Model { payment_ref: event.payment_ref.clone(), charge_ref: event.charge_ref.clone(), ..row })
}

fn names(row: &refund::Model) -> BTreeSet<String> {
    [Some(row.payment_ref.clone()), row.charge_ref.clone()].into_iter().flatten().collect()
}

fn event_names(event: &RefundEvent) -> BTreeSet<String> {
    [Some(event.payment_ref.clone()), event.charge_ref.clone()].into_iter().flatten().collect()
}

/// As `refunds.shares` has it.
pub(super) fn to_json(shares: &[NamedShare]) -> String {
    serde_json::json!(shares).to_string()
}
