//! `/v1/doctor`: what `clawback doctor` finds, as this process sees it.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::problem::Problem;
use crate::operator::doctor::Diagnosis;

/// What the doctor found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DoctorReport {
    /// When it looked: some seconds ago at most, a minute where nobody has asked meanwhile.
    as_of: DateTime<Utc>,
    /// What it found.
    #[serde(flatten)]
    diagnosis: Diagnosis,
}

/// What the doctor finds
///
/// Settings, database, broker, processes, Stripe, and what waits in the ledger, each with what to do: as `clawback doctor` says
/// it where this process runs.
#[utoipa::path(
    get,
    path = "/v1/doctor",
    tag = "overview",
    operation_id = "getDoctor",
    responses((status = 200, description = "The findings, errors included.", body = DoctorReport)),
)]
pub(crate) async fn show(State(state): State<ApiState>) -> Result<Json<DoctorReport>, Problem> {
    let Some(looks) = &state.looks else { return Err(Problem::not_found("this process has no doctor")) };
    let seen = looks.doctor.seen().await;
    Ok(Json(DoctorReport { as_of: seen.at, diagnosis: seen.found.clone() }))
}
