//! Claims that wait for somebody: how many there are of each status, and which need an operator. Changes nothing.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{ColumnTrait, Condition, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use crate::ledger::claims::{UNMATCHED_TOO_LONG, attention_of};
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;
use crate::ledger::time::now;
use crate::ledger::{ClaimKind, Ledger, LedgerError, Source};

/// The claims of one kind, status and currency.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct ClaimCount {
    /// Refunds or disputes.
    pub kind: ClaimKind,
    /// Their status.
    pub status: ClaimStatus,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How many there are.
    pub number: i64,
    /// When the oldest of them was first reported.
    pub oldest: DateTime<Utc>,
}

/// A claim that an operator must look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimAttention {
    /// Clawback's id.
    pub id: Uuid,
    /// A refund or a dispute.
    pub kind: ClaimKind,
    /// Who reported it.
    pub source: Source,
    /// The provider's id.
    pub reference: String,
    /// Its status.
    pub status: ClaimStatus,
    /// When it was first reported.
    pub created_at: DateTime<Utc>,
    /// What must be done, with its age where it waits.
    pub attention: String,
}

impl Ledger {
    /// How many claims there are of each kind, status and currency.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn claims_by_status(&self) -> Result<Vec<ClaimCount>, LedgerError> {
        use claim::Column as C;
        let counts = claim::Entity::find()
            .select_only()
            .columns([C::Kind, C::Status, C::Currency])
            .column_as(C::Id.count(), "number")
            .column_as(C::CreatedAt.min(), "oldest")
            .group_by(C::Kind)
            .group_by(C::Status)
            .group_by(C::Currency)
            .order_by_asc(C::Kind)
            .order_by_asc(C::Status)
            .order_by_asc(C::Currency);
        Ok(counts.into_model().all(&self.store.db).await?)
    }

    /// At most `limit` claims that an operator must look at, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn claims_needing_attention(&self, limit: u64) -> Result<Vec<ClaimAttention>, LedgerError> {
        let rows = claim::Entity::find().filter(needs_attention()).order_by_asc(claim::Column::Id).limit(limit);
        let rows = rows.all(&self.store.db).await?;
        let now = now();
        let shown = |row: claim::Model| {
            Some(ClaimAttention {
                attention: attention_of(&row, now)?,
                id: row.id,
                kind: row.kind,
                source: row.source,
                reference: row.reference,
                status: row.status,
                created_at: row.created_at,
            })
        };
        Ok(rows.into_iter().filter_map(shown).collect())
    }
}

/// What [`attention_of`] says, as a condition: conflicting, unmatched for too long, or with a recorded reason.
pub(super) fn needs_attention() -> Condition {
    use claim::Column as C;
    let too_long: SimpleExpr = C::CreatedAt.lte(now() - UNMATCHED_TOO_LONG);
    Condition::any()
        .add(C::Attention.is_not_null())
        .add(C::Status.eq(ClaimStatus::Conflicting))
        .add(Condition::all().add(C::Status.eq(ClaimStatus::Unmatched)).add(too_long))
}
