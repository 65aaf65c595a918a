//! The rows that a filter matches, oldest first. Every statement goes by an index.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{OperationAction, OperationFilter};
use crate::ledger::claims::UNMATCHED_TOO_LONG;
use crate::ledger::read::{OPEN, Query, group_key};
use crate::ledger::time::now;
use crate::ledger::{Ledger, LedgerError};

/// The most rows that are looked at.
const LOOKED_AT: usize = 100_000;

/// A row that matches.
#[derive(Debug, FromQueryResult)]
pub(super) struct Candidate {
    pub(super) id: Uuid,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) since: DateTime<Utc>,
    failure_code: Option<String>,
    failure_message: Option<String>,
}

impl Ledger {
    pub(super) async fn candidates(
        &self,
        action: OperationAction,
        filter: &OperationFilter,
    ) -> Result<Vec<Candidate>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let (columns, tables, mut conditions) = match action {
            OperationAction::ReplayReversals | OperationAction::CloseReversals | OperationAction::DiscardMessages => (
                "r.id, r.amount, r.currency, c.updated_at AS since, c.failure_code, c.failure_message",
                "calls c JOIN reversals r ON r.id = c.id JOIN claims cl ON cl.id = r.claim_id
                    JOIN seller_transfers t ON t.id = r.transfer_id",
                vec![
                    "c.kind = 'reverse' AND c.state = 'failed' AND r.status IN ('permanently_failed')".to_owned(),
                    OPEN.to_owned(),
                ],
            ),
            OperationAction::RetryTransfers => (
                "t.id, t.amount - t.withheld AS amount, t.currency, c.updated_at AS since, c.failure_code, c.failure_message",
                "calls c JOIN seller_transfers t ON t.id = c.id",
                vec!["c.kind = 'create' AND c.state = 'failed'".to_owned()],
            ),
            OperationAction::AcceptClaims => (
                CLAIM_COLUMNS,
                "claims cl",
                vec!["cl.status IN ('held', 'conflicting') AND cl.acknowledged_at IS NULL".to_owned()],
            ),
            OperationAction::AcknowledgeClaims => (
                CLAIM_COLUMNS,
                "claims cl",
                vec![
                    "(cl.status IN ('held', 'unmatched', 'conflicting') OR cl.attention IS NOT NULL) AND
                        cl.acknowledged_at IS NULL"
                        .to_owned(),
                ],
            ),
        };
        let is_claim = action.is_about_claims();
        let (id, time, currency) = match action {
            OperationAction::ReplayReversals | OperationAction::CloseReversals | OperationAction::DiscardMessages => {
                ("c.id", "c.updated_at", "r.currency")
            }
            OperationAction::RetryTransfers => ("c.id", "c.updated_at", "t.currency"),
            OperationAction::AcceptClaims | OperationAction::AcknowledgeClaims => {
                ("cl.id", "cl.created_at", "cl.currency")
            }
        };
        let mut equal = |column: &str, text: Option<&str>| text.map(|text| format!("{column} = {}", query.bind(text)));
        conditions.extend(equal("c.failure_code", filter.failure_code.as_deref()));
        conditions.extend(equal("t.seller_id", filter.seller.as_deref()));
        conditions.extend(equal(currency, filter.currency.as_deref().map(str::to_ascii_lowercase).as_deref()));
        conditions.extend(filter.since.map(|since| format!("{time} >= {}", query.bind(since))));
        conditions.extend(filter.until.map(|until| format!("{time} < {}", query.bind(until))));
        if let Some(ids) = &filter.ids {
            conditions.push(query.among_ids(id, ids));
        }
        if is_claim {
            conditions.extend(filter.kind.map(|kind| format!("cl.kind = '{kind}'")));
            conditions.extend(filter.status.map(|status| format!("cl.status IN ('{status}')")));
            conditions.extend(filter.attention.map(|_| {
                let too_long = query.bind(now() - UNMATCHED_TOO_LONG);
                format!(
                    "(cl.attention IS NOT NULL OR cl.status IN ('conflicting')
                        OR cl.status IN ('unmatched') AND cl.created_at <= {too_long})"
                )
            }));
        }
        // Closing what held others has them tried again: those are closed before it, where they are to be closed, too.
        let first = if action == OperationAction::CloseReversals { "(c.requested_at IS NOT NULL), " } else { "" };
        let sql = format!(
            "SELECT {columns} FROM {tables} WHERE {} ORDER BY {first}{id} LIMIT {LOOKED_AT}",
            conditions.join(" AND ")
        );
        let mut found: Vec<Candidate> = query.all(db, sql).await?;
        if let Some(group) = &filter.group {
            found.retain(|row| group_key(row.failure_code.as_deref(), row.failure_message.as_deref()) == *group);
        }
        Ok(found)
    }
}

const CLAIM_COLUMNS: &str = "cl.id, cl.amount, cl.currency, cl.created_at AS since, CAST(NULL AS text) AS failure_code,
    CAST(NULL AS text) AS failure_message";
