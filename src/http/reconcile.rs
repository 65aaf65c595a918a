//! `/v1/reconcile/runs`: what comparing the ledger with Stripe has found.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{Id, Query};
use super::page::PageQuery;
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{DifferenceView, RunView};

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
    responses((status = 200, description = "A page.", body = RunPage)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<PageQuery>,
) -> Result<Json<RunPage>, Problem> {
    let (after, limit) = query.after_and_limit();
    let (runs, next_cursor) = state.ledger.reconcile_runs(after, limit).await?;
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
    responses((status = 200, description = "The run.", body = RunWithDifferences)),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    Id(id): Id,
    Query(query): Query<PageQuery>,
) -> Result<Json<RunWithDifferences>, Problem> {
    let id: Uuid = id.parse().map_err(|_| unknown("reconcile run", &id))?;
    let run = state.ledger.reconcile_run(id).await?.ok_or_else(|| unknown("reconcile run", id))?;
    let (after, limit) = query.after_and_limit();
    let (found, next_cursor) = state.ledger.run_differences(id, after, limit).await?;
    Ok(Json(RunWithDifferences { run, found, next_cursor }))
}
