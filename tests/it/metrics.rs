//! `/metrics` over real HTTP, read by a parser that takes nothing but Prometheus' text format, and compared with refunds
//! whose end is known.

use std::collections::BTreeMap;

use reqwest::StatusCode;
use serde_json::json;

use crate::support::{NO_SWEEPER, Process, TestApp, both_databases, eventually, refund_event, required, to_create};

both_databases! {
    the_metrics_tell_what_is_owed_waits_is_parked_and_is_back,
    what_the_outbox_has_not_published_yet_shows_with_its_age,
    a_worker_alone_serves_health_and_metrics_only_where_it_is_told_to,
}

/// What one scrape says: samples by their name and labels as written, and the type of each family.
struct Scrape {
    samples: BTreeMap<String, f64>,
    families: BTreeMap<String, String>,
}

impl Scrape {
    fn value(&self, sample: &str) -> f64 {
        *self.samples.get(sample).unwrap_or_else(|| panic!("there is no {sample} in {:#?}", self.samples.keys()))
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
    let management = ("RABBITMQ_MANAGEMENT_URL", &*required("RABBITMQ_MANAGEMENT_URL"));
    app.restart_with(&[backoff[0], backoff[1], NO_SWEEPER, ("TRANSFER_RETRY_ENABLED", "false"), management]).await;
    app.sim.fault("tr_1", stripe_sim::Fault::UnavailableHtml, 1);
    let mut payment = crate::support::two_sellers("pi_1");
    let unknown = json!({"seller_id": "s3", "stripe_transfer_id": "tr_unknown", "destination": "acct_3", "amount": 1_000,
        "currency": "usd"});
    payment["transfers"].as_array_mut().unwrap().push(unknown);
    assert_eq!(app.register(payment).await.status(), 201);
    assert_eq!(app.register(to_create("pi_2")).await.status(), 201);
    app.db.execute("UPDATE calls SET state = 'failed' WHERE kind = 'create'").await;
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    app.post_webhook(&refund_event("evt_2", "re_2", "pi_unknown", 100).to_string()).await;
    let forged = app.post_signed("{}", "t=1,v1=00").await;
    assert_eq!(forged.status(), 400);
    app.transfer_becomes(1, "reversed").await;
    app.transfer_becomes(2, "permanently_failed").await;
    app.reversal_when(0, "the first retry waits", |reversal| reversal["retry_count"] == 1).await;
    eventually("the outbox is empty", || async {
        (app.db.count("outbox WHERE published_at IS NULL").await == 0).then_some(())
    })
    .await;
    app.db.execute("UPDATE claims SET attention = 'look at it' WHERE reference = 're_2'").await;
    let done = "clawback_queues_jobs_done_total{queue=\"reversals\",kind=\"reverse_transfer\"}";
    eventually("the queue library has counted the job that is done", || async {
        (scrape(&app).await.samples.get(done).copied() >= Some(1.0)).then_some(())
    })
    .await;

    assert_eq!(app.cli(&["reconcile"]).await.code, 3, "one transfer is not at Stripe");
    // Figures are some seconds old, and so is what the broker's management API tells.
    let scrape_of_all = eventually("docs/metrics.md lists what a process exposes", || async {
        let scrape = scrape(&app).await;
        (scrape.families == documented()).then_some(scrape)
    })
    .await;
    for (sample, expected) in [
        ("clawback_ledger_up", 1.0),
        ("clawback_at_risk_amount_minor_units{reason=\"pending\",currency=\"eur\"}", 6_000.0),
        ("clawback_at_risk_amount_minor_units{reason=\"failed\",currency=\"usd\"}", 1_000.0),
        ("clawback_at_risk_amount_minor_units{reason=\"failed\",currency=\"eur\"}", 0.0),
        ("clawback_at_risk_amount_minor_units{reason=\"unmatched\",currency=\"eur\"}", 100.0),
        ("clawback_at_risk{reason=\"pending\",currency=\"eur\"}", 1.0),
        ("clawback_at_risk{reason=\"waiting_for_balance\",currency=\"eur\"}", 0.0),
        ("clawback_oldest_at_risk_age_seconds{reason=\"held\",currency=\"eur\"}", 0.0),
        ("clawback_taken_back_amount_minor_units{days=\"today\",currency=\"eur\"}", 3_000.0),
        ("clawback_taken_back{days=\"30d\",currency=\"eur\"}", 1.0),
        ("clawback_unpaid_transfers", 2.0),
        ("clawback_unpaid_amount_minor_units{currency=\"eur\"}", 9_000.0),
        ("clawback_refunds_needing_attention", 1.0),
        ("clawback_disputes_needing_attention", 0.0),
        ("clawback_outbox_unpublished", 0.0),
        ("clawback_outbox_oldest_unpublished_age_seconds", 0.0),
        ("clawback_processes_alive{role=\"run\"}", 1.0),
        ("clawback_processes_alive{role=\"worker\"}", 0.0),
        ("clawback_workers{state=\"closed\"}", 1.0),
        ("clawback_outage_age_seconds", 0.0),
        ("clawback_pauses{what=\"everything\"}", 0.0),
        ("clawback_queue_messages{queue=\"reversals.parked\"}", 1.0),
        ("clawback_circuit_breaker_state{state=\"closed\"}", 1.0),
        ("clawback_circuit_breaker_state{state=\"half_open\"}", 0.0),
        ("clawback_circuit_breaker_state{state=\"open\"}", 0.0),
        ("clawback_broker_connected", 1.0),
        ("clawback_consumers_connected", 2.0),
        ("clawback_refund_to_reversed_seconds_count", 1.0),
        ("clawback_refund_to_reversed_seconds_bucket{le=\"2592000\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"reversed\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"unavailable\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"no_such_transfer\"}", 1.0),
        ("clawback_stripe_calls_total{meaning=\"rate_limited\"}", 0.0),
        ("clawback_failed_permanently_total{kind=\"reverse\"}", 1.0),
        ("clawback_webhooks_total{source=\"stripe\",outcome=\"accepted\"}", 1.0),
        ("clawback_webhooks_total{source=\"stripe\",outcome=\"unmatched\"}", 1.0),
        ("clawback_webhooks_total{source=\"stripe\",outcome=\"refused_signature\"}", 1.0),
        ("clawback_webhooks_total{source=\"hyperswitch\",outcome=\"accepted\"}", 0.0),
        ("clawback_reversed_twice_total", 0.0),
        ("clawback_replays_total{kind=\"create\"}", 0.0),
        ("clawback_reconcile_last_run_state{state=\"done\"}", 1.0),
        ("clawback_reconcile_last_run_state{state=\"interrupted\"}", 0.0),
        ("clawback_reconcile_differences", 1.0),
        ("clawback_queue_unacknowledged_messages{queue=\"reversals.parked\"}", 0.0),
    ] {
        assert_eq!(scrape_of_all.value(sample).to_string(), expected.to_string(), "{sample}");
    }
    for positive in [
        "clawback_oldest_open_reversal_age_seconds",
        "clawback_oldest_at_risk_age_seconds{reason=\"unmatched\",currency=\"eur\"}",
        "clawback_oldest_attention_age_seconds",
        "clawback_oldest_unpaid_age_seconds",
        "clawback_stripe_limiter_rate_per_second",
        "clawback_reconcile_last_run_timestamp_seconds",
        "clawback_reconcile_transfers_compared",
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
    ] {
        assert!(scrape_of_all.value(positive) > 0.0, "{positive}");
    }
    let started = chrono::Utc::now().timestamp() as f64 - scrape_of_all.value("process_start_time_seconds");
    assert!((-5.0..600.0).contains(&started), "started {started} s ago");
    let webhooks =
        "clawback_http_request_duration_seconds_count{method=\"POST\",route=\"/webhooks/stripe\",status=\"200\"}";
    assert!(scrape_of_all.value(webhooks) >= 2.0);
    assert!(!scrape_of_all.samples.keys().any(|sample| sample.contains("kind=\"unknown\"")));

    // Without the database the process still tells of itself, and of what it knew last.
    app.db.execute("ALTER TABLE processes RENAME TO away").await;
    let without = eventually("the ledger can't be asked", || async {
        let scrape = scrape(&app).await;
        (scrape.value("clawback_ledger_up") == 0.0).then_some(scrape)
    })
    .await;
    assert!(without.value("clawback_ledger_figures_age_seconds") > 0.0);
    let failed = "clawback_at_risk_amount_minor_units{reason=\"failed\",currency=\"usd\"}";
    assert_eq!(
        (without.value(failed).to_string(), without.families.len()),
        ("1000".to_owned(), scrape_of_all.families.len())
    );
    app.db.execute("ALTER TABLE away RENAME TO processes").await;
}

/// The names and types in docs/metrics.md.
fn documented() -> BTreeMap<String, String> {
    let rows = include_str!("../../docs/metrics.md").lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.split(',').next()?.to_owned()))
    });
    rows.collect()
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
    let pending = "clawback_at_risk_amount_minor_units{reason=\"pending\",currency=\"eur\"}";
    assert_eq!(scrape.value(pending).to_string(), "9000");
    assert_eq!(scrape.value("clawback_workers{state=\"closed\"}").to_string(), "0");
    for absent in ["clawback_circuit_breaker_state", "clawback_stripe_limiter_rate_per_second"] {
        assert!(!scrape.samples.keys().any(|sample| sample.starts_with(absent)), "{absent} is a worker's");
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
    for of_serve in ["clawback_ledger_up", "clawback_workers", "clawback_outbox_unpublished", "clawback_queue_messages"]
    {
        assert!(!scrape.families.contains_key(of_serve), "{of_serve} has one source");
    }
    for (path, status) in [("/v1/payments/pi_1", 404), ("/webhooks/stripe", 404), ("/metrics", 401)] {
        let response = app.http.get(format!("{}{path}", app.base_url)).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    assert_eq!(worker.terminate().await, Some(0));
}

/// Refuses whatever Prometheus' text format does not allow, and what its conventions ask not to do.
fn parse(text: &str) -> Scrape {
    assert!(text.ends_with('\n'), "the last line has no end");
    let (mut samples, mut families) = (BTreeMap::new(), BTreeMap::new());
    let (mut help, mut family) = (None, None::<(String, String)>);
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, words) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(!words.trim().is_empty(), "{line}");
            help = Some(name.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert_eq!(help.take().as_deref(), Some(name), "{line} does not follow its HELP");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} is there twice");
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
    Scrape { samples, families }
}

/// Prometheus' naming conventions: counters, and nothing else, end in `_total`; times are in seconds; no abbreviations.
fn check_name(name: &str, kind: &str) {
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{name} is a {kind}");
    assert!(name.starts_with("clawback_") || name.starts_with("process_"), "{name}");
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
