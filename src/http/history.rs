//! `/v1/history`: who did what, when and why.

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::ApiState;
use super::extract::{Given, Query};
use super::page::{Cursor, Limit, Text, Time};
use super::problem::Problem;
use super::stream::{self, Shape};
use crate::ledger::{HistoryEntity, HistoryFilter, HistoryKind, HistoryRow, Ledger};
use crate::lines::Lines;

/// The parameters of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ListQuery {
    entity: Given<HistoryEntity>,
    actor: Given<Text>,
    since: Given<Time>,
    until: Given<Time>,
    kind: Given<HistoryKind>,
    id: Given<Text>,
    format: Given<Shape>,
    limit: Given<Limit>,
    cursor: Given<Cursor>,
}

/// The history, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HistoryPage {
    /// At most `limit`. Where few rows match, a page may be short, or even empty, and not be the last one.
    history: Vec<HistoryRow>,
    /// The next page's `cursor`; null on the last page.
    next_cursor: Option<Uuid>,
}

/// The history, a page at a time
///
/// Newest first. With `format=csv` or `ndjson`, or such an `Accept`, all rows that match are answered, one a line; `limit`
/// and `cursor` are then not used.
#[utoipa::path(
    get,
    path = "/v1/history",
    tag = "overview",
    operation_id = "listHistory",
    params(
        ("entity" = Option<HistoryEntity>, Query, description = "Only rows about such things."),
        ("actor" = Option<String>, Query, description = "Only what this program or operator did.", example = "ada"),
        ("since" = Option<String>, Query, description = "Only at this time or later: a time, a date, or a duration before now.",
            example = "24h"),
        ("until" = Option<String>, Query, description = "Only before this time.", example = "2026-12-01"),
        ("kind" = Option<HistoryKind>, Query, description = "Only changes of a status, or only remarks."),
        ("id" = Option<String>, Query, description = "Only what hangs together with this payment, refund, transfer, \
            reversal, event or request: Clawback's id or the provider's.", example = "re_1"),
        ("format" = Option<String>, Query, description = "`json` (a page), `csv` or `ndjson` (all rows)."),
        ("limit" = Option<u64>, Query, description = "The most to return; 50 by default.", minimum = 1, maximum = 200),
        ("cursor" = Option<Uuid>, Query, description = "`next_cursor` of the previous page."),
    ),
    responses(
        (status = 200, description = "A page, or all rows.", content(
            (HistoryPage = "application/json"), (String = "text/csv"), (HistoryRow = "application/x-ndjson"))),
    ),
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Result<Response, Problem> {
    let filter = HistoryFilter {
        entity: query.entity.0,
        actor: query.actor.0.map(|Text(text)| text),
        since: query.since.0.map(|Time(time)| time),
        until: query.until.0.map(|Time(time)| time),
        kind: query.kind.0,
        id: query.id.0.map(|Text(text)| text),
    };
    match query.format.0.or_else(|| Shape::accepted(&headers)).unwrap_or(Shape::Json) {
        Shape::Json => {
            let limit = query.limit.0.unwrap_or_default();
            let after = query.cursor.0.map(|Cursor(id)| id);
            let (history, next_cursor) = state.ledger.history(&filter, after, limit.rows()).await?;
            Ok(Json(HistoryPage { history, next_cursor }).into_response())
        }
        Shape::Lines(format) => lines(&state.ledger, filter, format).await,
    }
}

/// All that match, line by line.
pub(crate) async fn lines(ledger: &Ledger, filter: HistoryFilter, lines: Lines) -> Result<Response, Problem> {
    let ledger = ledger.clone();
    let next = move |after| {
        let (ledger, filter) = (ledger.clone(), filter.clone());
        async move { ledger.history(&filter, after, stream::PAGE).await }
    };
    stream::all::<HistoryRow, _, _>(lines, "history", next).await
}
