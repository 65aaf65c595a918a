//! Translates Stripe's verified events into the ledger's. Pure.
//!
//! Five types report refunds; all others are recorded as irrelevant. An event that leaves out what matters waits for the one
//! that has it. Shapes: docs.stripe.com/api/refunds/object, /charges/object and /events/object.

use chrono::DateTime;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::reading::{MalformedEvent, currency, document, identifier, irrelevant, named_shares, positive, read};
use crate::ledger::{EventContent, RefundEvent, RefundProgress, Source, WebhookEvent};

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    /// `event`, or `v2.core.event` for a thin one.
    object: Option<String>,
    #[serde(default)]
    data: Value,
    /// In thin events only.
    #[serde(default)]
    related_object: Value,
}

#[derive(Deserialize)]
struct Refund {
    id: String,
    amount: i64,
    currency: String,
    /// Seconds since 1970.
    created: Option<i64>,
    status: Option<String>,
    payment_intent: Option<Reference>,
    charge: Option<Reference>,
    /// Present when Stripe reversed the transfer together with the refund.
    transfer_reversal: Option<IgnoredAny>,
    #[serde(default)]
    metadata: Value,
}

/// Another object: its id, or all of it where the endpoint expands it.
#[derive(Clone, Deserialize)]
#[serde(try_from = "Value")]
struct Reference(String);

impl TryFrom<Value> for Reference {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Self, Self::Error> {
        let id = value.as_str().or_else(|| value["id"].as_str());
        id.map(|id| Self(id.to_owned())).ok_or("must be an id, or an object with an id")
    }
}

#[derive(Deserialize)]
struct Charge {
    id: String,
    payment_intent: Option<Reference>,
    /// Left out by newer API versions.
    refunds: Option<Refunds>,
}

#[derive(Deserialize)]
struct Refunds {
    data: Vec<Refund>,
}

/// Reads an event.
///
/// # Errors
/// [`MalformedEvent`] when the body is not an event, or an event of a supported type has an object that can't be used.
pub fn parse(body: &[u8]) -> Result<WebhookEvent, MalformedEvent> {
    let event: Event = document(body)?;
    let event_id = identifier("id", event.id)?;
    let event_type = identifier("type", event.event_type)?;
    let thin = event.object.is_some_and(|object| object != "event");
    let object = if thin { &event.related_object } else { &event.data["object"] };
    let content = match event_type.as_str() {
        _ if thin => irrelevant("a thin event, which carries no object"),
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => refund_content(object)?,
        "charge.refunded" => charge_content(object)?,
        _ => irrelevant(format!("events of type {event_type} are not about refunds")),
    };
    let object_id = object["id"].as_str().and_then(|id| identifier("", id.to_owned()).ok());
    Ok(WebhookEvent { source: Source::Stripe, event_id, event_type, object_id, content })
}

fn refund_content(object: &Value) -> Result<EventContent, MalformedEvent> {
    let refund: Refund = read(object, "data.object")?;
    match refund_event(refund, None, "data.object")? {
        Some(refund) => Ok(EventContent::Refunds(vec![refund])),
        // Stripe allows it (money that goes back to a customer's cash balance): no payment, and so no transfer.
        None => Ok(irrelevant("the refund names neither a payment intent nor a charge")),
    }
}

fn charge_content(object: &Value) -> Result<EventContent, MalformedEvent> {
    let mut charge: Charge = read(object, "data.object")?;
    let refunds = charge.refunds.take().map(|refunds| refunds.data).unwrap_or_default();
    if refunds.is_empty() {
        return Ok(irrelevant("the charge does not list its refunds; each one comes in its refund.created"));
    }
    let mut events = Vec::with_capacity(refunds.len());
    for (index, refund) in refunds.into_iter().enumerate() {
        events.extend(refund_event(refund, Some(&charge), &format!("data.object.refunds.data[{index}]"))?);
    }
    Ok(EventContent::Refunds(events))
}

/// `None` when it names no payment. Its charge has what a listed refund leaves out.
fn refund_event(refund: Refund, charge: Option<&Charge>, path: &str) -> Result<Option<RefundEvent>, MalformedEvent> {
    let at = |field: &str| format!("{path}.{field}");
    let refund_ref = identifier(at("id"), refund.id)?;
    let amount = positive(at("amount"), refund.amount)?;
    let currency = currency(at("currency"), &refund.currency)?;
    let payment_intent = refund.payment_intent.or_else(|| charge.and_then(|charge| charge.payment_intent.clone()));
    let payment_intent = payment_intent.map(|Reference(id)| identifier(at("payment_intent"), id)).transpose()?;
    let charge_ref = refund.charge.or_else(|| charge.map(|charge| Reference(charge.id.clone())));
    let charge_ref = charge_ref.map(|Reference(id)| identifier(at("charge"), id)).transpose()?;
    let Some(payment_ref) = payment_intent.or_else(|| charge_ref.clone()) else { return Ok(None) };
    let progress = match refund.status {
        Some(status) if status == "succeeded" => RefundProgress::Succeeded,
        Some(status) if ["failed", "canceled"].contains(&status.as_str()) => RefundProgress::Failed(status),
        Some(status) => RefundProgress::Other(identifier(at("status"), status)?),
        None => RefundProgress::Other("none".to_owned()),
    };
    Ok(Some(RefundEvent {
        refund_ref,
        payment_ref,
        charge_ref,
        amount,
        currency,
        created: refund.created.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        progress,
        transfer_already_reversed: refund.transfer_reversal.is_some(),
        shares: named_shares(&refund.metadata),
    }))
}

#[cfg(test)]
mod tests;
