//! `clawback reversals`: what is owed, how far it is, and replaying or closing what failed permanently.

use std::io::{Result as IoResult, Write};
use std::process::ExitCode;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;

use super::groups::{AddNote, Groups};
use super::operator::{self, Act, Of, Output, When, Who, one_of, parse_reason, parse_since};
use super::output::{Format, Listing, fact, gather, json, more, wrap};
use super::rows::Rows;
use super::terminal::{plain, print, time};
use crate::app;
use crate::config::Config;
use crate::ledger::{CallKind, FoundReversal, Ledger, ReversalFilter, ReversalLine, ReversalStatus, ReversalView, now};
use crate::operator::{Part, amount as amount_of};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        clawback reversals list --status permanently_failed\n  \
                        clawback reversals replay 0199e2c4-… --reason \"the seller paid in\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) enum Reversals {
    /// List reversals, newest first
    List(List),
    /// Show what failed permanently, by cause
    Groups(Groups),
    /// Add a note to a group, for those who look at it later
    Note(AddNote),
    /// Show one reversal
    Show(Show),
    /// Replay reversals that failed permanently; Stripe is asked first whether they have happened
    Replay(Replay),
    /// Close a reversal that failed permanently: its debt was settled elsewhere
    Close(Close),
}

#[derive(Debug, Args)]
#[command(after_help = "Amounts are in minor units of the transfer's currency.\n\n\
                        --format json prints {\"reversals\": […]}; each one is as GET /v1/reversals shows it. With csv \
                        or ndjson all that match are printed, one a line, unless --limit says how many.\n\n\
                        Examples:\n  \
                        clawback reversals list --status pending --limit 50\n  \
                        clawback reversals list --format json | jq '.reversals[].id'\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct List {
    /// Only those with this status
    #[arg(long, value_parser = one_of::<ReversalStatus>())]
    status: Option<ReversalStatus>,
    #[command(flatten)]
    of: Of,
    /// Only those that wait for the seller's balance
    #[arg(long)]
    waiting: bool,
    /// Only those whose last failure had this code
    #[arg(long, value_name = "CODE")]
    failure_code: Option<String>,
    /// Only those of a group of failures: a key of `clawback reversals groups`
    #[arg(long, value_name = "KEY")]
    group: Option<String>,
    /// Only those that are still owed
    #[arg(long)]
    owed: bool,
    #[command(flatten)]
    when: When,
    /// Only those whose status changed since then
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    changed_since: Option<DateTime<Utc>>,
    /// Oldest first, instead of newest first
    #[arg(long)]
    oldest: bool,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints the reversal as GET /v1/reversals shows it.\n\n\
                        Example:\n  \
                        clawback reversals show trr_1Qx4\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage.")]
pub(super) struct Show {
    /// Clawback's id, or Stripe's (trr_…)
    id: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The reversal is pending again, with fresh retries and a new job, which takes the place of its parked \
                        message. Before the worker calls Stripe it looks there whether the reversal has happened after \
                        all: a replay never takes money twice. Your name and the reason go into the history.\n\n\
                        Many are replayed with --all, --failure-code, --seller and --since, together or alone: the \
                        ledger's rows, whether a message about them is parked or not. The command says how many there \
                        are and asks; --yes answers.\n\n\
                        Where less is left at Stripe than is owed (more_than_left), --amount left takes what Stripe says \
                        is left, and --amount N takes N. The rest of the debt counts as settled elsewhere.\n\n\
                        --format json prints {\"id\", \"status\", \"parked_messages_removed\"}; of many {\"replayed\", \
                        \"skipped\", \"parked_messages_removed\"}.\n\n\
                        Examples:\n  \
                        clawback reversals replay 0199e2c4-… --reason \"the seller paid in\"\n  \
                        clawback reversals replay 0199e2c4-… --amount left --reason \"the rest was reversed by hand\"\n  \
                        clawback reversals replay --failure-code unavailable --since 24h --reason \"Stripe is back\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or not failed permanently, 2 wrong usage, 3 of many: \
                        none matched, or some were skipped."
)]
#[group(id = "selection", required = true, multiple = true, args = ["id", "all", "failure_code", "seller", "since"])]
pub(super) struct Replay {
    /// Clawback's id, or Stripe's (trr_…)
    #[arg(conflicts_with_all = ["all", "failure_code", "seller", "since"])]
    id: Option<String>,
    #[command(flatten)]
    rows: Rows,
    /// Take only this much, in minor units, or what is left at Stripe
    #[arg(long, value_name = "N|left",
        conflicts_with_all = ["all", "failure_code", "seller", "since"])]
    amount: Option<Part>,
    /// A large amount (CONFIRM_FROM), typed, like "1200000 eur"
    #[arg(long, value_name = "AMOUNT")]
    confirm_amount: Option<String>,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
