//! Claims that an operator should know of: those that take nothing before something else happens, and those that need
//! attention. What an operator has acknowledged is left out.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, DatabaseConnection, DbErr, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QueryResult, QuerySelect,
};
use uuid::Uuid;

use super::Query;
use crate::ledger::claims::UNMATCHED_TOO_LONG;
use crate::ledger::schema::claim;
use crate::ledger::status::ClaimStatus;
use crate::ledger::time::now;
use crate::ledger::{ClaimKind, Ledger, LedgerError};

/// Claims of one kind, status and currency.
#[derive(Clone, Debug, PartialEq, FromQueryResult)]
pub struct WaitingClaims {
    /// Refunds or disputes.
    pub kind: ClaimKind,
    /// `unmatched`, `held` or `conflicting`.
    pub status: ClaimStatus,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How many.
    pub number: i64,
    /// Their sum in minor units; exact up to 2^53.
    pub amount: f64,
    /// When the first of them was reported.
    pub oldest: DateTime<Utc>,
}

/// Claims that take nothing before something else happens.
pub(super) async fn waiting(db: &DatabaseConnection) -> Result<Vec<WaitingClaims>, DbErr> {
    use claim::Column as C;
    grouped()
        .filter(C::Status.is_in(ClaimStatus::WAITING))
        .filter(C::AcknowledgedAt.is_null())
        .into_model()
        .all(db)
        .await
}

impl Ledger {
    /// Who acknowledged these claims last, and why.
    pub async fn acknowledged_by(&self, claims: &[Uuid]) -> Result<HashMap<Uuid, (String, String)>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let about = query.among_ids("entity_id", claims);
        let sql = format!(
            "SELECT entity_id, actor, reason FROM history WHERE {about} AND reason LIKE 'acknowledged: %' ORDER BY id"
        );
        let rows = query.rows(db, sql).await?;
        let by = |row: &QueryResult| {
            let reason: String = row.try_get("", "reason")?;
            let why = reason.strip_prefix("acknowledged: ").unwrap_or(&reason).to_owned();
            Ok((row.try_get("", "entity_id")?, (row.try_get("", "actor")?, why)))
        };
        Ok(rows.iter().map(by).collect::<Result<_, DbErr>>()?)
    }
}

/// Claims about which an operator must do something.
pub(super) async fn attention(db: &DatabaseConnection) -> Result<Vec<WaitingClaims>, DbErr> {
    grouped().filter(needs_attention()).into_model().all(db).await
}

/// What `attention_of` says, as a condition: conflicting, unmatched for too long, or with a recorded reason.
pub(super) fn needs_attention() -> Condition {
    use claim::Column as C;
    let too_long: SimpleExpr = C::CreatedAt.lte(now() - UNMATCHED_TOO_LONG);
    let why = Condition::any()
        .add(C::Attention.is_not_null())
        .add(C::Status.eq(ClaimStatus::Conflicting))
        .add(Condition::all().add(C::Status.eq(ClaimStatus::Unmatched)).add(too_long));
    Condition::all().add(C::AcknowledgedAt.is_null()).add(why)
}

fn grouped() -> sea_orm::Select<claim::Entity> {
    use claim::Column as C;
    claim::Entity::find()
        .select_only()
        .columns([C::Kind, C::Status, C::Currency])
        .column_as(C::Id.count(), "number")
        .expr_as(Expr::col((claim::Entity, C::Amount)).cast_as("double precision").sum(), "amount")
        .column_as(C::CreatedAt.min(), "oldest")
        .group_by(C::Kind)
        .group_by(C::Status)
        .group_by(C::Currency)
        .order_by_asc(C::Currency)
}
