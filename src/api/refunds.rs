//! `/v1/refunds`: a refund that a provider reported, or that is reported here, and what it led to.
//!
//! Handlers only; what a refund may look like is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::{ApiState, body, id, unknown};
use crate::ledger::RefundView;
use crate::problem::Problem;

/// Takes in a refund that has succeeded: 201, or 200 when the very same one is known already, by a webhook or by an earlier
/// report; 409 when what is known contradicts it; 422 names the field, also of a share that does not fit the payment.
pub(super) async fn report(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<RefundView>), Problem> {
    let reported = state.ledger.report_refund(body::json(&headers, body)?).await?;
    let status = if reported.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(reported.refund)))
}

/// The refund with its reversals, by Clawback's id or by the provider's.
pub(super) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<RefundView>, Problem> {
    let refund = state.ledger.refund(&id(path, "refund")?).await?;
    refund.map(Json).ok_or_else(|| unknown("refund"))
}
