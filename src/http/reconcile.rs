//! `/v1/reconcile/runs`: what comparing the ledger with Stripe has found.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{Id, Query, parameter};
use super::page::{Cursor, Limit};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{DifferenceView, RunView};

/// The parameters of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[serde(default, deserialize_with = "parameter")]
    limit: Option<Limit>,
    #[serde(default, deserialize_with = "parameter")]
    cursor: Option<Cursor>,
}

/// Runs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunPage {
    /// At most `limit`.
    runs: Vec<RunView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// A run, and a page of what differs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunWithDifferences {
    /// The run.
    #[serde(flatten)]
    run: RunView,
    /// At most `limit`, in the order in which they were found.
    found: Vec<DifferenceView>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Runs of reconcile, a page at a time
///
/// Newest first, with how far each is.
#[utoipa::path(
    get,
    path = "/v1/reconcile/runs",
    tag = "reconcile",
    operation_id = "listReconcileRuns",
    params(
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "A page.", body = RunPage),
        (status = 400, description = "A parameter is unknown, or its value can't be used."),
    ),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<RunPage>, Problem> {
    let limit = query.limit.unwrap_or_default();
    let found = state.ledger.reconcile_runs(query.cursor.map(|Cursor(id)| id), limit.and_one()).await?;
    let (runs, next_cursor) = limit.cut(found, |run| run.id);
    Ok(Json(RunPage { runs, next_cursor }))
}

/// A run of reconcile
///
/// What it compared, and what differs, a page at a time.
#[utoipa::path(
    get,
    path = "/v1/reconcile/runs/{id}",
    tag = "reconcile",
    operation_id = "getReconcileRun",
    params(
        ("id" = Uuid, Path, description = "Its id."),
        ("limit" = Option<u64>, Query, description = "The most differences to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "The run.", body = RunWithDifferences),
        (status = 400, description = "A parameter is unknown, or its value can't be used."),
    ),
    security(("read" = []), ("operate" = [])),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    Id(id): Id,
    Query(query): Query<ListQuery>,
) -> Result<Json<RunWithDifferences>, Problem> {
    let id = id.parse().map_err(|_| unknown("reconcile run"))?;
    let run = state.ledger.reconcile_run(id).await?.ok_or_else(|| unknown("reconcile run"))?;
    let limit = query.limit.unwrap_or_default();
    let found = state.ledger.run_differences(id, query.cursor.map(|Cursor(id)| id), limit.and_one()).await?;
    let (found, next_cursor) = limit.cut(found, |difference| difference.id);
    Ok(Json(RunWithDifferences { run, found, next_cursor }))
}
