//! `clawback queues`: declares the queues on the broker, shows them, and compares them with what is wanted.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use futures_util::future::try_join_all;
use queues::{Broker, QueueStatus, Topology};
use serde::Serialize;

use super::NEEDS_ATTENTION;
use super::output::{Format, json, table, wrap};
use super::terminal::print;
use super::topology::{Management, Verified, by_remedy, paused_workers, situation, survey};
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
                        API (its user needs the tag `management`), AMQP shows what is missing and the first \
                        difference of each queue, but no policies and no binding.\n\n\
                        --format json: {\"broker_version\", \"limited\", \"paused\", \"queues\": [{\"name\", \"exists\", \
                        \"messages\", \"unacknowledged\", \"consumers\"}], \"problems\": [{\"object\", \"property\", \"wanted\", \"found\", \
                        \"remedy\"}]}; \"limited\" says why only AMQP was asked, \"paused\" why live workers \
                        take no jobs for now; each may be null, and so is each number that is not known.\n\n\
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
        let looks = topologies.iter().map(|topology| broker.queue_statuses(topology));
        let queues: Vec<_> = try_join_all(looks).await.context(UNREACHABLE)?.into_iter().flatten().collect();
        let mut out = Vec::new();
        match output.format {
            Format::Json => json(&mut out, &Shown { queues })?,
            Format::Table => show(&mut out, queues.iter().map(in_numbers))?,
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Verify {
    async fn execute(self, config: &Config, broker: &Broker, topologies: &[Topology]) -> Result<ExitCode> {
        let management = self.management.url(config);
        let surveys = topologies.iter().map(|topology| survey(broker, topology, management.as_ref()));
        let surveys = try_join_all(surveys).await.context(UNREACHABLE)?;
        let surveys: Vec<_> = topologies.iter().cloned().zip(surveys).collect();
        // The database is asked only where it matters.
        let paused = match surveys.iter().any(|(topology, survey)| survey.no_consumer(topology).is_some()) {
            true => situation(config).await.as_deref().and_then(paused_workers),
            false => None,
        };
        let verified = Verified::of(&surveys, paused);
        let mut out = Vec::new();
        match self.output.format {
            Format::Json => json(&mut out, &verified)?,
            Format::Table => show_verified(&mut out, &verified)?,
        }
        print(&out)?;
        Ok(if verified.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(NEEDS_ATTENTION) })
    }
}

fn show_verified(out: &mut impl Write, verified: &Verified) -> std::io::Result<()> {
    show(out, verified.queues.iter().map(|queue| (queue.name.as_str(), queue.messages, queue.consumers)))?;
    writeln!(out)?;
    for (what, remedy) in by_remedy(&verified.problems) {
        wrap(out, "", "  ", &what)?;
        wrap(out, "  ", "  ", &format!("→ {remedy}"))?;
    }
    if verified.problems.is_empty() {
        writeln!(out, "Everything is as wanted.")?;
    }
    if let Some(why) = &verified.paused {
        wrap(out, "", "", &format!("Workers are alive, and take no jobs for now: {why}."))?;
    }
    match &verified.limited {
        Some(why) => wrap(out, "", "", &format!("Policies and bindings were not checked: {why}.")),
        None => Ok(()),
    }
}

fn in_numbers(queue: &QueueStatus) -> (&str, Option<u32>, Option<u32>) {
    let known = |number| queue.exists.then_some(number);
    (&queue.name, known(queue.messages), known(queue.consumers))
}

fn show<'a>(
    out: &mut impl Write,
    queues: impl IntoIterator<Item = (&'a str, Option<u32>, Option<u32>)>,
) -> std::io::Result<()> {
    let mut shown = table(["QUEUE", "MESSAGES", "CONSUMERS"]);
    for (name, messages, consumers) in queues {
        let messages = messages.map_or_else(|| "missing".to_owned(), |messages| messages.to_string());
        shown.add_row([name.to_owned(), messages, consumers.unwrap_or_default().to_string()]);
    }
    writeln!(out, "{}", shown.trim_fmt())
}