#[command(
    after_help = "For a debt that was paid by invoice, offset elsewhere or written off. The reversal counts as no \
                        failure any more and is not replayed; its parked message is taken away; later refunds of its \
                        transfer go on. It can't be undone. Your name and the reason go into the history.\n\n\
                        --format json prints {\"id\", \"status\", \"parked_messages_removed\"}.\n\n\
                        Example:\n  \
                        clawback reversals close 0199e2c4-… --reason \"paid by invoice 4711\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or not failed permanently, 2 wrong usage."
)]
pub(super) struct Close {
    /// Clawback's id
    id: String,
    /// How it was settled, for the history
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    output: Output,
}

impl Reversals {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let ledger = operator::ledger(config).await?;
        let mut out = Vec::new();
        match self {
            Self::List(List {
                status,
                of: Of { seller, currency },
                waiting,
                failure_code,
                group,
                owed,
                when,
                changed_since,
                oldest,
                listing,
            }) => {
                let waits = waiting.then_some(true);
                let filter = ReversalFilter {
                    status,
                    currency,
                    waits,
                    seller,
                    failure_code,
                    group,
                    owed,
                    recorded: when.recorded(),
                    changed_since,
                    oldest,
                };
                let next = |after, limit| ledger.find_reversals(&filter, after, limit);
                if listing.print_lines(|found| [ReversalLine::from(found)], next).await? {
                    return Ok(ExitCode::SUCCESS);
                }
                let found = gather(listing.limit(), next).await?;
                match listing.is_json() {
                    true => json(&mut out, &json!({"reversals": found}))?,
                    false => table(&mut out, &found, listing.limit())?,
                }
            }
            Self::Groups(groups) => groups.show(&ledger, CallKind::Reverse, &mut out).await?,
            Self::Note(note) => note.add(&ledger, CallKind::Reverse, &mut out).await?,
            Self::Show(Show { id, output }) => {
                let found = find(&ledger, &id).await?;
                match output.format {
                    Format::Table => details(&mut out, &found)?,
                    Format::Json => json(&mut out, &found)?,
                }
            }
            Self::Replay(Replay { id, rows, amount, confirm_amount, act }) => {
                let operator = operator::operator(config, ledger.clone())?;
                let (note, format) = (act.note()?, act.output.format);
                let Some(id) = id else {
                    let typed = confirm_amount.as_deref();
                    return rows.replay((&ledger, &operator), CallKind::Reverse, &note, format, typed).await;
                };
                let found = find(&ledger, &id).await?;
                let amount = match amount {
                    Some(part) => {
                        let stripe = app::stripe_now(config)?;
                        Some(amount_of(&ledger, stripe.as_ref(), &id, part).await?)
                    }
                    None => None,
                };
                let debt = [(found.currency.as_str(), amount.unwrap_or(found.amount))];
                operator::confirm_amount(&ledger, ledger.to_confirm(debt).as_deref(), confirm_amount.as_deref())?;
                let (id, left) = operator.replay(CallKind::Reverse, &found.id.to_string(), amount, &note).await?;
                let now = find(&ledger, &id.to_string()).await?.status;
                let next = "Stripe whether it has happened";
                operator::replayed(&mut out, format, ("Reversal", id), &now, &left, next)?;
            }
            Self::Close(Close { id, reason, who, output }) => {
                let found = find(&ledger, &id).await?;
                let operator = operator::operator(config, ledger.clone())?;
                let (id, left) = operator.close_reversal(&found.id.to_string(), &who.note(&reason)?).await?;
                match output.format {
                    Format::Table => {
                        let debt = format!("{} {} in minor units", found.amount, found.currency);
                        let told = operator::about_leftovers(&left);
                        wrap(&mut out, "", "", &format!("Reversal {id} is closed ({debt}). {told}"))?;
                    }
                    Format::Json => {
                        let status = find(&ledger, &id.to_string()).await?.status;
                        json(&mut out, &json!({"id": id, "status": status, "parked_messages_removed": left.removed}))?;
                    }
                }
            }
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn find(ledger: &Ledger, id: &str) -> Result<ReversalView> {
    match ledger.reversal(id).await? {
        Some(found) => Ok(found),
        None => bail!(
            "no reversal has the id {id:?}: Clawback's id or Stripe's (trr_…) is meant; `clawback reversals list` shows \
             them, `clawback trace` takes other ids too"
        ),
    }
}

fn table(out: &mut impl Write, found: &[FoundReversal], limit: u64) -> IoResult<()> {
    if found.is_empty() {
        return writeln!(out, "No reversals.");
    }
    writeln!(out, "{HEAD}")?;
    for FoundReversal { reversal, kind, payment_ref, seller_id, stripe_transfer_id } in found {
        row(out, reversal)?;
        let transfer = stripe_transfer_id.as_deref().unwrap_or("not at Stripe yet");
        let about = format!("{transfer}, seller {seller_id}, {kind} {} of {payment_ref}", reversal.refund_ref);
        wrap(out, "  ", "  ", &plain(&about))?;
    }
    more(out, found.len(), limit)
}

const HEAD: &str = "REVERSAL                             STATUS                          AMOUNT CUR";

/// Each with what its status alone does not say, under a header.
pub(super) fn rows(out: &mut impl Write, reversals: &[ReversalView]) -> IoResult<()> {
    writeln!(out, "{HEAD}")?;
    reversals.iter().try_for_each(|reversal| row(out, reversal))
}

fn row(out: &mut impl Write, reversal: &ReversalView) -> IoResult<()> {
    let ReversalView { id, amount, currency, .. } = reversal;
    writeln!(out, "{id:<36} {:<18} {amount:>19} {currency}", reversal.status.to_string())?;
    in_words(reversal).map_or(Ok(()), |more| wrap(out, "  ", "  ", &plain(&more)))
}

fn details(out: &mut impl Write, reversal: &ReversalView) -> IoResult<()> {
    let ReversalView { id, refund_id, transfer_id, amount, currency, status, retry_count, .. } = reversal;
    writeln!(out, "Reversal      {id}\nStatus        {status}\nAmount        {amount} {currency} (minor units)")?;
    if reversal.amount_closed > 0 {
        writeln!(out, "Closed        {} {currency} more were settled elsewhere", reversal.amount_closed)?;
    }
    writeln!(out, "Refund        {refund_id}\nTransfer      {transfer_id}")?;
    writeln!(out, "Recorded      {}\nRetries used  {retry_count}", time(reversal.created_at))?;
    if let Some(more) = in_words(reversal) {
        fact(out, "State", &more)?;
    }
    writeln!(out, "\nWhat happened to it: clawback trace {id}")
}

/// A time that has come is no promise any more.
pub(super) fn next_try(at: chrono::DateTime<chrono::Utc>) -> String {
    let when = if at > now() { "next try" } else { "due since" };
    format!("{when} {}", time(at))
}

/// What its status alone does not say.
pub(super) fn in_words(reversal: &ReversalView) -> Option<String> {
    let failure = || {
        let code = reversal.failure_code.as_deref()?;
        Some(format!("{code}: {}", reversal.failure_message.as_deref().unwrap_or("no words")))
    };
    match reversal.status {
        ReversalStatus::Reversed => {
            let by = if reversal.externally_reversed { ", by another program" } else { "" };
            reversal.stripe_reversal_id.as_ref().map(|id| format!("reversed at Stripe as {id}{by}"))
        }
        ReversalStatus::Pending => {
            let next = next_try(reversal.next_retry_at?);
            Some(failure().map_or(next.clone(), |failure| format!("{next}; {failure}")))
        }
        ReversalStatus::PermanentlyFailed | ReversalStatus::CalledOff | ReversalStatus::Closed => failure(),
    }
}
