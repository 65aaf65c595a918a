//! What an outcome of a call to Stripe means: ONE pure function over the answer, and a small one for calls that got
//! none.
//!
//! Called by the client for every call, and by nothing else; the worker matches on [`Meaning`], exhaustively. Nothing
//! here does I/O, knows retries or decides what to do: each variant's comment says what leads out of it.

use std::time::Duration;

use serde::Deserialize;

use super::report::{MESSAGE_MAX_CHARS, Meaning, RETRY_AFTER_MAX, Report};
use super::types::{CreateTransfer, ReverseTransfer, Transfer, TransferReversal};

/// The headers that the classification looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// `Request-Id`
    pub request_id: Option<String>,
    /// `Idempotent-Replayed`
    pub replayed: bool,
    /// `Stripe-Should-Retry`; none unless it says `true` or `false`.
    pub should_retry: Option<bool>,
    /// `Retry-After`, in seconds as Stripe gives it; not yet capped.
    pub retry_after: Option<Duration>,
    /// `Stripe-Rate-Limited-Reason`: which limiter it was.
    pub rate_limited_reason: Option<String>,
}

/// What the call was for: a 2xx means something only in the light of it, and so do a few refusals.
#[derive(Debug, Clone, Copy)]
pub enum Asked<'a> {
    /// To reverse a transfer.
    Reversal(&'a ReverseTransfer),
    /// To create a transfer.
    Creation(&'a CreateTransfer),
    /// To read something. The client keeps an answer that it can read to itself, so a 2xx that comes here is one it
    /// could not.
    Read,
}

/// What an answer means.
///
/// The first line that fits decides: a 2xx by its body; then the status or the code that speaks for itself (table in
/// the tests); then, for a 4xx that nothing else explains, [`Meaning::Rejected`]. A 4xx, other than 401, 409 and 429,
/// without Stripe's error object is not Stripe's (a proxy, a firewall), and means [`Meaning::Unavailable`]; so do 3xx,
/// which are not followed.
///
/// `Stripe-Should-Retry` speaks of sending the same request with the same key again, and changes two meanings only:
/// `true` turns
/// `Rejected` into `Unavailable`, and `false` turns `Unavailable` into `ServerError`, because the key is of no more
/// use. It changes no definite refusal, and not 409, 429 and 500, whose handling is safe whatever it says.
#[must_use]
pub fn classify(status: u16, headers: &Headers, body: &[u8], asked: Asked<'_>) -> Report {
    let error = serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error);
    let (meaning, mut message) = if (200..300).contains(&status) {
        classify_success(body, asked)
    } else {
        let meaning = classify_failure(status, headers, error.as_ref(), asked);
        let message = match &error {
            Some(StripeError { message: Some(message), .. }) => message.clone(),
            // Somebody in between answered; a web page in a log helps nobody.
            _ => format!("HTTP {status}, without Stripe's error object"),
        };
        (meaning, message)
    };
    if let Some(reason) = &headers.rate_limited_reason {
        message.push_str(&format!(" (limiter: {reason})"));
    }
    Report {
        meaning,
        http_status: Some(status),
        request_id: headers.request_id.clone(),
        code: error.and_then(|error| error.code).map(|code| for_people(&code)),
        message: for_people(&message),
        retry_after: headers.retry_after.map(|wait| wait.min(RETRY_AFTER_MAX)),
        replayed: headers.replayed,
    }
}

/// Why no answer came, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportFailure {
    /// The TLS handshake failed: the certificate is not trusted, or the other side speaks no TLS.
    Tls,
    /// Everything else: DNS, refused, timeout, reset, an answer that broke off.
    Network,
}

/// What a call means that got no answer, or only part of one (`status` tells which).
#[must_use]
pub fn classify_transport(failure: TransportFailure, status: Option<u16>, message: &str) -> Report {
    let meaning = match failure {
        TransportFailure::Tls => Meaning::TlsFailed,
        TransportFailure::Network => Meaning::Unreached,
    };
    without_answer(meaning, status, message)
}

