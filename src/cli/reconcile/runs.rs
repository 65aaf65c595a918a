//! `clawback reconcile list` and `show`: the runs, and what they found.

use std::collections::BTreeSet;
use std::io::{Result as IoResult, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::cli::operator::{Newest, Output};
use crate::cli::output::{Format, json, more, wrap};
use crate::cli::terminal::{plain, print, time};
use crate::ledger::{DifferenceView, Ledger, RunState, RunView};
use crate::reconcile::Kind;

/// The most differences that `show` prints.
const SHOWN: u64 = 10_000;

#[derive(Debug, Args)]
#[command(after_help = "--format json prints {\"runs\": […]}; each one is as GET /v1/reconcile/runs shows it.\n\n\
                        Example:\n  \
                        clawback reconcile list --limit 5\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct List {
    #[command(flatten)]
    newest: Newest,
}

#[derive(Debug, Args)]
#[command(
    after_help = "--format json prints the run with its differences as \"found\", as GET /v1/reconcile/runs/{id} shows it.\n\n\
                        Example:\n  \
                        clawback reconcile show 0199e2c4-…\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage."
)]
pub(super) struct Show {
    /// Its id
    id: Uuid,
    #[command(flatten)]
    output: Output,
}

impl List {
    pub(super) async fn execute(self, ledger: &Ledger) -> Result<ExitCode> {
        let Newest { limit, output } = self.newest;
        let (found, _) = ledger.reconcile_runs(None, limit).await?;
        let mut out = Vec::new();
        match output.format {
            Format::Table if found.is_empty() => writeln!(out, "The ledger was never compared with Stripe.")?,
            Format::Table => {
                for run in &found {
                    writeln!(out, "{}  {}  {}", run.id, run.state, time(run.started_at))?;
                    wrap(&mut out, "  ", "  ", &in_short(run))?;
                }
                more(&mut out, found.len(), limit)?;
            }
            Format::Json => json(&mut out, &json!({"runs": found}))?,
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Show {
    pub(super) async fn execute(self, ledger: &Ledger) -> Result<ExitCode> {
        let Some(run) = ledger.reconcile_run(self.id).await? else {
            bail!("no run has the id {}; `clawback reconcile list` shows them", self.id);
        };
        let (found, _) = ledger.run_differences(self.id, None, SHOWN).await?;
        let mut out = Vec::new();
        match self.output.format {
            Format::Table => details(&mut out, &run, &found)?,
            Format::Json => {
                let mut all = serde_json::to_value(&run)?;
                all["found"] = json!(found);
                json(&mut out, &all)?;
            }
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn in_short(run: &RunView) -> String {
    let of = run.since.map_or_else(|| "all".to_owned(), |since| format!("changed since {}", time(since)));
    let fix = if run.fix { ", with --fix" } else { "" };
    let (counts, by) = (&run.counts, &run.operator);
    plain(&format!(
        "{} transfers compared ({of}{fix}) for {by}: {} differences, {} recorded",
        counts.transfers, run.differences, run.repaired
    ))
}

fn details(out: &mut impl Write, run: &RunView, found: &[DifferenceView]) -> IoResult<()> {
    writeln!(out, "Run        {}\nState      {}\nBegan      {}", run.id, run.state, time(run.started_at))?;
    match run.finished_at {
        Some(at) => writeln!(out, "Ended      {}", time(at))?,
        None => writeln!(out, "Last page  {}", time(run.updated_at))?,
    }
    wrap(out, "Compared   ", "           ", &in_short(run))?;
    if let Some(problem) = &run.problem {
        wrap(out, "Problem    ", "           ", &plain(problem))?;
    }
    if run.state != RunState::Done {
        writeln!(out, "Go on with: clawback reconcile --resume")?;
    }
    for difference in found {
        let amount = |amount: Option<i64>| amount.map_or_else(|| "-".to_owned(), |amount| amount.to_string());
        let (ledger, stripe) = (amount(difference.amount_in_ledger), amount(difference.amount_at_stripe));
        writeln!(out, "\n{}  {}  ({})", difference.kind, difference.stripe_transfer_id, difference.repair)?;
        let ids = difference.reversal_id.map(|id| format!("reversal {id}"));
        let ids: Vec<String> = ids.into_iter().chain(difference.stripe_reversal_id.clone()).collect();
        if !ids.is_empty() {
            wrap(out, "  ", "  ", &ids.join("  "))?;
        }
        let said = format!("ledger {ledger}, Stripe {stripe} {}: {}", difference.currency, difference.detail);
        wrap(out, "  ", "  ", &plain(&said))?;
    }
    let kinds: BTreeSet<Kind> = found.iter().filter_map(|difference| difference.kind.parse().ok()).collect();
    for kind in kinds {
        writeln!(out)?;
        wrap(out, "", "  ", &format!("{kind}: {}", kind.what_to_do()))?;
    }
    Ok(())
}
