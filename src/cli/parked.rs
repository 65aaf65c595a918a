//! `clawback parked`: the messages whose jobs failed permanently. Looks at them, sends them back to work, throws them away.

mod show;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use super::NEEDS_ATTENTION;
use super::operator::{self, Output, Who, parse_reason};
use super::output::{Format, json};
use super::terminal::print;
use crate::config::Config;
use crate::ledger::CallKind;
use crate::operator::{Filter, Handled, Operator, Parked, ParkedAction, Sorted};

#[derive(Debug, Subcommand)]
#[command(
    after_help = "Every row that failed permanently has its job's message in a parking queue (reversals.parked, \
                        transfers.parked, lookups.parked, events.parked), which says why. It never expires.\n\n\
                        Examples:\n  \
                        clawback parked list\n  \
                        clawback parked replay --reason-contains \"No such transfer\" --dry-run\n  \
                        clawback parked replay --all --spread 10m --reason \"Stripe is back\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some are still parked, or nothing \
                        matched."
)]
pub(super) enum ParkedCommand {
    /// List parked messages, oldest first, each with its row's present status
    List(List),
    /// Show everything about one parked message
    Show(Show),
    /// Send parked messages back to work; Stripe is asked first whether it has happened
    Replay(Replay),
    /// Throw parked messages away; their rows stay failed
    Discard(Discard),
}

/// Which of them.
#[derive(Debug, Args)]
struct Which {
    /// Only this kind of job
    #[arg(long, value_parser = PossibleValuesParser::new(CallKind::all().map(CallKind::job)))]
    kind: Option<String>,
    /// Only those with this text in the reason why they were parked
    #[arg(long, value_name = "TEXT")]
    reason_contains: Option<String>,
    /// At most so many, the oldest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A message whose row is done, or was replayed since, has nothing more to say: it is not listed, and \
                        the next `replay` or `discard` drops it.\n\n\
                        --format json prints {\"parked\": […]}, each with id, queue, kind, entity, entity_id, row_status, \
                        settled, attempts, parked_at and reason.\n\n\
                        Examples:\n  \
                        clawback parked list --kind reverse_transfer --limit 20\n  \
                        clawback parked list --reason-contains balance --format json\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct List {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "--format json prints what the list has, and first_published_at, correlation_id, headers and \
                        payload.\n\n\
                        Example:\n  \
                        clawback parked show 0199e2c4-…\n\n\
                        Exit codes: 0 done, 1 failed or not found, 2 wrong usage.")]
pub(super) struct Show {
    /// The message's id, or Clawback's id of the row that it is about
    id: String,
    #[command(flatten)]
    output: Output,
}

/// Those that are meant, who means it, and why.
#[derive(Debug, Args)]
#[group(id = "selection", required = true, multiple = true, args = ["id", "all", "kind", "reason_contains"])]
struct Order {
    /// The message's id, or Clawback's id of the row that it is about
    #[arg(conflicts_with_all = ["all", "kind", "reason_contains", "limit"])]
    id: Option<String>,
    /// All of them
    #[arg(long, conflicts_with_all = ["kind", "reason_contains"])]
    all: bool,
    #[command(flatten)]
    which: Which,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = parse_reason, required_unless_present = "dry_run")]
    reason: Option<String>,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "What happens depends on the row that the message is about:\n  \
                        failed          it is open again; its new job takes the message's place\n  \
                        still open      the message goes back to the work queue\n  \
                        done meanwhile  the message is taken away\n\
                        Before the worker calls Stripe it looks there whether it has happened after all: a replay never \
                        moves money twice. Your name and the reason go into each row's history.\n\n\
                        The ledger is written first and the message goes after it, one by one: stopped on the way, run it \
                        again.\n\n\
                        --format json prints {\"dry_run\", \"handled\": […], \"interrupted\"}; each one as in the list, with \
                        done (replayed, sent_back, taken_away or skipped) and detail.\n\n\
                        Examples:\n  \
                        clawback parked replay 0199e2c4-… --reason \"the seller paid in\"\n  \
                        clawback parked replay --reason-contains \"No such transfer\" --dry-run\n  \
                        clawback parked replay --all --spread 10m --reason \"Stripe is back\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some were skipped and are still parked, or \
                        nothing matched.")]
pub(super) struct Replay {
    #[command(flatten)]
    order: Order,
    /// Spread them evenly over this time: 30s, 10m, 1h
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    spread: Duration,
    /// A large amount (CONFIRM_FROM), typed, like "1200000 eur"
    #[arg(long, value_name = "AMOUNT")]
    confirm_amount: Option<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "The row stays as it is: what failed is still owed, and `clawback reversals replay` or \
                        `clawback transfers retry` can still have it tried again. Your name and the reason go into each \
                        row's history. Without an ID the command says how many messages are meant and asks; --yes answers. \
                        What was settled elsewhere is closed with `clawback reversals close`.\n\n\
                        --format json prints {\"dry_run\", \"handled\": […], \"interrupted\"}; each one as in the list, with \
                        done (discarded or skipped) and detail.\n\n\
                        Example:\n  \
                        clawback parked discard 0199e2c4-… --reason \"settled with the seller by invoice 4711\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some were skipped and are still parked, or \
                        nothing matched.")]