/// The report of a call that was not sent.
#[must_use]
pub(super) fn not_sent(message: &str) -> Report {
    without_answer(Meaning::NotSent, None, message)
}

fn without_answer(meaning: Meaning, status: Option<u16>, message: &str) -> Report {
    Report {
        meaning,
        http_status: status,
        request_id: None,
        code: None,
        message: for_people(message),
        retry_after: None,
        replayed: false,
    }
}

fn classify_success(body: &[u8], asked: Asked<'_>) -> (Meaning, String) {
    match asked {
        Asked::Reversal(asked) => classify_reversal(body, asked),
        Asked::Creation(asked) => classify_creation(body, asked),
        Asked::Read => unreadable("the answer is not what this request should get".to_owned()),
    }
}

fn unreadable(why: String) -> (Meaning, String) {
    (Meaning::Unreadable, why)
}

fn classify_creation(body: &[u8], asked: &CreateTransfer) -> (Meaning, String) {
    let transfer: Transfer = match serde_json::from_slice(body) {
        Ok(transfer) => transfer,
        Err(error) => return unreadable(format!("the answer is not a transfer: {error}")),
    };
    if let Some(difference) = transfer.difference(asked) {
        return unreadable(difference);
    }
    let message = format!("created as {}", transfer.id);
    (Meaning::Created { transfer_id: transfer.id }, message)
}

fn classify_reversal(body: &[u8], asked: &ReverseTransfer) -> (Meaning, String) {
    let reversal: TransferReversal = match serde_json::from_slice(body) {
        Ok(reversal) => reversal,
        Err(error) => return unreadable(format!("the answer is not a transfer reversal: {error}")),
    };
    if let Some(difference) = difference(&reversal, asked) {
        return unreadable(difference);
    }
    let TransferReversal { id, status, balance_transaction, .. } = reversal;
    match status.as_deref() {
        None | Some("succeeded") => {
            let message = format!("reversed as {id}");
            (Meaning::Reversed { reversal_id: id, balance_transaction }, message)
        }
        Some("failed" | "canceled") => {
            let status = status.unwrap_or_default();
            let message = format!("Stripe ended the reversal {id} as {status}");
            (Meaning::Ended { status }, message)
        }
        // A status that is newer than this code is not done either; looking again is safe, posting again is not.
        Some(other) => {
            (Meaning::Pending { reversal_id: id.clone() }, format!("Stripe has the reversal {id}, status {other}"))
        }
    }
}

/// What in the answer is not as asked. Missing metadata is no difference: Stripe's answer is by our key, and amount and
/// transfer match.
fn difference(got: &TransferReversal, asked: &ReverseTransfer) -> Option<String> {
    if got.id.is_empty() {
        return Some("the answer has an empty id".to_owned());
    }
    if got.transfer != asked.transfer_id {
        return Some(format!("the answer is about transfer {}, not {}", got.transfer, asked.transfer_id));
    }
    if got.amount != asked.amount || !got.currency.eq_ignore_ascii_case(&asked.currency) {
        let (amount, currency) = (got.amount, &got.currency);
        return Some(format!("reversed were {amount} {currency}, not {} {}", asked.amount, asked.currency));
    }
    match got.claim() {
        Some(other) if other != asked.claim => Some(format!("the answer is about claim {other}, not {}", asked.claim)),
        _ => None,
    }
}

fn classify_failure(status: u16, headers: &Headers, error: Option<&StripeError>, asked: Asked<'_>) -> Meaning {
    let code = error.and_then(|error| error.code.as_deref()).unwrap_or_default();
    match (status, code) {
        (_, "lock_timeout") => return Meaning::Locked,
        (409, _) | (_, "idempotency_key_in_use") => return Meaning::KeyInUse,
        (429, _) | (_, "rate_limit") => return Meaning::RateLimited,
        (401, _) => return Meaning::Denied,
        (502..=504 | 424, _) if !headers.replayed => return unavailable(headers),
        (500..=599 | 424, _) => return Meaning::ServerError,
        _ => {}
    }
    let Some(error) = error.filter(|_| (400..500).contains(&status)) else {
        return unavailable(headers);
    };
    match classify_refusal(status, error, asked) {
        Meaning::Rejected if headers.should_retry == Some(true) => Meaning::Unavailable,
        meaning => meaning,
    }
}

