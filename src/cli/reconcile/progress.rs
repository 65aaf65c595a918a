//! How far a long reconciliation is: one line on stderr, and only on a terminal.

use std::io::{IsTerminal, Result, Stderr, Write, stderr};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use crate::ledger::{Counts, Ledger, LedgerError};

/// Goes to the line's beginning and empties it.
const CLEAR: &str = "\r\x1b[2K";

/// The line; none where nobody would see it.
#[derive(Debug)]
pub(super) struct Progress(Option<Line>);

#[derive(Debug)]
struct Line {
    stderr: Stderr,
    total: u64,
    started: Instant,
}

impl Progress {
    /// Counts what there is to do, if stderr is a terminal.
    pub(super) async fn start(ledger: &Ledger, since: Option<DateTime<Utc>>) -> std::result::Result<Self, LedgerError> {
        let stderr = stderr();
        if !stderr.is_terminal() {
            return Ok(Self(None));
        }
        let total = ledger.count_transfers_to_reconcile(since).await?;
        Ok(Self(Some(Line { stderr, total, started: Instant::now() })))
    }

    /// Shows how far it is.
    pub(super) fn show(&mut self, counts: &Counts) -> Result<()> {
        let Some(line) = &mut self.0 else { return Ok(()) };
        let text = text(counts.transfers + counts.transfers_without_stripe_id, line.total, line.started.elapsed());
        write!(line.stderr, "{CLEAR}{text}")?;
        line.stderr.flush()
    }

    /// Takes the line away, before something else is written.
    pub(super) fn clear(&mut self) -> Result<()> {
        let Some(line) = &mut self.0 else { return Ok(()) };
        write!(line.stderr, "{CLEAR}")?;
        line.stderr.flush()
    }
}

fn text(done: u64, total: u64, elapsed: Duration) -> String {
    // More may have been registered since it was counted.
    let left = total.saturating_sub(done);
    let seconds = elapsed.as_secs().saturating_mul(left) / done.max(1);
    let time_left = humantime::format_duration(Duration::from_secs(seconds));
    format!("{done} of {total} transfers compared, about {time_left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_time_taken() {
        let line = text(50, 200, Duration::from_secs(30));
        assert_eq!(line, "50 of 200 transfers compared, about 1m 30s left");
        assert_eq!(text(60, 50, Duration::from_secs(9)), "60 of 50 transfers compared, about 0s left");
        assert_eq!(text(0, 50, Duration::ZERO), "0 of 50 transfers compared, about 0s left");
    }
}
