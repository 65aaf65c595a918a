//! What is done around every request: a time limit, and one log line. Layers; they never look at a body.

use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;

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

/// One line a request; at debug for health checks, which come every few seconds.
pub(super) async fn log(request: Request, next: Next) -> Response {
    let method = request.method().clone();
    // The pattern and not the path, which could hold anything.
    let matched = request.extensions().get::<MatchedPath>().cloned();
    let route = matched.as_ref().map_or("none", MatchedPath::as_str);
    let start = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let elapsed_ms = start.elapsed().as_millis();
    if route.starts_with("/health/") {
        tracing::debug!(%method, route, status, elapsed_ms, "request");
    } else {
        tracing::info!(%method, route, status, elapsed_ms, "request");
    }
    response
}
