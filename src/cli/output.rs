//! How the commands print: tables for people, JSON for programs. Used by every command that shows something.

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};

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

/// A table without lines, that wraps long cells rather than grow wider than [`WIDTH`].
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.set_header(header);
    table
}
