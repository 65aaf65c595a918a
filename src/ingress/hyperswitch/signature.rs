//! Whether a webhook really comes from Hyperswitch. Pure; called with the raw body before anything in it is looked at.
//!
//! `x-webhook-signature-512` is the HMAC-SHA512 of the raw body under the business profile's `payment_response_hash_key`, in
//! lower-case hex. No time is signed, so that a copy of a body is believed whenever it comes: the inbox knows it by its
//! event and its refund. Without that key in the profile Hyperswitch sends no header, and is not believed.

use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use sha2::Sha512;
use subtle::ConstantTimeEq;

use crate::config::SecretList;

const DIGEST_BYTES: usize = 64;

/// Why a webhook is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header has not the form that Hyperswitch gives it.
    #[error("the x-webhook-signature-512 header must be 128 lower-case hex digits")]
    Malformed,
    /// The signature does not fit the body and the secret.
    #[error(
        "the signature does not fit the body: it was changed on its way, or signed with another payment response hash key"
    )]
    Mismatch,
}

/// Believes `body` only if `header` is its signature under one of `secrets`.
///
/// # Errors
/// [`SignatureError`].
pub fn verify(header: &str, body: &[u8], secrets: &SecretList) -> Result<(), SignatureError> {
    let mut given = [0; DIGEST_BYTES];
    if header.bytes().any(|byte| byte.is_ascii_uppercase()) || hex::decode_to_slice(header, &mut given).is_err() {
        return Err(SignatureError::Malformed);
    }
    // HMAC takes keys of every length, so the error does not occur; nothing matches if it does.
    let fits = secrets.any(|secret| {
        let Ok(mut mac) = Hmac::<Sha512>::new_from_slice(secret.expose_secret().as_bytes()) else { return 0.into() };
        mac.update(body);
        let expected: [u8; DIGEST_BYTES] = mac.finalize().into_bytes().into();
        given.ct_eq(&expected)
    });
    if fits { Ok(()) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "hash_key_of_a_profile";
    const BODY: &[u8] = br#"{"event_id":"evt_1"}"#;
    /// printf '{"event_id":"evt_1"}' | openssl dgst -sha512 -hmac hash_key_of_a_profile
    const DIGEST: &str = "2d067c97299bea603c3129543dd8a4c53d3a5c7a2a3c56d57fa7fc1a144f73703a3af0bfb2236ec0ddf9097158a1a5f5373d73d06644d4f6937d6481d4043672";

    fn verify_with(header: &str, body: &[u8], key: &str) -> Result<(), SignatureError> {
        verify(header, body, &SecretList::from(key))
    }

    fn sign(body: &[u8], key: &str) -> String {
        let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
    }

    #[test]
    fn a_signature_under_any_key_of_the_list_is_believed() {
        for keys in ["new,hash_key_of_a_profile", "hash_key_of_a_profile,new"] {
            assert_eq!(verify(DIGEST, BODY, &keys.parse().unwrap()), Ok(()), "{keys}");
        }
        assert_eq!(verify(DIGEST, BODY, &"new,old".parse().unwrap()), Err(SignatureError::Mismatch));
    }

    #[test]
    fn a_signature_that_openssl_made_is_believed() {
        assert_eq!(verify_with(DIGEST, BODY, KEY), Ok(()));
    }

    #[test]
    fn another_body_or_another_key_is_a_mismatch() {
        assert_eq!(verify_with(DIGEST, b"{}", KEY), Err(SignatureError::Mismatch));
        assert_eq!(verify_with(DIGEST, BODY, "another"), Err(SignatureError::Mismatch));
        assert_eq!(verify_with(&"0".repeat(128), BODY, KEY), Err(SignatureError::Mismatch));
    }

    #[test]
    fn another_length_upper_case_and_what_is_no_hex_are_malformed() {
        let sha256 = &DIGEST[..64];
        for header in [
            "",
            sha256,
            &DIGEST[..126],
            &format!("{DIGEST}00"),
            &DIGEST.to_uppercase(),
            &format!(" {DIGEST}"),
            &format!("sha512={DIGEST}"),
            &"x".repeat(128),
            &"ü".repeat(64),
        ] {
            assert_eq!(verify_with(header, BODY, KEY), Err(SignatureError::Malformed), "{header}");
        }
    }

    proptest! {
        #[test]
        fn what_was_signed_is_believed_and_any_flipped_bit_is_noticed(
            mut body in prop::collection::vec(any::<u8>(), 1..200), key in "[!-~]{1,80}", bit: prop::sample::Index,
        ) {
            let header = sign(&body, &key);
            prop_assert_eq!(verify_with(&header, &body, &key), Ok(()));
            let bit = bit.index(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(verify_with(&header, &body, &key), Err(SignatureError::Mismatch));
        }

        #[test]
        fn no_header_makes_it_panic(header: String, body: Vec<u8>) {
            prop_assert!(verify_with(&header, &body, KEY).is_err());
        }
    }
}
