//! `expand[]`: which ids of which objects can be replaced by the objects, and the replacing.

use serde_json::{Value, json};

use crate::shapes::{self, ApiError};
use crate::state::State;

/// Field names, outermost first.
pub(crate) type Path = Vec<String>;

const DEPTH_MAX: usize = 4;

/// The type of the object that a field of a type refers to.
fn target(object: &str, field: &str) -> Option<&'static str> {
    Some(match (object, field) {
        ("transfer", "destination") | ("charge" | "payment_intent", "on_behalf_of") => "account",
        ("transfer" | "transfer_reversal" | "charge" | "refund", "balance_transaction") => "balance_transaction",
        ("transfer", "destination_payment" | "source_transaction")
        | ("payment_intent", "latest_charge")
        | ("refund" | "dispute", "charge") => "charge",
        ("transfer", "reversals") => "list of transfer_reversal",
        ("transfer_reversal", "destination_payment_refund" | "source_refund") => "refund",
        ("transfer_reversal", "transfer") | ("charge", "transfer") => "transfer",
        ("charge", "application_fee") => "application_fee",
        ("charge" | "refund" | "dispute", "payment_intent") => "payment_intent",
        ("charge", "refunds") => "list of refund",
        ("refund", "transfer_reversal" | "source_transfer_reversal") => "transfer_reversal",
        (_, "data") => object.strip_prefix("list of ").and_then(named)?,
        _ => return None,
    })
}

fn named(object: &str) -> Option<&'static str> {
    ["transfer_reversal", "transfer", "charge", "refund", "dispute"].into_iter().find(|name| *name == object)
}

/// Whether an object of this type, or a `list of` them, can be expanded along the path.
pub(crate) fn check(object: &'static str, path: String) -> Result<Path, ApiError> {
    let refuse = |message: String| Err(ApiError::invalid(message).param("expand[]"));
    let mut fields = Vec::new();
    let mut at = object;
    for field in path.split('.') {
        match target(at, field) {
            Some(next) => at = next,
            None if object.starts_with("list of ") && fields.is_empty() => {
                return refuse(format!(
                    "This property cannot be expanded ({path}). You may want to try expanding 'data.{path}'."
                ));
            }
            None => return refuse(format!("This property cannot be expanded ({path}).")),
        }
        fields.push(field.to_owned());
    }
    if fields.len() > DEPTH_MAX {
        return refuse(format!("You cannot expand more than {DEPTH_MAX} levels of a property (Property: {path})."));
    }
    Ok(fields)
}

/// Replaces along each path, whose check has succeeded.
pub(crate) fn apply(state: &State, value: &mut Value, paths: &[Path]) {
    for path in paths {
        replace(state, value, path);
    }
}

/// Replaces each id in an object that can be expanded, one level deep.
pub(crate) fn everything(state: &State, value: &mut Value) {
    let fields: Vec<String> = value.as_object().into_iter().flat_map(|object| object.keys().cloned()).collect();
    let object = value["object"].as_str().unwrap_or_default().to_owned();
    for field in fields.into_iter().filter(|field| target(&object, field).is_some()) {
        replace(state, value, &[field]);
    }
}

fn replace(state: &State, value: &mut Value, path: &[String]) {
    let Some((field, rest)) = path.split_first() else { return };
    if let Some(items) = value.as_array_mut() {
        return items.iter_mut().for_each(|item| replace(state, item, path));
    }
    let object = value["object"].as_str().unwrap_or_default();
    let kind = target(object, field).unwrap_or_default();
    if (object, field.as_str()) == ("charge", "refunds") && value.get("refunds").is_none() {
        let refunds = shapes::refunds_of(state, value["id"].as_str().unwrap_or_default());
        value["refunds"] = refunds;
    }
    let Some(inner) = value.get_mut(field) else { return };
    if let Some(id) = inner.as_str() {
        *inner = object_of(state, kind, id);
    }
    match inner.as_array_mut() {
        Some(items) => items.iter_mut().for_each(|item| replace(state, item, rest)),
        None => replace(state, inner, rest),
    }
}

/// An object by its type and id; one that the simulator does not keep has these two and nothing else.
fn object_of(state: &State, kind: &str, id: &str) -> Value {
    let ledger = &state.ledger;
    let found = match kind {
        "transfer" => ledger.transfers.get(id).map(|transfer| shapes::transfer(state, transfer)),
        "charge" => ledger.charges.get(id).map(shapes::charge),
        "payment_intent" => {
            let intent = ledger.payment_intents.get(id);
            intent
                .and_then(|intent| ledger.charges.get(&intent.latest_charge).map(|of| (intent, of)))
                .map(|(intent, charge)| shapes::payment_intent(intent, charge))
        }
        "refund" => ledger.refunds.get(id).map(shapes::refund),
        "transfer_reversal" => ledger.transfers.values().find_map(|transfer| {
            let reversal = transfer.reversals.iter().find(|reversal| reversal.id == id)?;
            Some(shapes::reversal(state, reversal, transfer))
        }),
        "application_fee" => {
            ledger.charges.values().find(|charge| shapes::fee_id(charge) == id).map(shapes::application_fee)
        }
        _ => None,
    };
    found.unwrap_or_else(|| json!({ "id": id, "object": kind }))
}
