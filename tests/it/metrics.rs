//! `/metrics` over real HTTP, read by a parser that takes nothing but Prometheus' text format, and compared with refunds
//! whose end is known.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{NO_SWEEPER, Process, TestApp, both_databases, eventually, refund_event};

both_databases! {
    the_metrics_tell_what_is_owed_waits_is_parked_and_is_back,
    what_the_outbox_has_not_published_yet_shows_with_its_age,
    a_worker_alone_serves_health_and_metrics_only_where_it_is_told_to,
}

/// What one scrape says: samples by their name and labels as written.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn value(&self, sample: &str) -> f64 {
        *self.0.get(sample).unwrap_or_else(|| panic!("there is no {sample} in {:#?}", self.0.keys()))
    }
}

async fn scrape(app: &TestApp) -> Scrape {
    let response = app.http.get(format!("{}/metrics", app.base_url)).bearer_auth(&app.read_token).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    parse(&response.text().await.unwrap())
}

async fn the_metrics_tell_what_is_owed_waits_is_parked_and_is_back(mut app: TestApp) {
    let backoff = [("REVERSAL_BACKOFF_BASE", "1h"), ("REVERSAL_BACKOFF_MAX", "2h")];
    app.restart_with(&[backoff[0], backoff[1], NO_SWEEPER]).await;
    app.sim.fault("tr_1", stripe_sim::Fault::UnavailableHtml, 1);
    let mut payment = crate::support::two_sellers("pi_1");
    let unknown = json!({"seller_id": "s3", "stripe_transfer_id": "tr_unknown", "destination": "acct_3", "amount": 1_000,
        "currency": "usd"});
    payment["transfers"].as_array_mut().unwrap().push(unknown);
    assert_eq!(app.register(payment).await.status(), 201);
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    app.post_webhook(&refund_event("evt_2", "re_2", "pi_unknown", 100).to_string()).await;
    app.transfer_becomes(1, "reversed").await;
    app.transfer_becomes(2, "permanently_failed").await;
    app.reversal_when(0, "the first retry waits", |reversal| reversal["retry_count"] == 1).await;
    eventually("the outbox is empty", || async {
        (app.db.count("outbox WHERE published_at IS NULL").await == 0).then_some(())
    })
    .await;
    app.db.execute("UPDATE claims SET attention = 'look at it' WHERE reference = 're_2'").await;

    let scrape_of_all = scrape(&app).await;
    for (sample, expected) in [
        ("clawback_reversals{status=\"pending\"}", 1.0),
        ("clawback_reversals{status=\"reversed\"}", 1.0),
        ("clawback_reversals{status=\"permanently_failed\"}", 1.0),
        ("clawback_reversal_amount_minor_units{status=\"waiting\",currency=\"eur\"}", 6_000.0),
        ("clawback_reversal_amount_minor_units{status=\"reversed\",currency=\"eur\"}", 3_000.0),
        ("clawback_reversal_amount_minor_units{status=\"pending\",currency=\"eur\"}", 0.0),
        ("clawback_reversal_amount_minor_units{status=\"parked\",currency=\"eur\"}", 0.0),
        ("clawback_reversal_amount_minor_units{status=\"parked\",currency=\"usd\"}", 1_000.0),
        ("clawback_transfers{status=\"reversal_pending\"}", 1.0),
        ("clawback_transfers{status=\"reversed\"}", 1.0),
        ("clawback_transfers{status=\"permanently_failed\"}", 1.0),
        ("clawback_transfers{status=\"failed\"}", 0.0),
        ("clawback_refunds{status=\"matched\"}", 1.0),
        ("clawback_refunds{status=\"unmatched\"}", 1.0),
        ("clawback_refunds_needing_attention", 1.0),
        ("clawback_disputes_needing_attention", 0.0),
        ("clawback_disputes{status=\"held\"}", 0.0),
        ("clawback_waiting_claim_amount_minor_units{kind=\"refund\",status=\"unmatched\",currency=\"eur\"}", 100.0),
        ("clawback_outbox_unpublished", 0.0),
        ("clawback_outbox_oldest_unpublished_age_seconds", 0.0),
        ("clawback_circuit_breaker_state{state=\"closed\"}", 1.0),
        ("clawback_circuit_breaker_state{state=\"half_open\"}", 0.0),
        ("clawback_circuit_breaker_state{state=\"open\"}", 0.0),
        ("clawback_refund_to_reversed_seconds_count", 1.0),
        ("clawback_refund_to_reversed_seconds_bucket{le=\"2592000\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"reversed\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"unavailable\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"no_such_transfer\"}", 1.0),
    ] {
        assert_eq!(scrape_of_all.value(sample).to_string(), expected.to_string(), "{sample}");
    }
    assert!(scrape_of_all.value("clawback_oldest_open_reversal_age_seconds") > 0.0);
    assert!(scrape_of_all.value("clawback_stripe_limiter_rate_per_second") > 0.0);
    let webhooks =
        "clawback_http_request_duration_seconds_count{method=\"POST\",route=\"/webhooks/stripe\",status=\"200\"}";
    assert!(scrape_of_all.value(webhooks) >= 2.0);
    let done = "queues_jobs_done_total{queue=\"reversals\",kind=\"reverse_transfer\"}";
    eventually("the queue library has counted the job that is done", || async {
        (scrape(&app).await.0.get(done).copied() >= Some(1.0)).then_some(())
    })
    .await;

    // Nothing is owed for a refund that has failed; it is not parked, and not open.
    app.db.execute("UPDATE claims SET status = 'failed' WHERE reference = 're_1'").await;
    let parked = "clawback_reversal_amount_minor_units{status=\"parked\",currency=\"usd\"}";
    assert_eq!(scrape(&app).await.value(parked).to_string(), "0");
}

