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
    stripe(header, body, &SecretList::from(secret), DateTime::from_timestamp(seconds, 0).unwrap())
}

fn verify_header(header: &str) -> Result<(), SignatureError> {
    verify_at(header, BODY, SECRET, SIGNED_AT)
}

fn sign(seconds: i64, body: &[u8], secret: &str) -> String {
    let digest = stripe_digest(&seconds.to_string(), body, &SecretString::from(secret)).unwrap();
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
        assert_eq!(verify_header(&header), Err(STRIPE_FORM), "{header}");
    }
}

#[test]
fn another_secret_or_another_body_is_a_mismatch() {
    let header = format!("t=1792000000,v1={DIGEST}");
    assert_eq!(verify_at(&header, BODY, "whsec_other", SIGNED_AT), Err(SignatureError::Mismatch));
    assert_eq!(verify_at(&header, b"{}", SECRET, SIGNED_AT), Err(SignatureError::Mismatch));
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

mod hyperswitch_header {
    use super::*;

    const KEY: &str = "hash_key_of_a_profile";
    const BODY: &[u8] = br#"{"event_id":"evt_1"}"#;
    /// printf '{"event_id":"evt_1"}' | openssl dgst -sha512 -hmac hash_key_of_a_profile
    const DIGEST: &str = "2d067c97299bea603c3129543dd8a4c53d3a5c7a2a3c56d57fa7fc1a144f73703a3af0bfb2236ec0ddf9097158a1a5f5373d73d06644d4f6937d6481d4043672";

    fn verify_with(header: &str, body: &[u8], key: &str) -> Result<(), SignatureError> {
        hyperswitch(header, body, &SecretList::from(key))
    }

    fn sign(body: &[u8], key: &str) -> String {
        let mut mac = Hmac::<Sha512>::new_from_slice(key.as_bytes()).unwrap();
        mac.update(body);
        hex::encode(mac.finalize().into_bytes())
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
            assert_eq!(verify_with(header, BODY, KEY), Err(HYPERSWITCH_FORM), "{header}");
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
