//! Translates Hyperswitch's verified webhooks into the ledger's events. Pure.
//!
//! Shapes: `OutgoingWebhook` and `RefundResponse` in `crates/api_models/src` of github.com/juspay/hyperswitch (API version 1;
//! webhooks of version 2 lack `refund_id` and are refused). The connector does not matter: a marketplace may charge its buyers
//! through another one and still pay its sellers through Stripe.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::reading::{MalformedEvent, currency, document, identifier, irrelevant, named_shares, positive, read};
use crate::ledger::{EventContent, ProviderReversal, RefundEvent, RefundProgress, Source, WebhookEvent};

/// Where the refund is in the body.
const REFUND: &str = "content.object";

#[derive(Deserialize)]
struct Event {
    /// The same in every delivery of one event.
    event_id: String,
    event_type: String,
    /// A refund's id is the merchant's own.
    #[serde(default)]
    merchant_id: String,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct Refund {
    refund_id: String,
    payment_id: String,
    amount: i64,
    /// In upper case.
    currency: String,
    status: String,
    /// ISO 8601.
    created_at: Option<String>,
    updated_at: Option<String>,
    #[serde(default)]
    metadata: Value,
    #[serde(default)]
    split_refunds: Value,
    /// The name of `split_refunds.stripe_split_refund` before 2025.
    #[serde(default)]
    charges: Value,
}

impl Refund {
    fn transfer_already_reversed(&self) -> bool {
        let split = [&self.split_refunds["stripe_split_refund"], &self.charges];
        split.into_iter().any(|split| split["revert_transfer"] == true)
    }
}

/// Reads an event.
///
/// # Errors
/// [`MalformedEvent`] when the body is not an event, or an event of a supported type has an object that can't be used.
pub fn parse(body: &[u8]) -> Result<WebhookEvent, MalformedEvent> {
    let event: Event = document(body)?;
    let event_id = identifier("event_id", event.event_id)?;
    let event_type = identifier("event_type", event.event_type)?;
    let object = &event.content["object"];
    let content = match event_type.as_str() {
        "refund_succeeded" | "refund_failed" => {
            let account = if event.merchant_id.is_empty() {
                event.merchant_id
            } else {
                identifier("merchant_id", event.merchant_id)?
            };
            EventContent::Refunds(vec![refund_event(read(object, REFUND)?, account)?])
        }
        _ => irrelevant(format!("events of type {event_type} are not about refunds that succeeded or failed")),
    };
    let id = ["refund_id", "payment_id", "dispute_id", "mandate_id"].into_iter().find_map(|id| object[id].as_str());
    let object_id = id.and_then(|id| identifier("", id.to_owned()).ok());
    Ok(WebhookEvent { source: Source::Hyperswitch, event_id, event_type, object_id, content })
}

fn refund_event(refund: Refund, account: String) -> Result<RefundEvent, MalformedEvent> {
    let at = |field: &str| format!("{REFUND}.{field}");
    let transfer_already_reversed = refund.transfer_already_reversed();
    let shares = named_shares(&refund.metadata);
    let progress = match identifier(at("status"), refund.status)? {
        status if status == "succeeded" => RefundProgress::Succeeded,
        status if status == "failed" => RefundProgress::Failed(status),
        status => RefundProgress::Other(status),
    };
    Ok(RefundEvent {
        refund_ref: identifier(at("refund_id"), refund.refund_id)?,
        payment_ref: identifier(at("payment_id"), refund.payment_id)?,
        charge_ref: None,
        amount: positive(at("amount"), refund.amount)?,
        currency: currency(at("currency"), &refund.currency)?,
        created: refund.created_at.as_deref().and_then(time),
        updated: refund.updated_at.as_deref().and_then(time),
        account,
        progress,
        charge: None,
        provider_reversal: transfer_already_reversed.then(ProviderReversal::default),
        shares,
    })
}

/// Hyperswitch writes UTC, with or without the `Z`.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let utc = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    utc.or_else(|_| text.parse::<NaiveDateTime>().map(|time| time.and_utc())).ok()
}

#[cfg(test)]
mod tests;
