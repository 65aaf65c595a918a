//! `clawback pause`, `resume`, `processes` and `breaker probe`: what keeps jobs waiting, and who is alive.

use std::io::{Result as IoResult, Write};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::operator::{self, Act, Output};
use super::output::{Format, json, table, wrap};
use super::terminal::{plain, print, time};
use crate::config::Config;
use crate::ledger::{Pause, Process, Situation, parse_account};

#[derive(Debug, Args)]
#[command(
    after_help = "Paused calls are not made, whichever worker has their jobs; those on their way are finished. Webhooks \
                        and reports are recorded as ever, nothing is lost, and no retry is used up. The pause holds until \
                        `clawback resume`, over restarts, and every page, doctor and /metrics show it. Your name and the \
                        reason go into the history.\n\n\
                        --format json prints the pause as GET /v1/pauses shows it.\n\n\
                        Examples:\n  \
                        clawback pause --reason \"Stripe asks us to stop\"\n  \
                        clawback pause --seller acct_1 --reason \"the seller disputes the refunds\"\n\n\
                        Exit codes: 0 done, 1 failed or paused before, 2 wrong usage."
)]
pub(super) struct PauseCalls {
    /// Only calls about this seller, by Stripe's id of the connected account; otherwise everything
    #[arg(long, value_name = "ACCOUNT", value_parser = parse_account)]
    seller: Option<String>,
    /// Pause this seller also if no transfer to it is registered
    #[arg(long, requires = "seller")]
    force: bool,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
#[command(after_help = "Calls that are due get new jobs at once. A seller stays paused while everything is.\n\n\
                        --format json prints the pause, with \"calls_due\".\n\n\
                        Examples:\n  \
                        clawback resume --reason \"Stripe has agreed\"\n  \
                        clawback resume --seller acct_1 --reason \"settled\"\n\n\
                        Exit codes: 0 done, 1 failed or not paused, 2 wrong usage.")]
pub(super) struct ResumeCalls {
    /// What was paused for this seller, by Stripe's id of the connected account; otherwise the pause of everything
    #[arg(long, value_name = "ACCOUNT", value_parser = parse_account)]
    seller: Option<String>,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Each running process keeps a row in the database. One that was not heard of for 15 s and did not say that \
                        it stops is missing. BREAKER is open while Stripe can't be used: the worker is alive, and takes no \
                        jobs.\n\n\
                        --format json prints {\"alive\", \"missing\", \"pauses\"}, as GET /v1/processes and GET /v1/pauses \
                        show them.\n\n\
                        Example:\n  \
                        clawback processes\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct ShowProcesses {
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum Breaker {
    /// Have every worker whose circuit breaker is open probe Stripe now
    #[command(
        after_help = "Without it, Stripe is probed after a pause that grows up to 320 s. Takes a second or two; \
                            `clawback processes` shows what came of it.\n\n\
                            --format json prints {\"workers\"}: how many were asked.\n\n\
                            Example:\n  \
                            clawback breaker probe --reason \"status.stripe.com is green\"\n\n\
                            Exit codes: 0 done, 1 failed, or no breaker is open, 2 wrong usage."
    )]
    Probe(Act),
}

impl PauseCalls {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let pause = ledger.pause(self.seller.as_deref(), self.force, &self.act.note()?).await?;
        let mut out = Vec::new();
        match self.act.output.format {
            Format::Json => json(&mut out, &pause)?,
            Format::Table => {
                let flag = pause.seller.as_ref().map(|seller| format!(" --seller {seller}")).unwrap_or_default();
                writeln!(out, "{} is paused.", pause.what())?;
                writeln!(out, "Resume it with: clawback resume{flag} --reason TEXT")?;
            }
        }
        Ok(print(&out)?)
    }
}

impl ResumeCalls {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let (pause, calls_due) = ledger.resume_seller(self.seller.as_deref(), &self.act.note()?).await?;
        ledger.bring_back().await?;
        let mut out = Vec::new();
        match self.act.output.format {
            Format::Json => {
                let mut shown = serde_json::to_value(&pause)?;
                shown["calls_due"] = json!(calls_due);
                json(&mut out, &shown)?;
            }
            Format::Table => writeln!(out, "{} goes on. Calls that are due: {calls_due}.", pause.what())?,
        }
        Ok(print(&out)?)
    }
}

impl ShowProcesses {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let situation = ledger.situation().await?;
        let mut out = Vec::new();
        match self.output.format {
            Format::Table => show(&mut out, &situation)?,
            Format::Json => {
                let Situation { processes, pauses } = &*situation;
                json(&mut out, &json!({"alive": processes.alive, "missing": processes.missing, "pauses": pauses}))?;
            }
        }
        Ok(print(&out)?)
    }
}

impl Breaker {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let Self::Probe(act) = self;
        let workers = operator::ledger(config).await?.ask_for_probe(&act.note()?).await?;
        let mut out = Vec::new();
        match act.output.format {
            Format::Json => json(&mut out, &json!({"workers": workers}))?,
            Format::Table => {
                writeln!(out, "Workers asked to probe Stripe now: {workers}.")?;
                writeln!(out, "See what comes of it with: clawback processes")?;
            }
        }
        Ok(print(&out)?)
    }
}

fn show(out: &mut impl Write, situation: &Situation) -> IoResult<()> {
    let Situation { processes, pauses } = situation;
    let mut shown = table(["ROLE", "HOST", "PID", "STARTED", "BREAKER", "CONSUMERS", "JOBS"]);
    for process in &processes.alive {
        let Process { role, host, pid, started_at, breaker, consumers, connected, jobs_running, .. } = process;
        let (breaker, consuming, jobs) = match breaker {
            Some(state) => (state.to_string(), format!("{connected} of {consumers}"), jobs_running.to_string()),
            None => ("–".to_owned(), "–".to_owned(), "–".to_owned()),
        };
        shown.add_row([role.to_string(), plain(host), pid.to_string(), time(*started_at), breaker, consuming, jobs]);
    }
    if processes.alive.is_empty() {
        writeln!(out, "No process is alive.")?;
    } else {
        writeln!(out, "{}", shown.trim_fmt())?;
    }
    for process in &processes.missing {
        let Process { role, host, pid, seen_at, .. } = process;
        let text = format!("missing: {role} on {host} (pid {pid}), last heard of {}", time(*seen_at));
        wrap(out, "", "  ", &plain(&text))?;
    }
    for pause in pauses {
        let Pause { operator, reason, created_at, .. } = pause;
        let text = format!("{} is paused since {} by {operator}: {reason}", pause.what(), time(*created_at));
        wrap(out, "", "  ", &plain(&text))?;
    }
    match situation.why_waiting(None).filter(|_| pauses.iter().all(|pause| pause.seller.is_some())) {
        Some(why) => wrap(out, "", "  ", &plain(&why)),
        None => Ok(()),
    }
}
