//! What an import did: counts at its end, and in JSON the bad lines, too. It keeps no more than the counts, so that any
//! number of lines can be bad.

use std::io::{Result, Write};

use serde::Serialize;

use super::item::BadLine;
use crate::cli::output::{Format, wrap};

/// How many, of everything. Names are only ever added.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Counts {
    /// Payments that are registered now; in a dry run, that would be.
    pub(super) new: u64,
    /// Payments that had been registered before, just so.
    pub(super) already_there: u64,
    /// Payments that are registered otherwise, or with a transfer of another payment.
    pub(super) conflicting: u64,
    /// Payments, and lines that are none, with something wrong in them.
    pub(super) refused: u64,
    /// Lines that were told as bad.
    pub(super) bad_lines: u64,
    /// Everything up to this line is done.
    pub(super) last_line: u64,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// At the end of the file.
    Complete,
    /// By Ctrl-C or SIGTERM.
    Stopped,
    /// By an error.
    Failed,
}

/// What is shown so far.
pub(super) struct Report<W> {
    out: W,
    format: Format,
    dry_run: bool,
    is_first: bool,
}

#[derive(Serialize)]
struct Summary {
    complete: bool,
    dry_run: bool,
    #[serde(flatten)]
    counts: Counts,
}

impl<W: Write> Report<W> {
    pub(super) fn new(out: W, format: Format, dry_run: bool) -> Self {
        Self { out, format, dry_run, is_first: true }
    }

    pub(super) fn add(&mut self, bad: &BadLine) -> Result<()> {
        if self.format == Format::Json {
            let start = self.start();
            write!(self.out, "{start}\n{}", serde_json::to_string(bad)?)?;
        }
        Ok(())
    }

    /// What stands before the next bad line.
    fn start(&mut self) -> &'static str {
        if std::mem::take(&mut self.is_first) { "{\"bad_lines\":[" } else { "," }
    }

    pub(super) fn end(&mut self, counts: Counts, end: End) -> Result<()> {
        let Counts { new, already_there, conflicting, refused, bad_lines, last_line } = counts;
        if self.format == Format::Json {
            let summary = Summary { complete: end == End::Complete, dry_run: self.dry_run, counts };
            let start = if self.is_first { self.start() } else { "" };
            writeln!(self.out, "{start}],\n\"summary\":{}}}", serde_json::to_string(&summary)?)?;
            return self.out.flush();
        }
        let would_be = if self.dry_run { " (nothing was changed)" } else { "" };
        let text = format!(
            "Payments: {new} new, {already_there} already there, {conflicting} conflicting, {refused} refused{would_be}."
        );
        wrap(&mut self.out, "", "", &text)?;
        if bad_lines > 0 {
            writeln!(self.out, "Bad lines: {bad_lines}; correct them and import the file again.")?;
        }
        if end != End::Complete {
            let text = format!(
                "Not complete: everything up to line {last_line} is done. Run it again: what is there is skipped."
            );
            wrap(&mut self.out, "", "", &text)?;
        }
        self.out.flush()
    }
}
