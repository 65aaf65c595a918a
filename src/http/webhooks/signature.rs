//! Verifies webhook signatures over the raw body. Pure.
//!
//! Stripe (docs.stripe.com/webhooks, "Verify manually"): `Stripe-Signature: t=UNIX_SECONDS,v1=HEX[,v1=HEX]`, where HEX is the
//! HMAC-SHA256 of `{t}.{raw body}`. A secret that is being rolled makes several v1; other schemes prove nothing.
//!
//! Hyperswitch: `x-webhook-signature-512` is the HMAC-SHA512 of the raw body under the business profile's
//! `payment_response_hash_key`, in lower-case hex. It signs no time: the inbox recognizes copies.

use crate::config::SecretList;
use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Sha256, Sha512};
use subtle::{Choice, ConstantTimeEq};

/// How far the time of signing may be from now, before and after (clocks differ). Stripe's own default.
pub const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

const SHA256_BYTES: usize = 32;
const SHA512_BYTES: usize = 64;

/// Why a webhook is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header does not have its provider's form.
    #[error("the signature header must look like {0}")]
    Malformed(
        /// That form.
        &'static str,
    ),
    /// No signature matches the body and the secret.
    #[error("no signature matches the body: it was changed in transit, or signed with another secret")]
    Mismatch,
    /// Signed with our secret, but too long ago or in the future: perhaps a replay, perhaps a wrong clock.
    #[error("the signature must be at most 300 s old (got {age_seconds} s); check this machine's clock")]
    Stale {
        /// Negative when the time of signing lies in the future.
        age_seconds: i64,
    },
}

const STRIPE_FORM: SignatureError = SignatureError::Malformed("t=1792000000,v1=<64 lower-case hex digits>, with one t");
const HYPERSWITCH_FORM: SignatureError = SignatureError::Malformed("128 lower-case hex digits");

/// Verifies Stripe's `header`: a signature of `body` under one of `secrets`, made at most [`TOLERANCE`] from `now`.
///
/// # Errors
/// [`SignatureError`]; `Stale` only for what our secret really signed.
pub fn stripe(header: &str, body: &[u8], secrets: &SecretList, now: DateTime<Utc>) -> Result<(), SignatureError> {
    let signed = StripeHeader::parse(header)?;
    // Every signature is compared to its end, so the time taken does not reveal the wrong byte.
    let matches = secrets.any(|secret| {
        let Ok(expected) = stripe_digest(signed.timestamp, body, secret) else { return Choice::from(0) };
        signed.v1.iter().fold(Choice::from(0), |any, signature| any | signature.ct_eq(&expected))
    });
    if !matches {
        return Err(SignatureError::Mismatch);
    }
    let age_seconds = now.timestamp().saturating_sub(signed.seconds);
    if age_seconds.unsigned_abs() > TOLERANCE.num_seconds().unsigned_abs() {
        return Err(SignatureError::Stale { age_seconds });
    }
    Ok(())
}

/// Verifies Hyperswitch's `header`: the signature of `body` under one of `secrets`.
///
/// # Errors
/// [`SignatureError`], never `Stale`.
pub fn hyperswitch(header: &str, body: &[u8], secrets: &SecretList) -> Result<(), SignatureError> {
    let given: [u8; SHA512_BYTES] = decode(header).ok_or(HYPERSWITCH_FORM)?;
    let matches = secrets.any(|secret| {
        let Ok(mut mac) = Hmac::<Sha512>::new_from_slice(secret.expose_secret().as_bytes()) else { return 0.into() };
        mac.update(body);
        let expected: [u8; SHA512_BYTES] = mac.finalize().into_bytes().into();
        given.ct_eq(&expected)
    });
    if matches { Ok(()) } else { Err(SignatureError::Mismatch) }
}

struct StripeHeader<'a> {
    /// As written, because that was signed.
    timestamp: &'a str,
    seconds: i64,
    v1: Vec<[u8; SHA256_BYTES]>,
}

impl<'a> StripeHeader<'a> {
    fn parse(header: &'a str) -> Result<Self, SignatureError> {
        let mut timestamp = None;
        let mut v1 = Vec::new();
        for item in header.split(',') {
            let (key, value) = item.split_once('=').ok_or(STRIPE_FORM)?;
            match key {
                // Two times would leave open which one was signed.
                "t" if timestamp.is_some() => return Err(STRIPE_FORM),
                "t" => timestamp = Some(value),
                // A malformed one matches nothing; another one may.
                "v1" => v1.extend(decode(value)),
                _ => {}
            }
        }
        let timestamp = timestamp.filter(|t| t.bytes().all(|byte| byte.is_ascii_digit())).ok_or(STRIPE_FORM)?;
        let seconds = timestamp.parse().map_err(|_| STRIPE_FORM)?;
        Ok(Self { timestamp, seconds, v1 })
    }
}

/// Both providers write lower-case digits only; a second spelling of the same signature is not needed.
fn decode<const N: usize>(value: &str) -> Option<[u8; N]> {
    let mut digest = [0; N];
    let lower_case = !value.bytes().any(|byte| byte.is_ascii_uppercase());
    (lower_case && hex::decode_to_slice(value, &mut digest).is_ok()).then_some(digest)
}

fn stripe_digest(timestamp: &str, body: &[u8], secret: &SecretString) -> Result<[u8; SHA256_BYTES], SignatureError> {
    // HMAC takes keys of every length, so this error does not occur.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).map_err(|_| SignatureError::Mismatch)?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests;