fn unavailable(headers: &Headers) -> Meaning {
    if headers.should_retry == Some(false) { Meaning::ServerError } else { Meaning::Unavailable }
}

/// A 4xx with Stripe's error object: a definite refusal.
fn classify_refusal(status: u16, error: &StripeError, asked: Asked<'_>) -> Meaning {
    let message = error.message.as_deref().unwrap_or_default().to_ascii_lowercase();
    match error.code.as_deref().unwrap_or_default() {
        "balance_insufficient" | "insufficient_funds" => return Meaning::BalanceInsufficient,
        "api_key_expired"
        | "platform_api_key_expired"
        | "livemode_mismatch"
        | "more_permissions_required"
        | "secret_key_required" => return Meaning::Denied,
        "account_invalid" => return Meaning::Forbidden,
        _ => {}
    }
    if error.kind == "idempotency_error" {
        return Meaning::KeyMisused;
    }
    // Not every account's answer has a code for it.
    if error.code.is_none()
        && message.contains("insufficient")
        && (message.contains("fund") || message.contains("balance"))
    {
        return Meaning::BalanceInsufficient;
    }
    match status {
        403 => Meaning::Forbidden,
        // Stripe says "a similar object exists in live mode, but a test mode key was used": the key is wrong, not the
        // id.
        404 if message.contains("a similar object exists in") => Meaning::Denied,
        // A creation names no transfer, but an account and perhaps a charge. Nothing else that follows is about it.
        _ if matches!(asked, Asked::Creation(_)) => match error.code.as_deref() {
            Some("resource_missing") => Meaning::NoSuchAccount,
            _ => Meaning::Rejected,
        },
        404 => Meaning::NoSuchTransfer,
        // Neither has a code of its own, and the second is not documented at all; a wrong guess costs one GET.
        400 | 402 if message.contains("already fully reversed") => Meaning::AlreadyReversed,
        400 | 402
            if error.code.is_none()
                && (error.param.as_deref() == Some("amount") || message.contains("greater than")) =>
        {
            Meaning::MoreThanLeft
        }
        _ => Meaning::Rejected,
    }
}

/// Stripe wraps every error in `{"error": {…}}` and leaves null fields out.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: StripeError,
}

#[derive(Debug, Deserialize)]
struct StripeError {
    #[serde(rename = "type")]
    kind: String,
    code: Option<String>,
    message: Option<String>,
    param: Option<String>,
}

/// One line, no API key, not too long, and nothing that PostgreSQL refuses or that a terminal obeys. Stripe masks keys in its messages; whatever stands between us and Stripe may
/// not.
fn for_people(text: &str) -> String {
    let text: String = text.chars().filter(|it| it.is_whitespace() || !it.is_control()).collect();
    // More words have no room.
    let words = text.split_whitespace().take(MESSAGE_MAX_CHARS);
    let shown = words.map(|word| if has_secret(word) { "[redacted]" } else { word });
    let line = shown.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MESSAGE_MAX_CHARS - 1) {
        Some((at, last)) if at + last.len_utf8() < line.len() => format!("{}…", &line[..at]),
        _ => line,
    }
}

/// Whether a key stands in the word, also behind a quote or an equals sign. One that Stripe has masked with `*` may be
/// read.
fn has_secret(word: &str) -> bool {
    let starts_at = |prefix| word.match_indices(prefix).any(|(at, _)| !word[..at].ends_with(char::is_alphanumeric));
    !word.contains('*') && SECRET_PREFIXES.iter().any(|prefix| starts_at(*prefix))
}

/// How Stripe's secret keys, restricted keys and webhook secrets begin.
const SECRET_PREFIXES: [&str; 3] = ["sk_", "rk_", "whsec_"];

#[cfg(test)]
mod tests;
