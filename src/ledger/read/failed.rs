//! What failed permanently and can be replayed, whatever the broker knows of it.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QueryTrait};
use uuid::Uuid;

use super::backlog::is_owed;
use crate::ledger::schema::{call, reversal, transfer};
use crate::ledger::status::{CallKind, CallState, ReversalStatus};
use crate::ledger::{Ledger, LedgerError};

/// Which of them: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct FailedFilter {
    /// The code of the failure: Stripe's or ours.
    pub failure_code: Option<String>,
    /// The marketplace's id of the seller.
    pub seller: Option<String>,
    /// Failed at this time or later.
    pub since: Option<DateTime<Utc>>,
}

/// A reversal, or a transfer to create, that failed permanently.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct FailedCall {
    /// Clawback's id of the reversal, or of the transfer.
    pub id: Uuid,
    /// What it is to move, in minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
}

impl Ledger {
    /// The calls of `kind` that failed permanently and are still owed, oldest first.
    pub async fn failed_calls(&self, kind: CallKind, filter: &FailedFilter) -> Result<Vec<FailedCall>, LedgerError> {
        let FailedFilter { failure_code, seller, since } = filter;
        let failed = call::Entity::find()
            .filter(call::Column::Kind.eq(kind))
            .filter(call::Column::State.eq(CallState::Failed))
            .apply_if(failure_code.as_deref(), |query, code| query.filter(call::Column::FailureCode.eq(code)))
            .apply_if(*since, |query, since| query.filter(call::Column::UpdatedAt.gte(since)));
        let failed = Query::select().column(call::Column::Id).from_subquery(failed.into_query(), "failed").to_owned();
        let transfers = transfer::Entity::find().order_by_asc(transfer::Column::Id);
        let of_seller =
            transfers.apply_if(seller.as_deref(), |query, id| query.filter(transfer::Column::SellerId.eq(id)));
        let db = &self.store.db;
        Ok(match kind {
            // Of no seller and of no amount. They are replayed from their parked messages.
            CallKind::LookUp | CallKind::Notify => Vec::new(),
            CallKind::Create => {
                let created = of_seller.filter(transfer::Column::Id.in_subquery(failed));
                created.into_model().all(db).await?
            }
            CallKind::Reverse => {
                let of_seller = Query::select()
                    .column(transfer::Column::Id)
                    .from_subquery(of_seller.into_query(), "of_seller")
                    .to_owned();
                let reversals = reversal::Entity::find()
                    .filter(reversal::Column::Status.eq(ReversalStatus::PermanentlyFailed))
                    .filter(is_owed())
                    .filter(reversal::Column::Id.in_subquery(failed))
                    .filter(reversal::Column::TransferId.in_subquery(of_seller))
                    .order_by_asc(reversal::Column::Id);
                reversals.into_model().all(db).await?
            }
        })
    }
}
