//! `clawback calls`: look-ups, and events for another system, that failed permanently, and replaying them.

use std::io::{Result as IoResult, Write};

use anyhow::{Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::json;

use super::operator::{self, Act, Newest};
use super::output::{Format, gather, json, more, wrap};
use super::terminal::{plain, print, time};
use crate::config::Config;
use crate::ledger::{CallKind, SideCall};

#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  \
                        clawback calls list --kind look_up\n  \
                        clawback calls replay 0199e2c4-… --reason \"the key may read charges now\"\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub(super) enum Calls {
    /// List look-ups and events that failed permanently, newest first
    List(List),
    /// Replay one of them
    Replay(Replay),
}

#[derive(Debug, Args)]
#[command(
    after_help = "What could not be read at Stripe (look_up), and what EVENTS_URL did not take (notify). Debts and \
                        creations that failed are listed by `clawback reversals` and `clawback transfers`.\n\n\
                        --format json prints {\"calls\": […]}; each one is as GET /v1/calls shows it.\n\n\
                        Example:\n  \
                        clawback calls list --kind notify --limit 50\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct List {
    /// Only those of this kind
    #[arg(long, value_parser = kind())]
    kind: Option<CallKind>,
    #[command(flatten)]
    newest: Newest,
}

#[derive(Debug, Args)]
#[command(
    after_help = "It is open again, with fresh retries and a new job, which takes the place of its parked message. An event \
                        is told under the same id as before. Many at once: `clawback parked replay --kind look_up --all`.\n\n\
                        --format json prints {\"id\", \"status\", \"parked_messages_removed\"}.\n\n\
                        Example:\n  \
                        clawback calls replay 0199e2c4-… --reason \"the receiver is back\"\n\n\
                        Exit codes: 0 done, 1 failed, not found or not failed permanently, 2 wrong usage."
)]
pub(super) struct Replay {
    /// Clawback's id
    id: String,
    #[command(flatten)]
    act: Act,
}

fn kind() -> impl TypedValueParser<Value = CallKind> {
    let kinds = [CallKind::LookUp, CallKind::Notify];
    PossibleValuesParser::new(kinds.map(|kind| kind.to_string()))
        .try_map(move |text| kinds.into_iter().find(|kind| kind.to_string() == text).ok_or("no such kind"))
}

impl Calls {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let mut out = Vec::new();
        match self {
            Self::List(List { kind, newest: Newest { limit, output } }) => {
                let found = gather(limit, |after, limit| ledger.failed_side_calls(kind, after, limit)).await?;
                match output.format {
                    Format::Table => table(&mut out, &found, limit)?,
                    Format::Json => json(&mut out, &json!({"calls": found}))?,
                }
            }
            Self::Replay(Replay { id, act }) => {
                let (operator, note) = (operator::operator(config, ledger.clone())?, act.note()?);
                let Some(call) = ledger.side_call(&id).await? else {
                    bail!("no look-up or event has the id {id:?}; `clawback calls list` shows those that failed");
                };
                let (id, left) = operator.replay(call.kind, &id, None, &note).await?;
                let leftovers = operator::about_leftovers(&left);
                match act.output.format {
                    Format::Table => {
                        let what = call.kind.entity();
                        let done = format!("The {what} {id} is open again, with a new job. {leftovers}");
                        wrap(&mut out, "", "", &done)?;
                    }
                    Format::Json => {
                        let status = ledger.side_call(&id.to_string()).await?.map(|call| call.state);
                        json(&mut out, &json!({"id": id, "status": status, "parked_messages_removed": left.removed}))?;
                    }
                }
            }
        }
        Ok(print(&out)?)
    }
}

fn table(out: &mut impl Write, found: &[SideCall], limit: u64) -> IoResult<()> {
    if found.is_empty() {
        return writeln!(out, "No look-up and no event has failed permanently.");
    }
    writeln!(out, "{:<36} {:<8} FAILED", "CALL", "KIND")?;
    for call in found {
        writeln!(out, "{} {:<8} {}", call.id, call.kind.to_string(), time(call.changed_at))?;
        let about = call.reference.as_ref().map(|id| format!(" {id}")).unwrap_or_default();
        let why = call.failure_message.as_deref().unwrap_or("no words");
        wrap(out, "  ", "  ", &plain(&format!("{}{about}: {why}", call.subject)))?;
    }
    more(out, found.len(), limit)
}
