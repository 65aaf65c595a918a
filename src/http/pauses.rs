//! `/v1/pauses`: calls to Stripe that an operator stops, and lets go on.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{self, Id, Input};
use super::operator::{self, OperatorRequest};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{FieldProblem, Pause, parse_account};

/// The pauses that are in force.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PauseList {
    /// Oldest first.
    pauses: Vec<Pause>,
}

/// What is to be paused, by whom, and why.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"seller": "acct_1", "operator": "ada", "reason": "the seller disputes the refunds"}))]
pub(crate) struct NewPause {
    /// Stripe's id of the seller's connected account. Absent or null: everything is paused.
    #[serde(default)]
    #[schema(max_length = 255, pattern = "^acct_[A-Za-z0-9_]+$")]
    seller: Option<String>,
    /// Pause the seller also if no transfer to it is registered.
    #[serde(default)]
    force: bool,
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// For later readers of the history, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    reason: String,
}

impl Input for NewPause {
    fn problems(&self) -> Vec<FieldProblem> {
        let seller = self.seller.as_deref().and_then(|seller| parse_account(seller).err().map(|must| (seller, must)));
        let seller =
            seller.map(|(seller, must)| FieldProblem::text("seller", must.trim_start_matches("must be "), seller));
        operator::problems_of(&self.operator, ("reason", &self.reason)).into_iter().chain(seller).collect()
    }
}

/// A pause that has ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Resumed {
    /// What was paused.
    #[serde(flatten)]
    pause: Pause,
    /// How many calls are due now. Each gets a new job.
    calls_due: u64,
}

/// What is paused
///
/// Pauses of operators that are in force. Paused calls are not made; nothing is lost, and no retry is used up.
#[utoipa::path(
    get,
    path = "/v1/pauses",
    tag = "overview",
    operation_id = "listPauses",
    responses((status = 200, description = "The pauses.", body = PauseList)),
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<PauseList>, Problem> {
    Ok(Json(PauseList { pauses: state.ledger.pauses().await? }))
}

/// Pause calls to Stripe
///
/// About one seller, or all of them. Whichever worker has a job, its call is not made from then on; calls that are on their way
/// are finished. Webhooks and reports are recorded as ever. A seller to which no transfer is registered is paused with `force` only.
#[utoipa::path(
    post,
    path = "/v1/pauses",
    tag = "overview",
    operation_id = "pause",
    request_body(content = NewPause),
    responses(
        (status = 201, description = "It is paused.", body = Pause),
        (status = 409, description = "It was paused before."),
    ),
)]
pub(crate) async fn pause(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<NewPause>,
) -> Result<(StatusCode, Json<Pause>), Problem> {
    let note = operator::note(&body.operator, &body.reason);
    let pause = state.ledger.pause(body.seller.as_deref(), body.force, &note).await?;
    Ok((StatusCode::CREATED, Json(pause)))
}

/// Resume what was paused
///
/// Calls that are due get new jobs at once.
#[utoipa::path(
    post,
    path = "/v1/pauses/{id}/resume",
    tag = "overview",
    operation_id = "resume",
    params(("id" = uuid::Uuid, Path, description = "The pause's id.")),
    request_body(content = OperatorRequest),
    responses((status = 200, description = "It goes on.", body = Resumed)),
)]
pub(crate) async fn resume(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<Resumed>, Problem> {
    let id: Uuid = id.parse().map_err(|_| unknown("pause in force", &id))?;
    let (pause, calls_due) = state.ledger.resume(id, &body.note()).await?;
    Ok(Json(Resumed { pause, calls_due }))
}
