//! Whether a webhook really comes from Stripe, and was sent just now. Pure.
//!
//! Called with the raw body before anything in it is looked at. Scheme: docs.stripe.com/webhooks, "Verify manually":
//! `Stripe-Signature: t=UNIX_SECONDS,v1=HEX[,v1=HEX]`, where HEX is the HMAC-SHA256 of `{t}.{raw body}`. A secret that is
//! being rolled makes several v1; other schemes (v0 in test mode) prove nothing and are skipped.

use chrono::{DateTime, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

use crate::config::SecretList;

/// How far the time of signing may lie from now, in the past and in the future (clocks differ). Stripe's own default.
pub const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

const DIGEST_BYTES: usize = 32;

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header has not the form that Stripe gives it.
    #[error("the Stripe-Signature header must look like t=1792000000,v1=<64 lower-case hex digits>, with one t")]
    Malformed,
    /// No v1 signature fits the body and the secret.
    #[error("no v1 signature fits the body: it was changed on its way, or signed with another secret")]
    Mismatch,
    /// Really signed, but too long ago or in the future; perhaps a replay, perhaps a clock that is off.
    #[error("it was signed {age_seconds} s ago; at most 300 s off are allowed: check this machine's clock")]
    Stale {
        /// Negative when the time of signing lies in the future.
        age_seconds: i64,
    },
}

