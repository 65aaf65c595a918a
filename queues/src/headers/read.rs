//! What a message's properties say about its job. A header of a wrong type counts as missing: other programs, and
//! people, publish too.

use super::{ATTEMPT, PARKED_AT, PARKED_REASON, PUBLISHED_MS, REPLAYED, TRACEPARENT};
use crate::Delivery;
use chrono::{DateTime, Utc};
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::collections::BTreeMap;
use uuid::Uuid;

const BY_THE_BROKER: &str = "the broker parked it: it was delivered too often without being acknowledged";

/// Why and when a message was parked.
struct Parked {
    reason: String,
    at: Option<DateTime<Utc>>,
}

/// What the handler may know. A message without an id is given one.
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
        attempt,
        parked_reason,
        parked_at,
        correlation_id: property(properties.correlation_id()),
        traceparent: text(headers, TRACEPARENT),
        redelivered,
    }
}

/// The number in the header, at least 1.
pub(crate) fn attempt(properties: &BasicProperties) -> u32 {
    let number = properties.headers().as_ref().and_then(|headers| integer(headers, ATTEMPT));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(1).max(1)
}

pub(crate) fn message_id(properties: &BasicProperties) -> Option<String> {
    property(properties.message_id())
}

/// From our header, or in whole seconds from the `timestamp` of another program.
pub(crate) fn first_published_at(properties: &BasicProperties) -> Option<DateTime<Utc>> {
    let ours = properties.headers().as_ref().and_then(|headers| integer(headers, PUBLISHED_MS));
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
    let at = text(headers, PARKED_AT).and_then(|text| DateTime::parse_from_rfc3339(&text).ok());
    Some(Parked { reason, at: at.map(|at| at.to_utc()) })
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
