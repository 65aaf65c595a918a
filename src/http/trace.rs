//! `/v1/trace/{id}`: the story of any id.

use axum::Json;
use axum::extract::State;

use super::ApiState;
use super::extract::Id;
use super::problem::Problem;
use crate::ledger::Trace;

/// The story of an id
///
/// Everything that hangs together with a refund, dispute, payment, transfer, reversal, look-up, webhook event or request to
/// Stripe: what happened, oldest first, and how all of it stands now. At most 1,000 rows of a kind; `complete` says whether that
/// is all.
#[utoipa::path(
    get,
    path = "/v1/trace/{id}",
    tag = "overview",
    operation_id = "getTrace",
    params(("id" = String, Path, description = "Clawback's id or the provider's: `re_…`, `du_…`, `pi_…`, `ch_…`, `tr_…`, `trr_…`, \
        `evt_…`, `req_…`.", example = "re_1")),
    responses((status = 200, description = "The story.", body = Trace)),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<Trace>, Problem> {
    let trace = state.ledger.trace(&id, Trace::MOST).await?;
    trace.map(Json).ok_or_else(|| Problem::not_found(format!("nothing here has the id {id:?}")))
}
