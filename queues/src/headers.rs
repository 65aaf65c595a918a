//! Our headers on messages: what they say about a job, and which of them a copy gets. A header of a wrong type counts as
//! missing: other programs, and people, publish too.

#[cfg(test)]
mod fuzz;

use crate::{Delivery, publisher::PERSISTENT, topology::Address};
use chrono::{DateTime, Datelike, SecondsFormat, TimeDelta, Utc};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// The next delivery's attempt number, from 1; on a parked message: the last one's.
pub(crate) const ATTEMPT: &str = "attempt";
/// When the job was first published: milliseconds since 1970, because AMQP's own `timestamp` has whole seconds.
pub(crate) const PUBLISHED_MS: &str = "published-ms";
pub(crate) const TRACEPARENT: &str = "traceparent";
const MAX_ATTEMPTS: &str = "max-attempts";
const LAST_ERROR: &str = "last-error";
const FAILED_AT: &str = "failed-at";
const PARKED_REASON: &str = "parked-reason";
const PARKED_AT: &str = "parked-at";
/// On a job that returned from the parking queue: its attempts count from there. Absent while parked, so moving it by hand
/// restarts the count.
const REPLAYED: &str = "replayed";
/// When a delay longer than the longest retry queue ends: until then early arrivals are delayed again.
pub(crate) const DUE_AT: &str = "due-at";
/// What the job is about, for order and limits.
pub(crate) const KEY: &str = "key";
/// How often the job came back to a worker that returned it, or that knew no such kind; and since when that is so.
pub(crate) const GIVEN_BACK: &str = "given-back";
pub(crate) const UNKNOWN_KIND: &str = "unknown-kind";
const UNKNOWN_SINCE: &str = "unknown-since";
/// Those that a publisher must not set itself.
const OURS: [&str; 15] = [
    ATTEMPT,
    PUBLISHED_MS,
    TRACEPARENT,
    MAX_ATTEMPTS,
    LAST_ERROR,
    FAILED_AT,
    PARKED_REASON,
    PARKED_AT,
    REPLAYED,
    DUE_AT,
    GIVEN_BACK,
    UNKNOWN_KIND,
    UNKNOWN_SINCE,
    KEY,
    "CC",
];
/// All headers share one frame of 128 KiB at most.
const MAX_TEXT_BYTES: usize = 1000;

/// The broker's own notes. With `x-death` on a copy, the broker takes the next expiry for a cycle and drops the message;
/// `CC` and `BCC` would send the copy to further queues.
const STRIPPED: [&str; 10] = [
    "x-death",
    "x-delivery-count",
    "x-acquired-count",
    "CC",
    "BCC",
    REPLAYED,
    DUE_AT,
    GIVEN_BACK,
    UNKNOWN_KIND,
    UNKNOWN_SINCE,
];
const STRIPPED_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

const BY_THE_BROKER: &str = "the broker parked it: it was delivered too often without being acknowledged";

/// Why and when a message was parked.
struct Parked {
    reason: String,
    at: Option<DateTime<Utc>>,
}

/// The handler's view. A message without an id gets one.
pub(crate) fn delivery(properties: &BasicProperties, redelivered: bool) -> Delivery {
    let none = FieldTable::default();
    let headers = properties.headers().as_ref().unwrap_or(&none);
    let by_the_broker = parked_by_the_broker(headers);
    let fresh = by_the_broker.is_some() || !headers.contains_key(REPLAYED);
    let parked = by_the_broker.or_else(|| parked_by_a_worker(headers));
    let attempt = if parked.is_some() && fresh { 1 } else { attempt(properties) };
    let (parked_reason, parked_at) = parked.map_or((None, None), |parked| (Some(parked.reason), parked.at));
    Delivery {
        message_id: message_id(properties).unwrap_or_else(|| Uuid::now_v7().to_string()),
        kind: property(properties.kind()).unwrap_or_default(),
        key: text(headers, KEY),
        attempt,
        parked_reason,
        parked_at,
        correlation_id: property(properties.correlation_id()),
        traceparent: text(headers, TRACEPARENT),
        redelivered,
        max_attempts: None,
        first_published_at: first_published_at(properties),
        headers: foreign(headers),
    }
}

/// The publisher's own headers as text.
fn foreign(headers: &FieldTable) -> BTreeMap<String, String> {
    let foreign = headers.inner().iter().filter(|(name, _)| !is_reserved(name.as_str()));
    foreign.map(|(name, value)| (name.to_string(), value_text(value))).collect()
}

/// Whether a header belongs to the library or the broker.
pub(crate) fn is_reserved(name: &str) -> bool {
    OURS.contains(&name) || name == "BCC" || name.starts_with("x-")
}

