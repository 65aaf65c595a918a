//! Reads what all providers' events have in common, with the path of the field in every error. Pure.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http::json;
use crate::ledger::{EventContent, FieldProblem, NamedShare};

/// Longer than any id or type of a provider.
const IDENTIFIER_MAX_BYTES: usize = 255;
/// What Clawback itself writes into metadata after `clawback_`: no transfers.
const OUR_KEYS: [&str; 2] = ["claim", "transfer"];

/// A signed body that is not an event, or an event of a supported type with an object that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", match .field { Some(field) => FieldProblem::new(field, problem).to_string(), None => problem.clone() })]
pub struct MalformedEvent {
    /// The JSON path (`data.object.amount`), unless the whole body is wrong.
    pub field: Option<String>,
    /// What is wrong, as it reads behind the field's name.
    pub problem: String,
}

/// The whole body.
pub(super) fn document<T: DeserializeOwned>(body: &[u8]) -> Result<T, MalformedEvent> {
    json::read(body).map_err(|(field, problem)| MalformedEvent { field, problem })
}

/// The part of the body at `path`.
pub(super) fn read<T: DeserializeOwned>(part: &Value, path: &str) -> Result<T, MalformedEvent> {
    serde_path_to_error::deserialize(part).map_err(|error| {
        let (field, problem) = json::locate(&error, path);
        MalformedEvent { field, problem }
    })
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
    Err(refused(field, format!("must be a positive integer in minor units (got {amount})")))
}

/// Refuses NUL too: PostgreSQL does, and such an event would be resent for days.
pub(super) fn identifier(field: impl Into<String>, value: String) -> Result<String, MalformedEvent> {
    if (1..=IDENTIFIER_MAX_BYTES).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(value);
    }
    Err(refused(field, format!("must be 1 to {IDENTIFIER_MAX_BYTES} ASCII characters without white space")))
}

pub(super) fn currency(field: String, value: &str) -> Result<String, MalformedEvent> {
    if value.len() == 3 && value.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Ok(value.to_ascii_lowercase());
    }
    let shown: String = value.chars().take(20).collect();
    Err(refused(field, format!("must be a three-letter ISO 4217 code (got {shown:?})")))
}

/// Each transfer's share in `metadata`, under keys like `clawback_tr_1` (Stripe allows no brackets in keys) or
/// `clawback[tr_1]`; `None` without such a key. Kept as written: a share that makes no sense must not lose the refund.
pub(super) fn named_shares(metadata: &Value) -> Option<Vec<NamedShare>> {
    let named = metadata.as_object()?.iter().filter_map(|(key, amount)| {
        let id = match key.strip_prefix("clawback[") {
            Some(id) => id.strip_suffix(']').unwrap_or(id),
            None => key.strip_prefix("clawback_").filter(|id| !OUR_KEYS.contains(id))?,
        };
        Some(NamedShare {
            transfer_id: id.to_owned(),
            amount: amount.as_str().map_or_else(|| amount.to_string(), ToOwned::to_owned),
        })
    });
    Some(named.collect::<Vec<_>>()).filter(|named| !named.is_empty())
}
