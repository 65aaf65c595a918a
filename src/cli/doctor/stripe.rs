//! Checks Stripe: the key's mode, one real read, and the clock.

use chrono::{TimeDelta, Utc};
use secrecy::ExposeSecret;

use super::PATIENCE;
use super::finding::Finding;
use crate::config::{AppEnv, Config};
use crate::stripe::{Client, Meaning, Report};

const CHECK: &str = "Stripe";
/// How far a webhook's signature may be from now.
const SIGNATURES: TimeDelta = TimeDelta::seconds(300);

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let Some(key) = config.stripe.api_key.clone() else {
        let message = "STRIPE_API_KEY is not set: `clawback worker` can't run";
        return vec![Finding::warning(CHECK, message, "set it to the platform's secret or restricted key")];
    };
    let mode = mode(key.expose_secret(), config);
    let base = config.stripe.api_base.as_str().trim_end_matches('/');
    let client = match Client::new(config.stripe.api_base.clone(), key) {
        Ok(client) => client.with_timeout(PATIENCE),
        Err(error) => return vec![mode, Finding::error(CHECK, error.to_string(), "check STRIPE_API_BASE")],
    };
    let asked = Utc::now();
    match client.ping().await {
        Ok(clock) => {
            let clock = clock.map(|clock| Finding::clock("Stripe's clock", "Stripe's", clock, asked, Some(SIGNATURES)));
            let answered = Finding::ok(CHECK, format!("{base} accepts the key"));
            [mode, answered].into_iter().chain(clock).collect()
        }
        Err(report) => vec![mode, failed(base, &report)],
    }
}

fn mode(key: &str, config: &Config) -> Finding {
    const CHECK: &str = "Stripe's key";
    let kinds = [("sk_", "a secret key"), ("rk_", "a restricted key")];
    let kind = kinds.iter().find(|(prefix, _)| key.starts_with(prefix)).map_or("a key of unknown form", |kind| kind.1);
    let mode = key.split('_').nth(1).filter(|mode| ["live", "test"].contains(mode));
    match mode {
        Some("live") if config.app_env == AppEnv::Development => Finding::warning(
            CHECK,
            format!("{kind} in live mode, with APP_ENV=development"),
            "set APP_ENV=production, which refuses what is unsafe with real money",
        ),
        Some(mode) => Finding::ok(CHECK, format!("{kind} in {mode} mode")),
        None => Finding::warning(
            CHECK,
            format!("{kind} in unknown mode"),
            "expected: sk_live_…, rk_live_…, sk_test_…, rk_test_…",
        ),
    }
}

fn failed(base: &str, report: &Report) -> Finding {
    let status = report.http_status.map(|status| format!(" ({status})")).unwrap_or_default();
    let message = format!("{base}{status}: {}", report.message);
    match &report.meaning {
        Meaning::Denied if report.http_status == Some(403) => {
            let remedy = "give the restricted key permission to read transfers and to write transfers and reversals";
            Finding::error(CHECK, message, remedy)
        }
        Meaning::Denied => {
            Finding::error(CHECK, message, "Stripe refused STRIPE_API_KEY: set a valid key, and restart")
        }
        Meaning::TlsFailed => Finding::error(
            CHECK,
            message,
            "the server did not prove that it is Stripe: check CA certificates and proxies",
        ),
        Meaning::Unreached => Finding::error(
            CHECK,
            message,
            "check the network and STRIPE_API_BASE; until then jobs wait and are retried",
        ),
        Meaning::RateLimited | Meaning::Locked | Meaning::Unavailable | Meaning::ServerError => {
            Finding::warning(CHECK, message, "try again; the worker slows down or waits automatically")
        }
        _ => Finding::error(CHECK, message, "check STRIPE_API_BASE: Stripe's API does not answer like this"),
    }
}
