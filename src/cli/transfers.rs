//! `clawback transfers`: what went to the sellers, how much of it is back, and retrying creations that failed permanently.

use std::io::{Result as IoResult, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::groups::{AddNote, Groups};
use super::operator::{self, Act, Of, Output, one_of};
use super::output::{Format, Listing, fact, gather, json, more, wrap};
use super::reversals::rows as reversal_rows;
use super::rows::Rows;
use super::terminal::{plain, print};
use crate::config::Config;
use crate::ledger::{CallKind, FoundTransfer, Ledger, TransferFilter, TransferLine, TransferStatus, TransferView};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        clawback transfers list --status reversal_pending\n  \
                        clawback transfers show tr_1Qx4\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) enum Transfers {
    /// List transfers, newest first
    List(List),
    /// Show what failed permanently, by cause
    Groups(Groups),
    /// Add a note to a group, for those who look at it later
    Note(AddNote),
    /// Show one transfer with its reversals
    Show(Show),
    /// Retry creations of transfers that failed permanently; Stripe is asked first whether they exist
    Retry(Retry),
}

#[derive(Debug, Args)]
#[command(after_help = "Amounts are in minor units of the transfer's currency.\n\n\
                        --format json prints {\"transfers\": […]}; each one is as GET /v1/transfers/{id} shows it. With csv \
                        or ndjson all that match are printed, one a line, unless --limit says how many.\n\n\
                        Example:\n  \
                        clawback transfers list --not-created --limit 50\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct List {
    /// Only those with this status
    #[arg(long, value_parser = one_of::<TransferStatus>())]
    status: Option<TransferStatus>,
    #[command(flatten)]
    of: Of,
    /// Only those that Clawback could not create: their sellers were not paid
    #[arg(long)]
    not_created: bool,
    /// Only those of a group of failures: a key of `clawback transfers groups`
    #[arg(long, value_name = "KEY")]
    group: Option<String>,
    /// Oldest first, instead of newest first
    #[arg(long)]
    oldest: bool,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints the transfer as GET /v1/transfers/{id} shows it.\n\n\
                        Example:\n  \
                        clawback transfers show tr_1Qx4\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage.")]
pub(super) struct Show {
    /// Clawback's id, or Stripe's (tr_…)
    id: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "For transfers that Clawback creates itself. The creation is pending again, with fresh retries and a new \
                        job, which takes the place of its parked message. Before the worker calls Stripe it looks there \
                        whether the transfer exists after all: a retry never pays twice. Your name and the reason go into \
                        the history. A transfer whose reversal failed permanently exists at Stripe: replay the reversal \
                        instead.\n\n\
                        Many are retried with --all, --failure-code, --seller and --since, together or alone: the \
                        ledger's rows, whether a message about them is parked or not. The command says how many there \
                        are and asks; --yes answers.\n\n\
                        --format json prints {\"id\", \"status\", \"parked_messages_removed\"}; of many {\"replayed\", \
                        \"skipped\", \"parked_messages_removed\"}.\n\n\
                        Examples:\n  \
                        clawback transfers retry 0199e2c4-… --reason \"the account is verified now\"\n  \
                        clawback transfers retry --seller s1 --reason \"the account is verified now\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or not failed permanently, 2 wrong usage, 3 of many: \
                        none matched, or some were skipped."
)]
#[group(id = "selection", required = true, multiple = true, args = ["id", "all", "failure_code", "seller", "since"])]
pub(super) struct Retry {
    /// Clawback's id
    #[arg(conflicts_with_all = ["all", "failure_code", "seller", "since"])]
    id: Option<String>,
    #[command(flatten)]
    rows: Rows,
    /// A large amount (CONFIRM_FROM), typed, like "1200000 eur"
    #[arg(long, value_name = "AMOUNT")]
    confirm_amount: Option<String>,
    #[command(flatten)]
    act: Act,
}

