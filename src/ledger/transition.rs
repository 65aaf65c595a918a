//! The guarded transition: the only place in the program that writes a status.
//!
//! Each function asks the state machine (a refund has none), updates `… WHERE id = ? AND status = <from>`, and appends the history row,
//! inside the caller's transaction. No row touched means that somebody else was faster: [`LedgerError::Stale`].

use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{ActiveEnum, ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::LedgerError;
use super::entities::{refund, reversal, transfer};
use super::history::{self, Entity, Note};
use super::state::{RefundStatus, ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use super::time::now;

/// Moves a transfer from `from` by `event`, writes `also` into the same row, and returns the new status.
pub(super) async fn transfer<C: ConnectionTrait>(
    txn: &C,
    id: Uuid,
    from: TransferStatus,
    event: TransferEvent,
    also: Vec<(transfer::Column, SimpleExpr)>,
    note: &Note,
) -> Result<TransferStatus, LedgerError> {
    let to = from.after(event)?;
    let mut update = transfer::Entity::update_many()
        .col_expr(transfer::Column::Status, Expr::value(to.to_value()))
        .col_expr(transfer::Column::UpdatedAt, Expr::value(now()));
    for (column, value) in also {
        update = update.col_expr(column, value);
    }
    let updated =
        update.filter(transfer::Column::Id.eq(id)).filter(transfer::Column::Status.eq(from)).exec(txn).await?;
    if updated.rows_affected != 1 {
        return Err(LedgerError::Stale { entity: "transfer", id, expected: from.to_string() });
    }
    history::append(txn, Entity::Transfer, id, Some(&from.to_string()), &to.to_string(), note).await?;
    Ok(to)
}

/// Moves a reversal from `from` by `event`, writes `also` into the same row, and returns the new status.
pub(super) async fn reversal<C: ConnectionTrait>(
    txn: &C,
    id: Uuid,
    from: ReversalStatus,
    event: ReversalEvent,
    also: Vec<(reversal::Column, SimpleExpr)>,
    note: &Note,
) -> Result<ReversalStatus, LedgerError> {
    let to = from.after(event)?;
    let mut update = reversal::Entity::update_many()
        .col_expr(reversal::Column::Status, Expr::value(to.to_value()))
        .col_expr(reversal::Column::UpdatedAt, Expr::value(now()));
    for (column, value) in also {
        update = update.col_expr(column, value);
    }
    let updated =
        update.filter(reversal::Column::Id.eq(id)).filter(reversal::Column::Status.eq(from)).exec(txn).await?;
    if updated.rows_affected != 1 {
        return Err(LedgerError::Stale { entity: "reversal", id, expected: from.to_string() });
    }
    history::append(txn, Entity::Reversal, id, Some(&from.to_string()), &to.to_string(), note).await?;
    Ok(to)
}

/// Writes `also` into a reversal that `txn` has locked, and whose status stays, with a remark in its history.
pub(super) async fn keep_reversal<C: ConnectionTrait>(
    txn: &C,
    row: &reversal::Model,
    also: Vec<(reversal::Column, SimpleExpr)>,
    note: &Note,
) -> Result<(), LedgerError> {
    let update = also
        .into_iter()
        .fold(reversal::Entity::update_many(), |update, (column, value)| update.col_expr(column, value));
    update.filter(reversal::Column::Id.eq(row.id)).exec(txn).await?;
    let status = row.status.to_string();
    history::append(txn, Entity::Reversal, row.id, Some(&status), &status, note).await
}

/// Gives a refund that has not failed the status `to`, which may be the one that it has, and writes `also` into the same row.
pub(super) async fn refund<C: ConnectionTrait>(
    txn: &C,
    row: &refund::Model,
    to: RefundStatus,
    also: Vec<(refund::Column, SimpleExpr)>,
    note: &Note,
) -> Result<(), LedgerError> {
    let mut update = refund::Entity::update_many().col_expr(refund::Column::Status, Expr::value(to.to_value()));
    for (column, value) in also {
        update = update.col_expr(column, value);
    }
    let updated = update
        .filter(refund::Column::Id.eq(row.id))
        .filter(refund::Column::Status.eq(row.status))
        .filter(refund::Column::FailedAt.is_null())
        .exec(txn)
        .await?;
    if updated.rows_affected != 1 {
        let expected = format!("{} and not failed", row.status);
        return Err(LedgerError::Stale { entity: "refund", id: row.id, expected });
    }
    history::append(txn, Entity::Refund, row.id, Some(&row.status.to_string()), &to.to_string(), note).await
}
