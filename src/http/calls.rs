//! `/v1/calls`: look-ups, and events for another system, that failed permanently. Those of reversals and transfers are in their
//! own lists.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{self, Given, Id, Parameter, Query};
use super::operator::OperatorRequest;
use super::page::{Cursor, Limit};
use super::problem::Problem;
use super::{ApiState, unknown};
use crate::ledger::{CallKind, SideCall};

/// `look_up` or `notify`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SideKind(CallKind);

impl Parameter for SideKind {
    fn must() -> String {
        "look_up or notify".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        [CallKind::LookUp, CallKind::Notify].into_iter().find(|kind| kind.to_string() == text).map(Self)
    }
}

/// The parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    kind: Given<SideKind>,
    limit: Given<Limit>,
    cursor: Given<Cursor>,
}

/// Calls that failed permanently.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CallPage {
    /// At most `limit`.
    calls: Vec<SideCall>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Look-ups and events that failed permanently
///
/// Newest first: what could not be read at Stripe, and what another system (`EVENTS_URL`) did not take. No money hangs on their
/// list; debts and creations that failed are under `/v1/reversals` and `/v1/transfers`.
#[utoipa::path(
    get,
    path = "/v1/calls",
    tag = "overview",
    operation_id = "listFailedCalls",
    params(
        ("kind" = Option<String>, Query, description = "Only look-ups (`look_up`), or only events (`notify`).", example = "look_up"),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page.", body = CallPage)),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<CallPage>, Problem> {
    let (kind, after) = (query.kind.0.map(|SideKind(kind)| kind), query.cursor.0.map(|Cursor(id)| id));
    let limit = query.limit.0.unwrap_or_default().rows();
    let (calls, next_cursor) = state.ledger.failed_side_calls(kind, after, limit).await?;
    Ok(Json(CallPage { calls, next_cursor }))
}

/// Replay a look-up or an event
///
/// For one that failed permanently: its retries start over, with a new job. An event is told under the same id as before.
#[utoipa::path(
    post,
    path = "/v1/calls/{id}/replay",
    tag = "overview",
    operation_id = "replayCall",
    params(("id" = Uuid, Path, description = "Clawback's id of the look-up or event.")),
    request_body(content = OperatorRequest),
    responses(
        (status = 202, description = "It is open, and its job is on the way.", body = SideCall),
        (status = 409, description = "It has not failed permanently, or another request replayed it first."),
    ),
)]
pub(crate) async fn replay(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<(StatusCode, Json<SideCall>), Problem> {
    const WHAT: &str = "look-up or event";
    let call = state.ledger.side_call(&id).await?.ok_or_else(|| unknown(WHAT, &id))?;
    state.ledger.replay(call.kind, &id, &body.note()).await?;
    state.ledger.supersede_messages();
    let replayed = state.ledger.side_call(&id).await?;
    replayed.map(|call| (StatusCode::ACCEPTED, Json(call))).ok_or_else(|| unknown(WHAT, id))
}
