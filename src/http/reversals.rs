//! `/v1/reversals`: lists and shows reversals; replays, or closes, one that failed permanently.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::extract::{self, Given, Id, Input, Query};
use super::operator::{self, NoteRequest, OperatorRequest};
use super::page::{Currency, Cursor, Limit, Order, Text, Time, Yes, YesNo, recorded};
use super::problem::Problem;
use super::stream::{self, Shape};
use super::{ApiState, unknown};
use crate::ledger::{
    CallKind, FailureGroups, FieldProblem, FoundReversal, GroupNote, Ledger, ReversalFilter, ReversalLine,
    ReversalStatus, ReversalView,
};
use crate::lines::Lines;
use crate::operator::{Part, amount as amount_of};

/// The parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    status: Given<ReversalStatus>,
    currency: Given<Currency>,
    waits: Given<YesNo>,
    seller: Given<Text>,
    failure_code: Given<Text>,
    group: Given<Text>,
    owed: Given<Yes>,
    since: Given<Time>,
    until: Given<Time>,
    changed_since: Given<Time>,
    order: Given<Order>,
    format: Given<Shape>,
    limit: Given<Limit>,
    cursor: Given<Cursor>,
}

/// Reversals, each with what it hangs on.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ReversalPage {
    /// At most `limit`.
    reversals: Vec<FoundReversal>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// Reversals, a page at a time
///
/// Newest first. New reversals do not shift the pages. Where few match, a page may be short, or even empty, and not be the last
/// one. With `format=csv` or `ndjson` all rows that match are answered, one a line.
#[utoipa::path(
    get,
    path = "/v1/reversals",
    tag = "reversals",
    operation_id = "listReversals",
    params(
        ("status" = Option<ReversalStatus>, Query, description = "Only reversals with this status."),
        ("currency" = Option<String>, Query, description = "Only those in this currency.", example = "eur"),
        ("waits" = Option<String>, Query, description = "Only those that wait for the seller's balance (`yes`), or do not (`no`)."),
        ("seller" = Option<String>, Query, description = "Only those of this seller, by the marketplace's id.", example = "s1"),
        ("failure_code" = Option<String>, Query, description = "Only those whose last failure had this code."),
        ("group" = Option<String>, Query, description = "Only those of the group of failures with this key, as it was some seconds ago."),
        ("owed" = Option<String>, Query, description = "`yes`: only those that are still owed."),
        ("since" = Option<String>, Query, description = "Only those recorded at this time or later: a time, a date, or a duration before now.",
            example = "24h"),
        ("until" = Option<String>, Query, description = "Only those recorded before this time.", example = "2026-12-01"),
        ("changed_since" = Option<String>, Query, description = "Only those whose status changed at this time or later.", example = "7d"),
        ("order" = Option<String>, Query, description = "`newest` (the default) or `oldest` first.", example = "oldest"),
        ("format" = Option<String>, Query, description = "`json` (a page), `csv` or `ndjson` (all rows)."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses((status = 200, description = "A page, or all rows.", content((ReversalPage = "application/json"), (String = "text/csv")))),
)]
pub(crate) async fn list(State(state): State<ApiState>, Query(query): Query<ListQuery>) -> Result<Response, Problem> {
    let filter = ReversalFilter {
        status: query.status.0,
        currency: query.currency.0.map(|Currency(code)| code),
        waits: query.waits.0.map(|YesNo(waits)| waits),
        seller: query.seller.0.map(|Text(text)| text),
        failure_code: query.failure_code.0.map(|Text(text)| text),
        group: query.group.0.map(|Text(text)| text),
        owed: query.owed.0.is_some(),
        recorded: recorded(query.since.0, query.until.0),
        changed_since: query.changed_since.0.map(|Time(at)| at),
        oldest: query.order.0 == Some(Order::Oldest),
    };
    if let Some(Shape::Lines(format)) = query.format.0 {
        return lines(&state.ledger, filter, format).await;
    }
    let after = query.cursor.0.map(|Cursor(id)| id);
    let limit = query.limit.0.unwrap_or_default().rows();
    let (reversals, next_cursor) = state.ledger.find_reversals(&filter, after, limit).await?;
    Ok(Json(ReversalPage { reversals, next_cursor }).into_response())
}

/// All that match, line by line.
pub(crate) async fn lines(ledger: &Ledger, filter: ReversalFilter, lines: Lines) -> Result<Response, Problem> {
    let ledger = ledger.clone();
    let next = move |after| {
        let (ledger, filter) = (ledger.clone(), filter.clone());
        async move {
            let (found, next) = ledger.find_reversals(&filter, after, stream::PAGE).await?;
            Ok((found.into_iter().map(ReversalLine::from).collect(), next))
        }
    };
    stream::all::<ReversalLine, _, _>(lines, "reversals", next).await
}

/// Reversals that failed permanently, by cause
///
/// Grouped by the failure's code and its words without ids, amounts and numbers. Only what is still owed.
#[utoipa::path(
    get,
    path = "/v1/reversals/groups",
    tag = "reversals",
    operation_id = "groupReversals",
    responses((status = 200, description = "The groups, the largest first.", body = FailureGroups)),
)]
pub(crate) async fn groups(State(state): State<ApiState>) -> Result<Json<FailureGroups>, Problem> {
    Ok(Json(FailureGroups::clone(&*state.ledger.failure_groups(CallKind::Reverse).await?)))
}

