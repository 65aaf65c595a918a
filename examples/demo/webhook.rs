//! What Stripe would post, and how it would sign it.

use anyhow::Result;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// A `refund.created` event of a refund that has succeeded.
pub(crate) fn refund(refund_ref: &str, payment_ref: &str, amount: i64) -> Value {
    json!({
        "id": "evt_demo",
        "object": "event",
        "type": "refund.created",
        "data": {"object": {
            "id": refund_ref,
            "object": "refund",
            "amount": amount,
            "currency": "eur",
            "created": chrono::Utc::now().timestamp(),
            "charge": "ch_demo",
            "payment_intent": payment_ref,
            "status": "succeeded",
            "transfer_reversal": null,
        }},
    })
}

/// The `Stripe-Signature` header for `body`, signed now.
pub(crate) fn sign(secret: &str, body: &str) -> Result<String> {
    let at = chrono::Utc::now().timestamp();
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(format!("{at}.{body}").as_bytes());
    Ok(format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes())))
}
