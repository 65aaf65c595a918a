//! What the parsers of all providers share: errors with the field's path, the checks of single values, and the shares that a
//! refund's metadata may name. Pure.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http::problem::locate;
use crate::ledger::{EventContent, NamedShare};

/// The providers' ids and types are shorter.
const IDENTIFIER_MAX_BYTES: usize = 255;

/// A signed body that is not an event, or an event of a type that counts with an object that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", .field.as_ref().map(|field| format!("{field}: ")).unwrap_or_default())]
pub struct MalformedEvent {
    /// The JSON path (`data.object.amount`), unless the body as a whole is meant.
    pub field: Option<String>,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// The whole body.
pub(super) fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, MalformedEvent> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let document = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| malformed(&error, ""))?;
    deserializer.end().map_err(|error| MalformedEvent { field: None, problem: error.to_string() })?;
    Ok(document)
}

/// The part of the body at `path`.
pub(super) fn read<T: DeserializeOwned>(part: &Value, path: &str) -> Result<T, MalformedEvent> {
    serde_path_to_error::deserialize(part).map_err(|error| malformed(&error, path))
}

fn malformed(error: &serde_path_to_error::Error<serde_json::Error>, root: &str) -> MalformedEvent {
    let (field, problem) = locate(error, root);
    MalformedEvent { field, problem }
}

fn refused(field: impl Into<String>, problem: String) -> MalformedEvent {
    MalformedEvent { field: Some(field.into()), problem }
}

pub(super) fn irrelevant(reason: impl Into<String>) -> EventContent {
    EventContent::Irrelevant { reason: reason.into() }
}

pub(super) fn positive(field: String, amount: i64) -> Result<i64, MalformedEvent> {
    if amount > 0 {
        return Ok(amount);
    }
    Err(refused(field, format!("is {amount}; allowed: minor units, more than 0")))
}

/// Also keeps out the NUL character, which PostgreSQL refuses: such an event would be sent again for days.
pub(super) fn identifier(field: impl Into<String>, value: String) -> Result<String, MalformedEvent> {
    if (1..=IDENTIFIER_MAX_BYTES).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(value);
    }
    let allowed = format!("allowed: 1 to {IDENTIFIER_MAX_BYTES} ASCII characters without white space");
    Err(refused(field, format!("is not an identifier; {allowed}")))
}

pub(super) fn currency(field: String, value: &str) -> Result<String, MalformedEvent> {
    if value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Ok(value.to_ascii_lowercase());
    }
    let shown: String = value.chars().take(20).collect();
    Err(refused(field, format!("is {shown:?}; allowed: three letters (ISO 4217)")))
}

/// What `metadata` asks of each transfer, under keys like `clawback[tr_1]`; `None` where there is no such key. Taken as it is
/// written, since a share that makes no sense must not lose the refund.
pub(super) fn named_shares(metadata: &Value) -> Option<Vec<NamedShare>> {
    let named = metadata.as_object()?.iter().filter_map(|(key, amount)| {
        let id = key.strip_prefix("clawback[")?;
        Some(NamedShare {
            transfer_id: id.strip_suffix(']').unwrap_or(id).to_owned(),
            amount: amount.as_str().map_or_else(|| amount.to_string(), ToOwned::to_owned),
        })
    });
    Some(named.collect::<Vec<_>>()).filter(|named| !named.is_empty())
}
