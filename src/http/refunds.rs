//! `/v1/refunds`: reports a refund, and shows one with its reversals.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::extract::{self, Id};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{NewRefund, RefundView};

/// Report a refund
///
/// Reports a succeeded refund directly, optionally with per-transfer shares. Deduplicated against webhooks and earlier
/// reports.
#[utoipa::path(
    post,
    path = "/v1/refunds",
    tag = "refunds",
    operation_id = "reportRefund",
    request_body(content = NewRefund),
    responses(
        (status = 201, description = "Recorded.", body = RefundView),
        (status = 200, description = "The same refund is recorded already.", body = RefundView),
        (status = 409, description = "It contradicts the recorded refund."),
    ),
    security(("operate" = [])),
)]
pub(crate) async fn report(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<NewRefund>,
) -> Result<(StatusCode, Json<RefundView>), Problem> {
    let reported = state.ledger.report_refund(body).await?;
    let status = if reported.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(reported.refund)))
}

/// A refund
///
/// With its reversals.
#[utoipa::path(
    get,
    path = "/v1/refunds/{id}",
    tag = "refunds",
    operation_id = "getRefund",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`re_…`).", example = "re_1")),
    responses((status = 200, description = "The refund.", body = RefundView)),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<RefundView>, Problem> {
    let refund = state.ledger.refund(&id).await?;
    refund.map(Json).ok_or_else(|| unknown("refund"))
}
