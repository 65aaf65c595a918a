//! `/v1/transfers`: shows a seller's transfer with its reversals, and retries a failed creation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::extract::{self, Id};
use super::operator::OperatorRequest;
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{CallKind, FailureGroups, TransferView};

/// A transfer
///
/// With its reversals.
#[utoipa::path(
    get,
    path = "/v1/transfers/{id}",
    tag = "transfers",
    operation_id = "getTransfer",
    params(("id" = String, Path, description = "Clawback's id, or Stripe's (`tr_…`).", example = "tr_1")),
    responses((status = 200, description = "The transfer.", body = TransferView)),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<TransferView>, Problem> {
    let transfer = state.ledger.transfer(&id).await?;
    transfer.map(Json).ok_or_else(|| unknown("transfer"))
}

/// Creations that failed permanently, by cause
///
/// Grouped by the failure's code and its words without ids, amounts and numbers.
#[utoipa::path(
    get,
    path = "/v1/transfers/groups",
    tag = "transfers",
    operation_id = "groupTransfers",
    responses((status = 200, description = "The groups, the largest first.", body = FailureGroups)),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn groups(State(state): State<ApiState>) -> Result<Json<FailureGroups>, Problem> {
    Ok(Json(FailureGroups::clone(&*state.ledger.failure_groups(CallKind::Create).await?)))
}

/// Retry the creation of a transfer
///
/// For a transfer that Clawback creates and whose creation failed permanently. The retries start over. The worker first
/// checks whether Stripe has created it, so no seller is paid twice. The response shows it as pending; `GET` shows the outcome.
#[utoipa::path(
    post,
    path = "/v1/transfers/{id}/retry",
    tag = "transfers",
    operation_id = "retryTransfer",
    params(("id" = String, Path, description = "Clawback's id, or Stripe's (`tr_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 202, description = "It is pending, and its job is on the way.", body = TransferView),
        (status = 409, description = "Its creation has not failed permanently, or another request retried it first."),
    ),
    security(("operate" = [])),
)]
pub(crate) async fn retry(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let note = body.note();
    let id = state.ledger.replay(CallKind::Create, &id, &note).await?;
    let retried = state.ledger.transfer(&id.to_string()).await?;
    retried.map(|transfer| (StatusCode::ACCEPTED, Json(transfer))).ok_or_else(|| unknown("transfer"))
}
