//! What surrounds every request: its id, its span, a time limit, one log line, and one measurement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::{Instrument, info_span};
use uuid::Uuid;

use super::problem::{Cause, Problem};
use super::sampled::Sampled;
use crate::trace_context;

/// Including its body: a client that never finishes sending must not hold a connection forever.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// On requests and responses.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id accepted from a caller.
const MAX_BYTES: usize = 128;

tokio::task_local! {
    static CURRENT: String;
}

/// The caller's id if it fits a log line, otherwise a new one.
fn of(headers: &HeaderMap) -> String {
    let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
    given.filter(|id| is_plain(id)).map_or_else(|| Uuid::now_v7().to_string(), ToOwned::to_owned)
}

/// The id of the current request.
pub(super) fn current() -> Option<String> {
    CURRENT.try_with(Clone::clone).ok()
}

fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/=+".contains(&byte);
    !id.is_empty() && id.len() <= MAX_BYTES && id.bytes().all(plain)
}

/// Answers 503 when a request takes too long. Dropping the handler rolls back its transaction.
pub(super) async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("the request must be answered within {} s; send it again", TIME_LIMIT.as_secs());
            Problem::unavailable(detail).into_response()
        }
    }
}

/// Gives the request its id: in its problem, on its response, and on its log lines.
pub(super) async fn identify(request: Request, next: Next) -> Response {
    let id = of(request.headers());
    let (method, route) = (request.method().clone(), route(&request));
    let span = info_span!("request", request_id = id, %method, route);
    let caller = request.headers().get(trace_context::HEADER).and_then(|value| value.to_str().ok());
    trace_context::go_on(&span, caller);
    let header = HeaderValue::from_str(&id).ok();
    let mut response = CURRENT.scope(id, next.run(request)).instrument(span).await;
    if let Some(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    response
}

/// One line and one measurement for each request. Frequent requests are logged at debug; a webhook that can't be taken is
/// logged as a series.
pub(super) async fn log(State(refused): State<Arc<Sampled>>, request: Request, next: Next) -> Response {
    let (method, route) = (request.method().clone(), route(&request));
    let start = Instant::now();
    let response = next.run(request).await;
    let (status, elapsed) = (response.status().as_u16(), start.elapsed());
    let labels = [("method", name(&method).to_owned()), ("route", route.clone()), ("status", status.to_string())];
    metrics::histogram!("clawback_http_request_duration_seconds", &labels).record(elapsed);
    let elapsed_ms = elapsed.as_millis();
    let cause = response.extensions().get().map(|Cause(cause)| cause.as_str());
    if route.starts_with("/health/") || route == "/metrics" {
        tracing::debug!(%method, route, status, elapsed_ms, "request");
    } else if route.starts_with("/webhooks/") && response.status() == StatusCode::SERVICE_UNAVAILABLE {
        tracing::debug!(%method, route, status, elapsed_ms, "request");
        if let Some(more) = refused.occurred(start) {
            tracing::warn!(route, status, cause, more, "webhooks can't be taken; the provider sends them again");
        }
        return response;
    } else {
        tracing::info!(%method, route, status, elapsed_ms, "request");
    }
    if let Some(error) = cause {
        tracing::error!(route, error, "the database is unavailable");
    } else if route.starts_with("/webhooks/")
        && response.status().is_success()
        && let Some(series) = refused.ended(start)
    {
        let (count, lasted_s) = (series.total, series.lasted.as_secs());
        tracing::warn!(count, lasted_s, "webhooks are taken again");
    }
    response
}

/// The route's pattern: a path could hold anything.
fn route(request: &Request) -> String {
    let matched = request.extensions().get::<MatchedPath>();
    matched.map_or("none", MatchedPath::as_str).to_owned()
}

/// A method as a label: callers may invent any number of methods.
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

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use std::sync::atomic::{AtomicI32, Ordering};

    use super::*;
    use crate::http::sampled::captured_log;
    use crate::ledger::LedgerError;

    fn of_value(value: &[u8]) -> String {
        of(&HeaderMap::from_iter([(HEADER, HeaderValue::from_bytes(value).unwrap())]))
    }

    #[test]
    fn a_short_and_plain_id_is_taken_over() {
        for id in ["1", "req-01_A.b:c/d=e+f", &"x".repeat(MAX_BYTES)] {
            assert_eq!(of_value(id.as_bytes()), id);
        }
    }

    #[test]
    fn any_other_one_is_replaced() {
        let long = "x".repeat(MAX_BYTES + 1);
        for id in [b"" as &[u8], b"a b", b"a\tb", b"a\"b", "ä".as_bytes(), b"\xff", b"{}", long.as_bytes()] {
            assert!(of_value(id).parse::<Uuid>().is_ok(), "{id:?}");
        }
        assert!(of(&HeaderMap::new()).parse::<Uuid>().is_ok());
    }

    #[tokio::test]
    async fn webhooks_that_can_not_be_taken_are_one_warning_and_a_summary() {
        let (lines, _captured) = captured_log();
        let left = Arc::new(AtomicI32::new(5));
        let answer = move || {
            let left = left.fetch_sub(1, Ordering::Relaxed);
            async move {
                if left > 0 {
                    let error = LedgerError::Database(sea_orm::DbErr::Custom("it is away".into()));
                    return Problem::from(error).into_response();
                }
                StatusCode::OK.into_response()
            }
        };
        let routes = axum::Router::new().route("/webhooks/stripe", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks/stripe", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, crate::http::complete(routes)).into_future());
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = reqwest::Client::new();
        for expected in [503, 503, 503, 503, 503, 200, 200] {
            assert_eq!(client.post(&url).send().await.unwrap().status(), expected);
        }
        let text = lines.text();
        let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
        assert_eq!(warnings.len(), 2, "{text}");
        assert!(warnings[0].contains("webhooks can't be taken") && warnings[0].contains("it is away"), "{text}");
        assert!(warnings[1].contains("webhooks are taken again") && warnings[1].contains("count=5"), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("status=503")).count(), 1, "{text}");
        assert!(!text.contains("ERROR"), "{text}");
    }
}
