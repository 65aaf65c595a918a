//! `/v1/disputes`: lists and shows disputes, and takes an operator's decisions about them.

use axum::Json;
use axum::extract::State;
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
use crate::ledger::{ClaimKind, ClaimStatus, DisputeView};

/// Disputes, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DisputePage {
    /// At most `limit`.
    disputes: Vec<DisputeView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Disputes, a page at a time
///
/// Newest first. New disputes do not shift the pages. Where few match, a page may be short, or even empty, and not be the last one.
/// With `format=csv` or `ndjson` all rows that match are answered, one a line.
#[utoipa::path(
    get,
    path = "/v1/disputes",
    tag = "disputes",
    operation_id = "listDisputes",
    params(
        ("status" = Option<ClaimStatus>, Query, description = "Only disputes with this status."),
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
    responses((status = 200, description = "A page, or all rows.", content((DisputePage = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    if let Some(Shape::Lines(lines)) = query.format.0 {
        return claims::lines(&state.ledger, ClaimKind::Dispute, query.filter(), lines).await;
    }
    let (found, next_cursor) = claims::list(&state, ClaimKind::Dispute, &query).await?;
    Ok(Json(DisputePage { disputes: found.into_iter().map(DisputeView::from).collect(), next_cursor }).into_response())
}

/// A dispute
///
/// With its reversals.
#[utoipa::path(
    get,
    path = "/v1/disputes/{id}",
    tag = "disputes",
    operation_id = "getDispute",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`du_…`).", example = "du_1")),
    responses((status = 200, description = "The dispute.", body = DisputeView)),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<DisputeView>, Problem> {
    Ok(Json(claims::show(&state, ClaimKind::Dispute, &id).await?.into()))
}

/// Accept a dispute
///
/// For a held dispute, which then takes from its payment's transfers, or for a conflicting one that fits its payment by
/// now. It may turn out not to fit: the response shows it.
#[utoipa::path(
    post,
    path = "/v1/disputes/{id}/accept",
    tag = "disputes",
    operation_id = "acceptDispute",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`du_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "It takes, as its reversals show, or waits for its payment.", body = DisputeView),
        (status = 409, description = "It is neither held nor conflicting, or does not fit still."),
    ),
)]
pub(crate) async fn accept(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<DisputeView>, Problem> {
    let decided = claims::decide(&state, ClaimKind::Dispute, &id, Decision::Accept, &body).await?;
    Ok(Json(decided.into()))
}

/// Acknowledge a dispute
///
/// Records that nothing more needs to be done about it. It counts nowhere as needing attention, until there is news.
#[utoipa::path(
    post,
    path = "/v1/disputes/{id}/acknowledge",
    tag = "disputes",
    operation_id = "acknowledgeDispute",
    params(("id" = String, Path, description = "Clawback's id, or the provider's (`du_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "Recorded.", body = DisputeView),
        (status = 409, description = "It needs no attention."),
    ),
)]
pub(crate) async fn acknowledge(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<DisputeView>, Problem> {
    let decided = claims::decide(&state, ClaimKind::Dispute, &id, Decision::Acknowledge, &body).await?;
    Ok(Json(decided.into()))
}
