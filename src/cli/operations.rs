//! `clawback operations`: an operator's action on many rows: previewed, started, watched, aborted.

use std::io::{Result as IoResult, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde_json::json;
use uuid::Uuid;

use super::NEEDS_ATTENTION;
use super::history::parse_when;
use super::operator::{self, Act, Newest, Output, confirm, one_of, parse_since};
use super::output::{Format, fact, json, more, wrap};
use super::terminal::{plain, print, time};
use crate::app;
use crate::config::Config;
use crate::ledger::{
    ClaimKind, ClaimStatus, CurrencySum, ItemState, ItemView, Ledger, MAX_ITEMS, OperationAction, OperationFilter,
    OperationState, OperationView, Pace,
};
use crate::reconcile;

/// Refused rows that `show` lists.
const REFUSED_SHOWN: u64 = 20;

#[derive(Debug, Subcommand)]
#[command(
    after_help = "A preview freezes the rows that match now, and changes none of them. Started, each row is worked on as \
                        if it alone had been asked for, once, by a running `clawback serve` or `clawback worker`, also \
                        over restarts.\n\n\
                        Examples:\n  \
                        clawback operations preview replay_reversals --failure-code unavailable\n  \
                        clawback operations start 0199e2c4-… --reason \"Stripe is back\" --spread 10m\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing matched."
)]
pub(super) enum Operations {
    /// List operations, newest first
    List(List),
    /// Show one: how far it is, and what was refused
    Show(Show),
    /// Say which rows an action would be about, how much, and what would be refused
    Preview(Preview),
    /// Start what was previewed
    Start(Start),
    /// End one before it is done; what was done stays
    Abort(Abort),
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints {\"operations\": […]}; each one is as GET /v1/operations shows it.\n\n\
                        Example:\n  \
                        clawback operations list --limit 5\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) struct List {
    #[command(flatten)]
    newest: Newest,
}

#[derive(Debug, Args)]
#[command(
    after_help = "--format json prints the operation as GET /v1/operations/{id} shows it, with its rows as \"rows\".\n\n\
                        Example:\n  \
                        clawback operations show 0199e2c4-…\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage."
)]
pub(super) struct Show {
    /// Its id
    id: Uuid,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "ACTION is replay_reversals, retry_transfers, close_reversals or discard_messages (of what failed permanently; \
                        discarding throws away parked messages alone, and the rows stay owed), accept_claims or acknowledge_claims (of refunds and disputes). At least one condition is needed; \
                        rows match that meet all of them. An operation is about 10,000 rows at most, the oldest. The \
                        first 1,000 are tried, and rolled back, to see what would be refused; of the first 100 reversals Stripe \
                        is asked, for up to 8 s, whether they are ready, reversed already or short of balance.\n\n\
                        --format json prints the operation as GET /v1/operations/{id} shows it.\n\n\
                        Examples:\n  \
                        clawback operations preview replay_reversals --group 3f6c1a0b2d4e\n  \
                        clawback operations preview accept_claims --status held --kind refund --since 7d\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 nothing matched."
)]
pub(super) struct Preview {
    /// What is to be done with each row
    #[arg(value_parser = one_of::<OperationAction>())]
    action: OperationAction,
    /// Only what failed with this code
    #[arg(long, value_name = "CODE")]
    failure_code: Option<String>,
    /// Only what failed for this cause: a key of `clawback reversals groups`
    #[arg(long, value_name = "KEY")]
    group: Option<String>,
    /// Only what is of this seller, by the marketplace's id
    #[arg(long, value_name = "ID")]
    seller: Option<String>,
    /// Only what is in this currency
    #[arg(long, value_name = "CODE")]
    currency: Option<String>,
    /// Only what failed, or was reported, since then: 24h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,
    /// Only what failed, or was reported, before then
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<DateTime<Utc>>,
    /// Only claims of this kind
    #[arg(long, value_parser = one_of::<ClaimKind>())]
    kind: Option<ClaimKind>,
    /// Only claims with this status
    #[arg(long, value_parser = one_of::<ClaimStatus>())]
    status: Option<ClaimStatus>,
    /// Only claims that need attention
    #[arg(long)]
    attention: bool,
    /// Only these rows, by Clawback's ids
    #[arg(long = "id", value_name = "ID")]
    ids: Vec<Uuid>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It says how many rows there are and asks; --yes answers. A large amount (CONFIRM_FROM) must be typed, or given with --confirm-amount. Your name and the reason go into the history of \
                        each row.\n\n\
                        --format json prints the operation as GET /v1/operations/{id} shows it.\n\n\
                        Example:\n  \
                        clawback operations start 0199e2c4-… --reason \"Stripe is back\" --spread 10m --cap 500\n\n\
                        Exit codes: 0 it runs, 1 failed, not found or started before, 2 wrong usage."
)]
pub(super) struct Start {
    /// The preview's id
    id: Uuid,
    /// Work on the rows evenly over this time, like 10m; at most 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    spread: Option<Duration>,
    /// Work on no more rows than this, the oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    cap: Option<i32>,
    /// A large amount, typed, as the preview says
    #[arg(long, value_name = "AMOUNT")]
    confirm_amount: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    act: Act,
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints the operation as GET /v1/operations/{id} shows it.\n\n\
                        Example:\n  \
                        clawback operations abort 0199e2c4-… --reason \"the wrong group\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or ended before, 2 wrong usage.")]
