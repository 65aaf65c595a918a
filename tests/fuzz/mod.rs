//! What comes from outside, malformed on purpose: bodies and signatures of webhooks, and files to import. Real inputs (`corpus/`)
//! are changed step by step, as JSON and as bytes. Nothing may panic, what is accepted must make sense, and HTTP never answers 5xx.
//!
//! The tests try a fixed series. `./dev fuzz` tries new ones for as long as it is told; a failure names its seed, and
//! `FUZZ_SEED=N cargo test --lib fuzz` repeats it. AMQP headers are in `queues/src/headers/fuzz.rs`.

mod inputs;
mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::Request;
use chrono::{TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tower_service::Service;

use crate::config::SecretList;
use crate::http::webhooks::{IngressState, MalformedEvent, hyperswitch, routes, signature, stripe};
use crate::ledger::{ClaimPolicy, EventContent, Ledger, LedgerOptions, WebhookEvent};
use mutate::{bytes, json};

const SECRET: &str = "whsec_fuzz";
/// How many inputs the tests try of each kind.
const FEW: u32 = 400;
/// Each becomes a transaction.
const FEW_REQUESTS: u32 = 60;

/// Tries `one` with seeds in a row: `few` of them, or as many as there is time for.
fn for_many_seeds(few: u32, one: impl Fn(&mut StdRng)) {
    let first: u64 = variable("FUZZ_SEED").unwrap_or(0);
    let count = if std::env::var_os("FUZZ_SEED").is_some() { 1 } else { few };
    let until = variable("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let first = if until.is_some() { Utc::now().timestamp_micros().unsigned_abs() } else { first };
    let mut tried = 0;
    while until.map_or(tried < u64::from(count), |until| Instant::now() < until) {
        let seed = first.wrapping_add(tried);
        let attempt = catch_unwind(AssertUnwindSafe(|| one(&mut StdRng::seed_from_u64(seed))));
        assert!(attempt.is_ok(), "FUZZ_SEED={seed} repeats it");
        tried += 1;
    }
    println!("{tried} inputs, from seed {first}");
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A body of the corpus, changed: as JSON, as bytes, or both.
fn malformed(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut body = corpus.choose(rng).unwrap().clone();
    if rng.random_ratio(4, 5) {
        let mut value = serde_json::from_slice(&body).unwrap();
        for _ in 0..rng.random_range(1..4) {
            json(&mut value, rng);
        }
        body = serde_json::to_vec(&value).unwrap();
    }
    if rng.random_ratio(1, 3) {
        bytes(&mut body, rng);
    }
    body
}

fn makes_sense(parsed: Result<WebhookEvent, MalformedEvent>) {
    let event = match parsed {
        Ok(event) => event,
        Err(error) => return assert!(!error.problem.is_empty()),
    };
    let is_id = |id: &str| !id.is_empty() && id.len() <= 255 && !id.contains('\0');
    assert!(is_id(&event.event_id) && is_id(&event.event_type), "{event:?}");
    if let EventContent::Refunds(refunds) = &event.content {
        for refund in refunds {
            let is_currency =
                refund.currency.len() == 3 && refund.currency.bytes().all(|byte| byte.is_ascii_lowercase());
            assert!(refund.amount > 0 && is_currency && is_id(&refund.refund_ref), "{refund:?}");
        }
    }
}

#[test]
fn no_body_of_stripes_panics_and_what_is_accepted_makes_sense() {
    let corpus = inputs::corpus("stripe");
    for_many_seeds(FEW, |rng| makes_sense(stripe::parse(&malformed(&corpus, rng), Some(true))));
}

#[test]
fn no_body_of_hyperswitchs_panics_and_what_is_accepted_makes_sense() {
    let corpus = inputs::corpus("hyperswitch");
    for_many_seeds(FEW, |rng| makes_sense(hyperswitch::parse(&malformed(&corpus, rng))));
}

fn signed(body: &[u8], at: i64) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    format!("t={at},v1={}", hex::encode(mac.finalize().into_bytes()))
}

/// A changed header is believed only where it still says what was signed: the same time, and the same signature somewhere.
#[test]
fn no_signature_panics_and_none_that_was_changed_is_believed() {
    let secrets = SecretList::from(SECRET);
    let corpus = inputs::corpus("stripe");
    for_many_seeds(FEW, |rng| {
        let (now, body) = (Utc::now(), corpus.choose(rng).unwrap());
        let good = signed(body, now.timestamp());
        let mut header = good.clone().into_bytes();
        (0..rng.random_range(1..4)).for_each(|_| bytes(&mut header, rng));
        let header = String::from_utf8_lossy(&header);
        let _ = signature::hyperswitch(&header, body, &secrets);
        let parts: Vec<&str> = good.split(',').collect();
        let says_the_same = parts.iter().all(|part| header.split(',').any(|there| there == *part));
        let believed = signature::stripe(&header, body, &secrets, now + TimeDelta::seconds(1)).is_ok();
        assert!(!believed || says_the_same, "{header:?}");
        let mut other = body.clone();
        bytes(&mut other, rng);
        assert!(other == *body || signature::stripe(&good, &other, &secrets, now).is_err(), "another body is believed");
    });
}

#[test]
fn no_file_to_import_panics_and_each_line_is_a_payment_or_a_problem() {
    let (csv, json_lines) = (inputs::corpus("csv"), inputs::payments());
    for_many_seeds(FEW, |rng| {
        let mut file = csv.choose(rng).unwrap().clone();
        (0..rng.random_range(1..5)).for_each(|_| bytes(&mut file, rng));
        crate::cli::read_to_the_end(&file, true);
        let lines: Vec<Vec<u8>> = (0..rng.random_range(1..4)).map(|_| malformed(&json_lines, rng)).collect();
        crate::cli::read_to_the_end(&lines.join(&b'\n'), false);
    });
}

#[test]
fn http_answers_no_signed_body_with_5xx() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("fuzz.db").display());
    let minute = Duration::from_secs(60);
    let options = LedgerOptions {
        reversal_grace: minute,
        creation_grace: minute,
        max_connections: 6,
        claims: ClaimPolicy { discovery: true, ..ClaimPolicy::default() },
        notifies: true,
    };
    let ledger = runtime.block_on(async {
        let ledger = Ledger::connect(&url, options).await.unwrap();
        ledger.migrate_up().await.unwrap();
        for payment in inputs::payments() {
            ledger.register_payment(serde_json::from_slice(&payment).unwrap()).await.unwrap();
        }
        ledger
    });
    let state = IngressState {
        ledger,
        stripe_webhook_secret: Some(SecretList::from(SECRET)),
        stripe_livemode: None,
        hyperswitch_webhook_secret: Some(SecretList::from(SECRET)),
    };
    let routes = routes(state);
    let corpora = [("stripe", inputs::corpus("stripe")), ("hyperswitch", inputs::corpus("hyperswitch"))];
    for_many_seeds(FEW_REQUESTS, |rng| {
        let (provider, corpus) = corpora.choose(rng).unwrap();
        let body = malformed(corpus, rng);
        let (name, value) = match *provider {
            "stripe" => ("Stripe-Signature", signed(&body, Utc::now().timestamp())),
            _ => {
                let mut mac = Hmac::<sha2::Sha512>::new_from_slice(SECRET.as_bytes()).unwrap();
                mac.update(&body);
                ("x-webhook-signature-512", hex::encode(mac.finalize().into_bytes()))
            }
        };
        let request = Request::post(format!("/webhooks/{provider}")).header(name, value);
        let request = request.body(Body::from(body.clone())).unwrap();
        let status = runtime.block_on(async { routes.clone().call(request).await.unwrap().status() });
        assert!(!status.is_server_error() && status != 401, "{status}: {}", String::from_utf8_lossy(&body));
    });
}
