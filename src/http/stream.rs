//! Answers of any length, a page of rows at a time, as CSV or as one JSON object a line.

use std::fmt::Display;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};

use super::extract::Parameter;
use super::problem::Problem;
use crate::ledger::LedgerError;
use crate::lines::{Line, Lines};

/// Rows of one page.
pub(crate) const PAGE: u64 = 1_000;

/// How rows are answered.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape {
    /// A page as a JSON object.
    Json,
    /// All of them, line by line.
    Lines(Lines),
}

impl Parameter for Shape {
    fn must() -> String {
        "one of json, csv, ndjson".to_owned()
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Lines(Lines::Csv)),
            "ndjson" => Some(Self::Lines(Lines::Ndjson)),
            _ => None,
        }
    }
}

impl Shape {
    /// What the header `Accept` asks for, if it is one of these.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let accepted = headers.get(ACCEPT)?.to_str().ok()?;
        accepted.split(',').find_map(|range| match range.split(';').next()?.trim() {
            "text/csv" => Some(Self::Lines(Lines::Csv)),
            "application/x-ndjson" | "application/jsonl" => Some(Self::Lines(Lines::Ndjson)),
            "application/json" => Some(Self::Json),
            _ => None,
        })
    }
}

/// Answers with all rows of all pages. `next` gives the page after a cursor, and the cursor to the following one.
pub(crate) async fn all<L, C, F>(
    lines: Lines,
    name: &str,
    mut next: impl FnMut(Option<C>) -> F + Send + 'static,
) -> Result<Response, Problem>
where
    L: Line,
    C: Send + 'static,
    F: Future<Output = Result<(Vec<L>, Option<C>), LedgerError>> + Send,
{
    // What is wrong at the beginning is answered as a problem.
    let (rows, cursor) = next(None).await?;
    let first = lines.of(&rows).map(|rows| lines.header::<L>() + &rows).map_err(failed)?;
    let others = stream::try_unfold((next, cursor), move |(mut next, cursor)| async move {
        let Some(cursor) = cursor else { return Ok(None) };
        let (rows, cursor) = next(Some(cursor)).await.map_err(broken_off)?;
        let text = lines.of(&rows).map_err(broken_off)?;
        Ok::<_, std::io::Error>(Some((text, (next, cursor))))
    });
    let body = Body::from_stream(stream::once(async { Ok(first) }).chain(others));
    let (content_type, ending) = match lines {
        Lines::Csv => ("text/csv; charset=utf-8", "csv"),
        Lines::Ndjson => ("application/x-ndjson", "ndjson"),
    };
    let file = format!("attachment; filename=\"{name}.{ending}\"");
    Ok(([(CONTENT_TYPE, content_type.to_owned()), (CONTENT_DISPOSITION, file)], body).into_response())
}

fn failed(error: impl Display) -> Problem {
    tracing::error!(%error, "rows can't be written as lines");
    Problem::unavailable("the rows can't be written; the log says why")
}

/// The connection is cut, so nobody takes what was sent for all of it.
fn broken_off(error: impl Display) -> std::io::Error {
    tracing::error!(%error, "an answer was broken off in the middle");
    std::io::Error::other("the ledger can't be read")
}
