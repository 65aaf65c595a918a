//! `/v1/reversals`: what is owed, what is back, what was given up; and having a given-up one tried again.
//!
//! Handlers only; whether a reversal may be replayed is the ledger's to say.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::operator::OperatorRequest;
use super::problem::Problem;
use super::query::Query;
use super::{ApiState, extract, id, unknown};
use crate::ledger::{ReversalStatus, ReversalView};

const DEFAULT_LIMIT: u64 = 50;
const MAX_LIMIT: u64 = 200;

/// Reversals, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReversalPage {
    /// At most as many as asked for.
    reversals: Vec<ReversalView>,
    /// The `cursor` of the next page; null on the last one.
    next_cursor: Option<Uuid>,
}

/// Reversals, a page at a time
///
/// Newest first. What is created while pages are read does not shift them.
#[utoipa::path(
    get,
    path = "/v1/reversals",
    tag = "reversals",
    operation_id = "listReversals",
    params(
        ("status" = Option<ReversalStatus>, Query, description = "Only those that stand there."),
        ("limit" = Option<u64>, Query, description = "At most so many; 50 if not given.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the page before."),
    ),
    responses(
        (status = 200, description = "A page.", body = ReversalPage),
        (status = 400, description = "A parameter is unknown or has a value that is not acceptable."),
    ),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> Result<Json<ReversalPage>, Problem> {
    let query = Query::parse(query.as_deref().unwrap_or_default(), &["status", "limit", "cursor"])?;
    let statuses = [ReversalStatus::Pending, ReversalStatus::Reversed, ReversalStatus::PermanentlyFailed];
    let status = query.one_of("status", &statuses)?;
    let limit = query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    let after = query.cursor("cursor")?;
    // One more than asked for tells whether there is a next page.
    let mut reversals = state.ledger.list_reversals(status, after, limit.saturating_add(1)).await?;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let there_is_more = reversals.len() > wanted;
    reversals.truncate(wanted);
    let next_cursor = reversals.last().filter(|_| there_is_more).map(|last| last.id);
    Ok(Json(ReversalPage { reversals, next_cursor }))
}

/// A reversal
///
/// What one refund takes back from one transfer.
#[utoipa::path(
    get,
    path = "/v1/reversals/{id}",
    tag = "reversals",
    operation_id = "getReversal",
    params(("id" = String, Path, description = "Clawback's id, or Stripe's (`trr_…`).", example = "trr_1")),
    responses((status = 200, description = "The reversal.", body = ReversalView)),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<ReversalView>, Problem> {
    let reversal = state.ledger.reversal(&id(path, "reversal")?).await?;
    reversal.map(Json).ok_or_else(|| unknown("reversal"))
}

/// Have a given-up reversal tried again
///
/// With fresh retries. The worker first looks at Stripe whether it has happened after all, so nothing is reversed twice.
/// The answer shows it as pending: what becomes of it is told by `GET`.
#[utoipa::path(
    post,
    path = "/v1/reversals/{id}/replay",
    tag = "reversals",
    operation_id = "replayReversal",
    params(("id" = Uuid, Path, description = "Clawback's id.")),
    request_body(content = OperatorRequest),
    responses(
        (status = 202, description = "It is pending again, and its job is on the way.", body = ReversalView),
        (status = 409, description = "It was not given up, is not owed any more, or somebody else was faster."),
    ),
    security(("operate" = [])),
)]
pub(crate) async fn replay(
    State(state): State<ApiState>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<ReversalView>), Problem> {
    let note = extract::json::<OperatorRequest>(&headers, body)?.note()?;
    let id: Uuid = id(path, "reversal")?.parse().map_err(|_| unknown("reversal"))?;
    state.ledger.replay_reversal(id, &note).await?;
    let replayed = state.ledger.reversal(&id.to_string()).await?;
    replayed.map(|reversal| (StatusCode::ACCEPTED, Json(reversal))).ok_or_else(|| unknown("reversal"))
}
