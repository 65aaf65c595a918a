//! What is done around every request: its id, its span, a time limit, one log line, and one measurement. Layers; they
//! never look at a body.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, info_span};

use super::problem::Problem;
use super::request_id;
use crate::trace_context;

/// For the whole request, its body included: a client that never finishes sending must not hold a connection for ever.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Answers 503 when a request takes too long. Dropping the handler rolls back what it had not committed.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("not answered within {} s; send the same request again", TIME_LIMIT.as_secs());
            Problem::unavailable(detail).into_response()
        }
    }
}

/// Gives the request its id, which is in its problem, on its answer, and on every log line about it.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let id = request_id::of(request.headers());
    let (method, route) = (request.method().clone(), route(&request));
    let span = info_span!("request", request_id = id, %method, route);
    let caller = request.headers().get(trace_context::HEADER).and_then(|value| value.to_str().ok());
    trace_context::go_on(&span, caller);
    let header = request_id::header_value(&id);
    let mut response = request_id::scope(id, next.run(request)).instrument(span).await;
    if let Some(header) = header {
        response.headers_mut().insert(request_id::HEADER, header);
    }
    response
}

/// One line a request, and its time; the line at debug for what comes every few seconds.
pub(super) async fn log(request: Request, next: Next) -> Response {
    let (method, route) = (request.method().clone(), route(&request));
    let start = Instant::now();
    let response = next.run(request).await;
    let (status, elapsed) = (response.status().as_u16(), start.elapsed());
    let labels = [("method", name(&method).to_owned()), ("route", route.clone()), ("status", status.to_string())];
    metrics::histogram!("clawback_http_request_duration_seconds", &labels).record(elapsed);
    let elapsed_ms = elapsed.as_millis();
    if route.starts_with("/health/") || route == "/metrics" {
        tracing::debug!(%method, route, status, elapsed_ms, "request");
    } else {
        tracing::info!(%method, route, status, elapsed_ms, "request");
    }
    response
}

/// The pattern and not the path, which could hold anything.
fn route(request: &Request) -> String {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or("none", MatchedPath::as_str).to_owned()
}

/// A method's name as a label: callers may invent any number of methods.
fn name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
