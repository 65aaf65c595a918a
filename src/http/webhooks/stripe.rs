//! Translates Stripe's verified events into the ledger's, and what look-ups read at Stripe; docs/stripe.md has the table.
//! Shapes: docs.stripe.com/api/refunds/object, /charges/object and /events/object.

mod dispute;

use chrono::DateTime;
use serde::Deserialize;
use serde_json::Value;

use super::reading::{MalformedEvent, currency, document, identifier, irrelevant, named_shares, positive, read};
use crate::ledger::{
    ChargeFacts, EventContent, ProviderReversal, RefundEvent, RefundProgress, Source, Subject, WebhookEvent,
};
use crate::reference::{Reference, id_of};

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
    /// The connected account that it happened in.
    #[serde(default)]
    account: Value,
    /// The same, in thin events.
    #[serde(default)]
    context: Value,
    livemode: Option<bool>,
}

#[derive(Clone, Deserialize)]
struct Refund {
    id: String,
    amount: i64,
    currency: String,
    /// Seconds since 1970.
    created: Option<i64>,
    status: Option<String>,
    pending_reason: Option<String>,
    payment_intent: Option<Reference>,
    charge: Option<Reference>,
    /// Present when Stripe reversed the charge's transfer together with the refund.
    #[serde(default)]
    transfer_reversal: Value,
    #[serde(default)]
    metadata: Value,
}

#[derive(Clone, Deserialize)]
struct Charge {
    id: String,
    payment_intent: Option<Reference>,
    amount: Option<i64>,
    amount_captured: Option<i64>,
    amount_refunded: Option<i64>,
    captured: Option<bool>,
    /// Of a destination charge: its own transfer.
    transfer: Option<Reference>,
    /// Left out by newer API versions.
    refunds: Option<Refunds>,
}

impl Charge {
    /// `None` where it does not say.
    fn facts(&self) -> Option<ChargeFacts> {
        let captured = if self.captured? { self.amount_captured? } else { 0 };
        Some(ChargeFacts { amount: self.amount?, captured, refunded: self.amount_refunded.unwrap_or_default() })
    }
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Clone, Deserialize)]
struct Refunds {
    data: Vec<Refund>,
}

/// Reads an event. `livemode` is the API key's mode, where it is known.
///
/// # Errors
/// [`MalformedEvent`] when the body is not an event, or an event of a supported type has an object that can't be used.
pub fn parse(body: &[u8], livemode: Option<bool>) -> Result<WebhookEvent, MalformedEvent> {
    let event: Event = document(body)?;
    let event_id = identifier("id", event.id.clone())?;
    let event_type = identifier("type", event.event_type.clone())?;
    let thin = event.object.as_ref().is_some_and(|object| object != "event");
    let (object, path) =
        if thin { (&event.related_object, "related_object") } else { (&event.data["object"], "data.object") };
    let content = match (not_ours(&event, livemode), event_type.as_str()) {
        (Some(reason), _) => irrelevant(reason),
        (None, kind) if thin => match kind.strip_prefix("v1.").and_then(named_by) {
            Some(subject) => look_up(subject, object, path)?,
            None => irrelevant(format!("thin events of type {kind} are not about refunds or disputes")),
        },
        (None, "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated") => {
            refund_content(object, path)?
        }
        (None, "charge.refunded") => charge_content(object)?,
        (None, "transfer.created") if !object["metadata"]["clawback_transfer"].is_null() => {
            irrelevant("Clawback has created the transfer")
        }
        (None, "transfer.created") => look_up(Subject::Transfer, object, path)?,
        (None, kind) if dispute::TYPES.contains(&kind) => dispute::content(kind, object, path)?,
        (None, kind) => irrelevant(format!("events of type {kind} are not about refunds or disputes")),
    };
    let object_id = object["id"].as_str().and_then(|id| identifier("", id.to_owned()).ok());
    Ok(WebhookEvent { source: Source::Stripe, event_id, event_type, object_id, content })
}

/// What an object that was read at Stripe means, as an event with it would be read.
///
/// # Errors
/// What is wrong with it, in words.
pub fn content_of(object: &Value) -> Result<EventContent, String> {
    match object["object"].as_str() {
        Some("refund") => refund_content(object, "refund").map_err(|error| error.to_string()),
        Some("dispute") => dispute::content(dispute::UPDATED, object, "dispute").map_err(|error| error.to_string()),
        Some(kind) => Ok(irrelevant(format!("a {kind} is nothing to take back for"))),
        None => Err("object must be the name of a type (got none)".to_owned()),
    }
}

/// How the reason begins why an event is not about the platform's own payments.
pub const NOT_OURS: &str = "it happened in";

