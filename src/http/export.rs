//! `/v1/export`: reversals for the books.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::ApiState;
use super::extract::{Given, Query};
use super::page::Time;
use super::problem::Problem;
use super::stream::{self, Shape};
use crate::ledger::{ExportFilter, ExportRow, FieldProblem, ReversalStatus, now};
use crate::lines::Lines;

/// The parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ExportQuery {
    from: Given<Time>,
    to: Given<Time>,
    status: Given<ReversalStatus>,
    format: Given<Shape>,
}

/// Reversals for the books
///
/// One row for each reversal whose status changed for the last time in the period, in the order of that: what was reversed in
/// a month is in that month's export, and nowhere else. CSV by default. The columns are those of `ExportRow`, in this order;
/// new ones are only added at the end. A text that a spreadsheet would run as a formula begins with `'`.
#[utoipa::path(
    get,
    path = "/v1/export",
    tag = "overview",
    operation_id = "export",
    params(
        ("from" = String, Query, description = "The begin: a time, a date (UTC), or a duration before now.",
            example = "2026-11-01"),
        ("to" = Option<String>, Query, description = "The end, which is not part of the period; now by default.",
            example = "2026-12-01"),
        ("status" = Option<ReversalStatus>, Query, description = "Only reversals with this status."),
        ("format" = Option<String>, Query, description = "`csv` or `ndjson`."),
    ),
    responses(
        (status = 200, description = "The rows.",
            content((String = "text/csv"), (ExportRow = "application/x-ndjson"))),
        (status = 400, description = "A parameter is unknown or missing, or its value can't be used."),
    ),
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(query): Query<ExportQuery>,
) -> Result<Response, Problem> {
    let lines = match query.format.0 {
        Some(Shape::Json) => {
            let problem = FieldProblem::new("format", "must be one of csv, ndjson (got \"json\")");
            return Err(Problem::invalid_parameter(problem));
        }
        Some(Shape::Lines(lines)) => lines,
        None => match Shape::accepted(&headers) {
            Some(Shape::Lines(lines)) => lines,
            _ => Lines::Csv,
        },
    };
    let Some(Time(from)) = query.from.0 else {
        return Err(Problem::invalid_parameter(FieldProblem::new("from", "is required")));
    };
    // What changes meanwhile belongs to the next period.
    let to = query.to.0.map_or_else(now, |Time(to)| to.min(now()));
    let filter = ExportFilter { from, to, status: query.status.0 };
    let next = move |after| {
        let ledger = state.ledger.clone();
        async move { ledger.export(&filter, after, stream::PAGE).await }
    };
    stream::all::<ExportRow, _, _>(lines, "reversals", next).await
}
