//! What Stripe and Hyperswitch would post, and how they would sign it.

use clawback::ledger::{EventContent, RefundEvent, RefundProgress, Source, WebhookEvent};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::{Sha256, Sha512};

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

/// `x-webhook-signature-512` for `body`.
pub(crate) fn sign_hyperswitch(key: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(body);
    hex::encode(mac.finalize().into_bytes())
}

/// What Hyperswitch posts of a refund, with all the fields of its `OutgoingWebhook` and `RefundResponse`.
pub(crate) fn hyperswitch_event(event_id: &str, refund_id: &str, payment_id: &str, amount: i64) -> Value {
    json!({
        "merchant_id": "merchant_1790000000",
        "event_id": event_id,
        "event_type": "refund_succeeded",
        "content": {
            "type": "refund_details",
            "object": {
                "refund_id": refund_id,
                "payment_id": payment_id,
                "amount": amount,
                "currency": "EUR",
                "status": "succeeded",
                "reason": "requested_by_customer",
                "metadata": {"udf1": "value1"},
                "error_message": null,
                "error_code": null,
                "unified_code": null,
                "unified_message": null,
                "created_at": "2026-11-23T10:00:00.000Z",
                "updated_at": "2026-11-23T10:00:02.000Z",
                "connector": "stripe",
                "profile_id": "pro_1",
                "merchant_connector_id": "mca_1",
                "split_refunds": null,
                "issuer_error_code": null,
                "issuer_error_message": null,
            },
        },
        "timestamp": "2026-11-23T10:00:02.123Z",
    })
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
            "created": chrono::Utc::now().timestamp(),
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
            account: String::new(),
            payment_ref: payment_ref.into(),
            charge_ref: None,
            amount,
            currency: "eur".into(),
            progress: RefundProgress::Succeeded,
            created: Some(chrono::Utc::now()),
            updated: None,
            charge: None,
            provider_reversal: None,
            shares: None,
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

/// A payment of 100.00 EUR, of which Clawback is to transfer 60.00 to `acct_3` and 30.00 to `acct_4`.
pub(crate) fn to_create(payment_ref: &str) -> Value {
    json!({
        "payment_ref": payment_ref,
        "amount": 10_000,
        "currency": "eur",
        "transfers": [
            {"seller_id": "s3", "create": true, "destination": "acct_3", "amount": 6_000, "currency": "eur"},
            {"seller_id": "s4", "create": true, "destination": "acct_4", "amount": 3_000, "currency": "eur"},
        ],
    })
}
