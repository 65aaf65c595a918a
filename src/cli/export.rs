//! `clawback export`: reversals for the books.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};

use super::history::parse_when;
use super::operator::{self, one_of};
use super::output::print_lines;
use crate::config::Config;
use crate::ledger::{ExportFilter, ExportRow, ReversalStatus, now};
use crate::lines::Lines;

#[derive(Debug, Args)]
#[command(
    after_help = "One row for each reversal whose status changed for the last time in the period, in that order: what \
                        was reversed in a month is in that month's export, and nowhere else.\n\n\
                        Columns: reversal_id, status, amount, currency, amount_closed, stripe_reversal_id, \
                        balance_transaction, externally_reversed, kind, source, refund_ref, refund_amount, \
                        refund_currency, payment_ref, seller_id, destination, transfer_id, stripe_transfer_id, \
                        reported_at, recorded_at, changed_at, reversed_at, actor, stripe_request_id. New ones are only \
                        added at the end; docs/http.md says what each is. A text that a spreadsheet would run as a \
                        formula begins with '.\n\n\
                        Examples:\n  \
                        clawback export --from 2026-11-01 --to 2026-12-01 --status reversed > november.csv\n  \
                        clawback export --from 24h --format ndjson | jq .stripe_reversal_id\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct Export {
    /// The begin of the period: 2026-11-01 (UTC), 2026-11-01T09:30:00Z, or 24h before now
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    from: DateTime<Utc>,
    /// Its end, which is not part of it [default: now]
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    to: Option<DateTime<Utc>>,
    /// Only those with this status
    #[arg(long, value_parser = one_of::<ReversalStatus>())]
    status: Option<ReversalStatus>,
    /// CSV, or one JSON object a line
    #[arg(long, value_enum, default_value_t = LineFormat::Csv)]
    format: LineFormat,
}

/// `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LineFormat {
    /// A header, and one row a line
    Csv,
    /// One JSON object a line
    Ndjson,
}

impl Export {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let lines = match self.format {
            LineFormat::Csv => Lines::Csv,
            LineFormat::Ndjson => Lines::Ndjson,
        };
        // What changes meanwhile belongs to the next period.
        let to = self.to.map_or_else(now, |to| to.min(now()));
        let filter = ExportFilter { from: self.from, to, status: self.status };
        let next = |after, limit| ledger.export(&filter, after, limit);
        print_lines(lines, u64::MAX, |row: ExportRow| [row], next).await
    }
}
