//! `/v1/summary`: the ledger in figures.

use axum::Json;
use axum::extract::State;

use super::ApiState;
use super::problem::Problem;
use crate::ledger::Summary;

/// The ledger in figures
///
/// What is at risk and why, what was taken back, and how fast, as of some seconds ago. Currencies are never added up.
#[utoipa::path(
    get,
    path = "/v1/summary",
    tag = "overview",
    operation_id = "getSummary",
    responses((status = 200, description = "The figures.", body = Summary)),
)]
pub(crate) async fn show(State(state): State<ApiState>) -> Result<Json<Summary>, Problem> {
    Ok(Json(Summary::clone(&*state.ledger.summary().await?)))
}
