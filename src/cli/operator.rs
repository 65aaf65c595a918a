//! What the commands about rows and parked messages share: who asks for it and why, whether it is meant, which page of a
//! list, and the way to the ledger and the broker. It decides nothing.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr, stdin};
use std::process::Command;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use sea_orm::Iterable;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::history::parse_when;
use super::output::{self, Format, wrap};
use crate::app;
use crate::config::Config;
use crate::ledger::{Ledger, Note, Recorded};
use crate::operator::limits::{REASON_MAX_CHARS, one_line, operator_name};
use crate::operator::{Leftovers, Operator};

/// Who asks for it.
#[derive(Debug, Args)]
pub(super) struct Who {
    /// Your name, for the history [default: $USER, or else the system's name for you]
    #[arg(long, value_name = "NAME", value_parser = operator_name)]
    operator: Option<String>,
}

/// What a command that changes something is told: why, who asks for it, and how to answer.
#[derive(Debug, Args)]
pub(super) struct Act {
    /// Why, for the history
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    reason: String,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Whose, and in what currency.
#[derive(Debug, Args)]
pub(super) struct Of {
    /// Only those of this seller, by the marketplace's id
    #[arg(long, value_name = "ID")]
    pub(super) seller: Option<String>,
    /// Only those in this currency
    #[arg(long, value_name = "CODE", value_parser = parse_currency)]
    pub(super) currency: Option<String>,
}

/// When they were recorded.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct When {
    /// Only those recorded since then: 24h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,
    /// Only those recorded before then
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<DateTime<Utc>>,
}

impl When {
    pub(super) fn recorded(self) -> Recorded {
        let Self { since, until } = self;
        Recorded { since, until }
    }
}

/// `--format` alone.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Output {
    /// For people or for programs
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(super) format: Format,
}

/// `--limit` and `--format` of a list that shows the newest.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Newest {
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(super) limit: u64,
    #[command(flatten)]
    pub(super) output: Output,
}

impl Act {
    /// What the history gets.
    pub(super) fn note(&self) -> Result<Note> {
        self.who.note(&self.reason)
    }
}

impl Who {
    /// What the history gets.
    pub(super) fn note(&self, reason: &str) -> Result<Note> {
        let name = match &self.operator {
            Some(name) => name.clone(),
            None => name_of_user().context("who asks for it? say so with --operator NAME")?,
        };
        Ok(Note::new(&name, reason))
    }
}

/// The ledger, with its schema as this version needs it.
pub(super) async fn ledger(config: &Config) -> Result<Ledger> {
    let ledger = app::connect_ledger(config).await?;
    let pending = ledger.pending_migrations().await?;
    if pending > 0 {
        bail!("{pending} migrations are pending; run `clawback migrate up` first");
    }
    Ok(ledger)
}

/// What acts on this ledger and the broker for an operator.
pub(super) fn operator(config: &Config, ledger: Ledger) -> Result<Operator> {
    Ok(Operator::new(ledger, app::broker(config, "clawback operator")?, app::topologies(config)?))
}

/// What there is to say about the parked messages of a row that is replayed or closed.
pub(super) fn about_leftovers(left: &Leftovers) -> String {
    match &left.problem {
        None if left.removed == 0 => "It had no parked message.".to_owned(),
        None => "Its parked message is taken away.".to_owned(),
        Some(problem) => format!(
            "warning: its parked message, if it has one, is still there and does no harm ({problem}); take it away with \
             `clawback parked discard`."
        ),
    }
}

