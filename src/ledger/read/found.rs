//! Claims, reversals and transfers that match a filter, a page at a time, newest first, each row with what it hangs on: for
//! the pages under `/ui/`.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryTrait};
use uuid::Uuid;

use super::lists::page;
use super::one::{claim_views, reversal_views, transfer_views};
use super::waiting::needs_attention;
use super::{RefundView, ReversalView, TransferView};
use crate::ledger::db::rowset;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{ClaimStatus, ReversalStatus, TransferStatus};
use crate::ledger::{ClaimKind, Ledger, LedgerError};

/// Which claims: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct ClaimFilter {
    /// Their status.
    pub status: Option<ClaimStatus>,
    /// ISO 4217, lower case.
    pub currency: Option<String>,
    /// Only those that an operator must do something about.
    pub needs_attention: bool,
}

/// Which reversals: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct ReversalFilter {
    /// Their status.
    pub status: Option<ReversalStatus>,
    /// ISO 4217, lower case.
    pub currency: Option<String>,
    /// Whether Stripe refuses them for lack of balance.
    pub waits: Option<bool>,
    /// The marketplace's id of the seller.
    pub seller: Option<String>,
    /// The code of the last failure: Stripe's or ours.
    pub failure_code: Option<String>,
}

/// Which transfers: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct TransferFilter {
    /// Their status.
    pub status: Option<TransferStatus>,
    /// ISO 4217, lower case.
    pub currency: Option<String>,
    /// The marketplace's id of the seller.
    pub seller: Option<String>,
}

/// A reversal, and what it hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundReversal {
    /// The reversal.
    pub reversal: ReversalView,
    /// What its claim is.
    pub kind: ClaimKind,
    /// The provider's id of the payment.
    pub payment_ref: String,
    /// The marketplace's id of the seller.
    pub seller_id: String,
    /// Stripe's id of the transfer; `None` until Clawback has created it.
    pub stripe_transfer_id: Option<String>,
}

/// A transfer, and what it hangs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundTransfer {
    /// The transfer.
    pub transfer: TransferView,
    /// The provider's id of the payment.
    pub payment_ref: String,
}

impl Ledger {
    /// At most `limit` claims of this kind, older than `after`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn find_claims(
        &self,
        kind: ClaimKind,
        filter: &ClaimFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<RefundView>, LedgerError> {
        use claim::Column as C;
        // Written out: a kept plan uses the index of the few disputes only for this very text.
        let of_kind = match kind {
            ClaimKind::Dispute => Expr::cust("kind = 'dispute'"),
            ClaimKind::Refund => C::Kind.eq(kind),
        };
        let mut found = claim::Entity::find()
            .filter(of_kind)
            .apply_if(filter.status, |query, status| query.filter(C::Status.eq(status)))
            .apply_if(filter.currency.as_deref(), |query, currency| query.filter(C::Currency.eq(currency)));
        if filter.needs_attention {
            found = found.filter(needs_attention());
        }
        let rows = page(&self.store.db, found, C::Id, after, limit).await?;
        Ok(claim_views(&self.store.db, rows).await?)
    }

    /// At most `limit` reversals, older than `after`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn find_reversals(
        &self,
        filter: &ReversalFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<FoundReversal>, LedgerError> {
        use reversal::Column as C;
        let db = &self.store.db;
        let of_row = || Expr::col((call::Entity, call::Column::Id)).equals((reversal::Entity, C::Id));
        let refused = || calls().and_where(of_row()).and_where(call::Column::RefusedSince.is_not_null()).to_owned();
        let found = reversal::Entity::find()
            .apply_if(filter.status, |query, status| query.filter(C::Status.eq(status)))
            .apply_if(filter.currency.as_deref(), |query, currency| query.filter(C::Currency.eq(currency)))
            .apply_if(filter.waits, |query, waits| {
                query.filter(if waits { Expr::exists(refused()) } else { Expr::exists(refused()).not() })
            })
            .apply_if(filter.seller.as_deref(), |query, seller| {
                query.filter(C::TransferId.in_subquery(transfers_of(seller)))
            })
            .apply_if(filter.failure_code.as_deref(), |query, code| {
                let failed = calls().and_where(call::Column::FailureCode.eq(code)).to_owned();
                query.filter(C::Id.in_subquery(failed))
            });
        let rows = page(db, found, C::Id, after, limit).await?;
        let ids = |id: fn(&reversal::Model) -> Uuid| rows.iter().map(id).collect::<Vec<_>>();
        let (claims, transfers) = (ids(|row| row.claim_id), ids(|row| row.transfer_id));
        let claims = rowset::select::<_, claim::Model>(db, "id IN {ids}", &claims, &[]).await?;
        let claims: HashMap<Uuid, claim::Model> = claims.into_iter().map(|row| (row.id, row)).collect();
        let transfers = rowset::select::<_, transfer::Model>(db, "id IN {ids}", &transfers, &[]).await?;
        let transfers: HashMap<Uuid, transfer::Model> = transfers.into_iter().map(|row| (row.id, row)).collect();
        let with_both = |reversal: ReversalView| {
            let (claim, transfer) = (claims.get(&reversal.refund_id)?, transfers.get(&reversal.transfer_id)?);
            Some(FoundReversal {
                kind: claim.kind,
                payment_ref: claim.payment_ref.clone(),
                seller_id: transfer.seller_id.clone(),
                stripe_transfer_id: transfer.stripe_transfer_id.clone(),
                reversal,
            })
        };
        Ok(reversal_views(db, rows).await?.into_iter().filter_map(with_both).collect())
    }

    /// At most `limit` transfers, older than `after`.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn find_transfers(
        &self,
        filter: &TransferFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<FoundTransfer>, LedgerError> {
        use transfer::Column as C;
        let db = &self.store.db;
        let found = transfer::Entity::find()
            .apply_if(filter.status, |query, status| query.filter(C::Status.eq(status)))
            .apply_if(filter.currency.as_deref(), |query, currency| query.filter(C::Currency.eq(currency)))
            .apply_if(filter.seller.as_deref(), |query, seller| query.filter(C::SellerId.eq(seller)));
        let rows = page(db, found, C::Id, after, limit).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.payment_id).collect();
        let payments = rowset::select::<_, payment::Model>(db, "id IN {ids}", &ids, &[]).await?;
        let refs: HashMap<Uuid, String> = payments.into_iter().map(|row| (row.id, row.payment_ref)).collect();
        let payment_of: HashMap<Uuid, Uuid> = rows.iter().map(|row| (row.id, row.payment_id)).collect();
        let with_payment = |transfer: TransferView| {
            let payment_ref = refs.get(payment_of.get(&transfer.id)?)?.clone();
            Some(FoundTransfer { transfer, payment_ref })
        };
        Ok(transfer_views(db, rows).await?.into_iter().filter_map(with_payment).collect())
    }
}

fn calls() -> SelectStatement {
    Query::select().column(call::Column::Id).from(call::Entity).to_owned()
}

fn transfers_of(seller: &str) -> SelectStatement {
    let of_seller = transfer::Column::SellerId.eq(seller);
    Query::select().column(transfer::Column::Id).from(transfer::Entity).and_where(of_seller).to_owned()
}
