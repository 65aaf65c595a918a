//! An answer as it is read from the wire, and the errors of calls that got none.

use std::error::Error;
use std::io;
use std::iter::from_fn;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Response, StatusCode};
use serde::de::DeserializeOwned;

use super::fence::TooLate;
use super::outcome::{self, Asked, Headers, TransportFailure};
use super::report::Report;

/// The most of an answer that is read, in bytes: 100 objects with full metadata are below it.
const BODY_MAX_BYTES: usize = 8 * 1024 * 1024;

/// An answer, read as far as it may be.
pub(super) struct Answer {
    status: StatusCode,
    headers: Headers,
    body: Vec<u8>,
}

impl Answer {
    pub(super) async fn of(mut response: Response) -> Result<Answer, Report> {
        let status = response.status();
        let headers = look_at(response.headers());
        let mut body = Vec::new();
        let broke_off = |error| Report { request_id: headers.request_id.clone(), ..unanswered(error, Some(status)) };
        while let Some(chunk) = response.chunk().await.map_err(broke_off)? {
            if body.len() + chunk.len() > BODY_MAX_BYTES {
                // Not Stripe's; without its body, the status alone decides.
                body.clear();
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    pub(super) fn request_id(&self) -> Option<String> {
        self.headers.request_id.clone()
    }

    pub(super) fn classify(&self, asked: Asked<'_>) -> Report {
        counted(outcome::classify(self.status.as_u16(), &self.headers, &self.body, asked))
    }

    /// The object that the answer holds; none when it is a failure, or not such an object.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let object = if self.status.is_success() { serde_json::from_slice(&self.body).ok() } else { None };
        if object.is_some() {
            count("read");
        }
        object
    }
}

/// Every call comes by here once: as what it read, or as the report of what it met.
fn counted(report: Report) -> Report {
    count(report.meaning.label());
    report
}

fn count(meaning: &'static str) {
    metrics::counter!("clawback_stripe_calls_total", "meaning" => meaning).increment(1);
}

fn look_at(headers: &HeaderMap) -> Headers {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    Headers {
        request_id: text("request-id").map(str::to_owned),
        replayed: text("idempotent-replayed") == Some("true"),
        should_retry: text("stripe-should-retry").and_then(|value| value.parse().ok()),
        retry_after: text("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs),
        rate_limited_reason: text("stripe-rate-limited-reason").map(str::to_owned),
    }
}

/// The report of a call that got no answer, or of `status` and nothing after it.
pub(super) fn unanswered(error: reqwest::Error, status: Option<StatusCode>) -> Report {
    let error = error.without_url();
    if causes(&error).any(|cause| cause.is::<TooLate>()) {
        return outcome::not_sent(&TooLate.to_string());
    }
    // Once connected, a TLS error is a broken connection like any other.
    let failure = if error.is_connect() && is_tls(&error) { TransportFailure::Tls } else { TransportFailure::Network };
    counted(outcome::classify_transport(failure, status.map(|status| status.as_u16()), &chain(&error)))
}

/// Whether rustls speaks somewhere in the error's causes. It comes wrapped in one [`io::Error`] or more, whose `source`
/// skips what they wrap.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>()
        || match wrapped {
            Some(inner) => is_tls(inner),
            None => error.source().is_some_and(is_tls),
        }
}

/// The error and its causes, in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The error, its cause, the cause's cause, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
