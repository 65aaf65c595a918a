//! `/v1/transfers`: one seller's transfer and what came back of it; and having one created after all.
//!
//! Handlers only; whether creating a transfer may be retried is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::operator::OperatorRequest;
use super::{ApiState, body, id, unknown};
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

/// Has the creation of a transfer that was given up tried again, with fresh retries; 202, since a worker does it. It looks
/// first whether Stripe has created the transfer after all, so that nothing is paid twice.
pub(super) async fn retry(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let note = body::json::<OperatorRequest>(&headers, body)?.note()?;
    let transfer = state.ledger.transfer(&id(path, "transfer")?).await?.ok_or_else(|| unknown("transfer"))?;
    state.ledger.retry_transfer(transfer.id, &note).await?;
    let retried = state.ledger.transfer(&transfer.id.to_string()).await?;
    retried.map(|transfer| (StatusCode::ACCEPTED, Json(transfer))).ok_or_else(|| unknown("transfer"))
}
