//! `/v1/queues`: the queues on the broker.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::problem::Problem;
use crate::ledger::OutboxBacklog;
use crate::operator::survey::{Verified, paused_workers};

/// The queues, and what waits before them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueList {
    /// When the broker was asked: some seconds ago at most, a minute where nobody has asked meanwhile.
    as_of: DateTime<Utc>,
    /// What waits in the outbox, now.
    outbox: OutboxBacklog,
    /// What the broker has.
    #[serde(flatten)]
    verified: Verified,
}

/// The queues
///
/// How full each one is, and how the broker differs from what is wanted, as `clawback queues verify` says it. 503 while the
/// broker can't be asked: how full they are is unknown then.
#[utoipa::path(
    get,
    path = "/v1/queues",
    tag = "overview",
    operation_id = "listQueues",
    responses((status = 200, description = "The queues.", body = QueueList)),
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Result<Json<QueueList>, Problem> {
    let Some(looks) = &state.looks else { return Err(Problem::not_found("this process does not look at the broker")) };
    let (seen, outbox, situation) =
        tokio::join!(looks.surveys.seen(), state.ledger.outbox_backlog(), state.ledger.situation());
    let (outbox, situation) = (outbox?, situation?);
    match &seen.found {
        Ok(surveys) => {
            let verified = Verified::of(surveys, paused_workers(&situation));
            Ok(Json(QueueList { as_of: seen.at, outbox, verified }))
        }
        Err(why) => Err(Problem::unavailable(format!(
            "the broker could not be asked ({why}); jobs that wait in the outbox: {}",
            outbox.unpublished
        ))),
    }
}
