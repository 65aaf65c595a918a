//! Single payments, transfers and refunds, with what hangs on them.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::{PaymentView, RefundView, ReversalView, TransferView};
use crate::ledger::calls::Call;
use crate::ledger::claims::attention_of;
use crate::ledger::db::rowset;
use crate::ledger::schema::{claim, payment, reversal, transfer};
use crate::ledger::status::ReversalStatus;
use crate::ledger::time::now;
use crate::ledger::{ClaimKind, Ledger, LedgerError, Source};

/// Transfers that Stripe can be asked about: their ids there (`tr_…`).
#[derive(Clone, Debug, Default)]
pub struct TransfersToProbe {
    /// The latest of which Stripe has confirmed a reversal, or which Clawback has created.
    pub confirmed: Option<String>,
    /// The latest that is owed.
    pub owed: Option<String>,
}

impl Ledger {
    /// The payment with this reference, or with this id of Clawback's.
    pub async fn payment(&self, payment_ref: &str) -> Result<Option<PaymentView>, LedgerError> {
        if let Some(found) = payment(&self.store.db, payment_ref).await? {
            return Ok(Some(found));
        }
        let Ok(id) = payment_ref.parse::<Uuid>() else { return Ok(None) };
        let Some(row) = payment::Entity::find_by_id(id).one(&self.store.db).await? else { return Ok(None) };
        Ok(payment(&self.store.db, &row.payment_ref).await?)
    }

    /// The transfer with this id: Clawback's or Stripe's.
    pub async fn transfer(&self, id: &str) -> Result<Option<TransferView>, LedgerError> {
        let is_it = match id.parse::<Uuid>() {
            Ok(id) => transfer::Column::Id.eq(id),
            Err(_) => transfer::Column::StripeTransferId.eq(id),
        };
        let found = transfer::Entity::find().filter(is_it).all(&self.store.db).await?;
        Ok(transfer_views(&self.store.db, found).await?.pop())
    }

    /// The transfers to ask Stripe about when it is open whether Stripe can be used.
    pub async fn transfers_to_probe(&self) -> Result<TransfersToProbe, LedgerError> {
        use transfer::Column as C;
        let parent_of_newest = async |status: ReversalStatus| {
            let newest = reversal::Entity::find()
                .filter(reversal::Column::Status.eq(status))
                .order_by_desc(reversal::Column::Id)
                .one(&self.store.db)
                .await?;
            let Some(newest) = newest else { return Ok(None) };
            transfer::Entity::find_by_id(newest.transfer_id).one(&self.store.db).await
        };
        let newest_created = transfer::Entity::find()
            .filter(C::CreatedByUs.eq(true))
            .filter(C::StripeTransferId.is_not_null())
            .order_by_desc(C::Id);
        let confirmed = match parent_of_newest(ReversalStatus::Reversed).await? {
            None => newest_created.one(&self.store.db).await?,
            reversed => reversed,
        };
        let owed = parent_of_newest(ReversalStatus::Pending).await?;
        let id = |transfer: Option<transfer::Model>| transfer.and_then(|transfer| transfer.stripe_transfer_id);
        Ok(TransfersToProbe { confirmed: id(confirmed), owed: id(owed) })
    }

    /// The refund with this id: Clawback's or the provider's.
    pub async fn refund(&self, id: &str) -> Result<Option<RefundView>, LedgerError> {
        self.claim(ClaimKind::Refund, id).await
    }

    /// The claim of this kind with this id: Clawback's or the provider's.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when `id` names several claims; [`LedgerError::Database`].
    pub async fn claim(&self, kind: ClaimKind, id: &str) -> Result<Option<RefundView>, LedgerError> {
        let mut is_it = Condition::any().add(claim::Column::Reference.eq(id));
        if let Ok(id) = id.parse::<Uuid>() {
            is_it = is_it.add(claim::Column::Id.eq(id));
        }
        let found = claim::Entity::find().filter(claim::Column::Kind.eq(kind)).filter(is_it);
        let found = found.order_by_asc(claim::Column::Id).limit(2).all(&self.store.db).await?;
        if found.len() > 1 {
            return Err(LedgerError::names_several(id));
        }
        Ok(claim_views(&self.store.db, found).await?.pop())
    }
}

