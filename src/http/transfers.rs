//! `/v1/transfers`: shows a seller's transfer with its reversals, and retries a failed creation.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{self, Given, Id, Query};
use super::operator::{NoteRequest, RetryRequest};
use super::page::{Currency, Cursor, Limit, Order, Text, Yes};
use super::problem::Problem;
use super::stream::{self, Shape};
use super::{ApiState, unknown};
use crate::ledger::{
    CallKind, FailureGroups, FoundTransfer, GroupNote, Ledger, TransferFilter, TransferLine, TransferStatus,
    TransferView,
};
use crate::lines::Lines;

/// The parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    status: Given<TransferStatus>,
    currency: Given<Currency>,
    seller: Given<Text>,
    not_created: Given<Yes>,
    group: Given<Text>,
    order: Given<Order>,
    format: Given<Shape>,
    limit: Given<Limit>,
    cursor: Given<Cursor>,
}

/// Transfers, each with its payment.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransferPage {
    /// At most `limit`.
    transfers: Vec<FoundTransfer>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Transfers, a page at a time
///
/// Newest first, with their reversals. Where few match, a page may be short, or even empty, and not be the last one. With
/// `format=csv` or `ndjson` all rows that match are answered, one a line.
#[utoipa::path(
    get,
    path = "/v1/transfers",
    tag = "transfers",
    operation_id = "listTransfers",
    params(
        ("status" = Option<TransferStatus>, Query, description = "Only transfers with this status."),
        ("currency" = Option<String>, Query, description = "Only those in this currency.", example = "eur"),
        ("seller" = Option<String>, Query, description = "Only those to this seller, by the marketplace's id.", example = "s1"),
        ("not_created" = Option<String>, Query, description = "`yes`: only those that Clawback could not create, so their sellers were not paid."),
        ("group" = Option<String>, Query, description = "Only those of the group of failures with this key, as it was some seconds ago."),
        ("order" = Option<String>, Query, description = "`newest` (the default) or `oldest` first.", example = "oldest"),
        ("format" = Option<String>, Query, description = "`json` (a page), `csv` or `ndjson` (all rows)."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page, or all rows.", content((TransferPage = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let filter = TransferFilter {
        status: query.status.0,
        currency: query.currency.0.map(|Currency(code)| code),
        seller: query.seller.0.map(|Text(text)| text),
        not_created: query.not_created.0.is_some(),
        group: query.group.0.map(|Text(text)| text),
        oldest: query.order.0 == Some(Order::Oldest),
    };
    if let Some(Shape::Lines(format)) = query.format.0 {
        return lines(&state.ledger, filter, format).await;
    }
    let after = query.cursor.0.map(|Cursor(id)| id);
    let limit = query.limit.0.unwrap_or_default().rows();
    let (transfers, next_cursor) = state.ledger.find_transfers(&filter, after, limit).await?;
    Ok(Json(TransferPage { transfers, next_cursor }).into_response())
}

/// All that match, line by line.
pub(crate) async fn lines(ledger: &Ledger, filter: TransferFilter, lines: Lines) -> Result<Response, Problem> {
    let ledger = ledger.clone();
    let next = move |after| {
        let (ledger, filter) = (ledger.clone(), filter.clone());
        async move {
            let (found, next) = ledger.find_transfers(&filter, after, stream::PAGE).await?;
            Ok((found.into_iter().map(TransferLine::from).collect(), next))
        }
    };
    stream::all::<TransferLine, _, _>(lines, "transfers", next).await
}

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
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<TransferView>, Problem> {
    let transfer = state.ledger.transfer(&id).await?;
    transfer.map(Json).ok_or_else(|| unknown("transfer", id))
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
)]
pub(crate) async fn groups(State(state): State<ApiState>) -> Result<Json<FailureGroups>, Problem> {
    Ok(Json(FailureGroups::clone(&*state.ledger.failure_groups(CallKind::Create).await?)))
}

/// Add a note to a group of creations
///
/// For those who look at it later. The group's newest notes are shown with it.
#[utoipa::path(
    post,
    path = "/v1/transfers/groups/{key}/notes",
    tag = "transfers",
    operation_id = "noteOnTransferGroup",
    params(("key" = String, Path, description = "The group's key.")),
    request_body(content = NoteRequest),
    responses((status = 201, description = "The note.", body = GroupNote)),
)]
pub(crate) async fn note(
    State(state): State<ApiState>,
    Id(key): Id,
    extract::Json(body): extract::Json<NoteRequest>,
) -> Result<(StatusCode, Json<GroupNote>), Problem> {
    let noted = state.ledger.note_on_group(CallKind::Create, &key, &body.note()).await?;
    Ok((StatusCode::CREATED, Json(noted)))
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
    request_body(content = RetryRequest),
    responses(
        (status = 202, description = "It is pending, and its job is on the way.", body = TransferView),
        (status = 409, description = "Its creation has not failed permanently, or another request retried it first."),
    ),
)]
pub(crate) async fn retry(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<RetryRequest>,
) -> Result<(StatusCode, Json<TransferView>), Problem> {
    let note = body.note();
    state.ledger.check_replay(CallKind::Create, &id, None, body.confirm_amount.as_deref()).await?;
    let id = state.ledger.replay(CallKind::Create, &id, &note).await?;
    state.ledger.supersede_messages();
    let retried = state.ledger.transfer(&id.to_string()).await?;
    retried.map(|transfer| (StatusCode::ACCEPTED, Json(transfer))).ok_or_else(|| unknown("transfer", id))
}
