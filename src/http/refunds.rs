//! `/v1/refunds`: a refund that a provider reported, or that is reported here, and what it led to.
//!
//! Handlers only; what a refund may look like is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::problem::Problem;
use super::{ApiState, extract, id, unknown};
use crate::ledger::{NewRefund, RefundView};

/// Report a refund
///
/// One that has succeeded, for those who have no webhook for it; may name what each transfer owes. The very same one may be
/// reported again, also when a webhook has told of it.
#[utoipa::path(
    post,
    path = "/v1/refunds",
    tag = "refunds",
    operation_id = "reportRefund",
    request_body(content = NewRefund),
    responses(
        (status = 201, description = "Recorded.", body = RefundView),
        (status = 200, description = "The very same refund is known already.", body = RefundView),
        (status = 409, description = "It contradicts what is known."),
    ),
    security(("operate" = [])),
)]
pub(crate) async fn report(
    State(state): State<ApiState>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<RefundView>), Problem> {
    let reported = state.ledger.report_refund(extract::json(&headers, body)?).await?;
    let status = if reported.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(reported.refund)))
}

/// A refund
///
/// With the reversals that it led to.
#[utoipa::path(
    get,
    path = "/v1/refunds/{id}",
    tag = "refunds",
    operation_id = "getRefund",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`re_…`).", example = "re_1")),
    responses((status = 200, description = "The refund.", body = RefundView)),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<RefundView>, Problem> {
    let refund = state.ledger.refund(&id(path, "refund")?).await?;
    refund.map(Json).ok_or_else(|| unknown("refund"))
}
