//! `/v1/transfers`: one seller's transfer and what came back of it. Handlers only; reads nothing but the ledger.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};

use super::{ApiState, id, unknown};
use crate::ledger::TransferView;
use crate::problem::Problem;

/// The transfer with its reversals.
pub(super) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<TransferView>, Problem> {
    let transfer = state.ledger.transfer(&id(path, "transfer")?).await?;
    transfer.map(Json).ok_or_else(|| unknown("transfer"))
}
