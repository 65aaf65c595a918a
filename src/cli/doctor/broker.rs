//! Checks the broker: its version and feature flags, and each job's queues, consumers and parked messages.

use std::collections::HashMap;

use futures_util::future::join_all;
use queues::{Broker, QueueStatus, Topology};
use url::Url;

use super::finding::Finding;
use super::in_time;
use crate::app;
use crate::cli::topology::{
    Management, QueueProblem, Survey, UNKNOWN_PORT, by_remedy, paused_workers, remedy, situation, survey,
};
use crate::config::Config;
use crate::operator::{Filter, Operator};

const CHECK: &str = "broker";
const REMEDY: &str = "check AMQP_URL, and that RabbitMQ runs; until then jobs wait in the outbox";
/// No more parked messages are compared with their rows: each look holds all of them for a moment.
const COUNTED: u32 = 1_000;
/// What to do about workers that wait for Stripe.
pub(super) const HURRY: &str =
    "they go on by themselves; `clawback breaker probe --reason TEXT` has them try Stripe now";
/// Quorum queues that dead-letter at least once need both.
const FLAGS: [&str; 2] = ["quorum_queue", "stream_queue"];

pub(super) async fn check(config: &Config, management: Management) -> Vec<Finding> {
    match look(config, management).await {
        Ok(findings) => findings,
        Err(error) => vec![Finding::error(CHECK, format!("{error:#}"), REMEDY)],
    }
}

async fn look(config: &Config, management: Management) -> anyhow::Result<Vec<Finding>> {
    let (broker, topologies) = (app::broker(config, "clawback doctor")?, app::topologies(config)?);
    let management = management.url(config);
    let surveys = topologies.iter().map(|topology| in_time(survey(&broker, topology, management.as_ref())));
    let (surveys, flags, situation) =
        tokio::join!(join_all(surveys), in_time(flags(&broker, management.as_ref())), situation(config));
    let paused = situation.as_deref().and_then(paused_workers);
    let surveys = surveys.into_iter().map(|survey| survey.map_err(anyhow::Error::msg)?.map_err(Into::into));
    let surveys: Vec<Survey> = surveys.collect::<anyhow::Result<_>>()?;
    let all: u32 = topologies.iter().zip(&surveys).map(|(topology, survey)| parked(topology, survey)).sum();
    let listed = match all {
        1..=COUNTED => in_time(listed(config, &broker, &topologies)).await.ok().and_then(Result::ok),
        _ => None,
    };
    let mut findings = Vec::new();
    let mut version = None;
    for (topology, survey) in topologies.iter().zip(surveys) {
        findings.extend(of_queues(topology, &survey, paused.as_deref()));
        findings.extend(survey.queue(&topology.parked_queue()).map(|queue| of_parked(queue, listed.as_ref())));
        version = survey.report.broker_version;
    }
    let reached = match &version {
        Some(version) => Finding::ok(CHECK, format!("RabbitMQ {version}")),
        None => Finding::warning(CHECK, "its version is unknown", "use RabbitMQ 3.10 or newer"),
    };
    let flags = flags.unwrap_or_else(Err).unwrap_or_else(|why| unknown_flags(version.as_deref(), &why));
    findings.splice(0..0, [reached, flags]);
    Ok(findings)
}

/// Whether both are enabled, or why that is unknown.
async fn flags(broker: &Broker, management: Option<&Url>) -> Result<Finding, String> {
    let management = management.ok_or(UNKNOWN_PORT)?;
    let flags = broker.feature_flags(management).await.map_err(|error| error.to_string())?;
    Ok(match FLAGS.into_iter().find(|flag| flags.get(*flag) == Some(&false)) {
        None => Finding::ok("feature flags", "quorum_queue and stream_queue are enabled"),
        Some(flag) => {
            let message = format!("{flag} is disabled: queues would lose jobs, or can't be declared");
            Finding::error("feature flags", message, format!("rabbitmqctl enable_feature_flag {flag}"))
        }
    })
}

fn unknown_flags(version: Option<&str>, why: &str) -> Finding {
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 4) {
        return Finding::ok("feature flags", "RabbitMQ 4 and newer always have quorum_queue and stream_queue");
    }
    let remedy = "`rabbitmqctl list_feature_flags` must show quorum_queue and stream_queue as enabled";
    Finding::warning("feature flags", format!("unknown: {why}"), remedy)
}

fn of_queues(topology: &Topology, survey: &Survey, paused: Option<&str>) -> Vec<Finding> {
    let name = topology.queue();
    let check = format!("queues of {name}");
    let differs: Vec<_> = survey.report.differences.iter().map(QueueProblem::of).collect();
    let differs = by_remedy(&differs).into_iter();
    let mut findings: Vec<_> = differs.map(|(what, remedy)| Finding::error(&check, what, remedy)).collect();
    if findings.is_empty() {
        let unchecked = survey.limited.as_ref().map(|why| format!("; policies were not checked: {why}"));
        let declared = format!("all {} are declared as wanted{}", survey.queues.len(), unchecked.unwrap_or_default());
        findings.push(Finding::ok(&check, declared));
    }
    if let Some(work) = survey.queue(name) {
        let check = format!("workers of {name}");
        findings.push(match (survey.no_consumer(topology), paused) {
            (Some(_), Some(why)) => {
                let message = format!("no consumer: workers are alive, and take no jobs for now; {why}");
                Finding::warning(&check, message, HURRY)
            }
            (Some(none), None) => Finding::warning(&check, "the queue has no consumer", remedy(&none)),
            (None, _) => Finding::ok(&check, format!("consumers: {}; waiting jobs: {}", work.consumers, work.messages)),
        });
    }
    findings
}

fn parked(topology: &Topology, survey: &Survey) -> u32 {
    survey.queue(&topology.parked_queue()).map_or(0, |queue| queue.messages)
}

/// How many messages of each parking queue `clawback parked list` shows.
async fn listed(config: &Config, broker: &Broker, topologies: &[Topology]) -> anyhow::Result<HashMap<String, u32>> {
    let ledger = app::connect_ledger(config).await?;
    let operator = Operator::new(ledger.clone(), broker.clone(), topologies.to_vec());
    let found = operator.parked(&Filter::default()).await;
    let _ = ledger.close().await;
    let mut listed = HashMap::new();
    for parked in found? {
        *listed.entry(parked.queue).or_default() += 1;
    }
    Ok(listed)
}

/// Without `listed` every message counts.
fn of_parked(queue: &QueueStatus, listed: Option<&HashMap<String, u32>>) -> Finding {
    let listed = listed.map_or(queue.messages, |listed| listed.get(&queue.name).copied().unwrap_or_default());
    let outdated = match queue.messages.saturating_sub(listed) {
        0 => String::new(),
        outdated => format!("; outdated messages, which the next replay drops: {outdated}"),
    };
    match listed {
        0 => Finding::ok(&queue.name, format!("nothing is parked{outdated}")),
        _ => {
            let remedy = "`clawback parked list` says why, `clawback parked replay` tries again";
            Finding::warning(&queue.name, format!("parked jobs: {listed}{outdated}"), remedy)
        }
    }
}
