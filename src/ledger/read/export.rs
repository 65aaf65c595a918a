//! Reversals for the books: one row each, with everything that it belongs to, in the order of their last change.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::lists::{Page, cut};
use super::query::Query;
use crate::ledger::status::ReversalStatus;
use crate::ledger::{ClaimKind, Ledger, LedgerError, Source};
use crate::lines::line;

line! {
    /// A reversal as the export has it.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
    pub struct ExportRow {
        /// Clawback's id of the reversal.
        pub reversal_id: Uuid,
        /// Its status.
        pub status: ReversalStatus,
        /// Minor units of the transfer's currency: what is, or was, taken back.
        pub amount: i64,
        /// ISO 4217, lower case.
        #[schema(examples("eur"))]
        pub currency: String,
        /// What of the debt an operator recorded as settled elsewhere, beside `amount`.
        pub amount_closed: i64,
        /// Stripe's id of the reversal.
        #[schema(examples("trr_1"))]
        pub stripe_reversal_id: Option<String>,
        /// Stripe's id of what moved the money, where Stripe told it.
        #[schema(examples("txn_1"))]
        pub balance_transaction: Option<String>,
        /// The money was taken back outside Clawback.
        pub externally_reversed: bool,
        /// `refund` or `dispute`.
        pub kind: ClaimKind,
        /// Who reported the refund or dispute.
        pub source: Source,
        /// The provider's id of the refund or dispute.
        #[schema(examples("re_1"))]
        pub refund_ref: String,
        /// Minor units of the refund's own currency.
        pub refund_amount: i64,
        /// ISO 4217, lower case.
        #[schema(examples("eur"))]
        pub refund_currency: String,
        /// The reference that the payment is registered under.
        #[schema(examples("pi_1"))]
        pub payment_ref: String,
        /// The marketplace's id of the seller.
        #[schema(examples("s1"))]
        pub seller_id: String,
        /// The seller's connected account.
        #[schema(examples("acct_1"))]
        pub destination: String,
        /// Clawback's id of the transfer.
        pub transfer_id: Uuid,
        /// Stripe's id of the transfer.
        #[schema(examples("tr_1"))]
        pub stripe_transfer_id: Option<String>,
        /// When the refund or dispute was first reported.
        pub reported_at: DateTime<Utc>,
        /// When the debt was recorded.
        pub recorded_at: DateTime<Utc>,
        /// When its status last changed. The period of an export is one of this time.
        pub changed_at: DateTime<Utc>,
        /// When it was reversed; null while it is not.
        #[sea_orm(skip)]
        pub reversed_at: Option<DateTime<Utc>>,
        /// Who changed its status last: `worker`, or an operator's name.
        #[sea_orm(skip)]
        pub actor: Option<String>,
        /// Stripe's `Request-Id` of that.
        #[sea_orm(skip)]
        pub stripe_request_id: Option<String>,
    }
}

/// Which reversals.
#[derive(Clone, Copy, Debug)]
pub struct ExportFilter {
    /// Whose status changed at this time or later, for the last time.
    pub from: DateTime<Utc>,
    /// And before this time.
    pub to: DateTime<Utc>,
    /// Only those with this status.
    pub status: Option<ReversalStatus>,
}

/// Where a page of an export ended.
#[derive(Clone, Copy, Debug)]
pub struct ExportCursor(DateTime<Utc>, Uuid);

#[derive(FromQueryResult)]
struct Step {
    id: Uuid,
    entity_id: Uuid,
    actor: String,
    stripe_request_id: Option<String>,
}

impl Ledger {
    /// At most `limit` reversals after `after`, in the order of their last change, and where to go on if there may be more.
    pub async fn export(
        &self,
        filter: &ExportFilter,
        after: Option<ExportCursor>,
        limit: u64,
    ) -> Result<Page<ExportRow, ExportCursor>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let ExportCursor(time, id) = after.unwrap_or(ExportCursor(filter.from, Uuid::nil()));
        let (time, id, to) = (query.bind(time), query.bind(id), query.bind(filter.to));
        let status = filter.status.map(|status| format!("AND r.status IN ('{status}')")).unwrap_or_default();
        let sql = format!(
            "SELECT r.id AS reversal_id, r.status, r.amount, r.currency, r.amount_closed, r.stripe_reversal_id,
                r.balance_transaction, r.externally_reversed, cl.kind, cl.source, cl.reference AS refund_ref,
                cl.amount AS refund_amount, cl.currency AS refund_currency, p.payment_ref, t.seller_id, t.destination,
                r.transfer_id, t.stripe_transfer_id, cl.created_at AS reported_at, r.created_at AS recorded_at,
                r.updated_at AS changed_at
            FROM reversals r JOIN claims cl ON cl.id = r.claim_id JOIN seller_transfers t ON t.id = r.transfer_id
            JOIN payments p ON p.id = t.payment_id
            WHERE (r.updated_at, r.id) > ({time}, {id}) AND r.updated_at < {to} {status}
            ORDER BY r.updated_at, r.id LIMIT {}",
            limit.saturating_add(1),
        );
        let cursor = |row: &ExportRow| ExportCursor(row.changed_at, row.reversal_id);
        let (mut rows, next) = cut(query.all(db, sql).await?, limit, cursor);
        let mut steps = self.last_steps(&rows.iter().map(|row| row.reversal_id).collect::<Vec<_>>()).await?;
        for row in &mut rows {
            row.reversed_at = (row.status == ReversalStatus::Reversed).then_some(row.changed_at);
            if let Some(step) = steps.remove(&row.reversal_id) {
                (row.actor, row.stripe_request_id) = (Some(step.actor), step.stripe_request_id);
            }
        }
        Ok((rows, next))
    }

    /// The last change of each one's status.
    async fn last_steps(&self, reversals: &[Uuid]) -> Result<HashMap<Uuid, Step>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let about = query.among_ids("entity_id", reversals);
        let sql = format!(
            "SELECT id, entity_id, actor, stripe_request_id FROM history
            WHERE {about} AND (from_status IS NULL OR from_status <> to_status)"
        );
        let mut last: HashMap<Uuid, Step> = HashMap::new();
        for step in query.all::<Step>(db, sql).await? {
            if last.get(&step.entity_id).is_none_or(|known| known.id < step.id) {
                last.insert(step.entity_id, step);
            }
        }
        Ok(last)
    }
}
