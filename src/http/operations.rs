//! `/v1/operations`: an operator's action on many rows: previewed, started, watched, aborted.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{self, Given, Id, Input, Query};
use super::operator::{self, OperatorRequest};
use super::page::{Limit, PageQuery, Position};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{FieldProblem, ItemState, ItemView, OperationAction, OperationFilter, OperationView, Pace};
use crate::reconcile;

/// The parameters of an operation's rows.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ItemQuery {
    state: Given<ItemState>,
    limit: Given<Limit>,
    cursor: Given<Position>,
}

/// What is to be done with which rows.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"action": "replay_reversals", "filter": {"failure_code": "resource_missing", "seller": "s1"}}))]
pub(crate) struct NewOperation {
    /// What is done with each row.
    action: OperationAction,
    /// Which rows; at least one condition.
    filter: OperationFilter,
}

impl Input for NewOperation {
    fn problems(&self) -> Vec<FieldProblem> {
        self.filter.problems(self.action)
    }
}

/// Who starts it, why, and how it is worked on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "ada", "reason": "Stripe is back", "spread_seconds": 600}))]
pub(crate) struct StartRequest {
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// For later readers of the history, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    reason: String,
    /// Work on the rows evenly over so many seconds, at most a week. Absent: as fast as it goes.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 604_800)]
    spread_seconds: Option<i32>,
    /// Work on no more rows than this, the oldest first.
    #[serde(default)]
    #[schema(minimum = 1)]
    cap: Option<i32>,
    /// What `confirm` of the operation says, typed. Only needed where it says something.
    #[serde(default)]
    #[schema(max_length = 255, examples("1200000 eur"))]
    confirm_amount: Option<String>,
}

impl StartRequest {
    fn pace(&self) -> Pace {
        Pace { spread_seconds: self.spread_seconds.unwrap_or_default(), cap: self.cap }
    }
}

impl Input for StartRequest {
    fn problems(&self) -> Vec<FieldProblem> {
        [operator::problems_of(&self.operator, ("reason", &self.reason)), self.pace().problems()].concat()
    }
}

/// Operations, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationPage {
    /// At most `limit`.
    operations: Vec<OperationView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Rows of an operation, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ItemPage {
    /// At most `limit`.
    items: Vec<ItemView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<i32>,
}

/// Preview an operation
///
/// Freezes the rows that match the filter now, and says how many they are, how much, what would be refused, and, for reversals,
/// what Stripe says now of the first 100. Changes none of them. An empty filter is refused.
#[utoipa::path(
    post,
    path = "/v1/operations",
    tag = "operations",
    operation_id = "previewOperation",
    request_body(content = NewOperation),
    responses((status = 201, description = "The preview. It can be started within 24 hours.", body = OperationView)),
)]
pub(crate) async fn preview(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<NewOperation>,
) -> Result<(StatusCode, Json<OperationView>), Problem> {
    let previewed = reconcile::preview(&state.ledger, state.stripe_now.as_ref(), body.action, &body.filter).await?;
    Ok((StatusCode::CREATED, Json(previewed)))
}

/// Operations, a page at a time
///
/// Newest first, with how far each is.
#[utoipa::path(
    get,
    path = "/v1/operations",
    tag = "operations",
    operation_id = "listOperations",
    params(
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page.", body = OperationPage)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<OperationPage>, Problem> {
    let (after, limit) = query.after_and_limit();
    let (operations, next_cursor) = state.ledger.list_operations(after, limit).await?;
    Ok(Json(OperationPage { operations, next_cursor }))
}

/// An operation
///
/// What it does, and how far it is.
#[utoipa::path(
    get,
    path = "/v1/operations/{id}",
    tag = "operations",
    operation_id = "getOperation",
    params(("id" = Uuid, Path, description = "Its id.")),
    responses((status = 200, description = "The operation.", body = OperationView)),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<OperationView>, Problem> {
    shown(&state, parsed(&id)?).await
}

/// The rows of an operation, a page at a time
///
/// In the order in which they are worked on, each with what became of it.
#[utoipa::path(
    get,
    path = "/v1/operations/{id}/items",
    tag = "operations",
    operation_id = "listOperationItems",
    params(
        ("id" = Uuid, Path, description = "The operation's id."),
        ("state" = Option<ItemState>, Query, description = "Only rows with this state."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<i32>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page.", body = ItemPage)),
)]
pub(crate) async fn items(
    State(state): State<ApiState>,
    Id(id): Id,
    Query(query): Query<ItemQuery>,
) -> Result<Json<ItemPage>, Problem> {
    let Json(operation) = shown(&state, parsed(&id)?).await?;
    let limit = query.limit.0.unwrap_or_default().rows();
    let after = query.cursor.0.map(|Position(position)| position);
    let (items, next_cursor) = state.ledger.operation_items(operation.id, query.state.0, after, limit).await?;
    Ok(Json(ItemPage { items, next_cursor }))
}

/// Start an operation
///
/// Each row of the preview is then worked on as if it alone had been asked for, once, also over restarts. `GET` shows the
/// progress.
#[utoipa::path(
    post,
    path = "/v1/operations/{id}/start",
    tag = "operations",
    operation_id = "startOperation",
    params(("id" = Uuid, Path, description = "Its id.")),
    request_body(content = StartRequest),
    responses(
        (status = 202, description = "It runs.", body = OperationView),
        (status = 409, description = "It was started or aborted before, has no rows, or was previewed too long ago."),
    ),
)]
pub(crate) async fn start(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<StartRequest>,
) -> Result<(StatusCode, Json<OperationView>), Problem> {
    let id = parsed(&id)?;
    let note = operator::note(&body.operator, &body.reason);
    state.ledger.start_operation(id, &note, body.pace(), body.confirm_amount.as_deref()).await?;
    Ok((StatusCode::ACCEPTED, shown(&state, id).await?))
}

/// Abort an operation
///
/// What was done stays; what was not, is not done any more.
#[utoipa::path(
    post,
    path = "/v1/operations/{id}/abort",
    tag = "operations",
    operation_id = "abortOperation",
    params(("id" = Uuid, Path, description = "Its id.")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "It is aborted.", body = OperationView),
        (status = 409, description = "It has ended already."),
    ),
)]
pub(crate) async fn abort(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<OperationView>, Problem> {
    let id = parsed(&id)?;
    state.ledger.abort_operation(id, &body.note()).await?;
    shown(&state, id).await
}

async fn shown(state: &ApiState, id: Uuid) -> Result<Json<OperationView>, Problem> {
    state.ledger.operation(id).await?.map(Json).ok_or_else(|| unknown("operation", id))
}

fn parsed(id: &str) -> Result<Uuid, Problem> {
    id.parse().map_err(|_| unknown("operation", id))
}
