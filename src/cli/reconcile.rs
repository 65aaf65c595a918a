//! `clawback reconcile`: compares the ledger with Stripe, shows what differs, and with `--fix` repairs what is safe. Each run is a
//! row, and goes on where it was.

mod adopt;
mod progress;
mod report;
mod runs;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};

use self::progress::Progress;
use self::report::Report;
use super::operator::{self, Who};
use super::output::Format;
use super::terminal::output;
use crate::app;
use crate::config::Config;
use crate::ledger::{Ledger, RunView, TIMES, now, parse_time};
use crate::reconcile::Walk;
use crate::worker::Limiter;

/// The exit code when something differs.
const DIFFERENCES: u8 = 3;
/// Without --max-rps it takes this part of STRIPE_MAX_RPS, and leaves the rest to the workers.
const SHARE: u32 = 4;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Every transfer is asked for at Stripe with one or two calls, at a quarter of STRIPE_MAX_RPS, \
                        so a full run over many transfers takes its time. Each run is kept, with what it found: `list`, \
                        `show`, GET /v1/reconcile/runs and /ui/reconcile. One that was killed or gave up after half a \
                        minute without an answer goes on with --resume. With --since, a transfer that only changed at \
                        Stripe is not looked at.\n\n\
                        What can differ:\n  \
                        unrecorded           Stripe has done it, the ledger does not say so (--fix records it)\n  \
                        missing              the ledger says reversed, Stripe has not done it\n  \
                        duplicate            Stripe did one reversal more than once\n  \
                        wrong_amount         the two sides have different amounts or currencies\n  \
                        externally_reversed  somebody else took money back, and no reversal counts on it\n  \
                        orphan               Stripe has a reversal with an id like ours, the ledger has not\n  \
                        unknown_transfer     Stripe knows no such transfer\n  \
                        unrecorded_transfer  Stripe has a transfer that the ledger says was never created\n  \
                        incomplete           Stripe's list lags behind its transfer\n\
                        A reversal that is pending here and not at Stripe is on its way, and no difference.\n\n\
                        --fix touches the ledger alone, never Stripe, and unrecorded reversals alone. It is safe while \
                        workers run. `clawback reconcile adopt` records what it leaves alone, one by one or all of \
                        Clawback's own.\n\n\
                        Exit codes: 0 the two agree (or do so now, with --fix), 1 failed, 2 wrong usage, 3 they differ, or \
                        nothing was compared."
)]
pub(super) struct Reconcile {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only transfers on which something happened here since then: 24h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,
    /// Record what Stripe has done and the ledger does not say; everything else is left alone
    #[arg(long)]
    fix: bool,
    /// Go on with the latest run that was interrupted, killed or could not go on
    #[arg(long, conflicts_with_all = ["since", "fix"])]
    resume: bool,
    /// No more calls to Stripe a second than this [default: a quarter of STRIPE_MAX_RPS]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rps: Option<u32>,
    #[command(flatten)]
    who: Who,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the runs, newest first
    List(runs::List),
    /// Show a run, and what it found
    Show(runs::Show),
    /// Record in the ledger what Stripe has reversed and the ledger does not know
    Adopt(adopt::Adopt),
}

/// A walk through the transfers, at Stripe's pace.
fn walk(
    config: &Config,
    ledger: Ledger,
    since: Option<DateTime<Utc>>,
    fix: bool,
    max_rps: Option<u32>,
) -> Result<Walk> {
    let Some(api_key) = config.stripe.api_key.clone() else {
        bail!("STRIPE_API_KEY is missing: reconcile asks Stripe with it");
    };
    let stripe = app::stripe_client(config, api_key)?;
    let share = (config.stripe.max_rps / SHARE).max(1);
    let rps = max_rps.unwrap_or(share).min(config.stripe.max_rps);
    Ok(Walk::new(ledger, stripe, Limiter::new(rps), since, fix))
}

impl Reconcile {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let ledger = operator::ledger(config).await?;
        match self.command {
            Some(Command::Adopt(command)) => return command.execute(config, ledger).await,
            Some(Command::List(command)) => return command.execute(&ledger).await,
            Some(Command::Show(command)) => return command.execute(&ledger).await,
            None => {}
        }
        let rps = self.max_rps;
        // Before the run is written down: without a key there is none.
        walk(config, ledger.clone(), None, false, rps)?;
        let run = if self.resume { unfinished(&ledger).await? } else { self.begin(&ledger).await? };
        let mut walk = walk(config, ledger.clone(), run.since, run.fix, rps)?.resumed(run.after);
        let mut progress = Progress::start(&ledger, run.since).await?;
        let (id, mut counts) = (run.id, run.counts);
        let mut report = Report::begin(output(), self.format, run)?;
        let result = loop {
            match walk.next_page().await {
                Ok(Some(page)) => {
                    counts += page.counts;
                    progress.clear()?;
                    report.add(&page.differences)?;
                    progress.show(&counts)?;
                    ledger.record_page(id, (&page).into()).await?;
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        progress.clear()?;
        // What was found before a failure counts, too.
        let remaining = report.end(&counts, result.is_ok())?;
        let ended = ledger.end_run(id, result.as_ref().err().map(ToString::to_string)).await;
        result.context("`clawback reconcile --resume` goes on where it stopped")?;
        ended?;
        let nothing_compared = counts.transfers + counts.transfers_without_stripe_id == 0;
        Ok(if remaining > 0 || nothing_compared { ExitCode::from(DIFFERENCES) } else { ExitCode::SUCCESS })
    }

    async fn begin(&self, ledger: &Ledger) -> Result<RunView> {
        let unfinished = ledger.unfinished_run().await?;
        if let Some(run) = unfinished.filter(|run| (run.since, run.fix) == (self.since, self.fix)) {
            tracing::info!(run = %run.id, compared = run.counts.transfers, "a run was interrupted: --resume goes on with it");
        }
        Ok(ledger.begin_run(self.since, self.fix, &self.who.note("")?.actor).await?)
    }
}

async fn unfinished(ledger: &Ledger) -> Result<RunView> {
    let Some(run) = ledger.unfinished_run().await? else {
        bail!("no run was interrupted; `clawback reconcile list` shows them");
    };
    Ok(run)
}

/// A duration before now, the beginning of a day (UTC), or a time.
pub(super) fn parse_since(text: &str) -> Result<DateTime<Utc>, String> {
    let allowed = || format!("allowed: {TIMES}");
    let since = parse_time(text).ok_or_else(allowed)?;
    if since > now() {
        return Err(format!("{since} lies in the future; {}", allowed()));
    }
    Ok(since)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_duration_a_date_or_a_time_that_is_past() {
        assert_eq!(parse_since("2026-01-02").unwrap().to_rfc3339(), "2026-01-02T00:00:00+00:00");
        assert_eq!(parse_since("2026-01-02T03:04:05+01:00").unwrap().to_rfc3339(), "2026-01-02T02:04:05+00:00");
        let day = Utc::now() - parse_since("24h").unwrap();
        assert!((day - chrono::TimeDelta::hours(24)).num_seconds().abs() < 60, "{day}");
        for bad in ["", "yesterday", "-24h", "2026-13-01", "9999999999y"] {
            assert!(parse_since(bad).unwrap_err().starts_with("allowed: "), "{bad}");
        }
        assert!(parse_since("9999-01-01").unwrap_err().contains("future"));
    }
}
