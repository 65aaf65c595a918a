//! `clawback payments import`: registers the payments of a file, as `POST /v1/payments` would, a set at a time.

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::item::{BadLine, Item};
use super::report::Report;
use super::source::{Input, Source};
use crate::app;
use crate::cli::output::Format;
use crate::cli::{NEEDS_ATTENTION, signals};
use crate::config::Config;
use crate::ledger::{Ledger, LedgerError};

/// Payments that are handed to the ledger at once. As many more are read ahead.
pub(super) const SET: usize = 500;

/// What is refused unless a flag says otherwise.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accept {
    /// Transfers without Stripe's id.
    pub(super) missing: bool,
    /// Transfers of more than their payment.
    pub(super) excess: bool,
}

pub(super) const WITHOUT_TRANSFER_ID: &str = "is empty: Clawback would CREATE this transfer and pay the seller again for a \
     past payment; give Stripe's id (tr_…), or add --create-missing if Stripe has no such transfer yet";

#[derive(Debug, Args)]
#[command(
    after_help = "CSV has one transfer a row, the rows of a payment next to each other, and a header with these \
                  columns in any order:\n  \
                  payment_ref,payment_amount,payment_currency,\n  \
                  seller_id,stripe_transfer_id,destination,amount,currency\n  \
                  pi_1,10000,eur,s1,tr_1,acct_1,6000,eur\n  \
                  pi_1,10000,eur,s2,tr_2,acct_2,3000,eur\n\
                  Two more columns may be there: amount_reversed, what was taken back of the transfer before, and \
                  refund_application_fee, true or false. Amounts are whole minor units (1999 is 19.99 EUR). Each JSON \
                  line is a body of POST /v1/payments. Both are UTF-8.\n\n\
                  A payment is registered as a whole or not at all: one bad row refuses all of its rows. Each bad \
                  line is reported on stderr with its number, column and value. Importing a file again is safe: \
                  registered payments are skipped. Ctrl-C finishes the payments in flight and says which line is \
                  done. If a payment's rows are not together, the whole file is refused before anything is \
                  registered; sort it by payment_ref. Memory does not grow with the file. CSV from stdin is first \
                  copied to a temporary file.\n\n\
                  A transfer without stripe_transfer_id is refused: Clawback would create it, and pay the sellers of \
                  past payments again. --create-missing accepts such rows. Transfers that add up to more than their payment \
                  are refused, too: often the payment's amount is in major units. --allow-excess accepts them.\n\n\
                  --dry-run asks the database what each payment would be (new, already there, conflicting) and \
                  changes nothing. It may miss that two payments of the file conflict with each other.\n\n\
                  --format json: {\"bad_lines\": [{\"line\", \"field\", \"problem\"}], \"summary\": {\"complete\", \
                  \"dry_run\", \"new\", \"already_there\", \"conflicting\", \"refused\", \"bad_lines\", \
                  \"last_line\"}}\n\n\
                  Examples:\n  \
                  clawback payments import transfers.csv --dry-run\n  \
                  zcat payments.jsonl.gz | clawback payments import - --input jsonl\n\n\
                  Exit codes: 0 all are registered, 1 failed or interrupted, 2 wrong usage, 3 some lines are bad and \
                  all others are registered."
)]
pub(in crate::cli) struct Import {
    /// The file; - is stdin
    file: PathBuf,
    /// Its format, if the extension does not tell it (.csv, .jsonl, .ndjson)
    #[arg(long, value_enum)]
    input: Option<Input>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Accept transfers without stripe_transfer_id: Clawback CREATES them, and pays the sellers
    #[arg(long)]
    create_missing: bool,
    /// Accept transfers in the payment's currency that add up to more than it
    #[arg(long)]
    allow_excess: bool,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Import {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let mut stop = pin!(signals::stop()?);
        let ledger = app::connect_ledger(config).await?;
        let pending = ledger.pending_migrations().await?;
        if pending > 0 {
            bail!("{pending} migrations are pending; run `clawback migrate up` first");
        }
        let accept = Accept { missing: self.create_missing, excess: self.allow_excess };
        let mut source = tokio::select! {
            source = Source::open(self.file, self.input, accept) => source?,
            _ = &mut stop => bail!("interrupted before anything was registered"),
        };
        let mut report = Report::start(self.format, self.dry_run, source.size);
        let result = loop {
            let mut set = Vec::new();
            // A set in flight is not interrupted: what the report calls done is exactly what is registered.
            let read = tokio::select! {
                biased;
                _ = &mut stop => break Ok(false),
                read = source.items.recv_many(&mut set, SET) => read,
            };
            if read == 0 {
                break Ok(true);
            }
            if let Err(error) = register(&ledger, set, &mut report).await {
                break Err(error);
            }
        };
        report.summary.complete = matches!(result, Ok(true));
        report.end()?;
        let complete = result?;
        let _ = ledger.close().await;
        Ok(match report.summary.bad_lines {
            _ if !complete => ExitCode::FAILURE,
            0 => ExitCode::SUCCESS,
            _ => ExitCode::from(NEEDS_ATTENTION),
        })
    }
}

/// Registers a set, and reports it in the order of the file.
///
/// # Errors
/// When the import can't go on.
async fn register(ledger: &Ledger, set: Vec<Result<Item>>, report: &mut Report) -> Result<()> {
    let (mut items, mut failed) = (Vec::with_capacity(set.len()), None);
    for item in set {
        match item {
            Ok(item) => items.push(item),
            Err(error) => failed = Some(error),
        }
    }
    let payments: Vec<_> = items.iter_mut().filter_map(|item| item.payment.take()).collect();
    let first_line = items.first().map_or(0, |item| item.first_line);
    let registered = ledger.import_payments(payments, report.summary.dry_run).await;
    let mut answers =
        registered.with_context(|| format!("line {first_line} and what follows were not registered"))?.into_iter();
    for Item { bad, first_line, last_line, bytes, .. } in items {
        if bad.is_empty() {
            match answers.next().context("the ledger gave no answer for a payment; please report this")? {
                Ok(true) => report.summary.new += 1,
                Ok(false) => report.summary.already_there += 1,
                Err(error @ LedgerError::Conflict(_)) => {
                    report.summary.conflicting += 1;
                    report.bad(&BadLine::refused(first_line, error, |path| path))?;
                }
                Err(error @ LedgerError::Invalid(_)) => {
                    report.summary.refused += 1;
                    report.bad(&BadLine::refused(first_line, error, |path| path))?;
                }
                Err(error) => return Err(error).with_context(|| format!("line {first_line} was not registered")),
            }
        } else {
            report.summary.refused += 1;
            bad.iter().try_for_each(|bad| report.bad(bad))?;
        }
        report.done(last_line, bytes);
    }
    failed.map_or(Ok(()), Err)
}
