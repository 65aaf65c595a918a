//! Our headers on messages: what they say about a job (`read`), and which of them a copy gets (`write`). Used by the
//! worker and by the parking queue's operators. They never look at a body.

mod read;
mod write;

pub(crate) use read::{as_text, attempt, delivery, first_published_at, message_id};
pub(crate) use write::{Copy, of_copy, of_replay};

use chrono::{DateTime, SecondsFormat, Utc};

/// Which attempt the next delivery is, from 1; on a parked message: which was the last.
pub(crate) const ATTEMPT: &str = "attempt";
/// When a publisher first sent the job: milliseconds since 1970, because AMQP's own `timestamp` has whole seconds.
pub(crate) const PUBLISHED_MS: &str = "published-ms";
pub(crate) const TRACEPARENT: &str = "traceparent";
const MAX_ATTEMPTS: &str = "max-attempts";
const LAST_ERROR: &str = "last-error";
const FAILED_AT: &str = "failed-at";
const PARKED_REASON: &str = "parked-reason";
const PARKED_AT: &str = "parked-at";
/// On a job that has come back from the parking queue: its attempts count from there. Not on a message that is parked,
/// so that moving it by hand starts its count anew.
const REPLAYED: &str = "replayed";

/// RFC 3339 in UTC, with milliseconds.
fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
