//! The doctor's look at the broker: reachable, which version, its feature flags, and for each job's queues whether they are
//! as wanted, whether somebody consumes them, and what is parked.

use futures_util::future::join_all;
use queues::{Broker, BrokerError, QueueStatus, Topology};
use url::Url;

use super::finding::Finding;
use super::in_time;
use crate::app;
use crate::cli::topology::{Comparison, UNKNOWN_PORT, by_remedy, compare, management, no_consumer, remedy};
use crate::config::Config;

const CHECK: &str = "broker";
const REMEDY: &str = "check AMQP_URL, and that RabbitMQ runs; until then jobs wait in the outbox";
/// Quorum queues that dead-letter at least once need both.
const FLAGS: [&str; 2] = ["quorum_queue", "stream_queue"];

pub(super) async fn check(config: &Config, said: Option<Url>) -> Vec<Finding> {
    let (broker, topologies) =
        match app::broker(config, "clawback doctor").and_then(|b| Ok((b, app::topologies(config)?))) {
            Ok(made) => made,
            Err(error) => return vec![Finding::error(CHECK, format!("{error:#}"), REMEDY)],
        };
    let management = management(config, said);
    let queues = topologies.iter().map(|topology| in_time(look(&broker, topology, management.as_ref())));
    let (looked, flags) = tokio::join!(join_all(queues), in_time(flags(&broker, management.as_ref())));
    let mut findings = Vec::new();
    let mut version = None;
    for (topology, looked) in topologies.iter().zip(looked) {
        match looked {
            Ok(Ok((comparison, queues))) => {
                findings.extend(of_queues(topology, &comparison, &queues));
                version = Some(comparison.report.broker_version.clone());
            }
            Ok(Err(error)) => return vec![Finding::error(CHECK, error.to_string(), REMEDY)],
            Err(late) => return vec![Finding::error(CHECK, late, REMEDY)],
        }
    }
    let version = version.flatten();
    let reached = match &version {
        Some(version) => Finding::ok(CHECK, format!("RabbitMQ {version}")),
        None => Finding::warning(CHECK, "it does not tell its version", "use RabbitMQ 3.10 or newer"),
    };
    let flags = flags.unwrap_or_else(Err).unwrap_or_else(|why| unknown_flags(version.as_deref(), &why));
    [vec![reached, flags], findings].concat()
}

async fn look(
    broker: &Broker,
    topology: &Topology,
    management: Option<&Url>,
) -> Result<(Comparison, Vec<QueueStatus>), BrokerError> {
    tokio::try_join!(compare(broker, topology, management), broker.verify(topology))
}

/// Whether both are enabled, or why that is not known.
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
    Finding::warning("feature flags", format!("not known: {why}"), remedy)
}

fn of_queues(topology: &Topology, comparison: &Comparison, queues: &[QueueStatus]) -> Vec<Finding> {
    let name = topology.queue();
    let check = format!("queues of {name}");
    let differs = by_remedy(&comparison.report.differences).into_iter();
    let mut findings: Vec<_> = differs.map(|(what, remedy)| Finding::error(&check, what, remedy)).collect();
    if findings.is_empty() {
        let message = match &comparison.limited {
            None => format!("all {} are declared as wanted", queues.len()),
            Some(why) => format!("all {} are declared as wanted; policies were not looked at: {why}", queues.len()),
        };
        findings.push(Finding::ok(&check, message));
    }
    let of = |name: &str| queues.iter().find(|queue| queue.name == name && queue.exists);
    if let Some(work) = of(name) {
        let check = format!("workers of {name}");
        findings.push(match work.consumers {
            0 => Finding::warning(&check, "nobody consumes the queue", remedy(&no_consumer(topology))),
            consumers => Finding::ok(&check, format!("consumers: {consumers}; jobs that wait: {}", work.messages)),
        });
    }
    if let Some(parked) = of(&topology.parked_queue()) {
        findings.push(match parked.messages {
            0 => Finding::ok(&parked.name, "nothing is parked"),
            messages => {
                let remedy = "`clawback parked list` says why, `clawback parked replay` tries again";
                Finding::warning(&parked.name, format!("jobs that were given up: {messages}"), remedy)
            }
        });
    }
    findings
}
