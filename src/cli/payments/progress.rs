//! How far an import is: a bar on stderr, and only on a terminal.

use std::io::{Result, Write, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The bar; where stderr is no terminal it draws nothing.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn start(size: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::stderr());
        let template = match size {
            Some(_) => "{wide_bar} {bytes} of {total_bytes}, {msg}, {eta} left",
            None => "{spinner} {bytes}, {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(super) fn show(&self, bytes: u64, payments: u64) {
        self.0.set_position(bytes);
        self.0.set_message(format!("{payments} payments"));
    }

    /// Writes a line to stderr, above the bar.
    pub(super) fn say(&self, line: &str) -> Result<()> {
        self.0.suspend(|| writeln!(stderr().lock(), "{line}"))
    }

    pub(super) fn end(&self) {
        self.0.finish_and_clear();
    }
}
