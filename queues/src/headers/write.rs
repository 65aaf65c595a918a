//! Which properties a job's copy gets: the original's, without what must not travel, with our headers. `user_id` must
//! go, because the broker closes the channel when it is not ours; `expiration`, because it would end the message early.

use super::{ATTEMPT, FAILED_AT, LAST_ERROR, MAX_ATTEMPTS, PARKED_AT, PARKED_REASON, REPLAYED, time_text};
use crate::{Delivery, publisher::PERSISTENT};
use chrono::{DateTime, Utc};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

/// All headers share one frame of 128 KiB at most.
const MAX_TEXT_BYTES: usize = 1000;

/// The broker's own notes about the message's past. With `x-death` on a copy, the broker takes the next expiry for a
/// cycle and drops the message; `CC` and `BCC` would send the copy to further queues.
const STRIPPED: [&str; 6] = ["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC", REPLAYED];
const STRIPPED_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// What a copy's headers say, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) queue: String,
    pub(crate) attempt: u32,
    pub(crate) reason: String,
    /// Set for the parking queue alone.
    pub(crate) parked_reason: Option<String>,
}

/// The properties of a worker's copy, for a retry queue or the parking queue.
pub(crate) fn of_copy(
    original: &BasicProperties,
    delivery: &Delivery,
    copy: &Copy,
    max_attempts: u32,
    now: DateTime<Utc>,
) -> BasicProperties {
    let mut headers = kept(original);
    set(&mut headers, ATTEMPT, AMQPValue::LongLongInt(copy.attempt.into()));
    set(&mut headers, MAX_ATTEMPTS, AMQPValue::LongLongInt(max_attempts.into()));
    set(&mut headers, LAST_ERROR, long_text(&copy.reason));
    set(&mut headers, FAILED_AT, long_text(&time_text(now)));
    if let Some(reason) = &copy.parked_reason {
        set(&mut headers, PARKED_REASON, long_text(reason));
        set(&mut headers, PARKED_AT, long_text(&time_text(now)));
    } else {
        remember_parking(&mut headers, delivery);
    }
    properties(original, &delivery.message_id, headers)
}

/// The properties of an operator's copy, from the parking queue to the work queue: its next delivery is attempt 1.
pub(crate) fn of_replay(original: &BasicProperties, delivery: &Delivery) -> BasicProperties {
    let mut headers = kept(original);
    set(&mut headers, ATTEMPT, AMQPValue::LongLongInt(1));
    remember_parking(&mut headers, delivery);
    properties(original, &delivery.message_id, headers)
}

/// `x-death` is stripped from copies, so what the broker noted there of a parking is told in our own headers.
fn remember_parking(headers: &mut FieldTable, delivery: &Delivery) {
    if let Some(reason) = &delivery.parked_reason {
        set(headers, PARKED_REASON, long_text(reason));
        set(headers, REPLAYED, AMQPValue::Boolean(true));
    }
    if let Some(at) = delivery.parked_at {
        set(headers, PARKED_AT, long_text(&time_text(at)));
    }
}

fn kept(original: &BasicProperties) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
        if !is_stripped(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers
}

fn is_stripped(name: &str) -> bool {
    STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn properties(original: &BasicProperties, message_id: &str, headers: FieldTable) -> BasicProperties {
    let mut properties = BasicProperties::default()
        .with_message_id(message_id.into())
        .with_delivery_mode(PERSISTENT)
        .with_headers(headers);
    macro_rules! keep {
        ($($get:ident => $with:ident),+) => {$(
            if let Some(value) = original.$get() {
                properties = properties.$with(value.clone());
            }
        )+};
    }
    keep!(
        kind => with_type, content_type => with_content_type, content_encoding => with_content_encoding,
        correlation_id => with_correlation_id, reply_to => with_reply_to, app_id => with_app_id,
        timestamp => with_timestamp, priority => with_priority
    );
    properties
}

fn set(headers: &mut FieldTable, name: &str, value: AMQPValue) {
    headers.insert(name.into(), value);
}

fn long_text(text: &str) -> AMQPValue {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    let cut = if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() };
    AMQPValue::LongString(cut.into())
}
