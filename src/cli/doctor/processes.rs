//! Checks who is alive, what an operator has paused, and whether the workers can use Stripe.

use super::broker::HURRY;
use super::finding::Finding;
use crate::cli::terminal::{plain, time};
use crate::ledger::{Process, ProcessRole, Situation};

pub(super) fn findings(situation: &Situation) -> Vec<Finding> {
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
