//! What an import says: bad lines and a progress bar on stderr, the summary on stdout. It keeps only counts, so any number
//! of lines can be bad.

use std::io::{Result, Write, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::item::BadLine;
use crate::cli::output::{Format, unless_closed, wrap};
use crate::cli::terminal::output;

/// Names are only ever added.
#[derive(Default, Serialize)]
pub(super) struct Summary {
    /// Whether the input was read to its end.
    pub(super) complete: bool,
    pub(super) dry_run: bool,
    /// Payments that are registered now; in a dry run, that would be.
    pub(super) new: u64,
    /// Payments that were registered before, exactly so.
    pub(super) already_there: u64,
    /// Payments that contradict what is registered.
    pub(super) conflicting: u64,
    /// Payments, and lines that belong to none, with something wrong in them.
    pub(super) refused: u64,
    pub(super) bad_lines: u64,
    /// Everything up to this line is done.
    pub(super) last_line: u64,
}

pub(super) struct Report {
    format: Format,
    bar: ProgressBar,
    pub(super) summary: Summary,
}

impl Report {
    /// `size` is the input's, in bytes.
    pub(super) fn start(format: Format, dry_run: bool, size: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => "{wide_bar} {bytes} of {total_bytes}, {msg}, {eta} left",
            None => "{spinner} {bytes}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self { format, bar, summary: Summary { dry_run, ..Summary::default() } }
    }

    pub(super) fn bad(&mut self, bad: &BadLine) -> Result<()> {
        unless_closed(self.bar.suspend(|| writeln!(stderr(), "{bad}")))?;
        if self.format == Format::Json {
            let separator = if self.summary.bad_lines == 0 { "{\"bad_lines\":[" } else { "," };
            writeln!(output(), "{separator}{}", serde_json::to_string(bad)?)?;
        }
        self.summary.bad_lines += 1;
        Ok(())
    }

    /// Everything up to `line` is done.
    pub(super) fn done(&mut self, line: u64, bytes: u64) {
        self.summary.last_line = line;
        self.bar.set_position(bytes);
        self.bar.set_message(format!("{} payments", self.summary.new + self.summary.already_there));
    }

    pub(super) fn end(&self) -> Result<()> {
        self.bar.finish_and_clear();
        let (mut out, summary) = (output(), &self.summary);
        let Summary { complete, dry_run, new, already_there, conflicting, refused, bad_lines, last_line } = summary;
        if self.format == Format::Json {
            let start = if *bad_lines == 0 { "{\"bad_lines\":[" } else { "" };
            return writeln!(out, "{start}],\n\"summary\":{}}}", serde_json::to_string(summary)?);
        }
        let unchanged = if *dry_run { " (nothing was changed)" } else { "" };
        let text = format!(
            "Payments: {new} new, {already_there} already there, {conflicting} conflicting, {refused} refused{unchanged}."
        );
        wrap(&mut out, "", "", &text)?;
        if *bad_lines > 0 {
            writeln!(out, "Bad lines: {bad_lines}; correct them and import the file again.")?;
        }
        if !complete {
            let text = format!(
                "Incomplete: everything up to line {last_line} is done. Import the file again; registered payments are \
                 skipped."
            );
            wrap(&mut out, "", "", &text)?;
        }
        Ok(())
    }
}
