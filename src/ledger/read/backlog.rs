//! What an operator asks first: which database this is, and what waits in it. Called by `clawback doctor`. Changes nothing.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Statement,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::summary::Unpaid;
use super::waiting::{self, WaitingClaims};
use crate::ledger::schema::{claim, outbox, reversal, webhook_event};
use crate::ledger::status::{ClaimStatus, ReversalStatus};
use crate::ledger::{ClaimKind, Ledger, LedgerError, RunView, Source};

/// The database behind the ledger.
#[derive(Clone, Debug)]
pub struct DatabaseFacts {
    /// `PostgreSQL` or `SQLite`.
    pub name: &'static str,
    /// As it says itself.
    pub version: String,
    /// Its clock. None for SQLite, which has none of its own.
    pub now: Option<DateTime<Utc>>,
}

/// Jobs that are committed and have not reached the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct OutboxBacklog {
    /// How many.
    pub unpublished: u64,
    /// When the oldest of them was committed.
    pub oldest: Option<DateTime<Utc>>,
}

/// What waits in the ledger for the relay or for an operator.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// What waits in the outbox.
    pub outbox: OutboxBacklog,
    /// Reversals that are `permanently_failed` and still owed.
    pub reversals_given_up: u64,
    /// Transfers whose creation failed permanently.
    pub unpaid: Vec<Unpaid>,
    /// Refunds and disputes that take nothing before something else happens.
    pub waiting: Vec<WaitingClaims>,
    /// Disputes that are held though they have reached a stage at which `DISPUTE_POLICY` takes: they came before that was set, or
    /// are older than this ledger.
    pub held_though_taken: u64,
    /// Refunds and disputes that an operator must do something about.
    pub attention: Vec<WaitingClaims>,
    /// The last comparison with Stripe.
    pub last_reconcile: Option<RunView>,
    /// The oldest of those, at most [`Self::SHOWN`], with the provider's id.
    pub attention_shown: Vec<(ClaimKind, String)>,
    /// What was noted of Stripe's newest events, at most [`Self::EVENTS`], newest first.
    pub newest_events: Vec<String>,
}

impl Backlog {
    /// How many claims are named.
    pub const SHOWN: u64 = 3;
    /// How many of Stripe's events are looked at.
    pub const EVENTS: u64 = 100;
}

impl Ledger {
    /// Which database this is.
    pub async fn database_facts(&self) -> Result<DatabaseFacts, LedgerError> {
        let backend = self.store.db.get_database_backend();
        let (name, sql) = match backend {
            DbBackend::Postgres => ("PostgreSQL", "SELECT current_setting('server_version') AS version, now() AS now"),
            _ => ("SQLite", "SELECT sqlite_version() AS version"),
        };
        let row = self.store.db.query_one_raw(Statement::from_string(backend, sql)).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("the database's version".to_owned()))?;
        let now = if backend == DbBackend::Postgres { Some(row.try_get("", "now")?) } else { None };
        Ok(DatabaseFacts { name, version: row.try_get("", "version")?, now })
    }

    /// What waits in the outbox.
    pub async fn outbox_backlog(&self) -> Result<OutboxBacklog, LedgerError> {
        let unpublished = outbox::Entity::find().filter(outbox::Column::PublishedAt.is_null());
        let oldest = unpublished.clone().order_by_asc(outbox::Column::Id).one(&self.store.db).await?;
        let unpublished = unpublished.count(&self.store.db).await?;
        Ok(OutboxBacklog { unpublished, oldest: oldest.map(|job| job.created_at) })
    }

    /// What waits.
    pub async fn backlog(&self) -> Result<Backlog, LedgerError> {
        let given_up = reversal::Entity::find()
            .filter(reversal::Column::Status.eq(ReversalStatus::PermanentlyFailed))
            .filter(is_owed());
        let attention = claim::Entity::find().filter(waiting::needs_attention());
        let shown = attention.order_by_asc(claim::Column::Id).limit(Backlog::SHOWN).all(&self.store.db).await?;
        let held_though_taken = claim::Entity::find()
            .filter(claim::Column::Status.eq(ClaimStatus::Held))
            .filter(claim::Column::AcknowledgedAt.is_null())
            .filter(claim::Column::Stage.is_in(self.store.claims.disputes.takes().iter().copied()));
        let events = webhook_event::Entity::find().filter(webhook_event::Column::Source.eq(Source::Stripe));
        let events = events.order_by_desc(webhook_event::Column::Id).limit(Backlog::EVENTS).all(&self.store.db).await?;
        Ok(Backlog {
            newest_events: events.into_iter().map(|event| event.detail.unwrap_or_default()).collect(),
            held_though_taken: held_though_taken.count(&self.store.db).await?,
            outbox: self.outbox_backlog().await?,
            reversals_given_up: given_up.count(&self.store.db).await?,
            unpaid: self.unpaid().await?,
            waiting: waiting::waiting(&self.store.db).await?,
            attention: waiting::attention(&self.store.db).await?,
            last_reconcile: self.reconcile_runs(None, 1).await?.0.pop(),
            attention_shown: shown.into_iter().map(|claim| (claim.kind, claim.reference)).collect(),
        })
    }
}

/// Reversals whose claim still asks for money.
pub(super) fn is_owed() -> Condition {
    let takes_nothing = Query::select()
        .expr(Expr::value(1))
        .from(claim::Entity)
        .and_where(Expr::col((claim::Entity, claim::Column::Id)).equals((reversal::Entity, reversal::Column::ClaimId)))
        .and_where(claim::Column::Status.is_in([ClaimStatus::Failed, ClaimStatus::NothingToReverse]))
        .to_owned();
    Condition::all().not().add(Expr::exists(takes_nothing))
}
