//! What a message's properties say about its job, and which properties its copy gets. Used by the worker's jobs. It never
//! looks at the body.

use super::settle::Copy;
use crate::{Delivery, publisher::PERSISTENT};
use chrono::{DateTime, SecondsFormat, Utc};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use uuid::Uuid;

/// All headers share one frame of 128 KiB at most.
const MAX_TEXT_BYTES: usize = 1000;

/// The broker's own notes about the message's past. With `x-death` on a copy, the broker takes the next expiry for a
/// cycle and drops the message; `CC` and `BCC` would send the copy to further queues.
const STRIPPED: [&str; 6] = ["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC", REPLAYED];
const STRIPPED_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// On a retry of a message that has come back from the parking queue: its attempts count from there. Not on a message
/// that is parked: its next delivery is a first one.
const REPLAYED: &str = "replayed";

/// What the handler may know. A message without an id is given one.
pub(super) fn delivery(properties: &BasicProperties, redelivered: bool) -> Delivery {
    let headers = properties.headers().clone().unwrap_or_default();
    let parked_reason = text(&headers, "parked-reason").or_else(|| parked_by_the_broker(&headers));
    let fresh = parked_reason.is_some() && !headers.contains_key(REPLAYED);
    let attempt = if fresh { 1 } else { number(&headers, "attempt").unwrap_or(1).max(1) };
    let property =
        |value: &Option<ShortString>| value.as_ref().map(ToString::to_string).filter(|text| !text.is_empty());
    Delivery {
        message_id: property(properties.message_id()).unwrap_or_else(|| Uuid::now_v7().to_string()),
        kind: property(properties.kind()).unwrap_or_default(),
        attempt,
        parked_reason,
        correlation_id: property(properties.correlation_id()),
        traceparent: text(&headers, "traceparent"),
        redelivered,
    }
}

/// The properties of a job's copy: the original's, without what must not travel, with our headers. `user_id` must go,
/// because the broker closes the channel when it is not ours; `expiration`, because it would end the message early.
pub(super) fn of_copy(
    original: &BasicProperties,
    delivery: &Delivery,
    copy: &Copy,
    max_attempts: u32,
    now: DateTime<Utc>,
) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
        if !is_stripped(name.as_str()) {
            headers.insert(name.clone(), value.clone());
        }
    }
    let mut set = |name: &str, value: AMQPValue| {
        headers.insert(name.into(), value);
    };
    set("attempt", AMQPValue::LongLongInt(copy.attempt.into()));
    set("max-attempts", AMQPValue::LongLongInt(max_attempts.into()));
    set("last-error", long_text(&copy.reason));
    set("failed-at", long_text(&now.to_rfc3339_opts(SecondsFormat::Millis, true)));
    match (&copy.parked_reason, &delivery.parked_reason) {
        (Some(reason), _) => set("parked-reason", long_text(reason)),
        (None, Some(reason)) => {
            set("parked-reason", long_text(reason));
            set(REPLAYED, AMQPValue::Boolean(true));
        }
        (None, None) => {}
    }
    let mut properties = BasicProperties::default()
        .with_message_id(delivery.message_id.as_str().into())
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

fn is_stripped(name: &str) -> bool {
    STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Such a message has none of our headers: its worker never lived to write them.
fn parked_by_the_broker(headers: &FieldTable) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let by_limit = deaths.as_slice().iter().any(|death| match death {
        AMQPValue::FieldTable(death) => text(death, "reason").as_deref() == Some("delivery_limit"),
        _ => false,
    });
    by_limit.then(|| "the broker parked it: it was delivered too often without being acknowledged".to_owned())
}

fn long_text(text: &str) -> AMQPValue {
    let end = text.floor_char_boundary(MAX_TEXT_BYTES);
    let cut = if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() };
    AMQPValue::LongString(cut.into())
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Any integer type: other clients, and the management UI, choose others than we do.
fn number(headers: &FieldTable, name: &str) -> Option<u32> {
    let number = match *headers.inner().get(name)? {
        AMQPValue::ShortShortInt(number) => number.into(),
        AMQPValue::ShortShortUInt(number) => number.into(),
        AMQPValue::ShortInt(number) => number.into(),
        AMQPValue::ShortUInt(number) => number.into(),
        AMQPValue::LongInt(number) => number.into(),
        AMQPValue::LongUInt(number) => number.into(),
        AMQPValue::LongLongInt(number) => number,
        _ => return None,
    };
    u32::try_from(number).ok()
}