/// Believes `body` only if `header` holds a signature of it under one of `secrets` made at most [`TOLERANCE`] from `now`.
///
/// # Errors
/// [`SignatureError`]; staleness is told only of what was really signed.
pub fn verify(header: &str, body: &[u8], secrets: &SecretList, now: DateTime<Utc>) -> Result<(), SignatureError> {
    let signed = SignatureHeader::parse(header)?;
    // Every signature is compared to its end, so the time taken does not tell which byte was wrong.
    let matches = secrets.any(|secret| {
        let Ok(expected) = digest(signed.timestamp, body, secret) else { return Choice::from(0) };
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

struct SignatureHeader<'a> {
    /// As written, since that is what was signed.
    timestamp: &'a str,
    seconds: i64,
    v1: Vec<[u8; DIGEST_BYTES]>,
}

impl<'a> SignatureHeader<'a> {
    fn parse(header: &'a str) -> Result<Self, SignatureError> {
        let mut timestamp = None;
        let mut v1 = Vec::new();
        for item in header.split(',') {
            let (key, value) = item.split_once('=').ok_or(SignatureError::Malformed)?;
            match key {
                // Two times would leave open which of them was signed.
                "t" if timestamp.is_some() => return Err(SignatureError::Malformed),
                "t" => timestamp = Some(value),
                // One that is no digest matches nothing; another one beside it still may.
                "v1" => v1.extend(decode(value)),
                _ => {}
            }
        }
        let timestamp =
            timestamp.filter(|t| t.bytes().all(|byte| byte.is_ascii_digit())).ok_or(SignatureError::Malformed)?;
        let seconds = timestamp.parse().map_err(|_| SignatureError::Malformed)?;
        Ok(Self { timestamp, seconds, v1 })
    }
}

/// Stripe writes lower-case digits only; a second spelling of the same signature is not needed.
fn decode(value: &str) -> Option<[u8; DIGEST_BYTES]> {
    let mut digest = [0; DIGEST_BYTES];
    let lower_case = !value.bytes().any(|byte| byte.is_ascii_uppercase());
    (lower_case && hex::decode_to_slice(value, &mut digest).is_ok()).then_some(digest)
}

fn digest(timestamp: &str, body: &[u8], secret: &SecretString) -> Result<[u8; DIGEST_BYTES], SignatureError> {
    // HMAC takes keys of every length, so the error does not occur; nothing matches if it does.
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).map_err(|_| SignatureError::Mismatch)?;
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    Ok(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "whsec_known_vector";
    const BODY: &[u8] = br#"{"id":"evt_1","object":"event"}"#;
    const SIGNED_AT: i64 = 1_792_000_000;
    /// printf '1792000000.{"id":"evt_1","object":"event"}' | openssl dgst -sha256 -hmac whsec_known_vector
    const DIGEST: &str = "8c5d8bca986a32c8e80f2114edec25f816900cc093a9b5a2596f5313d0e09a03";
    const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

    fn verify_at(header: &str, body: &[u8], secret: &str, seconds: i64) -> Result<(), SignatureError> {
        verify(header, body, &SecretList::from(secret), DateTime::from_timestamp(seconds, 0).unwrap())
    }

    fn verify_header(header: &str) -> Result<(), SignatureError> {
        verify_at(header, BODY, SECRET, SIGNED_AT)
    }

    fn sign(seconds: i64, body: &[u8], secret: &str) -> String {
        let digest = digest(&seconds.to_string(), body, &SecretString::from(secret)).unwrap();
        format!("t={seconds},v1={}", hex::encode(digest))
    }

    #[test]
    fn a_signature_that_openssl_made_is_believed_in_every_header_that_holds_it() {
        for header in [
            format!("t=1792000000,v1={DIGEST}"),
            format!("v1={DIGEST},t=1792000000"),
            format!("t=1792000000,v1={OTHER},v1={DIGEST}"),
            format!("t=1792000000,v1={DIGEST},v1={OTHER}"),
            format!("t=1792000000,v1=broken,v1={DIGEST}"),
            format!("t=1792000000,v0={OTHER},v1={DIGEST},v2=new"),
        ] {
            assert_eq!(verify_header(&header), Ok(()), "{header}");
        }
    }

    #[test]
    fn a_header_without_a_fitting_v1_is_a_mismatch() {
        for header in [
            "t=1792000000".to_owned(),
            format!("t=1792000000,v1={OTHER}"),
            format!("t=1792000000,v0={DIGEST}"),
            format!("t=1792000001,v1={DIGEST}"),
            format!("t=01792000000,v1={DIGEST}"),
            format!("t=1792000000,v1={}", DIGEST.to_uppercase()),
            format!("t=1792000000,v1={DIGEST}00"),
            format!("t=1792000000,v1={}", &DIGEST[..62]),
            format!("t=1792000000,v1= {DIGEST}"),
            "t=1792000000,v1=".to_owned(),
        ] {
            assert_eq!(verify_header(&header), Err(SignatureError::Mismatch), "{header}");
        }
    }

    #[test]
    fn a_header_of_another_form_is_malformed() {
        for header in [
            String::new(),
            ",".to_owned(),
            "nonsense".to_owned(),
            format!("v1={DIGEST}"),
            format!("t=,v1={DIGEST}"),
            format!("t=+1792000000,v1={DIGEST}"),
            format!("t=-1,v1={DIGEST}"),
            format!("t=99999999999999999999,v1={DIGEST}"),
            format!("t=1792000000,t=1792000000,v1={DIGEST}"),
            format!("t=1,t=1792000000,v1={DIGEST}"),
            format!("t=1792000000,v1={DIGEST},"),
        ] {
            assert_eq!(verify_header(&header), Err(SignatureError::Malformed), "{header}");
        }
    }

    #[test]
    fn another_secret_or_another_body_is_a_mismatch() {
        let header = format!("t=1792000000,v1={DIGEST}");
        assert_eq!(verify_at(&header, BODY, "whsec_other", SIGNED_AT), Err(SignatureError::Mismatch));
        assert_eq!(verify_at(&header, b"{}", SECRET, SIGNED_AT), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_signature_under_any_secret_of_the_list_is_believed() {
        let header = format!("t=1792000000,v1={DIGEST}");
        let verify_with = |secrets: &str, seconds| {
            verify(&header, BODY, &secrets.parse().unwrap(), DateTime::from_timestamp(seconds, 0).unwrap())
        };
        for secrets in ["whsec_new,whsec_known_vector", "whsec_known_vector,whsec_new"] {
            assert_eq!(verify_with(secrets, SIGNED_AT), Ok(()), "{secrets}");
        }
        assert_eq!(verify_with("whsec_new,whsec_old", SIGNED_AT), Err(SignatureError::Mismatch));
        let stale = Err(SignatureError::Stale { age_seconds: 301 });
        assert_eq!(verify_with("whsec_known_vector,whsec_new", SIGNED_AT + 301), stale);
    }

    #[test]
    fn three_hundred_seconds_off_are_allowed_both_ways_and_not_one_more() {
        let header = format!("t=1792000000,v1={DIGEST}");
        for (off, expected) in [
            (300, Ok(())),
            (-300, Ok(())),
            (301, Err(SignatureError::Stale { age_seconds: 301 })),
            (-301, Err(SignatureError::Stale { age_seconds: -301 })),
        ] {
            assert_eq!(verify_at(&header, BODY, SECRET, SIGNED_AT + off), expected, "{off}");
        }
    }

    #[test]
    fn a_forged_signature_is_a_mismatch_however_old_it_claims_to_be() {
        let header = format!("t=1,v1={OTHER}");
        assert_eq!(verify_header(&header), Err(SignatureError::Mismatch));
    }

    #[test]
    fn the_largest_time_does_not_overflow() {
        let header = sign(i64::MAX, BODY, SECRET);
        assert!(matches!(verify_at(&header, BODY, SECRET, -1), Err(SignatureError::Stale { .. })));
    }

    proptest! {
        #[test]
        fn what_was_signed_is_believed(body: Vec<u8>, secret in "[!-~]{1,80}", off in -300_i64..=300) {
            let header = sign(SIGNED_AT, &body, &secret);
            prop_assert_eq!(verify_at(&header, &body, &secret, SIGNED_AT + off), Ok(()));
        }

        #[test]
        fn any_flipped_bit_of_the_body_is_noticed(mut body in prop::collection::vec(any::<u8>(), 1..200), bit: prop::sample::Index) {
            let header = sign(SIGNED_AT, &body, SECRET);
            let bit = bit.index(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(verify_at(&header, &body, SECRET, SIGNED_AT), Err(SignatureError::Mismatch));
        }

        #[test]
        fn any_flipped_bit_of_the_header_is_noticed(bit: prop::sample::Index) {
            let mut header = sign(SIGNED_AT, BODY, SECRET).into_bytes();
            // The eighth bit would leave ASCII, which a header's text never does.
            let bit = bit.index(header.len() * 7);
            header[bit / 7] ^= 1 << (bit % 7);
            let header = String::from_utf8(header).unwrap();
            prop_assert!(verify_header(&header).is_err(), "{}", header);
        }

        #[test]
        fn no_header_makes_it_panic(header: String, body: Vec<u8>) {
            prop_assert!(verify_at(&header, &body, SECRET, SIGNED_AT).is_err());
        }
    }
}
