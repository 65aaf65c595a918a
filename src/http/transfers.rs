//! `/v1/transfers`: one seller's transfer and what came back of it; and having one created after all.
//!
//! Handlers only; whether creating a transfer may be retried is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::operator::OperatorRequest;
use super::problem::Problem;
use super::{ApiState, extract, id, unknown};
use crate::ledger::TransferView;

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
pub(crate) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<TransferView>, Problem> {
    let transfer = state.ledger.transfer(&id(path, "transfer")?).await?;
    transfer.map(Json).ok_or_else(|| unknown("transfer"))
}

/// Have the creation of a transfer tried again
///
/// Of one that Clawback was to create and has given up, with fresh retries. The worker first looks whether Stripe has
/// created it after all, so that nobody is paid twice. The answer shows it as pending: what becomes of it is told by `GET`.
#[utoipa::path(
    post,
    path = "/v1/transfers/{id}/retry",
    tag = "transfers",
    operation_id = "retryTransfer",
    params(("id" = String, Path, description = "Clawback's id.")),
    request_body(content = OperatorRequest),
    responses(
        (status = 202, description = "It is pending again, and its job is on the way.", body = TransferView),
        (status = 409, description = "Its creation was not given up, or somebody else was faster."),
    ),
    security(("operate" = [])),
)]
pub(crate) async fn retry(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let note = extract::json::<OperatorRequest>(&headers, body)?.note()?;
    let transfer = state.ledger.transfer(&id(path, "transfer")?).await?.ok_or_else(|| unknown("transfer"))?;
    state.ledger.retry_transfer(transfer.id, &note).await?;
    let retried = state.ledger.transfer(&transfer.id.to_string()).await?;
    retried.map(|transfer| (StatusCode::ACCEPTED, Json(transfer))).ok_or_else(|| unknown("transfer"))
}
