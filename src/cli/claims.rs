//! `clawback refunds` and `clawback disputes`: what providers reported, what became of it, and what operators decide about it.

use std::io::{Result as IoResult, Write};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::operator::{self, Act, Output, When, one_of, parse_currency};
use super::output::{Format, Listing, fact, gather, json, more, wrap};
use super::reversals::rows;
use super::terminal::{plain, print, time};
use crate::config::Config;
use crate::ledger::{ClaimFilter, ClaimKind, ClaimLine, ClaimStatus, DisputeView, Ledger, RefundView, now};

#[derive(Debug, Subcommand)]
#[command(after_help = "`clawback disputes` has the same commands, but for `withdraw`.\n\n\
                        Examples:\n  \
                        clawback refunds list --status unmatched\n  \
                        clawback refunds acknowledge re_3Qx4 --reason \"paid back with transfer tr_7\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) enum Refunds {
    #[command(flatten)]
    Claims(Claims),
    /// Take back a report that was a mistake, while Stripe was asked for nothing
    Withdraw(Withdraw),
}

#[derive(Debug, Subcommand)]
#[command(after_help = "`clawback refunds` has the same commands.\n\n\
                        Examples:\n  \
                        clawback disputes list --status held\n  \
                        clawback disputes accept du_1Qx4 --reason \"lost, and the seller agreed to pay\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) enum Claims {
    /// List them, newest first
    List(List),
    /// Show one, with its reversals
    Show(Show),
    /// Have a held one take after all, or a conflicting one that fits by now
    Accept(Decide),
    /// Record that nothing more needs to be done about one: it counts no more
    Acknowledge(Decide),
}

#[derive(Debug, Args)]
#[command(after_help = "Amounts are in minor units of what the buyer gets back.\n\n\
                        --format json prints {\"refunds\": […]} or {\"disputes\": […]}; each one is as GET /v1/refunds or GET \
                        /v1/disputes shows it. With csv or ndjson all that match are printed, one a line, unless --limit says \
                        how many.\n\n\
                        Examples:\n  \
                        clawback refunds list --status conflicting\n  \
                        clawback disputes list --status held --format json | jq '.disputes[].dispute_ref'\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct List {
    /// Only those with this status
    #[arg(long, value_parser = one_of::<ClaimStatus>())]
    status: Option<ClaimStatus>,
    /// Only those in this currency
    #[arg(long, value_name = "CODE", value_parser = parse_currency)]
    currency: Option<String>,
    /// Only those that an operator must do something about
    #[arg(long)]
    attention: bool,
    /// Only those that an operator has acknowledged, or has not
    #[arg(long, value_name = "YES|NO", value_parser = ["yes", "no"])]
    acknowledged: Option<String>,
    #[command(flatten)]
    when: When,
    /// Oldest first, instead of newest first
    #[arg(long)]
    oldest: bool,
    #[command(flatten)]
    listing: Listing,
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints it as GET /v1/refunds/{id} or GET /v1/disputes/{id} shows it.\n\n\
                        Examples:\n  \
                        clawback refunds show re_3Qx4\n  \
                        clawback disputes show du_1Qx4\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage.")]
pub(super) struct Show {
    /// Clawback's id, or the provider's (re_…, du_…)
    id: String,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Your name and the reason go into the history.\n\n\
                        --format json prints it as `show` does.\n\n\
                        Examples:\n  \
                        clawback refunds accept re_3Qx4 --reason \"older than the ledger, and not taken back yet\"\n  \
                        clawback refunds acknowledge re_3Qx4 --reason \"paid back with transfer tr_7\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or nothing to decide, 2 wrong usage.")]
pub(super) struct Decide {
    /// Clawback's id, or the provider's (re_…, du_…)
    id: String,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
#[command(
    after_help = "For a refund that only a report made (POST /v1/refunds), with a wrong amount, currency, payment or id. What it \
                        asked is called off, and it counts nowhere. Report it anew, or its provider's own event does. Where \
                        Stripe was asked already, or the provider has reported it itself, nothing is changed and the error \
                        says what to do. Your name and the reason go into the history.\n\n\
                        --format json prints it as `show` does.\n\n\
                        Example:\n  \
                        clawback refunds withdraw re_3Qx4 --reason \"reported with 1100 instead of 110\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or too late, 2 wrong usage."
)]
pub(super) struct Withdraw {
    #[command(flatten)]
    decide: Decide,
}

impl Refunds {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let Withdraw { decide: Decide { id, act } } = match self {
            Self::Claims(command) => return command.execute(config, ClaimKind::Refund).await,
            Self::Withdraw(command) => command,
        };
        let (ledger, mut out, kind) = (operator::ledger(config).await?, Vec::new(), ClaimKind::Refund);
        let id = find(&ledger, kind, &id).await?.id.to_string();
        ledger.withdraw_claim(&id, act.note()?).await?;
        decided(&mut out, act.output.format, "Withdrawn", kind, find(&ledger, kind, &id).await?)?;
        Ok(print(&out)?)
    }
}

