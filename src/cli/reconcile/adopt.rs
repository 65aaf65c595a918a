//! `clawback reconcile adopt`: shows what Stripe has reversed and the ledger does not know, asks, and records it.

use std::io::{Result as IoResult, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::progress::Progress;
use super::walk;
use crate::cli::NEEDS_ATTENTION;
use crate::cli::operator::{Output, Who, confirm, parse_reason};
use crate::cli::output::{self, Format, wrap};
use crate::cli::rows::sums;
use crate::cli::terminal::{plain, print};
use crate::config::Config;
use crate::ledger::{Adopted, Counts, Ledger, Note};
use crate::reconcile::{Candidate, adopt};

#[derive(Debug, Args)]
#[command(
    after_help = "A reversal with Clawback's metadata counts as done for its refund, with Stripe's amount: it is not asked for \
                        again. The refund must be known; after a restore, have its provider report it again first. One \
                        that another program made is adopted only when named: that much less is left of its transfer.\n\n\
                        It reads Stripe and changes nothing there. It shows what it would record, and asks; --yes answers, \
                        --dry-run only shows. What is recorded already is left alone, so it can be run again. Your name \
                        and the reason go into the history.\n\n\
                        --format json prints {\"dry_run\", \"adopted\": […], \"skipped\": […]}, what was skipped with the \
                        problem.\n\n\
                        Examples:\n  \
                        clawback reconcile adopt --all --dry-run\n  \
                        clawback reconcile adopt --all --reason \"restored the backup of 3 o'clock\"\n  \
                        clawback reconcile adopt trr_1Qx4 --transfer tr_1Qx3 --reason \"reversed in the dashboard\"\n\n\
                        Exit codes: 0 done, or nothing to do, 1 failed or not found, 2 wrong usage, 3 some were skipped."
)]
#[group(id = "which", required = true, args = ["reversal", "all"])]
pub(super) struct Adopt {
    /// Stripe's id of one reversal (trr_…)
    reversal: Option<String>,
    /// All with Clawback's metadata
    #[arg(long)]
    all: bool,
    /// Ask Stripe about this transfer alone (Stripe's id or Clawback's): all of them take their time
    #[arg(long, value_name = "ID")]
    transfer: Option<String>,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = parse_reason, required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
    /// Only show what it would record
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    output: Output,
}

/// What is adopted, or would be, and what is not.
type Answers = Vec<(Candidate, std::result::Result<Adopted, String>)>;

impl Adopt {
    pub(super) async fn execute(self, config: &Config, ledger: Ledger) -> Result<ExitCode> {
        if let Some(id) = &self.reversal
            && let Some(known) = known(&ledger, id).await?
        {
            return self.end(&format!("{id} is recorded already, {known}."), &Vec::new());
        }
        let candidates = self.find(config, &ledger).await?;
        let note = self.who.note(self.reason.as_deref().unwrap_or("dry run"))?;
        let expected = answers(&ledger, &candidates, &note, false).await?;
        let (count, amounts) = adoptable(&expected);
        if count == 0 || self.dry_run {
            let summary = match (count, expected.len()) {
                (0, 0) => "The ledger has all that Stripe has reversed with Clawback's metadata.".to_owned(),
                (0, skipped) => format!("Nothing can be adopted; {skipped} skipped."),
                (count, all) => format!("Would adopt {count} ({amounts}); {} skipped.", all - count),
            };
            return self.end(&summary, &expected);
        }
        if !self.yes && self.output.format == Format::Table {
            let mut out = Vec::new();
            table(&mut out, &expected)?;
            print(&out)?;
        }
        confirm(&format!("Adopt {count} ({amounts} in minor units)"), self.yes)?;
        let done = answers(&ledger, &candidates, &note, true).await?;
        let (count, amounts) = adoptable(&done);
        let skipped = done.len() - count;
        self.end(&format!("Adopted {count} ({amounts}), {skipped} skipped."), &done)
    }

    /// What Stripe has and the ledger does not, in the order of the transfers.
    async fn find(&self, config: &Config, ledger: &Ledger) -> Result<Vec<Candidate>> {
        let mut walk = walk(config, ledger.clone(), None, false, None)?;
        if let Some(id) = &self.transfer {
            let Some(transfer) = ledger.transfer(id).await? else { bail!("no transfer has the id {id:?}") };
            walk = walk.only(transfer.id);
        }
        let mut progress = Progress::start(ledger, None).await?;
        let (mut found, mut counts) = (Vec::new(), Counts::default());
        while let Some(page) = walk.next_page().await? {
            counts += page.counts;
            progress.clear()?;
            progress.show(&counts)?;
            let candidates = page.differences.into_iter().filter_map(Candidate::of);
            found.extend(candidates.filter(|it| self.means(it)));
            if self.reversal.is_some() && !found.is_empty() {
                break;
            }
        }
        progress.clear()?;
        match &self.reversal {
            Some(id) if found.is_empty() => bail!(
                "Stripe has no reversal {id:?} of the {} transfers that were compared: it is of none that is registered, or \
                 of another one than --transfer says",
                counts.transfers
            ),
            _ => Ok(found),
        }
    }

