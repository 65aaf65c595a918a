//! What `reconcile` reads: the transfers with their reversals, a page at a time.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{ColumnTrait, Condition, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select};
use uuid::Uuid;

use super::TransferView;
use super::one::transfer_views;
use crate::ledger::events::Source;
use crate::ledger::schema::{call, claim, reversal, transfer};
use crate::ledger::{Ledger, LedgerError};

impl Ledger {
    /// At most `limit` transfers, each with all its reversals, in the order of their ids, beginning after the id `after`.
    /// With `since` only those on which something has happened in the ledger from then on, to the transfer itself or to
    /// one of its reversals.
    pub async fn transfers_to_reconcile(
        &self,
        since: Option<DateTime<Utc>>,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<TransferView>, LedgerError> {
        let mut transfers = changed(since).order_by_asc(transfer::Column::Id).limit(limit);
        if let Some(after) = after {
            transfers = transfers.filter(transfer::Column::Id.gt(after));
        }
        Ok(transfer_views(&self.store.db, transfers.all(&self.store.db).await?).await?)
    }

    /// How many transfers [`Self::transfers_to_reconcile`] gives in all.
    pub async fn count_transfers_to_reconcile(&self, since: Option<DateTime<Utc>>) -> Result<u64, LedgerError> {
        Ok(changed(since).count(&self.store.db).await?)
    }

    /// Stripe's id of the transfer of which this reversal (`trr_…`) of another program was adopted.
    pub async fn adopted_by(&self, stripe_reversal_id: &str) -> Result<Option<String>, LedgerError> {
        let adopted = transfer::Entity::find().filter(transfer::Column::Adopted.is_not_null());
        let perhaps = adopted.filter(transfer::Column::Adopted.contains(stripe_reversal_id));
        let found = perhaps.all(&self.store.db).await?;
        let found = found.into_iter().find(|row| row.adopted().contains_key(stripe_reversal_id));
        Ok(found.and_then(|row| row.stripe_transfer_id))
    }

    /// Which of these refunds of Stripe's (`re_…`) the ledger knows as ones for which Stripe itself reversed the transfer, also
    /// where they failed later.
    pub async fn refunds_reversed_by_stripe(&self, refund_refs: &[String]) -> Result<HashSet<String>, LedgerError> {
        let known: Vec<String> = claim::Entity::find()
            .select_only()
            .column(claim::Column::Reference)
            .filter(claim::Column::Source.eq(Source::Stripe))
            .filter(claim::Column::Reference.is_in(refund_refs))
            .filter(claim::Column::ProviderReversal.is_not_null())
            .into_tuple()
            .all(&self.store.db)
            .await?;
        Ok(known.into_iter().collect())
    }
}

fn changed(since: Option<DateTime<Utc>>) -> Select<transfer::Entity> {
    let all = transfer::Entity::find();
    let Some(since) = since else { return all };
    // Every change of a reversal is one of its call, too.
    let reversal_changed = Query::select()
        .column((reversal::Entity, reversal::Column::TransferId))
        .from(reversal::Entity)
        .inner_join(
            call::Entity,
            Expr::col((call::Entity, call::Column::Id)).equals((reversal::Entity, reversal::Column::Id)),
        )
        .and_where(Expr::col((call::Entity, call::Column::UpdatedAt)).gte(since))
        .to_owned();
    all.filter(
        Condition::any()
            .add(transfer::Column::UpdatedAt.gte(since))
            .add(transfer::Column::Id.in_subquery(reversal_changed)),
    )
}