async fn what_the_outbox_has_not_published_yet_shows_with_its_age(mut app: TestApp) {
    let no_worker = [("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")];
    app.restart_with(&[no_worker[0], no_worker[1], NO_SWEEPER]).await;
    app.refund(10_000).await;
    app.published(2).await;
    // As if a relay had claimed it and never come back.
    app.db.execute("UPDATE outbox SET published_at = NULL, claimed_until = '2999-01-01T00:00:00+00:00'").await;
    let scrape = scrape(&app).await;
    assert_eq!(scrape.value("clawback_outbox_unpublished").to_string(), "2");
    assert!(scrape.value("clawback_outbox_oldest_unpublished_age_seconds") > 0.0);
    let pending = "clawback_reversal_amount_minor_units{status=\"pending\",currency=\"eur\"}";
    assert_eq!(scrape.value(pending).to_string(), "9000");
    for absent in ["clawback_circuit_breaker_state", "clawback_stripe_limiter_rate_per_second"] {
        assert!(!scrape.0.keys().any(|sample| sample.starts_with(absent)), "{absent} is a worker's");
    }
}

async fn a_worker_alone_serves_health_and_metrics_only_where_it_is_told_to(mut app: TestApp) {
    app.stop().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut settings = app.settings();
    settings.push(("WORKER_HTTP_ADDR".into(), free.to_string()));
    let worker = Process::start("worker", &settings);
    app.base_url = format!("http://{free}");
    let ready =
        eventually("it answers", || async { app.http.get(format!("{}/health/ready", app.base_url)).send().await.ok() })
            .await;
    let ready: serde_json::Value = ready.json().await.unwrap();
    assert_eq!((&ready["parts"]["stripe"]["status"], ready["parts"].get("broker")), (&json!("ok"), None), "{ready}");
    let scrape = scrape(&app).await;
    assert_eq!(scrape.value("clawback_circuit_breaker_state{state=\"closed\"}").to_string(), "1");
    for (path, status) in [("/v1/payments/pi_1", 404), ("/webhooks/stripe", 404), ("/metrics", 401)] {
        let response = app.http.get(format!("{}{path}", app.base_url)).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    assert_eq!(worker.terminate().await, Some(0));
}

/// Refuses whatever Prometheus' text format does not allow, and what its conventions ask not to do.
fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'), "the last line has no end");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeSet::new());
    let (mut help, mut family) = (None, None::<(String, String)>);
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!words.trim().is_empty(), "{line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!(help.take().as_deref(), Some(name), "{line} does not follow its HELP");
            assert!(families.insert(name.to_owned()), "{name} is there twice");
            check_name(name, kind);
            family = Some((name.to_owned(), kind.to_owned()));
        } else {
            let (name, kind) = family.as_ref().unwrap_or_else(|| panic!("{line} has no TYPE"));
            let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
            let suffix = sample.split('{').next().unwrap().strip_prefix(name.as_str());
            let allowed: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffix.is_some_and(|suffix| allowed.contains(&suffix)), "{line} is not of {name}");
            check_labels(&sample[sample.find('{').unwrap_or(sample.len())..]);
            let value = value.parse::<f64>().unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(samples.insert(sample.to_owned(), value).is_none(), "{sample} is there twice");
        }
    }
    assert!(families.len() > 10, "{families:?}");
    Scrape(samples)
}

/// Prometheus' naming conventions: counters, and nothing else, end in `_total`; times are in seconds; no abbreviations.
fn check_name(name: &str, kind: &str) {
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
    assert!(name.starts_with("clawback_") || name.starts_with("queues_"), "{name}");
    assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
    for unit in ["_ms", "_milliseconds", "_minutes", "_count", "_sum", "_bucket"] {
        assert!(!name.ends_with(unit), "{name}");
    }
}

/// `{name="value",…}`, or nothing.
fn check_labels(labels: &str) {
    if labels.is_empty() {
        return;
    }
    let inside = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).expect(labels);
    for pair in inside.split("\",") {
        let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("{labels}"));
        assert!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{labels}");
        assert!(!value.trim_end_matches('"').contains(['"', '\\', '\n']), "{labels}");
    }
}