    fn means(&self, candidate: &Candidate) -> bool {
        match &self.reversal {
            Some(id) => candidate.reversal.stripe_reversal_id == *id,
            None => candidate.reversal.claim.is_some(),
        }
    }

    fn end(&self, summary: &str, answers: &Answers) -> Result<ExitCode> {
        let mut out = Vec::new();
        match self.output.format {
            Format::Table => {
                table(&mut out, answers)?;
                wrap(&mut out, "", "", &plain(summary))?;
            }
            Format::Json => output::json(&mut out, &self.as_json(answers))?,
        }
        print(&out)?;
        let is_skipped = answers.iter().any(|(_, answer)| answer.is_err());
        Ok(if is_skipped { ExitCode::from(NEEDS_ATTENTION) } else { ExitCode::SUCCESS })
    }

    fn as_json(&self, answers: &Answers) -> Value {
        let shown = |(candidate, answer): &(Candidate, std::result::Result<Adopted, String>)| {
            let Candidate { difference, reversal } = candidate;
            let mut shown = json!({"stripe_reversal_id": reversal.stripe_reversal_id, "amount": reversal.amount,
                "currency": difference.currency, "stripe_transfer_id": difference.stripe_transfer_id, "claim": reversal.claim});
            match answer {
                Ok(Adopted::AsReversal(id)) if !self.dry_run => shown["reversal_id"] = json!(id),
                Ok(_) => {}
                Err(problem) => shown["problem"] = json!(problem),
            }
            shown
        };
        let those =
            |are_adopted| answers.iter().filter(|(_, it)| it.is_ok() == are_adopted).map(shown).collect::<Vec<_>>();
        json!({"dry_run": self.dry_run, "adopted": those(true), "skipped": those(false)})
    }
}

/// Where the ledger has the reversal.
async fn known(ledger: &Ledger, id: &str) -> Result<Option<String>> {
    if let Some(known) = ledger.reversal(id).await?.filter(|known| known.stripe_reversal_id.as_deref() == Some(id)) {
        return Ok(Some(format!("as reversal {}", known.id)));
    }
    Ok(ledger.adopted_by(id).await?.map(|transfer| format!("as taken back from {transfer} by another program")))
}

async fn answers(ledger: &Ledger, candidates: &[Candidate], note: &Note, keep: bool) -> Result<Answers> {
    let answers = adopt(ledger, candidates, note, keep).await?;
    let answers = candidates.iter().cloned().zip(answers);
    // The worker was faster.
    Ok(answers.filter(|(_, answer)| *answer != Ok(Adopted::Known)).collect())
}

fn adoptable(answers: &Answers) -> (usize, String) {
    let adopted = || answers.iter().filter(|(_, answer)| answer.is_ok());
    let amounts = adopted().map(|(it, _)| (it.difference.currency.as_str(), it.reversal.amount));
    (adopted().count(), sums(amounts))
}

fn table(out: &mut impl Write, answers: &Answers) -> IoResult<()> {
    if answers.is_empty() {
        return Ok(());
    }
    writeln!(out, "{:<30} {:<28} {:>15} CUR", "REVERSAL AT STRIPE", "TRANSFER", "AMOUNT")?;
    for (Candidate { difference, reversal }, answer) in answers {
        let (id, transfer) = (&reversal.stripe_reversal_id, &difference.stripe_transfer_id);
        writeln!(out, "{id:<30} {transfer:<28} {:>15} {}", reversal.amount, difference.currency)?;
        let whose = reversal.claim.clone().unwrap_or_else(|| "another program's".to_owned());
        let what = match answer {
            Ok(Adopted::AsReversal(_) | Adopted::Known) => {
                let instead = difference.amount_in_ledger.filter(|amount| *amount != reversal.amount);
                let instead = instead.map(|amount| format!(", which asks for {amount} here")).unwrap_or_default();
                format!("{whose}{instead}: counts as reversed")
            }
            Ok(Adopted::AsTakenBefore) => format!("{whose}: that much less is left of the transfer"),
            Err(problem) => format!("skipped ({whose}): {problem}"),
        };
        wrap(out, "  ", "  ", &plain(&what))?;
    }
    Ok(())
}
