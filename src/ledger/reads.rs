//! The read models behind the API's GETs. Changes nothing.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::entities::{payment, refund, reversal, transfer};
use super::state::ReversalStatus;
use super::{Ledger, LedgerError, PaymentView, RefundView, ReversalView, TransferView};

/// A transfer that Stripe can be asked about.
#[derive(Clone, Debug)]
pub struct TransferToProbe {
    /// Stripe's id (`tr_…`).
    pub stripe_transfer_id: String,
    /// Stripe has confirmed a reversal of it, or has created it for us.
    pub known_to_stripe: bool,
}

impl Ledger {
    /// The payment with this reference, or with this id of Clawback's.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn payment(&self, payment_ref: &str) -> Result<Option<PaymentView>, LedgerError> {
        if let Some(found) = payment(&self.db, payment_ref).await? {
            return Ok(Some(found));
        }
        let Ok(id) = payment_ref.parse::<Uuid>() else { return Ok(None) };
        let Some(row) = payment::Entity::find_by_id(id).one(&self.db).await? else { return Ok(None) };
        Ok(payment(&self.db, &row.payment_ref).await?)
    }

    /// The transfer with this id: Clawback's or Stripe's.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn transfer(&self, id: &str) -> Result<Option<TransferView>, LedgerError> {
        let is_it = match id.parse::<Uuid>() {
            Ok(id) => transfer::Column::Id.eq(id),
            Err(_) => transfer::Column::StripeTransferId.eq(id),
        };
        let found = transfer::Entity::find().filter(is_it).all(&self.db).await?;
        Ok(transfer_views(&self.db, found).await?.pop())
    }

    /// A transfer to ask Stripe about when it is open whether Stripe can be used: the latest that was reversed there, or
    /// that Clawback created, or else one that is owed.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn transfer_to_probe(&self) -> Result<Option<TransferToProbe>, LedgerError> {
        use transfer::Column as C;
        let parent_of_newest = async |status: ReversalStatus| {
            let newest = reversal::Entity::find()
                .filter(reversal::Column::Status.eq(status))
                .order_by_desc(reversal::Column::Id)
                .one(&self.db)
                .await?;
            let Some(newest) = newest else { return Ok(None) };
            transfer::Entity::find_by_id(newest.transfer_id).one(&self.db).await
        };
        let newest_created = transfer::Entity::find()
            .filter(C::EpochStartedAt.is_not_null())
            .filter(C::StripeTransferId.is_not_null())
            .order_by_desc(C::Id);
        let mut known_to_stripe = true;
        let mut found = parent_of_newest(ReversalStatus::Reversed).await?;
        if found.is_none() {
            found = newest_created.one(&self.db).await?;
        }
        if found.is_none() {
            known_to_stripe = false;
            found = parent_of_newest(ReversalStatus::Pending).await?;
        }
        let id = found.and_then(|transfer| transfer.stripe_transfer_id);
        Ok(id.map(|stripe_transfer_id| TransferToProbe { stripe_transfer_id, known_to_stripe }))
    }

    /// The refund with this id: Clawback's or the provider's.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn refund(&self, id: &str) -> Result<Option<RefundView>, LedgerError> {
        let mut is_it = refund::Column::RefundRef.eq(id);
        if let Ok(id) = id.parse::<Uuid>() {
            is_it = is_it.or(refund::Column::Id.eq(id));
        }
        let Some(row) = refund::Entity::find().filter(is_it).order_by_asc(refund::Column::Id).one(&self.db).await?
        else {
            return Ok(None);
        };
        Ok(Some(refund_view(&self.db, row).await?))
    }
}

pub(super) async fn refund_view<C: ConnectionTrait>(db: &C, row: refund::Model) -> Result<RefundView, DbErr> {
    let reversals = reversal::Entity::find()
        .filter(reversal::Column::RefundId.eq(row.id))
        .order_by_asc(reversal::Column::Id)
        .all(db)
        .await?;
    Ok(RefundView {
        id: row.id,
        source: row.source,
        refund_ref: row.refund_ref,
        payment_ref: row.payment_ref,
        amount: row.amount,
        currency: row.currency,
        status: row.status,
        status_reason: row.status_reason,
        created_at: row.created_at,
        failed_at: row.failed_at,
        attention: row.attention,
        reversals: reversals.into_iter().map(reversal_view).collect(),
    })
}

pub(super) async fn payment<C: ConnectionTrait>(db: &C, payment_ref: &str) -> Result<Option<PaymentView>, DbErr> {
    let found = payment::Entity::find().filter(payment::Column::PaymentRef.eq(payment_ref)).one(db).await?;
    let Some(row) = found else { return Ok(None) };
    let transfers = transfer::Entity::find()
        .filter(transfer::Column::PaymentId.eq(row.id))
        .order_by_asc(transfer::Column::Id)
        .all(db)
        .await?;
    Ok(Some(PaymentView {
        payment_ref: row.payment_ref,
        amount: row.amount,
        currency: row.currency,
        created_at: row.created_at,
        transfers: transfer_views(db, transfers).await?,
    }))
}

pub(super) async fn transfer_views<C: ConnectionTrait>(
    db: &C,
    transfers: Vec<transfer::Model>,
) -> Result<Vec<TransferView>, DbErr> {
    let rows = reversal::Entity::find()
        .filter(reversal::Column::TransferId.is_in(transfers.iter().map(|transfer| transfer.id)))
        .order_by_asc(reversal::Column::Id)
        .all(db)
        .await?;
    let mut reversals: HashMap<Uuid, Vec<ReversalView>> = HashMap::new();
    for row in rows {
        reversals.entry(row.transfer_id).or_default().push(reversal_view(row));
    }
    let view = |row: transfer::Model| TransferView {
        id: row.id,
        seller_id: row.seller_id,
        stripe_transfer_id: row.stripe_transfer_id,
        destination: row.destination,
        amount: row.amount,
        currency: row.currency,
        status: row.status,
        amount_reversed: row.amount_reversed,
        retry_count: row.retry_count,
        next_retry_at: row.next_retry_at,
        failure_code: row.failure_code,
        failure_message: row.failure_message,
        reversals: reversals.remove(&row.id).unwrap_or_default(),
    };
    Ok(transfers.into_iter().map(view).collect())
}

pub(super) fn reversal_view(row: reversal::Model) -> ReversalView {
    ReversalView {
        id: row.id,
        refund_id: row.refund_id,
        transfer_id: row.transfer_id,
        amount: row.amount,
        currency: row.currency,
        status: row.status,
        retry_count: row.retry_count,
        next_retry_at: row.next_retry_at,
        stripe_reversal_id: row.stripe_reversal_id,
        externally_reversed: row.externally_reversed,
        failure_code: row.failure_code,
        failure_message: row.failure_message,
        created_at: row.created_at,
    }
}
