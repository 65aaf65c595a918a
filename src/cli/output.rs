//! Tables for people, JSON for programs.

use std::io::{ErrorKind, Result, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::ledger::LedgerError;

/// The widest that a table gets, in columns.
pub(super) const WIDTH: u16 = 80;

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// At most 80 columns wide
    Table,
    /// One object, with a stable shape
    Json,
}

/// A table without lines that wraps long cells to stay within [`WIDTH`].
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(header);
    table
}

/// Writes one JSON object, indented.
pub(super) fn json(out: &mut impl Write, object: &impl Serialize) -> Result<()> {
    serde_json::to_writer_pretty(&mut *out, object)?;
    writeln!(out)
}

/// Says under a list of `shown` rows that `--limit` cut it off, if it did.
pub(super) fn more(out: &mut impl Write, shown: usize, limit: u64) -> Result<()> {
    if shown as u64 == limit { writeln!(out, "The newest {limit}; more with --limit.") } else { Ok(()) }
}

/// The newest `limit` rows, page by page. `next` gives the page after a cursor, with at most so many rows, and the cursor to the
/// following one.
pub(super) async fn gather<T, C, F>(
    limit: u64,
    next: impl Fn(Option<C>, u64) -> F,
) -> std::result::Result<Vec<T>, LedgerError>
where
    F: Future<Output = std::result::Result<(Vec<T>, Option<C>), LedgerError>>,
{
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let (rows, following) = next(cursor, limit - all.len() as u64).await?;
        all.extend(rows);
        cursor = following;
        if cursor.is_none() || all.len() as u64 >= limit {
            return Ok(all);
        }
    }
}

/// Writes `text` in lines of at most 80 columns. A longer word gets a line of its own.
pub(super) fn wrap(out: &mut impl Write, first: &str, others: &str, text: &str) -> Result<()> {
    let mut line = first.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > usize::from(WIDTH) {
            writeln!(out, "{line}")?;
            line = others.to_owned();
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    writeln!(out, "{line}")
}

/// A reader that has gone (`| head`) is no error.
pub(super) fn unless_closed(written: Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
