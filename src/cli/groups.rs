//! `clawback reversals groups` and `clawback transfers groups`: what failed permanently, by cause.

use std::io::{Result as IoResult, Write};

use anyhow::Result;
use clap::Args;

use super::operator::Output;
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
    }
    if found.complete { Ok(()) } else { writeln!(out, "There are more: only the oldest 100000 were looked at.") }
}
