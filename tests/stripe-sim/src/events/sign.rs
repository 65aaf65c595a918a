//! Stripe's signature of a webhook.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The `Stripe-Signature` header for a body that is sent at `timestamp`, in seconds since 1970: HMAC-SHA256 over
/// `{timestamp}.{body}`.
#[must_use]
pub fn sign(secret: &str, timestamp: i64, body: &str) -> String {
    // A key of any length is taken.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body.as_bytes());
    format!("t={timestamp},v1={}", hex::encode(mac.finalize().into_bytes()))
}
