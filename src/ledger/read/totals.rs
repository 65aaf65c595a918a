//! What is owed, waits, is given up and is back, in numbers: the read model of `/metrics`. Changes nothing.
//!
//! Asked for at every scrape, in six statements side by side. Amounts are added up as floating point, which is what
//! Prometheus stores: exact up to 2^53 minor units.

use std::collections::BTreeMap;
use std::fmt::Display;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, FromQueryResult, Iterable, JoinType, QueryFilter,
    QuerySelect, RelationDef,
};

use super::waiting::{self, WaitingClaims};
use crate::ledger::schema::{call, claim, outbox, reversal, transfer};
use crate::ledger::status::{ClaimStatus, ReversalStatus, TransferStatus};
use crate::ledger::time::now;
use crate::ledger::{ClaimKind, Ledger, LedgerError};

/// The ledger in numbers. Every status is there, also with 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Totals {
    /// Reversals by status.
    pub reversals: BTreeMap<String, u64>,
    /// Amounts of the reversals by currency, lower case.
    pub amounts: BTreeMap<String, Amounts>,
    /// When the oldest reversal was created that is still owed: pending, or given up.
    pub oldest_open: Option<DateTime<Utc>>,
    /// Transfers by status.
    pub transfers: BTreeMap<String, u64>,
    /// Refunds by status.
    pub refunds: BTreeMap<String, u64>,
    /// Disputes by status.
    pub disputes: BTreeMap<String, u64>,
    /// Refunds and disputes that take nothing before something else happens, and that no operator has acknowledged.
    pub waiting: Vec<WaitingClaims>,
    /// Refunds that an operator has to do something about.
    pub refunds_needing_attention: u64,
    /// Disputes that an operator has to do something about.
    pub disputes_needing_attention: u64,
    /// Committed jobs that the broker has not confirmed yet.
    pub unpublished: u64,
    /// When the oldest of them was committed.
    pub oldest_unpublished: Option<DateTime<Utc>>,
}

/// The reversals of one currency, in its minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Amounts {
    /// Due: a job is on its way.
    pub pending: f64,
    /// The next try lies ahead.
    pub waiting: f64,
    /// Given up and still owed: an operator has to decide.
    pub parked: f64,
    /// Back.
    pub reversed: f64,
}

impl Ledger {
    /// The ledger in numbers. Reads every reversal, transfer and refund once.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn totals(&self) -> Result<Totals, LedgerError> {
        let db = &self.store.db;
        let (reversals, transfers, claims, waiting, attention, jobs) = tokio::try_join!(
            reversals(db),
            transfers(db),
            claims(db),
            waiting::waiting(db),
            waiting::attention(db),
            unpublished(db)
        )?;
        let needing_attention = |kind| attention.iter().filter(|of| of.kind == kind).map(|of| count(of.number)).sum();
        let mut totals = Totals {
            reversals: zeros::<ReversalStatus>(),
            amounts: BTreeMap::new(),
            oldest_open: None,
            transfers: zeros::<TransferStatus>(),
            refunds: zeros::<ClaimStatus>(),
            disputes: zeros::<ClaimStatus>(),
            waiting,
            refunds_needing_attention: needing_attention(ClaimKind::Refund),
            disputes_needing_attention: needing_attention(ClaimKind::Dispute),
            unpublished: jobs.as_ref().map_or(0, |jobs| count(jobs.number)),
            oldest_unpublished: jobs.and_then(|jobs| jobs.oldest),
        };
        totals.transfers.extend(transfers.iter().map(|(status, number)| (status.to_string(), count(*number))));
        for (kind, status, number) in claims {
            let of_kind = if kind == ClaimKind::Dispute { &mut totals.disputes } else { &mut totals.refunds };
            of_kind.insert(status.to_string(), count(number));
        }
        for group in &reversals {
            group.add_to(&mut totals);
        }
        Ok(totals)
    }
}

