//! What Stripe would post, and how it would sign it.

use clawback::ledger::{EventContent, RefundEvent, RefundProgress, Source, WebhookEvent};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// `Stripe-Signature` for `body`, signed now.
pub(crate) fn sign(secret: &str, body: &str) -> String {
    sign_at(secret, body, chrono::Utc::now().timestamp())
}

/// `Stripe-Signature` for `body`, signed at a time in seconds since 1970.
pub(crate) fn sign_at(secret: &str, body: &str, at: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(format!("{at}.{body}").as_bytes());
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// A `refund.created` event of a refund that has succeeded.
pub(crate) fn refund_event(event_id: &str, refund_ref: &str, payment_ref: &str, amount: i64) -> Value {
    json!({
        "id": event_id,
        "object": "event",
        "api_version": "2026-08-26.dahlia",
        "created": 1_790_000_000,
        "type": "refund.created",
        "livemode": false,
        "data": {"object": {
            "id": refund_ref,
            "object": "refund",
            "amount": amount,
            "charge": format!("ch_of_{payment_ref}"),
            "currency": "eur",
            "metadata": {},
            "payment_intent": payment_ref,
            "reason": null,
            "status": "succeeded",
            "source_transfer_reversal": null,
            "transfer_reversal": null,
        }},
    })
}

/// A refund that has succeeded, as the ingress tells the ledger of it.
pub(crate) fn refund_webhook(event_id: &str, refund_ref: &str, payment_ref: &str, amount: i64) -> WebhookEvent {
    WebhookEvent {
        source: Source::Stripe,
        event_id: event_id.into(),
        event_type: "refund.created".into(),
        object_id: Some(refund_ref.into()),
        content: EventContent::Refunds(vec![RefundEvent {
            refund_ref: refund_ref.into(),
            payment_ref: payment_ref.into(),
            charge_ref: None,
            amount,
            currency: "eur".into(),
            progress: RefundProgress::Succeeded,
            transfer_already_reversed: false,
        }]),
    }
}

/// A payment of 100.00 EUR, of which two sellers got 60.00 and 30.00: `tr_1` and `tr_2`.
pub(crate) fn two_sellers(payment_ref: &str) -> Value {
    json!({
        "payment_ref": payment_ref,
        "amount": 10_000,
        "currency": "eur",
        "transfers": [
            {"seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 6_000, "currency": "eur"},
            {"seller_id": "s2", "stripe_transfer_id": "tr_2", "destination": "acct_2", "amount": 3_000, "currency": "eur"},
        ],
    })
}
