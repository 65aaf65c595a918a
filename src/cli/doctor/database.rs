//! Checks the database: reachable, its version, schema and clock, and what waits in the ledger.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};

use super::finding::Finding;
use super::{in_time, processes};
use crate::app;
use crate::cli::claims::age;
use crate::config::{AppEnv, Config};
use crate::http::webhooks::stripe::NOT_OURS;
use crate::ledger::{Backlog, ClaimKind, ClaimStatus, DisputePolicy, Ledger, RunState, WaitingClaims};

const CHECK: &str = "database";
const REMEDY: &str = "check DATABASE_URL, and that the database runs and accepts this user";
/// The relay wakes at each commit: a job that waits longer than this and the relay's interval is stuck.
const PATIENT_OUTBOX_SECONDS: i64 = 60;

pub(super) async fn check(config: &Config) -> Vec<Finding> {
    if let Some(file) = config.missing_sqlite_file() {
        let message = format!("the SQLite file {} does not exist", file.display());
        let remedy = if config.has_default_database() {
            "set DATABASE_URL; without it, the first start creates this file"
        } else {
            "check DATABASE_URL; the first start creates this file if it ends with ?mode=rwc"
        };
        return vec![Finding::warning(CHECK, message, remedy)];
    }
    match in_time(look(config)).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => vec![Finding::error(CHECK, error.root_cause().to_string(), REMEDY)],
        Err(late) => vec![Finding::error(CHECK, late, REMEDY)],
    }
}

async fn look(config: &Config) -> anyhow::Result<Vec<Finding>> {
    let ledger = app::connect_ledger(config).await?;
    let asked = Utc::now();
    let facts = ledger.database_facts().await?;
    let mut findings = vec![Finding::ok(CHECK, format!("{} {}", facts.name, facts.version))];
    findings.extend(facts.now.map(|now| Finding::clock("database's clock", "the database's", now, asked, None)));
    let (migrations, complete) = migrations(&ledger, config.app_env).await;
    findings.push(migrations);
    if complete {
        match ledger.backlog().await {
            Ok(backlog) => findings.extend(waiting(&backlog, config)),
            Err(error) => findings.push(Finding::error("ledger", error.to_string(), REMEDY)),
        }
        match ledger.situation().await {
            Ok(situation) => findings.extend(processes::findings(&situation, config)),
            Err(error) => findings.push(Finding::error("processes", error.to_string(), REMEDY)),
        }
    }
    let _ = ledger.close().await;
    Ok(findings)
}

/// And whether the schema is complete: otherwise the ledger can't be read.
async fn migrations(ledger: &Ledger, app_env: AppEnv) -> (Finding, bool) {
    let all = match ledger.migrations().await {
        Ok(all) => all,
        Err(error) => return (Finding::error("migrations", error.to_string(), REMEDY), false),
    };
    let (pending, known) = (all.pending(), all.known.len());
    let message = format!("{pending} of {known} are pending");
    let finding = match app_env {
        _ if pending == 0 && !all.newer.is_empty() => {
            let newer = all.newer.join(", ");
            Finding::ok("migrations", format!("all {known} are applied, and of a newer version: {newer}"))
        }
        _ if pending == 0 => Finding::ok("migrations", format!("all {known} are applied")),
        AppEnv::Development => Finding::warning("migrations", message, "the next start applies them"),
        AppEnv::Production => Finding::error("migrations", message, "run `clawback migrate up`"),
    };
    (finding, pending == 0)
}

fn waiting(backlog: &Backlog, config: &Config) -> Vec<Finding> {
    let now = Utc::now();
    let mut findings = vec![outbox(backlog, config, now), failed(backlog), creations(backlog, now)];
    findings.extend(claims(backlog, config, now));
    findings.push(attention(backlog, now));
    findings.extend(not_ours(backlog));
    findings.push(reconcile(backlog, now));
    findings
}

/// Where nothing comes but what is ignored, the endpoint is another one than it should be.
fn not_ours(backlog: &Backlog) -> Option<Finding> {
    let newest = backlog.newest_events.first()?;
    let all = backlog.newest_events.iter().all(|noted| noted.starts_with(NOT_OURS));
    all.then(|| {
        let message = format!("each of the newest {} is ignored; the last one: {newest}", backlog.newest_events.len());
        let remedy = "in Stripe's dashboard, add an endpoint for your account in the mode of STRIPE_API_KEY: README.md, \
                      \"Point Stripe at Clawback\"";
        Finding::warning("Stripe's events", message, remedy)
    })
}

