//! `clawback reversals groups` and `clawback transfers groups`: what failed permanently, by cause.

use std::io::{Result as IoResult, Write};

use anyhow::Result;
use clap::Args;

use super::operator::{Output, Who, parse_reason};
use super::output::{Format, json, wrap};
use super::terminal::{plain, time};
use crate::ledger::{CallKind, FailureGroups, Ledger};

#[derive(Debug, Args)]
#[command(
    after_help = "A cause is the failure's code and its words without the ids, amounts and numbers in them (…). Only \
                        what is still owed counts.\n\n\
                        --format json prints it as GET /v1/reversals/groups or GET /v1/transfers/groups shows it.\n\n\
                        Examples:\n  \
                        clawback reversals groups\n  \
                        clawback transfers groups --format json | jq '.groups[].reason'\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct Groups {
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "KEY is one that `groups` shows. The newest notes are shown with their group; none is ever changed.\n\n\
                        --format json prints {\"text\", \"operator\", \"created_at\"}.\n\n\
                        Example:\n  \
                        clawback reversals note 3f6c1a0b2d4e --text \"asked Stripe, ticket 4711\"\n\n\
                        Exit codes: 0 done, 1 failed or no such group, 2 wrong usage."
)]
pub(super) struct AddNote {
    /// The group's key
    key: String,
    /// What others should know
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    text: String,
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    output: Output,
}

impl AddNote {
    pub(super) async fn add(self, ledger: &Ledger, kind: CallKind, out: &mut Vec<u8>) -> Result<()> {
        let noted = ledger.note_on_group(kind, &self.key, &self.who.note(&self.text)?).await?;
        match self.output.format {
            Format::Table => writeln!(out, "Noted.")?,
            Format::Json => json(out, &noted)?,
        }
        Ok(())
    }
}

impl Groups {
    pub(super) async fn show(self, ledger: &Ledger, kind: CallKind, out: &mut Vec<u8>) -> Result<()> {
        let groups = ledger.failure_groups(kind).await?;
        match self.output.format {
            Format::Table => table(out, kind, &groups)?,
            Format::Json => json(out, &*groups)?,
        }
        Ok(())
    }
}

fn table(out: &mut impl Write, kind: CallKind, found: &FailureGroups) -> IoResult<()> {
    if found.groups.is_empty() {
        return writeln!(out, "No {} has failed permanently.", kind.entity());
    }
    for group in &found.groups {
        let sums: Vec<String> = group.sums.iter().map(|of| format!("{} {}", of.sum.amount, of.currency)).collect();
        let plural = if group.count == 1 { "" } else { "s" };
        let said = format!(
            "{} {}{plural} of {} sellers ({} in minor units), {} to {}",
            group.count,
            kind.entity(),
            group.sellers,
            sums.join(", "),
            time(group.oldest),
            time(group.newest)
        );
        wrap(out, &format!("{}  ", group.key), "              ", &said)?;
        wrap(out, "              ", "              ", &plain(&format!("{}: {}", group.failure_code, group.reason)))?;
        for note in &group.notes {
            let said = format!("note by {} ({}): {}", note.operator, time(note.created_at), note.text);
            wrap(out, "              ", "                ", &plain(&said))?;
        }
    }
    if found.complete { Ok(()) } else { writeln!(out, "There are more: only the oldest 100000 were looked at.") }
}