/// Says that `what` is tried again, what became of its parked messages, and what comes next.
pub(super) fn replayed(
    out: &mut impl Write,
    format: Format,
    (what, id): (&str, Uuid),
    status: &impl Serialize,
    left: &Leftovers,
    asks_first: &str,
) -> Result<()> {
    let leftovers = about_leftovers(left);
    match format {
        Format::Table => {
            let next = format!(
                "{what} {id} is open again. {leftovers} The relay brings its new job to the worker, which first asks {asks_first}."
            );
            wrap(out, "", "", &next)?;
            writeln!(out, "Watch it with: clawback trace {id}")?;
        }
        Format::Json => {
            output::json(out, &json!({"id": id, "status": status, "parked_messages_removed": left.removed}))?;
            if left.problem.is_some() {
                tracing::warn!("{leftovers}");
            }
        }
    }
    Ok(())
}

/// Asks on the terminal whether `what` is to be done, unless `yes` says so already.
///
/// # Errors
/// It is not, or nobody is there to ask.
pub(super) fn confirm(what: &str, yes: bool) -> Result<()> {
    if yes {
        return Ok(());
    }
    if !stdin().is_terminal() {
        bail!("{what}? Add --yes to confirm; nothing was changed");
    }
    write!(stderr(), "{what}? [y/N] ")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}

/// Has a large amount typed: with `--confirm-amount`, or on the terminal. `--yes` is not enough.
///
/// # Errors
/// It was not typed, or is another one.
pub(super) fn confirm_amount(ledger: &Ledger, needed: Option<&str>, given: Option<&str>) -> Result<()> {
    let Some(needed) = needed else { return Ok(()) };
    if given.is_some() || !stdin().is_terminal() {
        let checked = ledger.check_confirmed(Some(needed), given);
        return checked.with_context(|| format!("add --confirm-amount \"{needed}\"; nothing was changed"));
    }
    write!(stderr(), "That is a large amount. Type {needed} to go on: ")?;
    let mut typed = String::new();
    stdin().read_line(&mut typed)?;
    ledger.check_confirmed(Some(needed), Some(typed.trim())).context("nothing was changed")
}

/// For `--since`.
pub(super) use super::reconcile::parse_since;

/// For `--currency`.
pub(super) fn parse_currency(text: &str) -> Result<String, String> {
    let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    is_code
        .then(|| text.to_ascii_lowercase())
        .ok_or_else(|| "allowed: a three-letter ISO 4217 code, like eur".to_owned())
}

/// For `--reason`.
pub(super) fn parse_reason(text: &str) -> Result<String, String> {
    one_line(text, REASON_MAX_CHARS)
}

/// One of an enum's words; the shell's completion offers them.
pub(super) fn one_of<T: Iterable + Display + Clone + Send + Sync>() -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(T::iter().map(|word| word.to_string()))
        .try_map(|text| T::iter().find(|word| word.to_string() == text).ok_or("no such word"))
}

fn name_of_user() -> Option<String> {
    let from_environment = || std::env::var("USER").ok();
    let from_system = || String::from_utf8(Command::new("id").arg("-un").output().ok()?.stdout).ok();
    from_environment().and_then(|name| operator_name(&name).ok()).or_else(|| operator_name(&from_system()?).ok())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use std::ffi::OsStr;

    use super::*;
    use crate::ledger::ReversalStatus;

    #[test]
    fn a_status_is_one_of_those_that_there_are() {
        let (parser, command) = (one_of::<ReversalStatus>(), clap::Command::new("list"));
        let parse = |text: &str| parser.parse_ref(&command, None, OsStr::new(text));
        assert_eq!(parse("permanently_failed").unwrap(), ReversalStatus::PermanentlyFailed);
        let error = parse("done").unwrap_err().to_string();
        assert!(error.contains("pending, reversed, permanently_failed, called_off, closed"), "{error}");
    }

    #[test]
    fn a_reason_has_words_and_one_line() {
        assert_eq!(parse_reason("  the seller paid in ").unwrap(), "the seller paid in");
        for bad in ["", "  ", "two\nlines", &"x".repeat(501)] {
            assert!(parse_reason(bad).unwrap_err().contains("1 to 500 characters"), "{bad}");
        }
    }

    #[test]
    fn there_is_always_a_name() {
        assert!(!name_of_user().unwrap().is_empty());
    }
}