fn outbox(backlog: &Backlog, config: &Config, now: DateTime<Utc>) -> Finding {
    let Some(oldest) = backlog.outbox.oldest else {
        return Finding::ok("outbox", "every job has reached the broker");
    };
    let jobs = backlog.outbox.unpublished;
    let since = oldest.to_rfc3339_opts(SecondsFormat::Secs, true);
    let interval = i64::try_from(config.reversal.check_interval.as_secs()).unwrap_or(i64::MAX);
    if (now - oldest).num_seconds() <= PATIENT_OUTBOX_SECONDS.max(interval) {
        return Finding::ok("outbox", format!("jobs on their way: {jobs}, the oldest since {since}"));
    }
    let message = format!("jobs stuck before the broker: {jobs}, the oldest since {since}");
    Finding::warning("outbox", message, "is `clawback serve` up, and its broker? GET /health/ready and its log say why")
}

fn failed(backlog: &Backlog) -> Finding {
    match backlog.reversals_given_up {
        0 => Finding::ok("reversals", "none failed permanently"),
        count => Finding::warning(
            "reversals",
            format!("permanently failed: {count}; the sellers still have the money"),
            "`clawback reversals list --status permanently_failed --owed` says why, `clawback reversals replay` tries again",
        ),
    }
}

fn creations(backlog: &Backlog, now: DateTime<Utc>) -> Finding {
    const CHECK: &str = "creations";
    let Some(oldest) = backlog.unpaid.iter().map(|of| of.oldest).min() else {
        return Finding::ok(CHECK, "none failed permanently");
    };
    let transfers: i64 = backlog.unpaid.iter().map(|of| of.transfers).sum();
    let amounts: Vec<String> = backlog.unpaid.iter().map(|of| format!("{} {}", of.amount, of.currency)).collect();
    let (amounts, oldest) = (amounts.join(", "), age((now - oldest).num_seconds()));
    Finding::warning(
        CHECK,
        format!("permanently failed: {transfers} ({amounts}; the oldest {oldest} old); their sellers were not paid"),
        "`clawback transfers list --not-created` says why, `clawback transfers retry` tries again",
    )
}

/// One line for each kind and status of claims that take nothing so far.
fn claims(backlog: &Backlog, config: &Config, now: DateTime<Utc>) -> Vec<Finding> {
    let finding = |kind, status| {
        let check = format!("{status} {kind}s");
        let of = |group: &&WaitingClaims| (group.kind, group.status) == (kind, status);
        let found: Vec<&WaitingClaims> = backlog.waiting.iter().filter(of).collect();
        if found.is_empty() {
            return (kind == ClaimKind::Refund).then(|| Finding::ok(&check, "none"));
        }
        let (why, remedy) = advice(kind, status, config, backlog.held_though_taken > 0);
        let message = format!("{} took nothing back: {why}", sums(&found, now));
        Some(match remedy {
            Some(remedy) => {
                Finding::warning(&check, message, format!("`clawback {kind}s list --status {status}`; {remedy}"))
            }
            None => Finding::ok(&check, message),
        })
    };
    let statuses = [ClaimStatus::Unmatched, ClaimStatus::Conflicting, ClaimStatus::Held];
    let kinds = [ClaimKind::Refund, ClaimKind::Dispute];
    kinds
        .into_iter()
        .flat_map(|kind| statuses.map(|status| (kind, status)))
        .filter_map(|(k, s)| finding(k, s))
        .collect()
}

