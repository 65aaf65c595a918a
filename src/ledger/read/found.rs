//! Claims, reversals and transfers that match a filter, a page at a time, newest or oldest first, each row with what it hangs on; how many
//! match; and each as a line of CSV.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Query, SelectStatement, SimpleExpr};
use sea_orm::{ColumnTrait, DbBackend, EntityTrait, QueryFilter, QueryTrait, Select};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::backlog::is_owed;
use super::history::first_id;
use super::lists::{Listed, Page};
use super::one::{claim_views, reversal_views, transfer_views};
use super::waiting::needs_attention;
use super::{RefundView, ReversalView, TransferView};
use crate::ledger::db::rowset;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{CallKind, ClaimStatus, ReversalStatus, TransferStatus};
use crate::ledger::{ClaimKind, DisputeStage, Ledger, LedgerError, Source};
use crate::lines::line;

/// When rows were recorded: at `since` or later, before `until`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded {
    /// At this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
}

/// Which claims: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct ClaimFilter {
    /// Their status.
    pub status: Option<ClaimStatus>,
    /// ISO 4217, lower case.
    pub currency: Option<String>,
    /// Only those that an operator must do something about.
    pub needs_attention: bool,
    /// Whether an operator has acknowledged them.
    pub acknowledged: Option<bool>,
    /// When they were first reported.
    pub recorded: Recorded,
    /// Oldest first, instead of newest first.
    pub oldest: bool,
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
    /// The key of their group of failures.
    pub group: Option<String>,
    /// Only those that are still owed.
    pub owed: bool,
    /// When they were recorded.
    pub recorded: Recorded,
    /// Only those whose status is that since this time or later.
    pub changed_since: Option<DateTime<Utc>>,
    /// Oldest first, instead of newest first.
    pub oldest: bool,
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
    /// Only those that Clawback could not create: their creation failed permanently.
    pub not_created: bool,
    /// The key of their group of failures.
    pub group: Option<String>,
    /// Oldest first, instead of newest first.
    pub oldest: bool,
}

/// A reversal, and what it hangs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FoundReversal {
    /// The reversal.
    #[serde(flatten)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FoundTransfer {
    /// The transfer.
    #[serde(flatten)]
    pub transfer: TransferView,
    /// The provider's id of the payment.
    pub payment_ref: String,
}

line! {
    /// A claim as a line.
    #[derive(Debug, Serialize)]
    pub struct ClaimLine {
        id: Uuid,
        reference: String,
        source: Source,
        payment_ref: String,
        status: ClaimStatus,
        amount: i64,
        currency: String,
        stage: Option<DisputeStage>,
        created_at: DateTime<Utc>,
        status_reason: Option<String>,
        attention: Option<String>,
        acknowledged_at: Option<DateTime<Utc>>,
    }
}

line! {
    /// A reversal as a line.
    #[derive(Debug, Serialize)]
    pub struct ReversalLine {
        id: Uuid,
        status: ReversalStatus,
        amount: i64,
        amount_closed: i64,
        currency: String,
        seller_id: String,
        kind: ClaimKind,
        reference: String,
        payment_ref: String,
        stripe_transfer_id: Option<String>,
        stripe_reversal_id: Option<String>,
        created_at: DateTime<Utc>,
        next_retry_at: Option<DateTime<Utc>>,
        failure_code: Option<String>,
        failure_message: Option<String>,
    }
}

line! {
    /// A transfer as a line.
    #[derive(Debug, Serialize)]
    pub struct TransferLine {
        id: Uuid,
        stripe_transfer_id: Option<String>,
        status: TransferStatus,
        amount: i64,
        amount_reversed: i64,
        currency: String,
        seller_id: String,
        destination: String,
        payment_ref: String,
        failure_code: Option<String>,
        failure_message: Option<String>,
    }
}

impl From<RefundView> for ClaimLine {
    fn from(claim: RefundView) -> Self {
        Self {
            id: claim.id,
            reference: claim.refund_ref,
            source: claim.source,
            payment_ref: claim.payment_ref,
            status: claim.status,
            amount: claim.amount,
            currency: claim.currency,
            stage: claim.stage,
            created_at: claim.created_at,
            status_reason: claim.status_reason,
            attention: claim.attention,
            acknowledged_at: claim.acknowledged_at,
        }
    }
}

impl From<FoundReversal> for ReversalLine {
    fn from(FoundReversal { reversal, kind, payment_ref, seller_id, stripe_transfer_id }: FoundReversal) -> Self {
        Self {
            id: reversal.id,
            status: reversal.status,
            amount: reversal.amount,
            amount_closed: reversal.amount_closed,
            currency: reversal.currency,
            seller_id,
            kind,
            reference: reversal.refund_ref,
            payment_ref,
            stripe_transfer_id,
            stripe_reversal_id: reversal.stripe_reversal_id,
            created_at: reversal.created_at,
            next_retry_at: reversal.next_retry_at,
            failure_code: reversal.failure_code,
            failure_message: reversal.failure_message,
        }
    }
}

