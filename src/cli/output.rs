//! Tables for people, JSON for programs, CSV for spreadsheets.

use std::io::{ErrorKind, Result, Write};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::terminal::{output, plain};
use crate::ledger::LedgerError;
use crate::lines::{Line, Lines};

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

/// `--format` of what may be very long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RowFormat {
    /// At most 80 columns wide
    Table,
    /// One object, with a stable shape
    Json,
    /// A header, and one row a line
    Csv,
    /// One JSON object a line
    Ndjson,
}

/// How much of a list, and how.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Listing {
    /// At most so many [default: 20; csv and ndjson: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: Option<u64>,
    /// For people, for programs, or for spreadsheets
    #[arg(long, value_enum, default_value_t = RowFormat::Table)]
    format: RowFormat,
}

impl RowFormat {
    /// As lines, if it is that.
    pub(super) fn lines(self) -> Option<Lines> {
        match self {
            Self::Table | Self::Json => None,
            Self::Csv => Some(Lines::Csv),
            Self::Ndjson => Some(Lines::Ndjson),
        }
    }
}

impl Listing {
    /// The most rows of a table or an object.
    pub(super) fn limit(self) -> u64 {
        self.limit.unwrap_or(20)
    }

    pub(super) fn is_json(self) -> bool {
        self.format == RowFormat::Json
    }

    /// Prints the list as lines, if that is wanted.
    pub(super) async fn print_lines<T, L, I, C, F>(
        self,
        to_lines: impl Fn(T) -> I,
        next: impl Fn(Option<C>, u64) -> F,
    ) -> anyhow::Result<bool>
    where
        L: Line,
        I: IntoIterator<Item = L>,
        F: Future<Output = std::result::Result<(Vec<T>, Option<C>), LedgerError>>,
    {
        let Some(lines) = self.format.lines() else { return Ok(false) };
        print_lines(lines, self.limit.unwrap_or(u64::MAX), to_lines, next).await?;
        Ok(true)
    }
}

/// Rows that are read at a time.
const PAGE: u64 = 1_000;

/// Prints at most `limit` of what `next` gives, page by page.
pub(super) async fn print_lines<T, L, I, C, F>(
    lines: Lines,
    limit: u64,
    to_lines: impl Fn(T) -> I,
    next: impl Fn(Option<C>, u64) -> F,
) -> anyhow::Result<()>
where
    L: Line,
    I: IntoIterator<Item = L>,
    F: Future<Output = std::result::Result<(Vec<T>, Option<C>), LedgerError>>,
{
    let (mut out, mut left, mut cursor) = (output(), limit, None);
    out.write_all(lines.header::<L>().as_bytes())?;
    loop {
        let (rows, following) = next(cursor, left.min(PAGE)).await?;
        left = left.saturating_sub(rows.len() as u64);
        let rows: Vec<L> = rows.into_iter().flat_map(&to_lines).collect();
        out.write_all(lines.of(&rows)?.as_bytes())?;
        cursor = following;
        if left == 0 || cursor.is_none() {
            return Ok(out.flush()?);
        }
    }
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
    if shown as u64 == limit { writeln!(out, "These are the first {limit}; more with --limit.") } else { Ok(()) }
}

/// The first `limit` rows, page by page. `next` gives the page after a cursor, with at most so many rows, and the cursor to the
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
        let (rows, following) = next(cursor, (limit - all.len() as u64).min(PAGE)).await?;
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

/// What is known of one thing under this name, in the columns of all details.
pub(super) fn fact(out: &mut impl Write, name: &str, value: &str) -> Result<()> {
    wrap(out, &format!("{name:<14}"), "              ", &plain(value))
}

/// A reader that has gone (`| head`) is no error.
pub(super) fn unless_closed(written: Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
