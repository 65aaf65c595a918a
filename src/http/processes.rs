//! `/v1/processes`: who is alive. `/v1/breaker/probe`: has the workers try Stripe now.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::extract;
use super::operator::OperatorRequest;
use super::problem::Problem;
use crate::ledger::Process;

/// The processes on this ledger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProcessList {
    /// Heard of in the last seconds, oldest first.
    alive: Vec<Process>,
    /// Not heard of any more, though they did not say that they stop: for an hour.
    missing: Vec<Process>,
}

/// How many workers were asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProbeAsked {
    /// The workers whose circuit breaker is open. Each probes Stripe within a second or two.
    workers: usize,
}

/// Who is alive
///
/// Every running process, with its circuit breaker, its rate, and its consumers. A worker that has paused itself since Stripe
/// can't be used is alive, with an open breaker.
#[utoipa::path(
    get,
    path = "/v1/processes",
    tag = "overview",
    operation_id = "listProcesses",
    responses((status = 200, description = "The processes.", body = ProcessList)),
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<ProcessList>, Problem> {
    let processes = state.ledger.processes().await?;
    Ok(Json(ProcessList { alive: processes.alive, missing: processes.missing }))
}

/// Probe Stripe now
///
/// Every worker whose circuit breaker is open tries Stripe at once, instead of after its pause of up to 320 s. `GET
/// /v1/processes` shows what came of it.
#[utoipa::path(
    post,
    path = "/v1/breaker/probe",
    tag = "overview",
    operation_id = "probeStripe",
    request_body(content = OperatorRequest),
    responses(
        (status = 202, description = "They were asked.", body = ProbeAsked),
        (status = 409, description = "No worker's circuit breaker is open, or none is alive."),
    ),
)]
pub(crate) async fn probe(
    State(state): State<ApiState>,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<(StatusCode, Json<ProbeAsked>), Problem> {
    let workers = state.ledger.ask_for_probe(&body.note()).await?;
    Ok((StatusCode::ACCEPTED, Json(ProbeAsked { workers })))
}
