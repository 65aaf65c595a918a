//! Replays many rows that failed permanently: the ledger's rows, whatever is parked on the broker.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::NEEDS_ATTENTION;
use super::operator::{self, about_leftovers, confirm, parse_since};
use super::output::{self, Format, wrap};
use super::terminal::{plain, print};
use crate::ledger::{CallKind, FailedCall, FailedFilter, Ledger, Note};
use crate::operator::{Operator, ReplayedRows};

/// Which of them.
#[derive(Debug, Args)]
pub(super) struct Rows {
    /// All that failed permanently and are still owed
    #[arg(long)]
    all: bool,
    /// Only those that failed with this code
    #[arg(long, value_name = "CODE")]
    failure_code: Option<String>,
    /// Only those of this seller, by the marketplace's id
    #[arg(long, value_name = "ID")]
    seller: Option<String>,
    /// Only those that failed since then: 24h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,
    /// Do not ask how many are meant
    #[arg(long)]
    yes: bool,
}

impl Rows {
    /// Replays them, each as alone.
    pub(super) async fn replay(
        self,
        (ledger, operator): (&Ledger, &Operator),
        kind: CallKind,
        note: &Note,
        format: Format,
        confirm_amount: Option<&str>,
    ) -> Result<ExitCode> {
        let Self { failure_code, seller, since, yes, .. } = self;
        let found = ledger.failed_calls(kind, &FailedFilter { failure_code, seller, since }).await?;
        if !found.is_empty() {
            confirm(&format!("Replay {}", amounts(kind, &found)), yes)?;
            let needed = ledger.to_confirm(found.iter().map(|row| (row.currency.as_str(), row.amount)));
            operator::confirm_amount(ledger, needed.as_deref(), confirm_amount)?;
        }
        let ids: Vec<_> = found.iter().map(|row| row.id).collect();
        let rows = operator.replay_all(kind, &ids, note).await?;
        let mut out = Vec::new();
        match format {
            Format::Table => told(&mut out, kind, &rows)?,
            Format::Json => {
                let skipped: Vec<_> =
                    rows.skipped.iter().map(|(id, problem)| json!({"id": id, "problem": problem})).collect();
                let removed = rows.leftovers.removed;
                let all = json!({"replayed": rows.replayed, "skipped": skipped, "parked_messages_removed": removed});
                output::json(&mut out, &all)?;
            }
        }
        print(&out)?;
        let is_all = !found.is_empty() && rows.skipped.is_empty();
        Ok(if is_all { ExitCode::SUCCESS } else { ExitCode::from(NEEDS_ATTENTION) })
    }
}

fn told(out: &mut Vec<u8>, kind: CallKind, rows: &ReplayedRows) -> std::io::Result<()> {
    let ReplayedRows { replayed, skipped, leftovers } = rows;
    if replayed.is_empty() && skipped.is_empty() {
        return wrap(out, "", "", &format!("No {} that failed permanently matches.", kind.entity()));
    }
    let parked = match &leftovers.problem {
        Some(_) => about_leftovers(leftovers),
        None => format!("{} parked messages were taken away.", leftovers.removed),
    };
    wrap(out, "", "", &format!("{} replayed, {} skipped. {parked}", replayed.len(), skipped.len()))?;
    for (id, problem) in skipped {
        wrap(out, &format!("  {id}:"), "    ", &plain(problem))?;
    }
    Ok(())
}

/// `3 reversals (1000 eur, 250 usd)`.
fn amounts(kind: CallKind, found: &[FailedCall]) -> String {
    let plural = if found.len() == 1 { "" } else { "s" };
    let sums = sums(found.iter().map(|row| (row.currency.as_str(), row.amount)));
    format!("{} {}{plural} ({sums} in minor units)", found.len(), kind.entity())
}

/// `1000 eur, 250 usd`.
pub(super) fn sums<'a>(amounts: impl Iterator<Item = (&'a str, i64)>) -> String {
    let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
    for (currency, amount) in amounts {
        *sums.entry(currency).or_default() += i128::from(amount);
    }
    sums.into_iter().map(|(currency, sum)| format!("{sum} {currency}")).collect::<Vec<_>>().join(", ")
}
