//! `/metrics`: the ledger's figures, never by a scan for a scrape, and what this process itself does and counts.

mod exposition;
mod ledger;
mod process;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use self::exposition::Exposition;
pub(crate) use self::ledger::LastKnown;
use super::ApiState;

/// Metrics in Prometheus' text format
///
/// docs/metrics.md lists them. The ledger's figures cover the whole database, and come from `clawback serve` alone. Counters are
/// this process's own. Answers also while the database is away.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    operation_id = "metrics",
    responses((status = 200, description = "Prometheus' text format, version 0.0.4.", body = String,
        content_type = "text/plain")),
)]
pub(crate) async fn show(State(state): State<ApiState>) -> impl IntoResponse {
    let mut text = Exposition::default();
    if state.broker.is_some() {
        ledger::add(&mut text, &state).await;
    }
    process::add(&mut text, &state);
    let text = text.into_text() + &state.recorder.render();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}
