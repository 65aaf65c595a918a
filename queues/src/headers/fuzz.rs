//! Whatever headers and properties other programs put on a message, it is read and copied, and the copy is read alike.
//! `./dev fuzz` (in the repository) tries this for longer.

use std::time::Instant;

use lapin::types::FieldArray;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;

fn value() -> impl Strategy<Value = AMQPValue> {
    let text = prop_oneof![
        any::<String>(),
        Just("delivery_limit".to_owned()),
        Just("2026-11-24T10:00:00Z".to_owned()),
        "x{900,1200}",
        Just(String::new()),
    ];
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        prop_oneof![any::<i64>(), Just(i64::MAX), Just(i64::MIN)].prop_map(AMQPValue::LongLongInt),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
        text.prop_map(|text| AMQPValue::LongString(text.into())),
        // No UTF-8.
        vec(any::<u8>(), 0..40).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
            vec((name(), inner), 0..4).prop_map(|fields| AMQPValue::FieldTable(table(fields))),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    let known: Vec<&str> = OURS.into_iter().chain(STRIPPED).chain(["x-first-death-queue", "reason", "time"]).collect();
    prop_oneof![prop::sample::select(known).prop_map(str::to_owned), "[a-z\u{e9}-]{0,12}"]
}

fn table(fields: Vec<(String, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert(name.into(), value);
    }
    table
}

fn message() -> impl Strategy<Value = BasicProperties> {
    let headers = prop::option::of(vec((name(), value()), 0..12));
    let word = || prop::option::of("[a-zA-Z0-9/;=+\" -]{0,24}");
    (headers, word(), word(), word(), prop::option::of(any::<u64>())).prop_map(
        |(headers, id, content_type, encoding, timestamp)| {
            let mut properties = BasicProperties::default();
            if let Some(headers) = headers {
                properties = properties.with_headers(table(headers));
            }
            if let Some(id) = id {
                properties = properties.with_message_id(id.into());
            }
            if let Some(content_type) = content_type {
                properties = properties.with_content_type(content_type.into());
            }
            if let Some(encoding) = encoding {
                properties = properties.with_content_encoding(encoding.into());
            }
            if let Some(timestamp) = timestamp {
                properties = properties.with_timestamp(timestamp);
            }
            properties
        },
    )
}

fn is_read_and_copied(original: &BasicProperties) {
    let read = delivery(original, true);
    assert!(read.attempt >= 1 && !read.message_id.is_empty());
    assert!(read.headers.keys().all(|name| !is_reserved(name)));
    let _ = (as_text(original), due_at(original), first_published_at(original), unsupported_content(original));
    let copy = Copy {
        to: Address::queue("retry".to_owned()),
        delay: Duration::ZERO,
        attempt: read.attempt.saturating_add(1),
        reason: Some("é".repeat(MAX_TEXT_BYTES)),
        parked_reason: None,
        due_at: due_at(original),
        counter: Some((GIVEN_BACK, count(original, GIVEN_BACK))),
        unknown_since: unknown_since(original),
    };
    let copied = of_copy(original, &read, &copy, 5, Utc::now());
    let again = delivery(&copied, false);
    assert_eq!((again.message_id, again.headers), (read.message_id.clone(), read.headers.clone()));
    assert_eq!(attempt(&copied), copy.attempt);
    assert!(copied.headers().iter().flat_map(FieldTable::inner).all(|(name, _)| name.as_str() != "x-death"));
    let parked = of_copy(original, &read, &Copy { parked_reason: Some("why".to_owned()), ..copy }, 5, Utc::now());
    assert_eq!(delivery(&parked, false).parked_reason.as_deref(), Some("why"));
    let replayed = delivery(&of_replay(&parked, &delivery(&parked, false)), false);
    assert_eq!(replayed.attempt, 1);
    let small = without_foreign(&parked, "too large");
    assert!(encoded_bytes(small.headers().as_ref().unwrap_or(&FieldTable::default())) < 64 * 1024);
}

#[test]
#[expect(clippy::print_stdout, reason = "it says how much it tried")]
fn no_headers_panic_and_a_copy_is_read_as_the_original_is() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let config = Config { cases: 256, failure_persistence: None, ..Config::default() };
    let mut runner = match until {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(config),
    };
    let mut tried = 0;
    loop {
        let outcome = runner.run(&message(), |original| {
            is_read_and_copied(&original);
            Ok(())
        });
        assert!(outcome.is_ok(), "{}", outcome.err().map(|error| error.to_string()).unwrap_or_default());
        tried += 256;
        if until.is_none_or(|until| Instant::now() >= until) {
            break;
        }
    }
    println!("{tried} messages");
}
