//! `clawback history`: who did what, when and why.

use std::io::{Result as IoResult, Write};

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::operator::{self, one_of, parse_since};
use super::output::{RowFormat, gather, json, more, print_lines, wrap};
use super::terminal::{plain, print, time};
use crate::config::Config;
use crate::ledger::{HistoryEntity, HistoryFilter, HistoryKind, HistoryRow, TIMES, parse_time};

#[derive(Debug, Args)]
#[command(
    after_help = "With csv or ndjson all rows that match are printed, one a line, unless --limit says how many.\n\n\
                        --format json prints {\"history\": […]}; each one is as GET /v1/history shows it.\n\n\
                        Examples:\n  \
                        clawback history --actor ada --since 7d\n  \
                        clawback history --id re_3Qx4\n  \
                        clawback history --entity reversal --since 2026-11-01 --until 2026-12-01 --format csv\n\n\
                        Exit codes: 0 done, 1 failed, 2 wrong usage."
)]
pub(super) struct History {
    /// Only rows about such things
    #[arg(long, value_parser = one_of::<HistoryEntity>())]
    entity: Option<HistoryEntity>,
    /// Only what this operator, or this part of Clawback, did
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only since then: 24h, 7d, 2026-11-01 or 2026-11-01T09:30:00Z
    #[arg(long, value_name = "WHEN", value_parser = parse_since)]
    since: Option<DateTime<Utc>>,
    /// Only before then
    #[arg(long, value_name = "WHEN", value_parser = parse_when)]
    until: Option<DateTime<Utc>>,
    /// Only changes of a status, or only remarks
    #[arg(long, value_parser = one_of::<HistoryKind>())]
    kind: Option<HistoryKind>,
    /// Only what hangs together with this: any id that `clawback trace` takes
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// At most so many, the newest first [default: 50; csv and ndjson: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// For people, for programs, or for spreadsheets
    #[arg(long, value_enum, default_value_t = RowFormat::Table)]
    format: RowFormat,
}

/// For the end of a period: like `--since`, and it may lie ahead.
pub(super) fn parse_when(text: &str) -> Result<DateTime<Utc>, String> {
    parse_time(text).ok_or_else(|| format!("allowed: {TIMES}"))
}

impl History {
    pub(super) async fn execute(self, config: &Config) -> Result<()> {
        let ledger = operator::ledger(config).await?;
        let Self { entity, actor, since, until, kind, id, limit, format } = self;
        let filter = HistoryFilter { entity, actor, since, until, kind, id };
        let next = |after, limit| ledger.history(&filter, after, limit);
        if let Some(lines) = format.lines() {
            return print_lines(lines, limit.unwrap_or(u64::MAX), |row: HistoryRow| [row], next).await;
        }
        let (mut out, limit) = (Vec::new(), limit.unwrap_or(50));
        let shown = gather(limit, next).await?;
        match format {
            RowFormat::Json => json(&mut out, &json!({"history": shown}))?,
            _ => table(&mut out, &shown, limit)?,
        }
        Ok(print(&out)?)
    }
}

fn table(out: &mut impl Write, rows: &[HistoryRow], limit: u64) -> IoResult<()> {
    if rows.is_empty() {
        return writeln!(out, "Nothing.");
    }
    for row in rows {
        let HistoryRow { entity, entity_id, from_status, to_status, actor, reason, .. } = row;
        let change = match from_status {
            Some(from) if from != to_status => format!("{from} → {to_status}"),
            Some(_) => format!("still {to_status}"),
            None => to_status.clone(),
        };
        writeln!(out, "{}  {entity} {entity_id}", time(row.at))?;
        let request = row.stripe_request_id.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
        wrap(out, "  ", "  ", &plain(&format!("{change}, {actor}: {reason}{request}")))?;
    }
    more(out, rows.len(), limit)
}