/// Why an event is not about the platform's own payments, if it is not. Each reversal makes a refund in the seller's account,
/// which an endpoint for connected accounts is told of.
fn not_ours(event: &Event, livemode: Option<bool>) -> Option<String> {
    let account = [&event.account, &event.context].into_iter().find(|account| !account.is_null());
    let (why, reason) = match (account, event.livemode, livemode) {
        (Some(account), ..) => {
            let account = account.as_str().and_then(|id| identifier("", id.to_owned()).ok());
            let account = account.unwrap_or_else(|| "another".to_owned());
            ("connected_account", format!("{NOT_OURS} the connected account {account}, not in the platform's"))
        }
        (None, Some(of), Some(key)) if of != key => {
            let mode = |live| if live { "live" } else { "test" };
            ("other_mode", format!("{NOT_OURS} {} mode, STRIPE_API_KEY is a key of {} mode", mode(of), mode(key)))
        }
        _ => return None,
    };
    metrics::counter!("clawback_webhooks_not_ours_total", "why" => why).increment(1);
    Some(reason)
}

/// What an event of this type is about, which a thin one only names.
fn named_by(kind: &str) -> Option<Subject> {
    match kind {
        "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated" => Some(Subject::Refund),
        "charge.refunded" => Some(Subject::RefundsOfCharge),
        "transfer.created" => Some(Subject::Transfer),
        _ => dispute::TYPES.contains(&kind).then_some(Subject::Dispute),
    }
}

fn look_up(subject: Subject, object: &Value, path: &str) -> Result<EventContent, MalformedEvent> {
    let Named { id } = read(object, path)?;
    Ok(EventContent::LookUp { subject, reference: identifier(format!("{path}.id"), id)? })
}

fn refund_content(object: &Value, path: &str) -> Result<EventContent, MalformedEvent> {
    let refund: Refund = read(object, path)?;
    match refund_event(refund, None, path)? {
        Some(refund) => Ok(EventContent::Refunds(vec![refund])),
        // Stripe allows it (money that goes back to a customer's cash balance): no payment, and so no transfer.
        None => Ok(irrelevant("the refund names neither a payment intent nor a charge")),
    }
}

fn charge_content(object: &Value) -> Result<EventContent, MalformedEvent> {
    let mut charge: Charge = read(object, "data.object")?;
    let refunds = charge.refunds.take().map(|refunds| refunds.data).unwrap_or_default();
    if refunds.is_empty() {
        return look_up(Subject::RefundsOfCharge, object, "data.object");
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
    let progress = progress(&refund, &at("status"))?;
    let refund_ref = identifier(at("id"), refund.id)?;
    let amount = positive(at("amount"), refund.amount)?;
    let currency = currency(at("currency"), &refund.currency)?;
    let expanded = refund.charge.as_ref().and_then(|charge| Charge::deserialize(&charge.value).ok());
    let charge = charge.or(expanded.as_ref());
    let payment_intent = refund.payment_intent.or_else(|| charge.and_then(|charge| charge.payment_intent.clone()));
    let payment_intent = payment_intent.map(|intent| identifier(at("payment_intent"), intent.id)).transpose()?;
    let charge_ref = refund.charge.map(|charge| charge.id).or_else(|| charge.map(|charge| charge.id.clone()));
    let charge_ref = charge_ref.map(|id| identifier(at("charge"), id)).transpose()?;
    let Some(payment_ref) = payment_intent.or_else(|| charge_ref.clone()) else { return Ok(None) };
    Ok(Some(RefundEvent {
        refund_ref,
        payment_ref,
        charge_ref,
        amount,
        currency,
        created: refund.created.and_then(|seconds| DateTime::from_timestamp(seconds, 0)),
        updated: None,
        account: String::new(),
        progress,
        charge: charge.and_then(Charge::facts),
        provider_reversal: provider_reversal(&refund.transfer_reversal, charge),
        shares: named_shares(&refund.metadata),
    }))
}

fn progress(refund: &Refund, path: &str) -> Result<RefundProgress, MalformedEvent> {
    let Some(status) = refund.status.clone() else { return Ok(RefundProgress::Other("none".to_owned())) };
    Ok(match (status.as_str(), refund.pending_reason.as_deref()) {
        ("succeeded", _) => RefundProgress::Succeeded,
        ("failed" | "canceled", _) => RefundProgress::Failed(status),
        ("pending", Some(reason @ "insufficient_funds")) => RefundProgress::AwaitingFunds(reason.to_owned()),
        _ => RefundProgress::Other(identifier(path, status)?),
    })
}

/// Ids that can't be used are left out: that Stripe has reversed a transfer counts all the same.
fn provider_reversal(reversal: &Value, charge: Option<&Charge>) -> Option<ProviderReversal> {
    let usable = |id: &str| identifier("", id.to_owned()).ok();
    let own = charge.and_then(|charge| charge.transfer.as_ref()).map(|transfer| transfer.id.as_str());
    let transfer = id_of(&reversal["transfer"]).or(own);
    let found = || ProviderReversal { id: id_of(reversal).and_then(usable), transfer_id: transfer.and_then(usable) };
    (!reversal.is_null()).then(found)
}

#[cfg(test)]
mod tests;
