//! `clawback payments import`: registers what is in a file, as `POST /v1/payments` would, payment by payment.
//!
//! Every payment is one transaction, and registering it again changes nothing, so that an import that was cut off is
//! simply run again. Several payments are in flight at once; what is told about them is in the order of the file.

use std::io::stdout;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use clap::Args;
use futures_util::{Stream, StreamExt, stream};
use secrecy::ExposeSecret;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::item::{BadLine, Item};
use super::progress::Progress;
use super::report::{Counts, End, Report};
use super::source::{Input, Source};
use crate::app;
use crate::cli::output::{Format, unless_closed};
use crate::cli::signals;
use crate::config::Config;
use crate::ledger::{Ledger, LedgerError};

/// The exit code when some lines are bad and the others are imported.
const BAD_LINES: u8 = 3;
/// Payments that are registered at the same time. SQLite has one writer.
const IN_FLIGHT: usize = 8;

pub(super) const WITHOUT_TRANSFER_ID: &str = "is empty: Clawback would CREATE this transfer and pay the seller, who would be paid twice for \
     a payment of the past; allowed: Stripe's id (tr_…), or --create-missing if Stripe has no such transfer yet";

#[derive(Debug, Args)]
#[command(
    after_help = "CSV has one transfer a row, the rows of a payment one after the other, and a header with these \
                  columns in any order:\n  \
                  payment_ref,payment_amount,payment_currency,\n  \
                  seller_id,stripe_transfer_id,destination,amount,currency\n\
                  Amounts are whole minor units (1999 is 19.99 EUR). JSON lines have on each line what POST \
                  /v1/payments takes. Both are UTF-8.\n\n\
                  A payment is registered as a whole or not at all: one bad row refuses all of its rows. Each bad \
                  line is told on stderr. Importing a file again is safe: what is there is skipped. Payments whose \
                  rows are not together refuse the whole file before anything is registered; sort it by payment_ref. \
                  Memory does not grow with the file. CSV from stdin is first kept in a temporary file.\n\n\
                  A transfer without stripe_transfer_id is refused: Clawback would create it, and so pay sellers of \
                  past payments again. --create-missing takes such rows.\n\n\
                  --dry-run asks the database what each payment would be (new, already there, conflicting) and \
                  changes nothing. Two payments of the file that conflict with each other are not found by it.\n\n\
                  --format json: {\"bad_lines\": [{\"line\", \"field\", \"problem\"}], \"summary\": {\"complete\", \
                  \"dry_run\", \"new\", \"already_there\", \"conflicting\", \"refused\", \"bad_lines\", \
                  \"last_line\"}}\n\n\
                  Examples:\n  \
                  clawback payments import transfers.csv --dry-run\n  \
                  zcat payments.jsonl.gz | clawback payments import - --input jsonl\n\n\
                  Exit codes: 0 all are registered, 1 it could not go on or was stopped, 2 wrong usage, 3 some lines \
                  are bad, all others are registered."
)]
pub(in crate::cli) struct Import {
    /// The file; - is stdin
    file: PathBuf,
    /// Its format; by default its extension says so: .csv, .jsonl or .ndjson
    #[arg(long, value_enum)]
    input: Option<Input>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Take transfers without stripe_transfer_id: Clawback CREATES them, and pays the sellers
    #[arg(long)]
    create_missing: bool,
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// What became of an item.
struct Done {
    outcome: Outcome,
    bad: Vec<BadLine>,
    last_line: u64,
    bytes: u64,
}

#[derive(Clone, Copy)]
enum Outcome {
    New,
    AlreadyThere,
    Conflicting,
    Refused,
}

impl Import {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let stop = signals::stop()?;
        let ledger = app::connect_ledger(config).await?;
        let pending = ledger.pending_migrations().await?;
        if pending > 0 {
            bail!("{pending} migrations are pending; run `clawback migrate up` first");
        }
        let (file, input, create_missing) = (self.file, self.input, self.create_missing);
        let mut stop = std::pin::pin!(stop);
        let source = tokio::select! {
            source = Source::open(file, input, create_missing) => source?,
            () = &mut stop => bail!("stopped before anything was registered"),
        };
        let progress = Progress::start(source.size);
        let mut report = Report::new(stdout(), self.format, self.dry_run);
        let stopped = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&stopped);
        let stop = async move {
            stop.await;
            noted.store(true, Ordering::Relaxed);
        };
        let in_flight = if config.database_url.expose_secret().starts_with("sqlite") { 1 } else { IN_FLIGHT };
        let dry_run = self.dry_run;
        let done = items(source.items)
            .take_until(stop)
            .map(|item| AbortOnDropHandle::new(tokio::spawn(register(ledger.clone(), item, dry_run))))
            .buffered(in_flight)
            .map(|done| done?);
        let (counts, result) = tell(done, &progress, &mut report).await;
        progress.end();
        let end = match &result {
            Err(_) => End::Failed,
            Ok(()) if stopped.load(Ordering::Relaxed) => End::Stopped,
            Ok(()) => End::Complete,
        };
        unless_closed(report.end(counts, end))?;
        result?;
        let _ = ledger.close().await;
        Ok(match end {
            End::Complete if counts.bad_lines == 0 => ExitCode::SUCCESS,
            End::Complete => ExitCode::from(BAD_LINES),
            End::Stopped | End::Failed => ExitCode::FAILURE,
        })
    }
}