/// A reversal
///
/// What one refund takes back from one transfer.
#[utoipa::path(
    get,
    path = "/v1/reversals/{id}",
    tag = "reversals",
    operation_id = "getReversal",
    params(("id" = String, Path, description = "Clawback's id, or Stripe's (`trr_…`).", example = "trr_1")),
    responses((status = 200, description = "The reversal.", body = ReversalView)),
)]
pub(crate) async fn show(State(state): State<ApiState>, Id(id): Id) -> Result<Json<ReversalView>, Problem> {
    let reversal = state.ledger.reversal(&id).await?;
    reversal.map(Json).ok_or_else(|| unknown("reversal", id))
}

/// Who requests a replay, and why. Both go into the history.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"operator": "ada", "reason": "the seller has paid in"}))]
pub(crate) struct ReplayRequest {
    /// The operator's name, on one line.
    #[schema(max_length = 100, pattern = "\\S")]
    operator: String,
    /// For later readers of the history, on one line.
    #[schema(max_length = 500, pattern = "\\S")]
    reason: String,
    /// Take only this much, in minor units, or `"left"`: what Stripe says is left of the transfer. The rest of the debt is recorded
    /// as settled elsewhere. Absent: take all of it.
    #[serde(default)]
    #[schema(examples(600, "left"))]
    amount: Option<Value>,
    /// For a large amount (`CONFIRM_FROM`): the debt's amount and currency, typed.
    #[serde(default)]
    #[schema(max_length = 255, examples("1200000 eur"))]
    confirm_amount: Option<String>,
}

impl Input for ReplayRequest {
    fn problems(&self) -> Vec<FieldProblem> {
        let mut problems = operator::problems_of(&self.operator, ("reason", &self.reason));
        if let Some(Err(problem)) = self.part() {
            problems.push(FieldProblem::new("amount", problem));
        }
        problems
    }
}

impl ReplayRequest {
    fn part(&self) -> Option<Result<Part, String>> {
        let amount = self.amount.as_ref()?;
        let part = match amount {
            Value::Number(number) => number.to_string().parse(),
            Value::String(word) if word == "left" => Ok(Part::Left),
            _ => "".parse(),
        };
        Some(part.map_err(|must: String| format!("{must} (got {amount})")))
    }
}

/// Replay a reversal
///
/// For a reversal that failed permanently. The retries start over. The worker first checks whether Stripe has made it, so
/// nothing is reversed twice. The response shows it as pending; `GET` shows the outcome. Where less is left at Stripe than is
/// owed (`more_than_left`), `amount` takes what is left.
#[utoipa::path(
    post,
    path = "/v1/reversals/{id}/replay",
    tag = "reversals",
    operation_id = "replayReversal",
    params(("id" = String, Path, description = "Clawback's id, or Stripe's (`trr_…`).")),
    request_body(content = ReplayRequest),
    responses(
        (status = 202, description = "It is pending, and its job is on the way.", body = ReversalView),
        (status = 409, description = "It has not failed permanently, is no longer owed, or another request replayed it first."),
    ),
)]
pub(crate) async fn replay(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<ReplayRequest>,
) -> Result<(StatusCode, Json<ReversalView>), Problem> {
    let note = operator::note(&body.operator, &body.reason);
    let part = match body.part().and_then(Result::ok) {
        Some(part) => Some(amount_of(&state.ledger, state.stripe_now.as_ref(), &id, part).await?),
        None => None,
    };
    state.ledger.check_replay(CallKind::Reverse, &id, part, body.confirm_amount.as_deref()).await?;
    let id = match part {
        Some(amount) => state.ledger.replay_part(&id, amount, &note).await?,
        None => state.ledger.replay(CallKind::Reverse, &id, &note).await?,
    };
    state.ledger.supersede_messages();
    let replayed = state.ledger.reversal(&id.to_string()).await?;
    replayed.map(|reversal| (StatusCode::ACCEPTED, Json(reversal))).ok_or_else(|| unknown("reversal", id))
}

/// Add a note to a group of reversals
///
/// For those who look at it later. The group's newest notes are shown with it.
#[utoipa::path(
    post,
    path = "/v1/reversals/groups/{key}/notes",
    tag = "reversals",
    operation_id = "noteOnReversalGroup",
    params(("key" = String, Path, description = "The group's key.")),
    request_body(content = NoteRequest),
    responses((status = 201, description = "The note.", body = GroupNote)),
)]
pub(crate) async fn note(
    State(state): State<ApiState>,
    Id(key): Id,
    extract::Json(body): extract::Json<NoteRequest>,
) -> Result<(StatusCode, Json<GroupNote>), Problem> {
    let noted = state.ledger.note_on_group(CallKind::Reverse, &key, &body.note()).await?;
    Ok((StatusCode::CREATED, Json(noted)))
}

/// Close a reversal
///
/// For a reversal that failed permanently and whose debt was settled elsewhere: paid by invoice, or written off. It counts as
/// no failure any more, is not replayed, and later refunds of its transfer go on.
#[utoipa::path(
    post,
    path = "/v1/reversals/{id}/close",
    tag = "reversals",
    operation_id = "closeReversal",
    params(("id" = String, Path, description = "Clawback's id, or Stripe's (`trr_…`).")),
    request_body(content = OperatorRequest),
    responses(
        (status = 200, description = "It is closed.", body = ReversalView),
        (status = 409, description = "It has not failed permanently, or another request was first."),
    ),
)]
pub(crate) async fn close(
    State(state): State<ApiState>,
    Id(id): Id,
    extract::Json(body): extract::Json<OperatorRequest>,
) -> Result<Json<ReversalView>, Problem> {
    let id = state.ledger.close_reversal(&id, &body.note()).await?;
    state.ledger.supersede_messages();
    let closed = state.ledger.reversal(&id.to_string()).await?;
    closed.map(Json).ok_or_else(|| unknown("reversal", id))
}
