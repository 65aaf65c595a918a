//! What operators do to parked messages leaves the rows as they are: here is how those rows stand, and where the
//! operator and the reason are written down. Called by `operator`. Changes no status.

use std::collections::HashMap;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::entities::{reversal, transfer};
use super::history::{self, Entity, Note};
use super::settling::lock_transfer;
use super::state::{ReversalStatus, TransferStatus};
use super::{Ledger, LedgerError};

/// Ids in one query: well below what either database takes as parameters.
const BATCH: usize = 1_000;

impl Ledger {
    /// The statuses of these reversals; those that the ledger has not are left out.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn reversal_statuses(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, ReversalStatus>, LedgerError> {
        use reversal::Column as C;
        let mut found = HashMap::new();
        for ids in ids.chunks(BATCH) {
            let rows = reversal::Entity::find().select_only().column(C::Id).column(C::Status);
            let rows: Vec<(Uuid, ReversalStatus)> =
                rows.filter(C::Id.is_in(ids.iter().copied())).into_tuple().all(&self.db).await?;
            found.extend(rows);
        }
        Ok(found)
    }

    /// The statuses of these transfers, and whether each exists at Stripe; those that the ledger has not are left out.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn transfer_statuses(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, (TransferStatus, bool)>, LedgerError> {
        use transfer::Column as C;
        let mut found = HashMap::new();
        for ids in ids.chunks(BATCH) {
            let rows = transfer::Entity::find().select_only().columns([C::Id, C::Status, C::StripeTransferId]);
            let rows: Vec<(Uuid, TransferStatus, Option<String>)> =
                rows.filter(C::Id.is_in(ids.iter().copied())).into_tuple().all(&self.db).await?;
            found.extend(rows.into_iter().map(|(id, status, at_stripe)| (id, (status, at_stripe.is_some()))));
        }
        Ok(found)
    }

    /// Appends a row to a reversal's history that leaves its status as it is.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Database`].
    pub async fn remark_on_reversal(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let txn = self.begin().await?;
        let row = reversal::Entity::find_by_id(id).lock_exclusive().one(&txn).await?;
        let status = row.ok_or(LedgerError::NotFound { entity: "reversal", id })?.status.to_string();
        history::append(&txn, Entity::Reversal, id, Some(&status), &status, note).await?;
        self.commit(txn, 0).await
    }

    /// Appends a row to a transfer's history that leaves its status as it is.
    ///
    /// # Errors
    /// [`LedgerError::Database`], also when there is no such transfer.
    pub async fn remark_on_transfer(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let txn = self.begin().await?;
        let status = lock_transfer(&txn, id).await?.status.to_string();
        history::append(&txn, Entity::Transfer, id, Some(&status), &status, note).await?;
        self.commit(txn, 0).await
    }
}
