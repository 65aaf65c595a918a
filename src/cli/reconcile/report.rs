//! How a reconciliation is shown: as it goes, as a table, or as one JSON object. It keeps only what it has counted.

use std::collections::BTreeMap;
use std::io::{Result, Write};

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use super::Format;
use crate::cli::output::wrap;
use crate::ledger::{Counts, RunView};
use crate::reconcile::{Difference, Kind, Repair};

/// What is shown so far.
#[derive(Debug)]
pub(super) struct Report<W> {
    out: W,
    format: Format,
    run: RunView,
    /// With those that were found before it was interrupted.
    found: u64,
    shown: u64,
    repaired: u64,
    repairable: u64,
    remaining: BTreeMap<Kind, u64>,
}

/// The end of the JSON object. Names are only ever added.
#[derive(Serialize)]
struct Summary<'a> {
    /// False when it failed on its way: the differences are those that had been found by then.
    complete: bool,
    /// For `clawback reconcile show`.
    run: Uuid,
    since: Option<DateTime<Utc>>,
    #[serde(flatten)]
    counts: &'a Counts,
    /// All that were found.
    differences: u64,
    /// Those of them that agree now.
    repaired: u64,
}

impl<W: Write> Report<W> {
    /// `run` as it is when it begins, or goes on.
    pub(super) fn begin(mut out: W, format: Format, run: RunView) -> Result<Self> {
        if format == Format::Json {
            write!(out, "{{\"differences\":[")?;
        }
        let (found, repaired) = (run.differences, run.repaired);
        Ok(Self { out, format, run, found, shown: 0, repaired, repairable: 0, remaining: BTreeMap::new() })
    }

    pub(super) fn add(&mut self, differences: &[Difference]) -> Result<()> {
        for difference in differences {
            match self.format {
                Format::Table => self.row(difference)?,
                Format::Json => {
                    let comma = if self.shown > 0 { "," } else { "" };
                    write!(self.out, "{comma}\n{}", serde_json::to_string(difference)?)?;
                }
            }
            self.shown += 1;
            self.found += 1;
            match difference.repair {
                Repair::Done => self.repaired += 1,
                Repair::Possible | Repair::ByHand | Repair::Refused => {
                    *self.remaining.entry(difference.kind).or_default() += 1;
                    self.repairable += u64::from(difference.repair == Repair::Possible);
                }
            }
        }
        self.out.flush()
    }

    /// Shows the summary, and returns how many differences are left.
    pub(super) fn end(mut self, counts: &Counts, complete: bool) -> Result<u64> {
        match self.format {
            Format::Table => self.summary(counts, complete)?,
            Format::Json => {
                let (run, since) = (self.run.id, self.run.since);
                let summary =
                    Summary { complete, run, since, counts, differences: self.found, repaired: self.repaired };
                writeln!(self.out, "],\n\"summary\":{}}}", serde_json::to_string(&summary)?)?;
            }
        }
        self.out.flush()?;
        Ok(self.found - self.repaired)
    }

    fn row(&mut self, difference: &Difference) -> Result<()> {
        if self.shown == 0 {
            row(&mut self.out, "DIFFERENCE", "TRANSFER", "LEDGER", "STRIPE", "")?;
        }
        let amount = |amount: Option<i64>| amount.map_or("-".to_owned(), |amount| amount.to_string());
        let (ledger, stripe) = (amount(difference.amount_in_ledger), amount(difference.amount_at_stripe));
        let (kind, transfer, currency) =
            (difference.kind.to_string(), &difference.stripe_transfer_id, &difference.currency);
        row(&mut self.out, &kind, transfer, &ledger, &stripe, currency)?;
        let ours = difference.reversal_id.map(|id| format!("reversal {id}"));
        let ids: Vec<_> = ours.into_iter().chain(difference.stripe_reversal_id.clone()).collect();
        if !ids.is_empty() {
            writeln!(self.out, "  {}", ids.join("  "))?;
        }
        let repair = match difference.repair {
            Repair::Done => "; recorded",
            Repair::Possible => "; --fix would record it",
            Repair::ByHand | Repair::Refused => "",
        };
        wrap(&mut self.out, "  ", "  ", &format!("{}{repair}", difference.detail))
    }

    fn summary(&mut self, counts: &Counts, complete: bool) -> Result<()> {
        if self.shown > 0 {
            writeln!(self.out)?;
        }
        for kind in self.remaining.keys() {
            wrap(&mut self.out, "", "  ", &format!("{kind}: {}", kind.what_to_do()))?;
        }
        if !self.remaining.is_empty() {
            writeln!(self.out)?;
        }
        if let Some(since) = self.run.since {
            writeln!(self.out, "Changed since {}:", since.format("%F %T UTC"))?;
        }
        let Counts { transfers, transfers_without_stripe_id: without, agreed, on_their_way, given_up } = counts;
        let left_out = if *without > 0 { format!(", {without} without a Stripe id left out") } else { String::new() };
        let so_far = if complete { "" } else { " so far" };
        let compared = format!(
            "Transfers compared{so_far}: {transfers}{left_out}. Reversals: {agreed} agree, {on_their_way} on their way, \
             {given_up} failed permanently."
        );
        wrap(&mut self.out, "", "", &compared)?;
        let before = self.run.differences;
        if before > 0 {
            let said = format!(
                "{before} differences were found before it was interrupted: `clawback reconcile show {}`.",
                self.run.id
            );
            wrap(&mut self.out, "", "  ", &said)?;
        }
        if self.shown == 0 {
            return match (complete, transfers + without, before) {
                (true, 0, _) => writeln!(self.out, "Nothing was compared: this says nothing about Stripe."),
                (true, _, 0) => writeln!(self.out, "The ledger and Stripe agree."),
                _ => Ok(()),
            };
        }
        let counted: Vec<_> = self.remaining.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let repairs = match (self.repaired, self.repairable) {
            (0, 0) => String::new(),
            (0, possible) => format!(" ({possible} of them can be repaired with --fix)"),
            (done, _) => format!(" ({done} repaired)"),
        };
        let left = if counted.is_empty() { "none left".to_owned() } else { counted.join(", ") };
        wrap(&mut self.out, "", "  ", &format!("Differences: {left}{repairs}."))
    }
}

fn row(out: &mut impl Write, kind: &str, transfer: &str, ledger: &str, stripe: &str, currency: &str) -> Result<()> {
    let line = format!("{kind:<19} {transfer:<28} {ledger:>11} {stripe:>11} {currency}");
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests;
