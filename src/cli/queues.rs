//! `clawback queues`: declare the queues on the broker, look at them, and compare them with what is wanted.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use futures_util::future::try_join_all;
use queues::{Broker, Difference, QueueStatus, Topology};
use serde::Serialize;
use url::Url;

use super::output::{Format, json, table, wrap};
use super::terminal::print;
use super::topology::{Comparison, by_remedy, compare, management, no_consumer, parse_management, remedy};
use crate::app;
use crate::config::Config;

/// The exit code when something is not as wanted.
const PROBLEMS: u8 = 3;
const UNREACHABLE: &str = "the broker could not be asked; check AMQP_URL";

#[derive(Debug, Subcommand)]
pub(super) enum Queues {
    /// Declare the exchange and the queues, and show them; those that are there already must be as wanted
    #[command(
        after_help = "Repeating it is harmless. A queue that is there and differs is left as it is: exit code 1.\n\n\
                            Exit codes: 0 all are declared, 1 failed, 2 wrong usage."
    )]
    Declare(Output),
    /// Show each queue with its messages and consumers
    #[command(after_help = "MESSAGES are those that are ready: not those that a worker has.\n\n\
                            --format json: {\"queues\": [{\"name\", \"exists\", \"messages\", \"consumers\"}]}\n\n\
                            Exit codes: 0 shown, 1 failed, 2 wrong usage.")]
    Status(Output),
    /// Compare the queues with what is wanted, and say what to do; exit code 3 if something is not
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Compared are every queue's type, TTL, dead-letter target and strategy, overflow, limits and \
                        policies, the exchange, and the binding; and each work queue must have a consumer. Where the \
                        management API can't be asked (AMQP_URL's user needs the tag `monitoring` there), AMQP tells what is missing and the first difference of each \
                        queue, but no policies and no binding.\n\n\
                        --format json: {\"broker_version\", \"limited\", \"queues\": [{\"name\", \"exists\", \
                        \"messages\", \"consumers\"}], \"problems\": [{\"object\", \"property\", \"wanted\", \"found\", \
                        \"remedy\"}]}; \"limited\" says why only AMQP was asked, or is null.\n\n\
                        Exit codes: 0 as wanted, 1 failed (the broker can't be asked), 2 wrong usage, 3 something is \
                        not as wanted.")]
pub(super) struct Verify {
    /// RabbitMQ's management API, if it is not on port 15672 of AMQP_URL's host
    #[arg(long, value_name = "URL", value_parser = parse_management)]
    management: Option<Url>,
    #[command(flatten)]
    output: Output,
}

/// Names are only ever added.
#[derive(Serialize)]
struct Shown {
    queues: Vec<QueueStatus>,
}

/// Names are only ever added.
#[derive(Serialize)]
struct Verified {
    broker_version: Option<String>,
    limited: Option<String>,
    queues: Vec<QueueStatus>,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    #[serde(flatten)]
    difference: Difference,
    remedy: &'static str,
}

impl Queues {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let broker = app::broker(config, "clawback queues")?;
        let topologies = app::topologies(config)?;
        let output = match self {
            Self::Verify(verify) => return verify.execute(config, &broker, &topologies).await,
            Self::Declare(output) => {
                broker.declare_all(&topologies).await.context("the queues could not be declared")?;
                output
            }
            Self::Status(output) => output,
        };
        let queues = look(&broker, &topologies).await?;
        let mut out = Vec::new();
        match output.format {
            Format::Json => json(&mut out, &Shown { queues })?,
            Format::Table => show(&mut out, &queues)?,
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verify {
    async fn execute(self, config: &Config, broker: &Broker, topologies: &[Topology]) -> Result<ExitCode> {
        let management = management(config, self.management);
        let compared = topologies.iter().map(|topology| compare(broker, topology, management.as_ref()));
        let compared = try_join_all(compared).await.context(UNREACHABLE)?;
        let queues = look(broker, topologies).await?;
        let mut verified = Verified { broker_version: None, limited: None, queues, problems: Vec::new() };
        for (topology, Comparison { report, limited }) in topologies.iter().zip(compared) {
            verified.broker_version = report.broker_version.or(verified.broker_version);
            verified.limited = limited.or(verified.limited);
            let consumed = |queue: &QueueStatus| queue.name == topology.queue() && queue.exists && queue.consumers == 0;
            let unattended = verified.queues.iter().any(consumed).then(|| no_consumer(topology));
            for difference in report.differences.into_iter().chain(unattended) {
                let remedy = remedy(&difference);
                verified.problems.push(Problem { difference, remedy });
            }
        }
        let mut out = Vec::new();
        match self.output.format {
            Format::Json => json(&mut out, &verified)?,
            Format::Table => verified.show(&mut out)?,
        }
        print(&out)?;
        Ok(if verified.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEMS) })
    }
}

impl Verified {
    fn show(&self, out: &mut impl Write) -> std::io::Result<()> {
        show(out, &self.queues)?;
        writeln!(out)?;
        for (what, remedy) in by_remedy(self.problems.iter().map(|problem| &problem.difference)) {
            wrap(out, "", "  ", &what)?;
            wrap(out, "  ", "  ", &format!("→ {remedy}"))?;
        }
        if self.problems.is_empty() {
            writeln!(out, "Everything is as wanted.")?;
        }
        match &self.limited {
            Some(why) => wrap(out, "", "", &format!("Policies and bindings were not looked at: {why}.")),
            None => Ok(()),
        }
    }
}

/// Every queue of every topology.
async fn look(broker: &Broker, topologies: &[Topology]) -> Result<Vec<QueueStatus>> {
    let looks = topologies.iter().map(|topology| broker.verify(topology));
    Ok(try_join_all(looks).await.context(UNREACHABLE)?.into_iter().flatten().collect())
}

fn show(out: &mut impl Write, queues: &[QueueStatus]) -> std::io::Result<()> {
    let mut shown = table(["QUEUE", "MESSAGES", "CONSUMERS"]);
    for queue in queues {
        let messages = if queue.exists { queue.messages.to_string() } else { "missing".to_owned() };
        shown.add_row([queue.name.clone(), messages, queue.consumers.to_string()]);
    }
    writeln!(out, "{}", shown.trim_fmt())
}