/// What the job is about.
pub(crate) fn key(properties: &BasicProperties) -> Option<String> {
    text(properties.headers().as_ref()?, KEY)
}

/// Whether this library published the message: another program's count of attempts is believed up to the maximum only.
pub(crate) fn is_ours(properties: &BasicProperties) -> bool {
    number(properties, PUBLISHED_MS).is_some()
}

pub(crate) fn due_at(properties: &BasicProperties) -> Option<DateTime<Utc>> {
    time(properties.headers().as_ref()?, DUE_AT)
}

/// Since when workers have known no such kind.
pub(crate) fn unknown_since(properties: &BasicProperties) -> Option<DateTime<Utc>> {
    time(properties.headers().as_ref()?, UNKNOWN_SINCE)
}

/// One of our counters; 0 when missing.
pub(crate) fn count(properties: &BasicProperties, name: &str) -> u32 {
    number(properties, name).and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// How many bytes a table of headers has in AMQP.
pub(crate) fn encoded_bytes(headers: &FieldTable) -> usize {
    let entries = headers.inner().iter().map(|(name, value)| 1 + name.as_str().len() + value_bytes(value));
    4 + entries.sum::<usize>()
}

/// With the byte for the type.
fn value_bytes(value: &AMQPValue) -> usize {
    1 + match value {
        AMQPValue::LongString(text) => 4 + text.as_bytes().len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.as_slice().len(),
        AMQPValue::FieldArray(values) => 4 + values.as_slice().iter().map(value_bytes).sum::<usize>(),
        AMQPValue::FieldTable(table) => encoded_bytes(table),
        // Numbers, times and truth values have 8 bytes at most.
        _ => 8,
    }
}

/// The properties of a copy that goes to the parking queue without the headers of others, which are too large.
pub(crate) fn without_foreign(copy: &BasicProperties, reason: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in copy.headers().iter().flat_map(FieldTable::inner) {
        if OURS.contains(&name.as_str()) && !is_stripped(name.as_str()) && value_bytes(value) <= 2 * MAX_TEXT_BYTES {
            headers.insert(name.clone(), value.clone());
        }
    }
    copy.clone().with_headers(parked_now(headers, reason))
}

/// The properties of a parked copy of a message that could not be read.
pub(crate) fn of_rescue(repaired: &BasicProperties, message_id: &str, reason: &str) -> BasicProperties {
    properties(repaired, message_id, parked_now(kept(repaired), reason))
}

fn parked_now(mut headers: FieldTable, reason: &str) -> FieldTable {
    set(&mut headers, PARKED_REASON, long_text(reason));
    set(&mut headers, PARKED_AT, long_text(&time_text(Utc::now())));
    headers
}

/// Why a body cannot be JSON in UTF-8, according to its properties.
pub(crate) fn unsupported_content(properties: &BasicProperties) -> Option<String> {
    let content_type = property(properties.content_type()).unwrap_or_default().to_ascii_lowercase();
    let mut parts = content_type.split(';').map(str::trim);
    let media_type = parts.next().unwrap_or_default();
    let is_json = ["", "application/json", "text/json"].contains(&media_type) || media_type.ends_with("+json");
    let mut charsets = parts.filter_map(|parameter| parameter.strip_prefix("charset="));
    let is_utf8 = |charset: &str| ["utf-8", "utf8", "us-ascii"].contains(&charset.trim_matches('"'));
    if !is_json || !charsets.all(is_utf8) {
        return Some(format!("the content type must be application/json in UTF-8 (got {content_type:?})"));
    }
    let encoding = property(properties.content_encoding()).unwrap_or_default().to_ascii_lowercase();
    (!["", "utf-8", "utf8", "identity"].contains(&encoding.as_str()))
        .then(|| format!("the content encoding must be utf-8 or none (got {encoding:?})"))
}

/// The number in the header, at least 1.
pub(crate) fn attempt(properties: &BasicProperties) -> u32 {
    count(properties, ATTEMPT).max(1)
}

pub(crate) fn message_id(properties: &BasicProperties) -> Option<String> {
    property(properties.message_id())
}

/// From our header, or in whole seconds from the `timestamp` of another program.
pub(crate) fn first_published_at(properties: &BasicProperties) -> Option<DateTime<Utc>> {
    let ours = number(properties, PUBLISHED_MS);
    let theirs = || properties.timestamp().and_then(|seconds| i64::try_from(seconds).ok()?.checked_mul(1000));
    DateTime::from_timestamp_millis(ours.or_else(theirs)?)
}

/// Every header for people's eyes: texts and numbers as they are, tables in JSON's manner.
pub(crate) fn as_text(properties: &BasicProperties) -> BTreeMap<String, String> {
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    headers.map(|(name, value)| (name.to_string(), value_text(value))).collect()
}

fn value_text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        AMQPValue::FieldArray(values) => {
            let values: Vec<String> = values.as_slice().iter().map(value_text).collect();
            format!("[{}]", values.join(", "))
        }
        AMQPValue::FieldTable(table) => {
            let fields: Vec<String> =
                table.inner().iter().map(|(name, value)| format!("{name}: {}", value_text(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) | AMQPValue::Void => format!("{value:?}"),
        number => integer_of(number).map_or_else(|| format!("{number:?}"), |number| number.to_string()),
    }
}

fn property(value: &Option<ShortString>) -> Option<String> {
    value.as_ref().map(ToString::to_string).filter(|text| !text.is_empty())
}

fn parked_by_a_worker(headers: &FieldTable) -> Option<Parked> {
    let reason = text(headers, PARKED_REASON)?;
    Some(Parked { reason, at: time(headers, PARKED_AT) })
}

fn time(headers: &FieldTable, name: &str) -> Option<DateTime<Utc>> {
    Some(DateTime::parse_from_rfc3339(&text(headers, name)?).ok()?.to_utc())
}

/// At the delivery limit. No copy of ours carries `x-death`, so this came after whatever our own headers tell.
fn parked_by_the_broker(headers: &FieldTable) -> Option<Parked> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    deaths.as_slice().iter().find_map(|death| match death {
        AMQPValue::FieldTable(death) if text(death, "reason").as_deref() == Some("delivery_limit") => {
            let at = match death.inner().get("time") {
                Some(AMQPValue::Timestamp(seconds)) => i64::try_from(*seconds).ok(),
                _ => None,
            };
            let at = at.and_then(|seconds| DateTime::from_timestamp(seconds, 0));
            Some(Parked { reason: BY_THE_BROKER.to_owned(), at })
        }
        _ => None,
    })
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn number(properties: &BasicProperties, name: &str) -> Option<i64> {
    integer(properties.headers().as_ref()?, name)
}

/// Any integer type: other clients, and the management UI, choose others than we do.
fn integer(headers: &FieldTable, name: &str) -> Option<i64> {
    integer_of(headers.inner().get(name)?)
}

fn integer_of(value: &AMQPValue) -> Option<i64> {
    Some(match *value {
        AMQPValue::ShortShortInt(number) => number.into(),
        AMQPValue::ShortShortUInt(number) => number.into(),
        AMQPValue::ShortInt(number) => number.into(),
        AMQPValue::ShortUInt(number) => number.into(),
        AMQPValue::LongInt(number) => number.into(),
        AMQPValue::LongUInt(number) => number.into(),
        AMQPValue::LongLongInt(number) => number,
        _ => return None,
    })
}

/// A copy's destination, and what its headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) to: Address,
    /// How long it waits there before it comes again.
    pub(crate) delay: Duration,
    pub(crate) attempt: u32,
    /// `None` keeps the error of the last attempt.
    pub(crate) reason: Option<String>,
    /// Set for the parking queue alone.
    pub(crate) parked_reason: Option<String>,
    pub(crate) due_at: Option<DateTime<Utc>>,
    /// [`GIVEN_BACK`] or [`UNKNOWN_KIND`], counted so far.
    pub(crate) counter: Option<(&'static str, u32)>,
    pub(crate) unknown_since: Option<DateTime<Utc>>,
}

/// The properties of a worker's copy for a retry queue or the parking queue.
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
    if let Some(reason) = &copy.reason {
        set(&mut headers, LAST_ERROR, long_text(reason));
        set(&mut headers, FAILED_AT, long_text(&time_text(now)));
    }
    if let Some(due_at) = copy.due_at {
        set(&mut headers, DUE_AT, long_text(&time_text(due_at)));
    }
    if let Some((name, count)) = copy.counter {
        set(&mut headers, name, AMQPValue::LongLongInt(count.into()));
    }
    if let Some(since) = copy.unknown_since {
        set(&mut headers, UNKNOWN_SINCE, long_text(&time_text(since)));
    }
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

/// `x-death` is stripped from copies, so the broker's note of a parking moves into our own headers.
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

/// Without `user_id`, because the broker closes the channel when it is not ours, and without `expiration`, which would end
/// the copy early.
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

/// The time of a delay's end, as a header's text; `None` beyond the years that it can hold.
pub(crate) fn after(now: DateTime<Utc>, delay: Duration) -> Option<String> {
    let end = now.checked_add_signed(TimeDelta::from_std(delay).ok()?)?;
    (end.year() <= 9999).then(|| time_text(end))
}

/// RFC 3339 in UTC, with milliseconds.
fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
