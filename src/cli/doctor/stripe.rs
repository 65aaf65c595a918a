//! Checks Stripe: the key's mode, one real read, the clock, and which events the webhook endpoints are told of.

use chrono::{TimeDelta, Utc};
use secrecy::ExposeSecret;

use url::Url;

use super::PATIENCE;
use super::finding::Finding;
use crate::app;
use crate::config::{AppEnv, Config};
use crate::ledger::DisputePolicy;
use crate::stripe::{Client, Meaning, Report, WebhookEndpoint};

const CHECK: &str = "Stripe";
/// What Clawback learns of refunds from, whichever API version an endpoint has.
const EVENTS: [&str; 5] =
    ["refund.created", "refund.updated", "refund.failed", "charge.refunded", "charge.refund.updated"];
/// What it learns of transfers from, for payments that nobody registers.
const DISCOVERY_EVENTS: [&str; 1] = ["transfer.created"];
/// What it learns of disputes from, where they take anything.
const DISPUTE_EVENTS: [&str; 3] =
    ["charge.dispute.funds_withdrawn", "charge.dispute.funds_reinstated", "charge.dispute.closed"];
/// How far a webhook's signature may be from now.
const SIGNATURES: TimeDelta = TimeDelta::seconds(300);

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let Some(key) = config.stripe.api_key.clone() else {
        let message = "STRIPE_API_KEY is not set: `clawback worker` can't run";
        return vec![Finding::warning(CHECK, message, "set it to the platform's secret or restricted key")];
    };
    let mode = mode(key.expose_secret(), config);
    let base = config.stripe.api_base.as_str().trim_end_matches('/');
    let base = match config.stripe.proxy.as_ref().and_then(|proxy| Url::parse(proxy.expose_secret()).ok()) {
        Some(proxy) => {
            format!("{base}, through the proxy {},", proxy.authority().rsplit('@').next().unwrap_or_default())
        }
        None => base.to_owned(),
    };
    let client = match app::stripe_client(config, key) {
        Ok(client) => client.with_timeout(PATIENCE),
        Err(error) => {
            return vec![mode, Finding::error(CHECK, error.to_string(), "check STRIPE_API_BASE and STRIPE_PROXY")];
        }
    };
    let asked = Utc::now();
    match client.ping().await {
        Ok(clock) => {
            let clock = clock.map(|clock| Finding::clock("Stripe's clock", "Stripe's", clock, asked, Some(SIGNATURES)));
            let answered = Finding::ok(CHECK, format!("{base} accepts the key"));
            let webhooks = webhooks(&client, config).await;
            [mode, answered].into_iter().chain(clock).chain(webhooks).collect()
        }
        Err(report) => vec![mode, failed(&base, &report)],
    }
}

/// Which events the endpoints of Clawback are not told of; nothing where the key may not list them.
async fn webhooks(client: &Client, config: &Config) -> Option<Finding> {
    const CHECK: &str = "Stripe's endpoints";
    let (page, _) = client.page::<WebhookEndpoint>(&["webhook_endpoints"], &[], None).await.ok()?;
    let is_ours = |endpoint: &&WebhookEndpoint| {
        endpoint.status == "enabled" && endpoint.url.trim_end_matches('/').ends_with("/webhooks/stripe")
    };
    let ours: Vec<&WebhookEndpoint> = page.data.iter().filter(is_ours).collect();
    if ours.is_empty() {
        let message = "no enabled endpoint has a URL that ends in /webhooks/stripe";
        let remedy = "add one in Stripe's dashboard: README.md, \"Point Stripe at Clawback\"";
        return (config.app_env == AppEnv::Production).then(|| Finding::warning(CHECK, message, remedy));
    }
    let is_told = |event: &&str| {
        let mut enabled = ours.iter().flat_map(|endpoint| &endpoint.enabled_events);
        enabled.any(|enabled| enabled == "*" || enabled.strip_prefix("v1.").unwrap_or(enabled) == *event)
    };
    let disputes_take = config.claims.dispute_policy != DisputePolicy::Off;
    let needed = EVENTS.into_iter().chain(DISCOVERY_EVENTS.into_iter().filter(|_| config.stripe.discovery));
    let needed = needed.chain(DISPUTE_EVENTS.into_iter().filter(|_| disputes_take));
    let missing: Vec<&str> = needed.filter(|event| !is_told(event)).collect();
    Some(match missing.is_empty() {
        true => Finding::ok(CHECK, format!("{} endpoints, told of every event that is needed", ours.len())),
        false => Finding::warning(
            CHECK,
            format!("no endpoint is told of {}", missing.join(", ")),
            "add these events to the endpoint in Stripe's dashboard",
        ),
    })
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
        Meaning::Forbidden | Meaning::Denied if report.http_status == Some(403) => {
            let remedy = "give the restricted key permission to read transfers, charges, payment intents, refunds, disputes and balances, \
                 and to write transfers and reversals";
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
            "check the network, STRIPE_API_BASE, and whether egress needs STRIPE_PROXY; until then jobs wait and are retried",
        ),
        Meaning::RateLimited | Meaning::Locked | Meaning::Unavailable | Meaning::ServerError => {
            Finding::warning(CHECK, message, "try again; the worker slows down or waits automatically")
        }
        _ => Finding::error(CHECK, message, "check STRIPE_API_BASE: Stripe's API does not answer like this"),
    }
}