impl From<FoundTransfer> for TransferLine {
    fn from(FoundTransfer { transfer, payment_ref }: FoundTransfer) -> Self {
        Self {
            id: transfer.id,
            stripe_transfer_id: transfer.stripe_transfer_id,
            status: transfer.status,
            amount: transfer.amount,
            amount_reversed: transfer.amount_reversed,
            currency: transfer.currency,
            seller_id: transfer.seller_id,
            destination: transfer.destination,
            payment_ref,
            failure_code: transfer.failure_code,
            failure_message: transfer.failure_message,
        }
    }
}

impl Recorded {
    /// Ids begin with their time.
    fn filter<E: EntityTrait>(self, found: Select<E>, id: E::Column) -> Select<E> {
        found
            .apply_if(self.since, |query, since| query.filter(id.gte(first_id(since))))
            .apply_if(self.until, |query, until| query.filter(id.lt(first_id(until))))
    }
}

impl ClaimFilter {
    fn list(&self, kind: ClaimKind) -> Listed<claim::Entity> {
        use claim::Column as C;
        // Written out: a kept plan uses the index of the few disputes only for this very text.
        let of_kind = match kind {
            ClaimKind::Dispute => Expr::cust("kind = 'dispute'"),
            ClaimKind::Refund => C::Kind.eq(kind),
        };
        let mut found = claim::Entity::find()
            .filter(of_kind)
            .apply_if(self.status, |query, status| query.filter(C::Status.eq(status)));
        if self.needs_attention {
            found = found.filter(needs_attention());
        }
        found = self.recorded.filter(found, C::Id);
        let narrowed = found
            .clone()
            .apply_if(self.currency.as_deref(), |query, currency| query.filter(C::Currency.eq(currency)))
            .apply_if(self.acknowledged, |query, is_so| {
                query.filter(if is_so { C::AcknowledgedAt.is_not_null() } else { C::AcknowledgedAt.is_null() })
            });
        let is_narrowed = self.currency.is_some() || self.acknowledged.is_some();
        Listed { found, narrowed: is_narrowed.then_some(narrowed), id: C::Id, oldest: self.oldest }
    }
}

impl ReversalFilter {
    pub(super) fn list(&self, of_group: Option<SimpleExpr>) -> Listed<reversal::Entity> {
        use reversal::Column as C;
        // Written out: a kept plan uses the indexes of the few open ones, and of the few that are refused, only for these texts.
        let is_refused = || Expr::cust("state = 'open' AND refused_since IS NOT NULL");
        let refused = || calls().and_where(is_refused()).to_owned();
        let found = reversal::Entity::find()
            .apply_if(self.status, |query, status| {
                query.filter(Expr::cust(format!("reversals.status IN ('{status}')")))
            })
            .apply_if(self.seller.as_deref(), |query, seller| query.filter(C::SellerId.eq(seller)))
            .apply_if(self.waits.filter(|waits| *waits), |query, _| query.filter(C::Id.in_subquery(refused())))
            .apply_if(self.failure_code.as_deref(), |query, code| {
                let failed = calls().and_where(call::Column::FailureCode.eq(code)).to_owned();
                query.filter(C::Id.in_subquery(failed))
            })
            .apply_if(of_group, Select::filter)
            .apply_if(self.owed.then_some("reversals.status IN ('pending', 'permanently_failed')"), |query, open| {
                query.filter(Expr::cust(open))
            });
        let found = self.recorded.filter(found, C::Id);
        let of_row = || Expr::col((call::Entity, call::Column::Id)).equals((reversal::Entity, C::Id));
        let narrowed = found
            .clone()
            .apply_if(self.changed_since, |query, since| query.filter(C::UpdatedAt.gte(since)))
            .apply_if(self.currency.as_deref(), |query, currency| query.filter(C::Currency.eq(currency)))
            .apply_if(self.owed.then(is_owed), Select::filter)
            .apply_if(self.waits.filter(|waits| !waits), |query, _| {
                query.filter(Expr::exists(refused().and_where(of_row()).to_owned()).not())
            });
        let is_narrowed =
            self.currency.is_some() || self.waits == Some(false) || self.changed_since.is_some() || self.owed;
        Listed { found, narrowed: is_narrowed.then_some(narrowed), id: C::Id, oldest: self.oldest }
    }
}