/// The views of `rows`, in their order.
pub(super) async fn claim_views<C: ConnectionTrait>(db: &C, rows: Vec<claim::Model>) -> Result<Vec<RefundView>, DbErr> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut found = rowset::select::<_, reversal::Model>(db, "claim_id IN {ids}", &ids, &[]).await?;
    found.sort_by_key(|row| row.id);
    let mut reversals: HashMap<Uuid, Vec<ReversalView>> = HashMap::new();
    for view in reversal_views(db, found).await? {
        reversals.entry(view.refund_id).or_default().push(view);
    }
    let view = |row: claim::Model| RefundView {
        id: row.id,
        attention: attention_of(&row, now()),
        source: row.source,
        account: row.account,
        refund_ref: row.reference,
        payment_ref: row.payment_ref,
        amount: row.amount,
        currency: row.currency,
        status: row.status,
        status_reason: row.status_reason,
        created_at: row.created_at,
        failed_at: row.failed_at,
        acknowledged_at: row.acknowledged_at,
        stage: row.stage,
        reversals: reversals.remove(&row.id).unwrap_or_default(),
    };
    Ok(rows.into_iter().map(view).collect())
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
    let ids: Vec<Uuid> = transfers.iter().map(|transfer| transfer.id).collect();
    let mut rows = rowset::select::<_, reversal::Model>(db, "transfer_id IN {ids}", &ids, &[]).await?;
    rows.sort_by_key(|row| row.id);
    let mut reversals: HashMap<Uuid, Vec<ReversalView>> = HashMap::new();
    for view in reversal_views(db, rows).await? {
        reversals.entry(view.transfer_id).or_default().push(view);
    }
    let mut calls = calls(db, &ids).await?;
    let view = |row: transfer::Model| {
        let call = calls.remove(&row.id);
        let (failure_code, failure_message) = last_failure(call.as_ref());
        TransferView {
            id: row.id,
            adopted_reversals: row.adopted().into_keys().collect(),
            seller_id: row.seller_id,
            stripe_transfer_id: row.stripe_transfer_id,
            destination: row.destination,
            amount: row.amount,
            currency: row.currency,
            status: row.status,
            amount_reversed: row.amount_reversed,
            reversed_before: row.reversed_before,
            refund_application_fee: row.refund_application_fee,
            withheld: row.withheld,
            retry_count: call.as_ref().map_or(0, |call| call.attempts),
            next_retry_at: call.and_then(|call| call.next_attempt_at),
            failure_code,
            failure_message,
            reversals: reversals.remove(&row.id).unwrap_or_default(),
        }
    };
    Ok(transfers.into_iter().map(view).collect())
}

/// The views of `rows`, in their order.
pub(super) async fn reversal_views<C: ConnectionTrait>(
    db: &C,
    rows: Vec<reversal::Model>,
) -> Result<Vec<ReversalView>, DbErr> {
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let mut calls = calls(db, &ids).await?;
    let claim_ids: Vec<Uuid> = rows.iter().map(|row| row.claim_id).collect();
    let claims = rowset::select::<_, claim::Model>(db, "id IN {ids}", &claim_ids, &[]).await?;
    let claims: HashMap<Uuid, claim::Model> = claims.into_iter().map(|row| (row.id, row)).collect();
    let view = |row: reversal::Model| {
        let claim = claims.get(&row.claim_id);
        let call = calls.remove(&row.id);
        let (failure_code, failure_message) = last_failure(call.as_ref());
        ReversalView {
            id: row.id,
            refund_id: row.claim_id,
            source: claim.map_or(Source::Stripe, |claim| claim.source),
            refund_ref: claim.map(|claim| claim.reference.clone()).unwrap_or_default(),
            transfer_id: row.transfer_id,
            amount: row.amount,
            amount_closed: row.amount_closed,
            currency: row.currency,
            status: row.status,
            retry_count: call.as_ref().map_or(0, |call| call.attempts),
            next_retry_at: call.and_then(|call| call.next_attempt_at),
            stripe_reversal_id: row.stripe_reversal_id,
            externally_reversed: row.externally_reversed,
            failure_code,
            failure_message,
            created_at: row.created_at,
        }
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Its code and words; a transfer that was registered with its Stripe id has no call.
fn last_failure(call: Option<&Call>) -> (Option<String>, Option<String>) {
    call.map(|call| (call.failure_code.clone(), call.failure_message.clone())).unwrap_or_default()
}

async fn calls<C: ConnectionTrait>(db: &C, ids: &[Uuid]) -> Result<HashMap<Uuid, Call>, DbErr> {
    let found = rowset::select::<_, Call>(db, "id IN {ids}", ids, &[]).await?;
    Ok(found.into_iter().map(|call| (call.id, call)).collect())
}
