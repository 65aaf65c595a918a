//! `clawback queues`: declares the queues on the broker, shows them, and compares them with what is wanted.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use futures_util::future::try_join_all;
use queues::{Broker, Difference, QueueStatus, Topology};
use serde::Serialize;

use super::NEEDS_ATTENTION;
use super::output::{Format, json, table, wrap};
use super::terminal::print;
use super::topology::{Management, Survey, by_remedy, paused_workers, remedy, situation, survey};
use crate::app;
use crate::config::Config;

const UNREACHABLE: &str = "the broker could not be asked; check AMQP_URL";

#[derive(Debug, Subcommand)]
pub(super) enum Queues {
    /// Declare the exchange and the queues, and show them
    #[command(
        after_help = "Repeating it is harmless. A queue that exists and differs is left as it is: exit code 1.\n\nExample:\n  clawback queues declare && clawback queues verify\n\n\
                            Exit codes: 0 all are declared, 1 failed, 2 wrong usage."
    )]
    Declare(Output),
    /// Show each queue with its messages and consumers
    #[command(after_help = "MESSAGES counts those that are ready, not those that a worker holds.\n\n\
                            --format json: {\"queues\": [{\"name\", \"exists\", \"messages\", \"consumers\"}]}\n\n\
                            Exit codes: 0 shown, 1 failed, 2 wrong usage.")]
    Status(Output),
    /// Compare the queues with what is wanted, and say what to do; exit code 3 on a difference
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(super) struct Output {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Compares every queue's type, TTL, dead-letter target and strategy, overflow, limits and policies, \
                        the exchange, and the binding; each work queue must have a consumer, or a live worker that waits for Stripe. Without the management \
                        API (its user needs the tag `monitoring`), AMQP shows what is missing and the first \
                        difference of each queue, but no policies and no binding.\n\n\
                        --format json: {\"broker_version\", \"limited\", \"paused\", \"queues\": [{\"name\", \"exists\", \
                        \"messages\", \"consumers\"}], \"unacknowledged\": {name: messages that workers hold}, \"problems\": [{\"object\", \"property\", \"wanted\", \"found\", \
                        \"remedy\"}]}; \"limited\" says why only AMQP was asked, \"paused\" why live workers \
                        take no jobs for now; each may be null.\n\n\
                        Example:\n  \
                        clawback queues verify --management https://rabbitmq.example.com:15671\n\n\
                        Exit codes: 0 as wanted, 1 the broker can't be reached, 2 wrong usage, 3 something differs."
)]
pub(super) struct Verify {
    #[command(flatten)]
    management: Management,
    #[command(flatten)]
    output: Output,
}

/// Names are only ever added.
#[derive(Serialize)]
struct Shown {
    queues: Vec<QueueStatus>,
}

/// Names are only ever added.
#[derive(Default, Serialize)]
struct Verified {
    broker_version: Option<String>,
    limited: Option<String>,
    /// Why live workers take no jobs for now.
    paused: Option<String>,
    queues: Vec<QueueStatus>,
    /// By queue; empty where only AMQP was asked.
    unacknowledged: BTreeMap<String, u64>,
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
        let looks = topologies.iter().map(|topology| broker.verify(topology));
        let queues: Vec<_> = try_join_all(looks).await.context(UNREACHABLE)?.into_iter().flatten().collect();
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
        let management = self.management.url(config);
        let surveys = topologies.iter().map(|topology| survey(broker, topology, management.as_ref()));
        let mut verified = Verified::default();
        let surveys = try_join_all(surveys).await.context(UNREACHABLE)?;
        let lacks = |(topology, survey): (&Topology, &Survey)| survey.no_consumer(topology).is_some();
        // The database is asked only where it matters.
        if topologies.iter().zip(&surveys).any(lacks) {
            verified.paused = paused_workers(situation(config).await.as_deref());
        }
        for (topology, survey) in topologies.iter().zip(surveys) {
            let unattended = survey.no_consumer(topology).filter(|_| verified.paused.is_none());
            verified.broker_version = survey.report.broker_version.or(verified.broker_version);
            verified.limited = survey.limited.or(verified.limited);
            verified.queues.extend(survey.queues);
            verified.unacknowledged.extend(survey.report.unacknowledged);
            let problem = |difference| Problem { remedy: remedy(&difference), difference };
            verified.problems.extend(survey.report.differences.into_iter().chain(unattended).map(problem));
        }
        let mut out = Vec::new();
        match self.output.format {
            Format::Json => json(&mut out, &verified)?,
            Format::Table => verified.show(&mut out)?,
        }
        print(&out)?;
        Ok(if verified.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NEEDS_ATTENTION) })
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
        if let Some(why) = &self.paused {
            wrap(out, "", "", &format!("Workers are alive, and take no jobs for now: {why}."))?;
        }
        match &self.limited {
            Some(why) => wrap(out, "", "", &format!("Policies and bindings were not checked: {why}.")),
            None => Ok(()),
        }
    }
}

fn show(out: &mut impl Write, queues: &[QueueStatus]) -> std::io::Result<()> {
    let mut shown = table(["QUEUE", "MESSAGES", "CONSUMERS"]);
    for queue in queues {
        let messages = if queue.exists { queue.messages.to_string() } else { "missing".to_owned() };
        shown.add_row([queue.name.clone(), messages, queue.consumers.to_string()]);
    }
    writeln!(out, "{}", shown.trim_fmt())
}
