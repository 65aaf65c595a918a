//! `/v1/refunds`: reports, lists and shows refunds, and takes an operator's decisions about them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::claims::{self, Decision, ListQuery};
use super::extract::{self, Id, Query};
use super::operator::OperatorRequest;
use super::problem::Problem;
use super::stream::Shape;
use crate::ledger::{ClaimKind, ClaimStatus, NewRefund, RefundView};

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
)]
pub(crate) async fn report(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<NewRefund>,
) -> Result<(StatusCode, Json<RefundView>), Problem> {
    let reported = state.ledger.report_refund(body).await?;
    let status = if reported.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(reported.refund)))
}

/// Refunds, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefundPage {
    /// At most `limit`.
    refunds: Vec<RefundView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Refunds, a page at a time
///
/// Newest first. New refunds do not shift the pages. Where few match, a page may be short, or even empty, and not be the last one.
/// With `format=csv` or `ndjson` all rows that match are answered, one a line.
#[utoipa::path(
    get,
    path = "/v1/refunds",
    tag = "refunds",
    operation_id = "listRefunds",
    params(
        ("status" = Option<ClaimStatus>, Query, description = "Only refunds with this status."),
        ("currency" = Option<String>, Query, description = "Only those in this currency.", example = "eur"),
        ("attention" = Option<String>, Query, description = "`yes`: only those that an operator must do something about."),
        ("acknowledged" = Option<String>, Query, description = "Only those that an operator has acknowledged (`yes`), or has not (`no`)."),
        ("since" = Option<String>, Query, description = "Only those reported at this time or later: a time, a date, or a duration before now.",
            example = "24h"),
        ("until" = Option<String>, Query, description = "Only those reported before this time.", example = "2026-12-01"),
        ("order" = Option<String>, Query, description = "`newest` (the default) or `oldest` first.", example = "oldest"),
        ("format" = Option<String>, Query, description = "`json` (a page), `csv` or `ndjson` (all rows)."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page, or all rows.", content((RefundPage = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    if let Some(Shape::Lines(lines)) = query.format.0 {
        return claims::lines(&state.ledger, ClaimKind::Refund, query.filter(), lines).await;
    }
    let (found, next_cursor) = claims::list(&state, ClaimKind::Refund, &query).await?;
    Ok(Json(RefundPage { refunds: found, next_cursor }).into_response())
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
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<RefundView>, Problem> {
    Ok(Json(claims::show(&state, ClaimKind::Refund, &id).await?))
}

/// Accept a refund
///
/// For a held refund, which then takes from its payment's transfers, or for a conflicting one that fits its payment by
/// now. It may turn out not to fit: the response shows it.
#[utoipa::path(
    post,
    path = "/v1/refunds/{id}/accept",
    tag = "refunds",
    operation_id = "acceptRefund",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`re_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "It takes, as its reversals show, or waits for its payment.", body = RefundView),
        (status = 409, description = "It is neither held nor conflicting, or does not fit still."),
    ),
)]
pub(crate) async fn accept(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<RefundView>, Problem> {
    let decided = claims::decide(&state, ClaimKind::Refund, &id, Decision::Accept, &body).await?;
    Ok(Json(decided))
}

/// Acknowledge a refund
///
/// Records that nothing more needs to be done about it. It counts nowhere as needing attention, until there is news.
#[utoipa::path(
    post,
    path = "/v1/refunds/{id}/acknowledge",
    tag = "refunds",
    operation_id = "acknowledgeRefund",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`re_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "Recorded.", body = RefundView),
        (status = 409, description = "It needs no attention."),
    ),
)]
pub(crate) async fn acknowledge(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<RefundView>, Problem> {
    let decided = claims::decide(&state, ClaimKind::Refund, &id, Decision::Acknowledge, &body).await?;
    Ok(Json(decided))
}

/// Withdraw a refund
///
/// Takes back a report (`POST /v1/refunds`) that was a mistake, while only the report is known and Stripe was asked for nothing.
/// What it asked is called off. The provider's own word, or another report of the same id, records the refund anew.
#[utoipa::path(
    post,
    path = "/v1/refunds/{id}/withdraw",
    tag = "refunds",
    operation_id = "withdrawRefund",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`re_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "It takes nothing.", body = RefundView),
        (status = 409, description = "Its provider has reported it, Stripe was asked for it, or it takes nothing already."),
    ),
)]
pub(crate) async fn withdraw(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<RefundView>, Problem> {
    let decided = claims::decide(&state, ClaimKind::Refund, &id, Decision::Withdraw, &body).await?;
    Ok(Json(decided))
}
