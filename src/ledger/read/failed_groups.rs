//! What failed permanently and is still owed, grouped by what it was and why it failed.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, JoinType, QueryFilter, QuerySelect, RelationDef};

use super::totals::is_owed;
use crate::ledger::schema::{call, reversal, transfer};
use crate::ledger::status::{CallKind, CallState, ReversalStatus};
use crate::ledger::{Ledger, LedgerError};

/// Calls of one kind and currency that failed permanently with one code.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedGroup {
    /// What Stripe was to do.
    pub kind: CallKind,
    /// Stripe's code, or ours.
    pub failure_code: Option<String>,
    /// The failure of one of them, in words.
    pub example: Option<String>,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How many.
    pub number: i64,
    /// Their sum in minor units; exact up to 2^53.
    pub amount: f64,
    /// When the first of them failed.
    pub oldest: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Row {
    failure_code: Option<String>,
    example: Option<String>,
    currency: String,
    number: i64,
    amount: f64,
    oldest: DateTime<Utc>,
}

impl Ledger {
    /// The groups, those with the most members first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn failed_groups(&self) -> Result<Vec<FailedGroup>, LedgerError> {
        let reversals: RelationDef =
            reversal::Entity::belongs_to(call::Entity).from(reversal::Column::Id).to(call::Column::Id).into();
        let reversals = reversal::Entity::find()
            .select_only()
            .column(reversal::Column::Currency)
            .expr_as(
                Expr::col((reversal::Entity, reversal::Column::Amount)).cast_as("double precision").sum(),
                "amount",
            )
            .join(JoinType::InnerJoin, reversals)
            .filter(reversal::Column::Status.eq(ReversalStatus::PermanentlyFailed))
            .filter(is_owed())
            .group_by(reversal::Column::Currency);
        let creations: RelationDef =
            transfer::Entity::belongs_to(call::Entity).from(transfer::Column::Id).to(call::Column::Id).into();
        let creations = transfer::Entity::find()
            .select_only()
            .column(transfer::Column::Currency)
            .expr_as(
                Expr::col((transfer::Entity, transfer::Column::Amount)).cast_as("double precision").sum(),
                "amount",
            )
            .join(JoinType::InnerJoin, creations)
            .filter(call::Column::Kind.eq(CallKind::Create))
            .filter(call::Column::State.eq(CallState::Failed))
            .group_by(transfer::Column::Currency);
        let db = &self.store.db;
        let (reversals, creations) = tokio::try_join!(
            of_calls(reversals).into_model::<Row>().all(db),
            of_calls(creations).into_model::<Row>().all(db)
        )?;
        let group = |kind| {
            move |Row { failure_code, example, currency, number, amount, oldest }| FailedGroup {
                kind,
                failure_code,
                example,
                currency,
                number,
                amount,
                oldest,
            }
        };
        let reversals = reversals.into_iter().map(group(CallKind::Reverse));
        let mut groups: Vec<FailedGroup> =
            reversals.chain(creations.into_iter().map(group(CallKind::Create))).collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.number));
        Ok(groups)
    }
}

/// What both kinds tell of their calls.
fn of_calls<E: EntityTrait>(found: sea_orm::Select<E>) -> sea_orm::Select<E> {
    found
        .column_as(call::Column::FailureCode, "failure_code")
        .expr_as(Expr::col((call::Entity, call::Column::FailureMessage)).max(), "example")
        .expr_as(Expr::col((call::Entity, call::Column::Id)).count(), "number")
        .expr_as(Expr::col((call::Entity, call::Column::UpdatedAt)).min(), "oldest")
        .group_by(call::Column::FailureCode)
}
