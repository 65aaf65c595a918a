//! `/v1/refunds`: a refund that a provider reported, and what it led to. Handlers only; reads nothing but the ledger.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::{ApiState, id, unknown};
use crate::ledger::RefundView;
use crate::problem::Problem;

/// The refund with its reversals, by Clawback's id or by the provider's.
pub(super) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<RefundView>, Problem> {
    let refund = state.ledger.refund(&id(path, "refund")?).await?;
    refund.map(Json).ok_or_else(|| unknown("refund"))
}