pub(super) struct Abort {
    /// Its id
    id: Uuid,
    #[command(flatten)]
    act: Act,
}

impl Operations {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let ledger = operator::ledger(config).await?;
        let mut out = Vec::new();
        match self {
            Self::List(List { newest: Newest { limit, output } }) => {
                let (found, _) = ledger.list_operations(None, limit).await?;
                match output.format {
                    Format::Table => table(&mut out, &found, limit)?,
                    Format::Json => json(&mut out, &json!({"operations": found}))?,
                }
            }
            Self::Show(Show { id, output }) => {
                let found = find(&ledger, id).await?;
                match output.format {
                    Format::Table => {
                        details(&mut out, &found)?;
                        let some = Some(ItemState::Refused);
                        let (refused, _) = ledger.operation_items(id, some, None, REFUSED_SHOWN).await?;
                        rows(&mut out, &refused)?;
                    }
                    Format::Json => {
                        let (rows, _) = ledger.operation_items(id, None, None, MAX_ITEMS as u64).await?;
                        let mut all = serde_json::to_value(&found)?;
                        all["rows"] = json!(rows);
                        json(&mut out, &all)?;
                    }
                }
            }
            Self::Preview(preview) => return preview.execute(config, &ledger).await,
            Self::Start(Start { id, spread, cap, confirm_amount, yes, act }) => {
                let found = find(&ledger, id).await?;
                if found.state == OperationState::Previewed {
                    confirm(&format!("{}: {}", found.action, amounts(&found)), yes)?;
                    operator::confirm_amount(&ledger, found.confirm.as_deref(), confirm_amount.as_deref())?;
                }
                let spread = i32::try_from(spread.unwrap_or_default().as_secs()).context("--spread is too long")?;
                let pace = Pace { spread_seconds: spread, cap };
                ledger.start_operation(id, &act.note()?, pace, found.confirm.as_deref()).await?;
                changed(&mut out, act.output.format, "It runs. Watch it with: clawback operations show", &ledger, id)
                    .await?;
            }
            Self::Abort(Abort { id, act }) => {
                ledger.abort_operation(id, &act.note()?).await?;
                changed(&mut out, act.output.format, "Aborted:", &ledger, id).await?;
            }
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Preview {
    async fn execute(self, config: &Config, ledger: &Ledger) -> Result<ExitCode> {
        let Self { action, failure_code, group, seller, currency, since, until, kind, status, attention, ids, output } =
            self;
        let (attention, ids) = (attention.then_some(true), (!ids.is_empty()).then_some(ids));
        let filter =
            OperationFilter { failure_code, group, seller, currency, since, until, kind, status, attention, ids };
        let stripe = app::stripe_now(config)?;
        let previewed = reconcile::preview(ledger, stripe.as_ref(), action, &filter).await?;
        let mut out = Vec::new();
        match output.format {
            Format::Table => {
                details(&mut out, &previewed)?;
                if previewed.items > 0 {
                    writeln!(out, "\nStart it with: clawback operations start {} --reason TEXT", previewed.id)?;
                }
            }
            Format::Json => json(&mut out, &previewed)?,
        }
        print(&out)?;
        Ok(if previewed.items > 0 { ExitCode::SUCCESS } else { ExitCode::from(NEEDS_ATTENTION) })
    }
}

async fn find(ledger: &Ledger, id: Uuid) -> Result<OperationView> {
    match ledger.operation(id).await? {
        Some(found) => Ok(found),
        None => bail!("no operation has the id {id}; `clawback operations list` shows them"),
    }
}

async fn changed(out: &mut Vec<u8>, format: Format, what: &str, ledger: &Ledger, id: Uuid) -> Result<()> {
    match format {
        Format::Table => writeln!(out, "{what} {id}")?,
        Format::Json => json(out, &find(ledger, id).await?)?,
    }
    Ok(())
}

fn table(out: &mut impl Write, found: &[OperationView], limit: u64) -> IoResult<()> {
    if found.is_empty() {
        return writeln!(out, "No operations.");
    }
    for operation in found {
        let OperationView { id, action, state, created_at, .. } = operation;
        writeln!(out, "{id}  {action}  {state}  {}", time(*created_at))?;
        let by = operation.operator.as_ref().map(|operator| format!("; {operator}: ")).unwrap_or_default();
        let why = operation.reason.as_deref().unwrap_or_default();
        wrap(out, "  ", "  ", &plain(&format!("{}; {}{by}{why}", amounts(operation), progress(operation))))?;
    }
    more(out, found.len(), limit)
}

fn details(out: &mut impl Write, operation: &OperationView) -> IoResult<()> {
    let OperationView { id, action, state, matching, items, .. } = operation;
    writeln!(out, "Operation     {id}\nAction        {action}\nState         {state}")?;
    let filter = serde_json::to_string(&operation.filter).unwrap_or_default();
    fact(out, "Filter", &filter)?;
    fact(out, "Rows", &amounts(operation))?;
    if *matching > i64::from(*items) {
        let said = format!(
            "{matching} match, of which this operation is about the oldest {items}: preview again for the rest"
        );
        fact(out, "", &said)?;
    }
    if let Some(oldest) = operation.oldest {
        writeln!(out, "Oldest        {}", time(oldest))?;
    }
    for refusal in &operation.refusals {
        let of = format!("{} of {} would be refused: {}", refusal.count, operation.checked, refusal.reason);
        fact(out, "Refused", &of)?;
    }
    for of in &operation.at_stripe {
        let (count, sums) = (of.sums.iter().map(|of| of.sum.count).sum::<i64>(), in_minor_units(&of.sums));
        fact(out, "At Stripe", &format!("{count} {}: {sums}", of.says.to_string().replace('_', " ")))?;
    }
    if operation.action.asks_stripe() && operation.at_stripe.is_empty() && operation.items > 0 {
        writeln!(out, "At Stripe     not asked (no STRIPE_API_KEY)")?;
    }
    if let Some(confirm) = &operation.confirm {
        fact(out, "To confirm", &format!("a large amount: start it with --confirm-amount \"{confirm}\""))?;
    }
    if let (Some(operator), Some(reason)) = (&operation.operator, &operation.reason) {
        fact(out, "By", &format!("{operator}: {reason}"))?;
        let cap = operation.cap.map(|cap| format!(", {cap} at most")).unwrap_or_default();
        let spread = match operation.spread_seconds {
            0 => "as fast as it goes".to_owned(),
            seconds => {
                format!("over {}", humantime::format_duration(Duration::from_secs(seconds.unsigned_abs().into())))
            }
        };
        writeln!(out, "Pace          {spread}{cap}")?;
    }
    writeln!(out, "Progress      {}", progress(operation))?;
    for (name, at) in [("Started", operation.started_at), ("Ended", operation.finished_at)] {
        if let Some(at) = at {
            writeln!(out, "{name:<14}{}", time(at))?;
        }
    }
    Ok(())
}

fn rows(out: &mut impl Write, refused: &[ItemView]) -> IoResult<()> {
    for row in refused {
        let said = format!("{}: {}", row.target_id, row.problem.as_deref().unwrap_or("refused"));
        wrap(out, "  ", "    ", &plain(&said))?;
    }
    Ok(())
}

/// `2 rows (9000 eur in minor units)`.
fn amounts(operation: &OperationView) -> String {
    let sums = in_minor_units(&operation.sums);
    match operation.items {
        0 => "none".to_owned(),
        1 => format!("1 row ({sums} in minor units)"),
        items => format!("{items} rows ({sums} in minor units)"),
    }
}

fn in_minor_units(sums: &[CurrencySum]) -> String {
    sums.iter().map(|of| format!("{} {}", of.sum.amount, of.currency)).collect::<Vec<_>>().join(", ")
}

fn progress(operation: &OperationView) -> String {
    let of = &operation.progress;
    format!("{} done, {} refused, {} left", of.done, of.refused, of.pending)
}
