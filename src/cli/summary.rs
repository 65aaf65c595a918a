//! `clawback summary`: the ledger in figures.

use std::io::{Result as IoResult, Write};

use anyhow::Result;
use clap::Args;

use super::claims::age;
use super::operator::{self, Output};
use super::output::{Format, json, wrap};
use super::terminal::{print, time};
use crate::config::Config;
use crate::ledger::{Sum, Summary};

#[derive(Debug, Args)]
#[command(
    after_help = "Amounts are in minor units, and are never added up over currencies. Days begin at midnight (UTC).\n\n\
                        --format json prints the figures as GET /v1/summary shows them, with the amounts by age.\n\n\
                        Examples:\n  \
                        clawback summary\n  \
                        clawback summary --format json | jq '.currencies[] | {currency, taken_back_today}'\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct ShowSummary {
    #[command(flatten)]
    output: Output,
}

impl ShowSummary {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let summary = ledger.summary().await?;
        let mut out = Vec::new();
        match self.output.format {
            Format::Table => table(&mut out, &summary)?,
            Format::Json => json(&mut out, &*summary)?,
        }
        Ok(print(&out)?)
    }
}

fn table(out: &mut impl Write, summary: &Summary) -> IoResult<()> {
    let since = |at: chrono::DateTime<chrono::Utc>| age((summary.as_of - at).num_seconds());
    writeln!(out, "As of {}, in minor units.", time(summary.as_of))?;
    for of in &summary.currencies {
        writeln!(out, "\n{:<34} {:>10} {:>20} {:>8}", of.currency.to_uppercase(), "COUNT", "AMOUNT", "OLDEST")?;
        for risk in of.at_risk.iter().filter(|risk| risk.count > 0) {
            let oldest = risk.oldest.map(since).unwrap_or_default();
            let name = format!("at risk: {}", risk.reason.to_string().replace('_', " "));
            writeln!(out, "{name:<34} {:>10} {:>20} {oldest:>8}", risk.count, risk.amount)?;
        }
        let taken =
            [("today", of.taken_back_today), ("7 days", of.taken_back_7_days), ("30 days", of.taken_back_30_days)];
        for (days, Sum { count, amount }) in taken {
            writeln!(out, "{:<34} {count:>10} {amount:>20}", format!("taken back: {days}"))?;
        }
    }
    writeln!(out)?;
    if let Some(took) = &summary.time_to_reverse {
        let seconds = [took.p50_seconds, took.p95_seconds, took.p99_seconds].map(|seconds| format!("{seconds:.1} s"));
        let [p50, p95, p99] = seconds;
        let said = format!("{p50} for half, {p95} for 95 %, {p99} for 99 % of the last day's {}", took.measured);
        wrap(out, "Time to reverse    ", "                   ", &said)?;
    }
    if let Some(oldest) = &summary.oldest_open {
        writeln!(out, "Owed for longest   reversal {} ({})", oldest.reversal_id, since(oldest.created_at))?;
    }
    for of in &summary.unpaid {
        let said = format!(
            "{} {} of {} sellers, whose {} transfers could not be created, for {}",
            of.amount,
            of.currency,
            of.sellers,
            of.transfers,
            since(of.oldest)
        );
        wrap(out, "Not paid           ", "                   ", &said)?;
    }
    let attention = &summary.needs_attention;
    let oldest = attention.oldest.map(|at| format!(", the oldest for {}", since(at))).unwrap_or_default();
    writeln!(out, "Needs attention    {} refunds, {} disputes{oldest}", attention.refunds, attention.disputes)?;
    let reconcile = match &summary.last_reconcile {
        None => "never".to_owned(),
        Some(run) => format!(
            "{} ago: {} transfers compared, {} differences left{}",
            since(run.finished_at.unwrap_or(run.updated_at)),
            run.counts.transfers,
            run.differences - run.repaired,
            if run.finished_at.is_none() { "; it did not come to its end" } else { "" }
        ),
    };
    wrap(out, "Last reconcile     ", "                   ", &reconcile)?;
    let reversal = summary.last_reversal_at.map_or_else(|| "none yet".to_owned(), time);
    writeln!(
        out,
        "Last reversal      {reversal}; {:.1} a minute over the last 5 minutes",
        summary.reversed_per_minute
    )?;
    let webhook = summary.last_webhook_at.map_or_else(|| "none yet".to_owned(), time);
    writeln!(out, "Last webhook       {webhook}")
}