impl Claims {
    pub(super) async fn execute(self, config: &Config, kind: ClaimKind) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let mut out = Vec::new();
        match self {
            Self::List(List { status, currency, attention, acknowledged, when, oldest, listing }) => {
                let filter = ClaimFilter {
                    status,
                    currency,
                    needs_attention: attention,
                    acknowledged: acknowledged.map(|is_so| is_so == "yes"),
                    recorded: when.recorded(),
                    oldest,
                };
                let next = |after, limit| ledger.find_claims(kind, &filter, after, limit);
                if listing.print_lines(|claim| [ClaimLine::from(claim)], next).await? {
                    return Ok(());
                }
                let found = gather(listing.limit(), next).await?;
                match (listing.is_json(), kind) {
                    (false, _) => table(&mut out, kind, &found, listing.limit())?,
                    (true, ClaimKind::Refund) => json(&mut out, &json!({"refunds": found}))?,
                    (true, ClaimKind::Dispute) => {
                        let found: Vec<DisputeView> = found.into_iter().map(DisputeView::from).collect();
                        json(&mut out, &json!({"disputes": found}))?;
                    }
                }
            }
            Self::Show(Show { id, output }) => show(&mut out, output.format, kind, find(&ledger, kind, &id).await?)?,
            Self::Accept(Decide { id, act }) => {
                let id = find(&ledger, kind, &id).await?.id.to_string();
                ledger.accept_claim(&id, act.note()?).await?;
                decided(&mut out, act.output.format, "Accepted", kind, find(&ledger, kind, &id).await?)?;
            }
            Self::Acknowledge(Decide { id, act }) => {
                let id = find(&ledger, kind, &id).await?.id.to_string();
                ledger.acknowledge_claim(&id, act.note()?).await?;
                decided(&mut out, act.output.format, "Acknowledged", kind, find(&ledger, kind, &id).await?)?;
            }
        }
        Ok(print(&out)?)
    }
}

async fn find(ledger: &Ledger, kind: ClaimKind, id: &str) -> Result<RefundView> {
    match ledger.claim(kind, id).await? {
        Some(found) => Ok(found),
        None => bail!(
            "no {kind} has the id {id:?}: Clawback's id or the provider's is meant; `clawback {kind}s list` shows them, \
             `clawback trace` takes other ids too"
        ),
    }
}

fn decided(out: &mut impl Write, format: Format, what: &str, kind: ClaimKind, claim: RefundView) -> IoResult<()> {
    if format == Format::Table {
        writeln!(out, "{what}.")?;
    }
    show(out, format, kind, claim)
}

fn show(out: &mut impl Write, format: Format, kind: ClaimKind, claim: RefundView) -> IoResult<()> {
    match (format, kind) {
        (Format::Table, _) => details(out, kind, &claim),
        (Format::Json, ClaimKind::Refund) => json(out, &claim),
        (Format::Json, ClaimKind::Dispute) => json(out, &DisputeView::from(claim)),
    }
}

fn table(out: &mut impl Write, kind: ClaimKind, found: &[RefundView], limit: u64) -> IoResult<()> {
    if found.is_empty() {
        return writeln!(out, "No {kind}s.");
    }
    let name = kind.to_string().to_uppercase();
    writeln!(out, "{name:<28} {:<18} {:>19} CUR {:>6}", "STATUS", "AMOUNT", "AGE")?;
    for claim in found {
        let RefundView { refund_ref, amount, currency, status, .. } = claim;
        let short: String = plain(refund_ref).chars().take(28).collect();
        let age = age((now() - claim.created_at).num_seconds());
        writeln!(out, "{short:<28} {:<18} {amount:>19} {currency} {age:>6}", status.to_string())?;
        let acknowledged = if claim.acknowledged_at.is_some() { "; acknowledged" } else { "" };
        // What to do about a conflict repeats its reason.
        let is_told = |why: &&String| claim.attention.as_ref().is_some_and(|to_do| to_do.contains(why.as_str()));
        let why = claim.status_reason.as_ref().filter(|why| !is_told(why));
        let why = why.map(|why| format!("; {why}")).unwrap_or_default();
        let to_do = claim.attention.as_ref().map(|to_do| format!("; to do: {to_do}")).unwrap_or_default();
        let more = format!("{kind} {refund_ref} of payment {}{why}{acknowledged}{to_do}", claim.payment_ref);
        wrap(out, "  ", "  ", &plain(&more))?;
    }
    more(out, found.len(), limit)
}

/// Of the first report, in the largest unit that fits.
pub(super) fn age(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{}s", seconds.max(0)),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn details(out: &mut impl Write, kind: ClaimKind, claim: &RefundView) -> IoResult<()> {
    let RefundView { id, amount, currency, status, .. } = claim;
    let (mut title, source) = (kind.to_string(), claim.source);
    title[..1].make_ascii_uppercase();
    fact(out, &title, &format!("{} ({source})", claim.refund_ref))?;
    writeln!(out, "Id            {id}\nStatus        {status}")?;
    let optional = [
        ("Stage", claim.stage.map(|stage| stage.to_string())),
        ("Reason", claim.status_reason.clone()),
        ("To do", claim.attention.clone()),
        ("Acknowledged", claim.acknowledged_at.map(time)),
        ("Payment", Some(claim.payment_ref.clone())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            fact(out, name, &value)?;
        }
    }
    writeln!(out, "Amount        {amount} {currency} (minor units)\nReported      {}", time(claim.created_at))?;
    if !claim.reversals.is_empty() {
        writeln!(out)?;
        rows(out, &claim.reversals)?;
    }
    writeln!(out, "\nWhat happened to it: clawback trace {id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_in_the_largest_unit_that_fits() {
        let shown = [-5, 59, 60, 3_599, 3_600, 172_799, 172_800, 8_640_000].map(age);
        assert_eq!(shown, ["0s", "59s", "1m", "59m", "1h", "47h", "2d", "100d"]);
    }
}
