//! `/v1/payments`: the marketplace registers what was paid out of a payment, and looks at what became of it.
//!
//! Handlers only; what a payment may look like is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::{ApiState, body, id, unknown};
use crate::ledger::PaymentView;
use crate::problem::Problem;

/// 201 with the payment, or 200 when the very same one is registered already, so that a lost answer can be asked for
/// again.
pub(super) async fn register(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<PaymentView>), Problem> {
    let registered = state.ledger.register_payment(body::json(&headers, body)?).await?;
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(registered.payment)))
}

/// The payment with its transfers and their reversals.
pub(super) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<PaymentView>, Problem> {
    let payment = state.ledger.payment(&id(path, "payment")?).await?;
    payment.map(Json).ok_or_else(|| unknown("payment"))
}
