//! Checks who is alive, what an operator has paused, and whether the workers can use Stripe.

use super::broker::HURRY;
use super::finding::Finding;
use crate::cli::claims::age;
use crate::cli::terminal::{plain, time};
use crate::config::Config;
use crate::ledger::{Process, ProcessRole, Situation, now};

/// A webhook that was refused is worth a look for so long, in seconds.
const WORTH_A_LOOK: i64 = 3_600;

pub(super) fn findings(situation: &Situation, config: &Config) -> Vec<Finding> {
    let alive = &situation.processes.alive;
    let number = |of: fn(&Process) -> bool| alive.iter().filter(|process| of(process)).count();
    let workers = number(|process| process.breaker.is_some());
    let serving = number(|process| process.role != ProcessRole::Worker);
    let said = format!("alive: {workers} with a worker, {serving} with HTTP and relay");
    let mut findings = vec![match (workers, serving) {
        (0, _) => Finding::warning("processes", said, "start `clawback worker`: nobody calls Stripe"),
        (_, 0) => Finding::warning("processes", said, "start `clawback serve`: nobody takes webhooks"),
        _ => Finding::ok("processes", said),
    }];
    for process in &situation.processes.missing {
        let Process { role, host, pid, seen_at, .. } = process;
        let message = format!("a {role} on {host} (pid {pid}) is missing, last heard of {}", time(*seen_at));
        let remedy = "it died or can't reach the database: its log says why; an hour later it is forgotten";
        findings.push(Finding::warning("processes", plain(&message), remedy));
    }
    findings.extend(signatures(alive));
    findings.extend(events(config, workers));
    if let Some(why) = situation.processes.outage().and_then(|_| situation.why_waiting(None)) {
        findings.push(Finding::warning("circuit breaker", plain(&why), HURRY));
    } else if workers > 0 {
        findings.push(Finding::ok("circuit breaker", "closed in every worker"));
    }
    findings.extend(situation.pauses.iter().map(|pause| {
        let message = format!(
            "{} is paused since {} by {}: {}",
            pause.what(),
            time(pause.created_at),
            pause.operator,
            pause.reason
        );
        let flag = pause.seller.as_ref().map(|seller| format!(" --seller {seller}")).unwrap_or_default();
        Finding::warning("pauses", plain(&message), format!("`clawback resume{flag} --reason TEXT` lets it go on"))
    }));
    findings
}

/// Whether what happens is told; nothing where it is to be told to nobody. A worker does not start without the secret.
fn events(config: &Config, workers: usize) -> Option<Finding> {
    config.events_url.as_ref()?;
    Some(match (&config.events_secret, workers) {
        (Some(_), _) => Finding::ok("events", "EVENTS_URL and EVENTS_SECRET are set"),
        (None, 1..) => Finding::ok("events", "EVENTS_URL is set; EVENTS_SECRET is the workers'"),
        (None, 0) => Finding::warning(
            "events",
            "EVENTS_URL is set and EVENTS_SECRET is not: a worker with these settings does not start",
            "set it where the worker runs: echo whsec_$(openssl rand -base64 32)",
        ),
    })
}

/// Webhooks that were refused; nothing where nobody takes any.
fn signatures(alive: &[Process]) -> Option<Finding> {
    const CHECK: &str = "webhooks' signatures";
    let started = alive.iter().filter(|it| it.role != ProcessRole::Worker).map(|it| it.started_at).min()?;
    let refused: i64 = alive.iter().map(|process| process.webhooks_refused).sum();
    let Some(last) = alive.iter().filter_map(|process| process.webhook_refused_at).max() else {
        return Some(Finding::ok(CHECK, "no webhook was refused"));
    };
    let ago = (now() - last).num_seconds();
    let message = format!("webhooks refused since {}: {refused}, the last one {} ago", time(started), age(ago));
    if ago > WORTH_A_LOOK {
        return Some(Finding::ok(CHECK, message));
    }
    let remedy = "if they are the provider's: compare STRIPE_WEBHOOK_SECRET (HYPERSWITCH_WEBHOOK_SECRET) with its \
                  dashboard, and this machine's clock; else there is nothing to do";
    Some(Finding::warning(CHECK, message, remedy))
}