impl Transfers {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let ledger = operator::ledger(config).await?;
        let mut out = Vec::new();
        match self {
            Self::List(List { status, of: Of { seller, currency }, not_created, group, oldest, listing }) => {
                let filter = TransferFilter { status, currency, seller, not_created, group, oldest };
                let next = |after, limit| ledger.find_transfers(&filter, after, limit);
                if listing.print_lines(|found| [TransferLine::from(found)], next).await? {
                    return Ok(ExitCode::SUCCESS);
                }
                let found = gather(listing.limit(), next).await?;
                match listing.is_json() {
                    true => json(&mut out, &json!({"transfers": found}))?,
                    false => table(&mut out, &found, listing.limit())?,
                }
            }
            Self::Groups(groups) => groups.show(&ledger, CallKind::Create, &mut out).await?,
            Self::Note(note) => note.add(&ledger, CallKind::Create, &mut out).await?,
            Self::Show(Show { id, output }) => {
                let found = find(&ledger, &id).await?;
                match output.format {
                    Format::Table => details(&mut out, &found)?,
                    Format::Json => json(&mut out, &found)?,
                }
            }
            Self::Retry(Retry { id, rows, confirm_amount, act }) => {
                let operator = operator::operator(config, ledger.clone())?;
                let (note, format) = (act.note()?, act.output.format);
                let Some(id) = id else {
                    let typed = confirm_amount.as_deref();
                    return rows.replay((&ledger, &operator), CallKind::Create, &note, format, typed).await;
                };
                let found = find(&ledger, &id).await?;
                let needed = ledger.to_confirm_of(&[found.id]).await?;
                operator::confirm_amount(&ledger, needed.as_deref(), confirm_amount.as_deref())?;
                let id = found.id.to_string();
                let (id, left) = operator.replay(CallKind::Create, &id, None, &note).await?;
                let now = find(&ledger, &id.to_string()).await?.status;
                let next = "Stripe whether it exists";
                operator::replayed(&mut out, format, ("Transfer", id), &now, &left, next)?;
            }
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn find(ledger: &Ledger, id: &str) -> Result<TransferView> {
    match ledger.transfer(id).await? {
        Some(found) => Ok(found),
        None => bail!(
            "no transfer has the id {id:?}: Clawback's id or Stripe's (tr_…) is meant; `clawback transfers list` shows \
             them, `clawback trace` takes other ids too"
        ),
    }
}

fn table(out: &mut impl Write, found: &[FoundTransfer], limit: u64) -> IoResult<()> {
    if found.is_empty() {
        return writeln!(out, "No transfers.");
    }
    writeln!(out, "{:<36} {:<18} {:>19} CUR", "TRANSFER", "STATUS", "AMOUNT")?;
    for FoundTransfer { transfer, payment_ref } in found {
        let TransferView { id, amount, currency, .. } = transfer;
        writeln!(out, "{id:<36} {:<18} {amount:>19} {currency}", transfer.status.to_string())?;
        let at_stripe = transfer.stripe_transfer_id.as_deref().unwrap_or("not at Stripe");
        let back = match transfer.amount_reversed {
            0 => String::new(),
            back => format!(", {back} back"),
        };
        wrap(out, "  ", "  ", &plain(&format!("{at_stripe}, seller {}, {payment_ref}{back}", transfer.seller_id)))?;
    }
    more(out, found.len(), limit)
}

fn details(out: &mut impl Write, transfer: &TransferView) -> IoResult<()> {
    let TransferView { id, amount, currency, status, amount_reversed, .. } = transfer;
    let at_stripe = transfer.stripe_transfer_id.as_deref().unwrap_or("does not exist there");
    writeln!(out, "Transfer      {id}\nStatus        {status}")?;
    for (name, value) in
        [("At Stripe", at_stripe), ("Seller", &transfer.seller_id), ("Destination", &transfer.destination)]
    {
        fact(out, name, value)?;
    }
    writeln!(out, "Amount        {amount} {currency} (minor units)\nBack          {amount_reversed} {currency}")?;
    if !transfer.reversals.is_empty() {
        writeln!(out)?;
        reversal_rows(out, &transfer.reversals)?;
    }
    writeln!(out, "\nWhat happened to it: clawback trace {id}")
}