/// Why they wait, and what to do about it, if anything.
fn advice(kind: ClaimKind, status: ClaimStatus, config: &Config, though_taken: bool) -> (&'static str, Option<String>) {
    match (status, kind, config.claims.dispute_policy) {
        (ClaimStatus::Unmatched, ..) => (
            "their payment is not registered",
            Some("register the payments (`clawback payments import`, or POST /v1/payments)".to_owned()),
        ),
        (ClaimStatus::Held, ClaimKind::Dispute, DisputePolicy::Off) => (
            "DISPUTE_POLICY is off",
            Some(
                "take with `clawback disputes accept ID`, or `acknowledge ID`; DISPUTE_POLICY decides about later ones"
                    .to_owned(),
            ),
        ),
        (ClaimStatus::Held, ClaimKind::Dispute, _) if though_taken => (
            "some came before DISPUTE_POLICY took such, or are older than REFUNDS_SINCE",
            Some("take with `clawback disputes accept ID`, or `acknowledge ID`".to_owned()),
        ),
        (ClaimStatus::Held, ClaimKind::Dispute, _) => ("they are not decided yet, or wait for an operator", None),
        (ClaimStatus::Held, ..) => (
            "they are older than REFUNDS_SINCE, or pending at their provider",
            Some("take with `clawback refunds accept ID`, or `acknowledge ID` what was taken back before".to_owned()),
        ),
        _ => (
            "they do not fit their payment",
            Some(format!("correct the payment or the {kind}, then `clawback {kind}s accept ID`; or `acknowledge ID`")),
        ),
    }
}

/// How many, their amount in each currency, and how old the oldest is.
fn sums(found: &[&WaitingClaims], now: DateTime<Utc>) -> String {
    let number: i64 = found.iter().map(|group| group.number).sum();
    let mut amounts: BTreeMap<&str, f64> = BTreeMap::new();
    for group in found {
        *amounts.entry(&group.currency).or_default() += group.amount;
    }
    let amounts: Vec<String> =
        amounts.into_iter().map(|(currency, amount)| format!("{amount:.0} {currency}")).collect();
    let oldest = found.iter().map(|group| group.oldest).min().unwrap_or(now);
    format!("{number} ({}; the oldest {} old)", amounts.join(", "), age((now - oldest).num_seconds()))
}

fn attention(backlog: &Backlog, now: DateTime<Utc>) -> Finding {
    let found: Vec<&WaitingClaims> = backlog.attention.iter().collect();
    if found.is_empty() {
        return Finding::ok("attention", "no refund and no dispute needs it");
    }
    let shown: Vec<&str> = backlog.attention_shown.iter().map(|(_, reference)| reference.as_str()).collect();
    let more = if found.iter().map(|group| group.number).sum::<i64>() > shown.len() as i64 { ", …" } else { "" };
    let message = format!("needed by {}: {}{more}", sums(&found, now), shown.join(", "));
    let kind = backlog.attention_shown.first().map_or(ClaimKind::Refund, |(kind, _)| *kind);
    let remedy = format!(
        "`clawback {kind}s show ID` says what to do, `clawback {kind}s acknowledge ID --reason …` that it is done"
    );
    Finding::warning("attention", message, remedy)
}

fn reconcile(backlog: &Backlog, now: DateTime<Utc>) -> Finding {
    let Some(run) = &backlog.last_reconcile else {
        return Finding::ok("reconcile", "the ledger was never compared with Stripe; `clawback reconcile` does it");
    };
    let ago = age((now - run.finished_at.unwrap_or(run.updated_at)).num_seconds());
    let (compared, left) = (run.counts.transfers, run.differences - run.repaired);
    let message = format!("{compared} transfers compared {ago} ago, {left} differences left");
    if left > 0 {
        return Finding::warning("reconcile", message, format!("`clawback reconcile show {}` says what to do", run.id));
    }
    match run.state {
        RunState::Done => Finding::ok("reconcile", message),
        RunState::Running | RunState::Interrupted => {
            let message = format!("{message}; it has not come to its end");
            Finding::warning("reconcile", message, "unless it runs at this moment: `clawback reconcile --resume`")
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::super::finding::Status;
    use super::*;
    use crate::ledger::OutboxBacklog;

    #[test]
    fn jobs_that_wait_longer_than_the_relay_would_are_a_warning() {
        let config = Config::from_parts(None, [("REVERSAL_CHECK_INTERVAL".to_owned(), "2m".to_owned())]).unwrap();
        let now = Utc::now();
        let waiting_for = |seconds| Backlog {
            newest_events: Vec::new(),
            outbox: OutboxBacklog { unpublished: 2, oldest: Some(now - chrono::TimeDelta::seconds(seconds)) },
            reversals_given_up: 0,
            unpaid: Vec::new(),
            waiting: Vec::new(),
            held_though_taken: 0,
            attention: Vec::new(),
            last_reconcile: None,
            attention_shown: Vec::new(),
        };
        assert_eq!(outbox(&waiting_for(119), &config, now).status, Status::Ok);
        assert_eq!(outbox(&waiting_for(130), &config, now).status, Status::Warning);
    }
}