/// Reversals for which something is owed, or was taken: not those whose claim takes nothing after all.
pub(super) fn is_owed() -> Condition {
    let takes_nothing = Query::select()
        .expr(Expr::value(1))
        .from(claim::Entity)
        .and_where(Expr::col((claim::Entity, claim::Column::Id)).equals((reversal::Entity, reversal::Column::ClaimId)))
        .and_where(claim::Column::Status.is_in([ClaimStatus::Failed, ClaimStatus::NothingToReverse]))
        .to_owned();
    let failed = Condition::all()
        .add(reversal::Column::Status.eq(ReversalStatus::PermanentlyFailed))
        .add(Condition::all().not().add(Expr::exists(takes_nothing)));
    Condition::any()
        .add(failed)
        .add(reversal::Column::Status.is_in([ReversalStatus::Pending, ReversalStatus::Reversed]))
}

/// Reversals that have everything in common that the totals tell apart.
#[derive(FromQueryResult)]
struct ReversalGroup {
    status: ReversalStatus,
    currency: String,
    waits: i32,
    nothing_owed: i32,
    number: i64,
    amount: f64,
    oldest: DateTime<Utc>,
}

impl ReversalGroup {
    fn add_to(&self, totals: &mut Totals) {
        *totals.reversals.entry(self.status.to_string()).or_default() += count(self.number);
        let amounts = totals.amounts.entry(self.currency.clone()).or_default();
        let (amount, is_open) = match self.status {
            ReversalStatus::Pending if self.waits == 1 => (&mut amounts.waiting, true),
            ReversalStatus::Pending => (&mut amounts.pending, true),
            ReversalStatus::Reversed => (&mut amounts.reversed, false),
            ReversalStatus::CalledOff | ReversalStatus::Closed => return,
            ReversalStatus::PermanentlyFailed if self.nothing_owed == 1 => return,
            ReversalStatus::PermanentlyFailed => (&mut amounts.parked, true),
        };
        *amount += self.amount;
        if is_open && totals.oldest_open.is_none_or(|oldest| self.oldest < oldest) {
            totals.oldest_open = Some(self.oldest);
        }
    }
}

async fn reversals(db: &DatabaseConnection) -> Result<Vec<ReversalGroup>, DbErr> {
    use reversal::Column as C;
    let one_if = |condition: SimpleExpr| Expr::case(condition, 1).finally(0);
    let alias = |name: &str| Expr::col(Alias::new(name));
    let call: RelationDef = reversal::Entity::belongs_to(call::Entity).from(C::Id).to(call::Column::Id).into();
    reversal::Entity::find()
        .select_only()
        .columns([C::Status, C::Currency])
        .join(JoinType::LeftJoin, call)
        .expr_as(one_if(call::Column::NextAttemptAt.gt(now())), "waits")
        .expr_as(Expr::case(is_owed(), 0).finally(1), "nothing_owed")
        .column_as(C::Id.count(), "number")
        .expr_as(Expr::col((reversal::Entity, C::Amount)).cast_as("double precision").sum(), "amount")
        .column_as(C::CreatedAt.min(), "oldest")
        .group_by(C::Status)
        .group_by(C::Currency)
        .group_by(alias("waits"))
        .group_by(alias("nothing_owed"))
        .into_model()
        .all(db)
        .await
}

async fn transfers(db: &DatabaseConnection) -> Result<Vec<(TransferStatus, i64)>, DbErr> {
    use transfer::Column as C;
    transfer::Entity::find()
        .select_only()
        .column(C::Status)
        .column_as(C::Id.count(), "number")
        .group_by(C::Status)
        .into_tuple()
        .all(db)
        .await
}

async fn claims(db: &DatabaseConnection) -> Result<Vec<(ClaimKind, ClaimStatus, i64)>, DbErr> {
    use claim::Column as C;
    claim::Entity::find()
        .select_only()
        .columns([C::Kind, C::Status])
        .column_as(C::Id.count(), "number")
        .group_by(C::Kind)
        .group_by(C::Status)
        .into_tuple()
        .all(db)
        .await
}

#[derive(FromQueryResult)]
struct Unpublished {
    number: i64,
    oldest: Option<DateTime<Utc>>,
}

async fn unpublished(db: &DatabaseConnection) -> Result<Option<Unpublished>, DbErr> {
    use outbox::Column as C;
    outbox::Entity::find()
        .select_only()
        .column_as(C::Id.count(), "number")
        .column_as(C::CreatedAt.min(), "oldest")
        .filter(C::PublishedAt.is_null())
        .into_model()
        .one(db)
        .await
}

fn zeros<S: Iterable + Display>() -> BTreeMap<String, u64> {
    S::iter().map(|status| (status.to_string(), 0)).collect()
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}