pub(super) struct Discard {
    #[command(flatten)]
    order: Order,
    /// Do not ask how many are meant
    #[arg(long)]
    yes: bool,
}

impl ParkedCommand {
    pub(super) async fn execute(self, config: &Config) -> Result<ExitCode> {
        let operator = operator::operator(config, operator::ledger(config).await?)?;
        let mut out = Vec::new();
        match self {
            Self::List(List { which, output }) => {
                let found = operator.parked(&which.filter(None)).await?;
                match output.format {
                    Format::Table => show::list(&mut out, &found)?,
                    Format::Json => json(&mut out, &show::list_as_json(&found))?,
                }
            }
            Self::Show(Show { id, output }) => {
                let found = find(&operator, Filter { id: Some(id), ..Filter::default() }).await?;
                match output.format {
                    Format::Table => show::details(&mut out, &found)?,
                    Format::Json => {
                        let found: Vec<_> = found.iter().map(show::details_as_json).collect();
                        json(&mut out, &serde_json::json!({"parked": found}))?;
                    }
                }
            }
            Self::Replay(Replay { order, spread, confirm_amount }) => {
                let chosen = order.chosen(&operator).await?;
                if !order.dry_run {
                    let needed = operator.to_confirm(&chosen).await?;
                    operator::confirm_amount(operator.ledger(), needed.as_deref(), confirm_amount.as_deref())?;
                }
                let sorted = match order.reason_to_act() {
                    None => planned(chosen, Parked::on_replay),
                    Some(reason) => operator.replay_parked(chosen, spread, &order.who.note(reason)?).await,
                };
                return conclude(&order, sorted, "replayed");
            }
            Self::Discard(Discard { order, yes }) => {
                let chosen = order.chosen(&operator).await?;
                if order.id.is_none() && !order.dry_run && !chosen.is_empty() {
                    operator::confirm(&format!("Discard {} parked messages", chosen.len()), yes)?;
                }
                let sorted = match order.reason_to_act() {
                    None => planned(chosen, |_| ParkedAction::Discarded),
                    Some(reason) => operator.discard_parked(chosen, &order.who.note(reason)?).await,
                };
                return conclude(&order, sorted, "discarded");
            }
        }
        print(&out)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Which {
    fn filter(&self, id: Option<String>) -> Filter {
        Filter {
            id,
            kind: self.kind.clone(),
            reason_contains: self.reason_contains.clone(),
            limit: self.limit.and_then(|limit| usize::try_from(limit).ok()),
        }
    }
}

impl Order {
    async fn chosen(&self, operator: &Operator) -> Result<Vec<Parked>> {
        let filter = self.which.filter(self.id.clone());
        if self.id.is_some() { find(operator, filter).await } else { Ok(operator.parked(&filter).await?) }
    }

    fn reason_to_act(&self) -> Option<&str> {
        self.reason.as_deref().filter(|_| !self.dry_run)
    }
}

/// More than one when a job was parked more than once.
async fn find(operator: &Operator, filter: Filter) -> Result<Vec<Parked>> {
    let found = operator.parked(&filter).await?;
    if found.is_empty() {
        bail!(
            "no parked message has the id {:?}, or is about the row with that id; `clawback parked list` shows them. What \
             failed and has no message is tried again with `clawback reversals replay` or `clawback transfers retry`",
            filter.id.unwrap_or_default()
        );
    }
    Ok(found)
}

fn planned(chosen: Vec<Parked>, action: impl Fn(&Parked) -> ParkedAction) -> Sorted {
    let handled = chosen.into_iter().map(|parked| Handled { action: action(&parked), parked }).collect();
    Sorted { handled, interrupted: None }
}

fn conclude(order: &Order, sorted: Sorted, done: &str) -> Result<ExitCode> {
    let mut out = Vec::new();
    match order.output.format {
        Format::Table => show::handled(&mut out, &sorted, order.dry_run, done)?,
        Format::Json => json(&mut out, &show::handled_as_json(&sorted, order.dry_run))?,
    }
    print(&out)?;
    if let Some(error) = sorted.interrupted {
        return Err(anyhow::Error::from(error).context("it ended early; the rest is still parked: run it again"));
    }
    let skipped = sorted.handled.iter().any(|it| matches!(it.action, ParkedAction::Skipped { .. }));
    let nothing_matched = sorted.handled.is_empty();
    Ok(if skipped || nothing_matched { ExitCode::from(NEEDS_ATTENTION) } else { ExitCode::SUCCESS })
}