impl TransferFilter {
    fn list(&self, of_group: Option<SimpleExpr>) -> Listed<transfer::Entity> {
        use transfer::Column as C;
        let found = transfer::Entity::find()
            .apply_if(self.status, |query, status| query.filter(C::Status.eq(status)))
            .apply_if(self.seller.as_deref(), |query, seller| query.filter(C::SellerId.eq(seller)))
            .apply_if(of_group, Select::filter)
            .apply_if(self.not_created.then_some("kind = 'create' AND state = 'failed'"), |query, failed| {
                query.filter(C::Id.in_subquery(calls().and_where(Expr::cust(failed)).to_owned()))
            });
        let narrowed = self.currency.as_deref().map(|currency| found.clone().filter(C::Currency.eq(currency)));
        Listed { found, narrowed, id: C::Id, oldest: self.oldest }
    }
}

impl Ledger {
    /// At most `limit` claims of this kind after `after`, and the cursor to those that follow. Where few match, a page may be
    /// short, or even empty, and yet not be the last one: this holds for all three lists.
    pub async fn find_claims(
        &self,
        kind: ClaimKind,
        filter: &ClaimFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<RefundView>, LedgerError> {
        let db = &self.store.reader;
        let (rows, next) = filter.list(kind).page(db, after, limit).await?;
        Ok((claim_views(db, rows).await?, next))
    }

    /// How many claims match: `7`, or `10,000+`.
    pub async fn count_claims(&self, kind: ClaimKind, filter: &ClaimFilter) -> Result<String, LedgerError> {
        Ok(filter.list(kind).count(&self.store.reader).await?)
    }

    /// At most `limit` reversals after `after`, and the cursor to those that follow.
    pub async fn find_reversals(
        &self,
        filter: &ReversalFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<FoundReversal>, LedgerError> {
        let db = &self.store.reader;
        let of_group = self.of_group(CallKind::Reverse, "reversals.id", filter.group.as_deref()).await?;
        let (rows, next) = filter.list(of_group).page(db, after, limit).await?;
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
        Ok((reversal_views(db, rows).await?.into_iter().filter_map(with_both).collect(), next))
    }

    /// How many reversals match: `7`, or `10,000+`.
    pub async fn count_reversals(&self, filter: &ReversalFilter) -> Result<String, LedgerError> {
        let of_group = self.of_group(CallKind::Reverse, "reversals.id", filter.group.as_deref()).await?;
        Ok(filter.list(of_group).count(&self.store.reader).await?)
    }

    /// At most `limit` transfers after `after`, and the cursor to those that follow.
    pub async fn find_transfers(
        &self,
        filter: &TransferFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<FoundTransfer>, LedgerError> {
        let db = &self.store.reader;
        let of_group = self.of_group(CallKind::Create, "seller_transfers.id", filter.group.as_deref()).await?;
        let (rows, next) = filter.list(of_group).page(db, after, limit).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.payment_id).collect();
        let payments = rowset::select::<_, payment::Model>(db, "id IN {ids}", &ids, &[]).await?;
        let refs: HashMap<Uuid, String> = payments.into_iter().map(|row| (row.id, row.payment_ref)).collect();
        let payment_of: HashMap<Uuid, Uuid> = rows.iter().map(|row| (row.id, row.payment_id)).collect();
        let with_payment = |transfer: TransferView| {
            let payment_ref = refs.get(payment_of.get(&transfer.id)?)?.clone();
            Some(FoundTransfer { transfer, payment_ref })
        };
        Ok((transfer_views(db, rows).await?.into_iter().filter_map(with_payment).collect(), next))
    }

    /// How many transfers match: `7`, or `10,000+`.
    pub async fn count_transfers(&self, filter: &TransferFilter) -> Result<String, LedgerError> {
        let of_group = self.of_group(CallKind::Create, "seller_transfers.id", filter.group.as_deref()).await?;
        Ok(filter.list(of_group).count(&self.store.reader).await?)
    }

    /// Whether `column` is the id of a failure of this group, as the groups were last computed.
    async fn of_group(
        &self,
        kind: CallKind,
        column: &str,
        key: Option<&str>,
    ) -> Result<Option<SimpleExpr>, LedgerError> {
        let Some(key) = key else { return Ok(None) };
        let groups = self.failure_groups(kind).await?;
        let ids = groups.groups.iter().find(|group| group.key == key).map(|group| &*group.ids).unwrap_or_default();
        let backend = self.store.reader.get_database_backend();
        let mut among = rowset::in_ids(backend).to_owned();
        if backend != DbBackend::Postgres {
            among = among.replace("$1", "?");
        }
        Ok(Some(Expr::cust_with_values(format!("{column} {among}"), [rowset::id_set(ids)])))
    }
}

fn calls() -> SelectStatement {
    Query::select().column(call::Column::Id).from(call::Entity).to_owned()
}
