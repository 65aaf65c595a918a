//! Claims, reversals and transfers a page at a time, newest first, for the API and the command line.
//!
//! Ids are UUIDv7, so that their order is the order of creation, and the last id of a page is the cursor to the next.

use sea_orm::{
    ColumnTrait, DatabaseConnection, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, QueryTrait, Select,
};
use uuid::Uuid;

use super::one::{reversal_views, transfer_views};
use super::{ClaimFilter, RefundView, ReversalView, TransferView};
use crate::ledger::schema::{reversal, transfer};
use crate::ledger::status::{ClaimStatus, ReversalStatus, TransferStatus};
use crate::ledger::{ClaimKind, Ledger, LedgerError};

impl Ledger {
    /// At most `limit` claims of this kind with their reversals, newest first, older than `after`; only those with `status`,
    /// if one is given.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn list_claims(
        &self,
        kind: ClaimKind,
        status: Option<ClaimStatus>,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<RefundView>, LedgerError> {
        let filter = ClaimFilter { status, ..ClaimFilter::default() };
        self.find_claims(kind, &filter, after, limit).await
    }

    /// At most `limit` reversals, newest first, older than `after`; only those with `status`, if one is given.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn list_reversals(
        &self,
        status: Option<ReversalStatus>,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<ReversalView>, LedgerError> {
        use reversal::Column as C;
        let found = reversal::Entity::find().apply_if(status, |query, status| query.filter(C::Status.eq(status)));
        let rows = page(&self.store.db, found, C::Id, after, limit).await?;
        Ok(reversal_views(&self.store.db, rows).await?)
    }

    /// At most `limit` transfers with their reversals, newest first, older than `after`; only those with `status`, if one
    /// is given.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn list_transfers(
        &self,
        status: Option<TransferStatus>,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<TransferView>, LedgerError> {
        use transfer::Column as C;
        let found = transfer::Entity::find().apply_if(status, |query, status| query.filter(C::Status.eq(status)));
        let rows = page(&self.store.db, found, C::Id, after, limit).await?;
        Ok(transfer_views(&self.store.db, rows).await?)
    }

    /// The reversal with this id: Clawback's or Stripe's (`trr_…`).
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn reversal(&self, id: &str) -> Result<Option<ReversalView>, LedgerError> {
        let is_it = match id.parse::<Uuid>() {
            Ok(id) => reversal::Column::Id.eq(id),
            Err(_) => reversal::Column::StripeReversalId.eq(id),
        };
        let found = reversal::Entity::find().filter(is_it).order_by_asc(reversal::Column::Id).limit(1);
        let found = found.all(&self.store.db).await?;
        Ok(reversal_views(&self.store.db, found).await?.pop())
    }
}

/// At most `limit` of `found`, newest first, older than `after`.
pub(super) async fn page<E: EntityTrait>(
    db: &DatabaseConnection,
    found: Select<E>,
    id: E::Column,
    after: Option<Uuid>,
    limit: u64,
) -> Result<Vec<E::Model>, DbErr> {
    let older = found.apply_if(after, |query, after| query.filter(id.lt(after)));
    older.order_by_desc(id).limit(limit).all(db).await
}