fn items(receiver: mpsc::Receiver<Result<Item>>) -> impl Stream<Item = Result<Item>> {
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
}

/// Counts and tells everything in the order of the file, until its end or the first failure.
async fn tell(
    done: impl Stream<Item = Result<Done>>,
    progress: &Progress,
    report: &mut Report<impl std::io::Write>,
) -> (Counts, Result<()>) {
    let mut counts = Counts::default();
    let mut done = std::pin::pin!(done);
    while let Some(next) = done.next().await {
        let told = next.and_then(|done| {
            for bad in &done.bad {
                let field = bad.field.as_ref().map(|field| format!(" {field}")).unwrap_or_default();
                unless_closed(progress.say(&format!("line {}:{field} {}", bad.line, bad.problem)))?;
                unless_closed(report.add(bad))?;
                counts.bad_lines += 1;
            }
            match done.outcome {
                Outcome::New => counts.new += 1,
                Outcome::AlreadyThere => counts.already_there += 1,
                Outcome::Conflicting => counts.conflicting += 1,
                Outcome::Refused => counts.refused += 1,
            }
            counts.last_line = done.last_line;
            progress.show(done.bytes, counts.new + counts.already_there);
            Ok(())
        });
        if let Err(error) = told {
            return (counts, Err(error));
        }
    }
    (counts, Ok(()))
}

/// Registers an item's payment.
///
/// # Errors
/// When the import can't go on.
async fn register(ledger: Ledger, item: Result<Item>, dry_run: bool) -> Result<Done> {
    let Item { payment, mut bad, last_line, bytes } = item?;
    let outcome = match payment {
        None => Outcome::Refused,
        Some(sourced) => match ledger.import_payment(sourced.payment.clone(), dry_run).await {
            Ok(true) => Outcome::New,
            Ok(false) => Outcome::AlreadyThere,
            Err(LedgerError::Invalid(problems)) => {
                bad.extend(problems.first().map(|first| sourced.invalid(&first.field, &first.problem)));
                Outcome::Refused
            }
            Err(LedgerError::Conflict(problem)) => {
                bad.push(sourced.refused(problem));
                Outcome::Conflicting
            }
            Err(error) => {
                let line = sourced.lines.first().copied().unwrap_or_default();
                return Err(anyhow::Error::new(error).context(format!("line {line} could not be registered")));
            }
        },
    };
    Ok(Done { outcome, bad, last_line, bytes })
}
