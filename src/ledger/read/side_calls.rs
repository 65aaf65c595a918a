//! Look-ups, and events for another system, that failed permanently: calls that move no money, which no list of debts or
//! transfers has.

use chrono::{DateTime, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Page, Query, cut};
use crate::ledger::status::{CallKind, CallState};
use crate::ledger::{Ledger, LedgerError};

/// A look-up, or an event for another system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
pub struct SideCall {
    /// Clawback's id.
    pub id: Uuid,
    /// `look_up` or `notify`.
    pub kind: CallKind,
    /// How far it is.
    pub state: CallState,
    /// What is looked up (`payment`, `refund`, …), or which event it is (`reversal.reversed`, …).
    #[schema(examples("payment"))]
    pub subject: String,
    /// Stripe's id of what is looked up. Null for an event.
    #[schema(examples("pi_1"))]
    pub reference: Option<String>,
    /// Retries used.
    pub attempts: i32,
    /// The last failure: Stripe's code or ours.
    pub failure_code: Option<String>,
    /// The last failure in words.
    pub failure_message: Option<String>,
    /// When it was recorded.
    pub created_at: DateTime<Utc>,
    /// When its state changed last.
    pub changed_at: DateTime<Utc>,
}

const SELECT: &str =
    "SELECT c.id, c.kind, c.state, COALESCE(l.subject, n.topic, '') AS subject, l.reference, c.attempts,
    c.failure_code, c.failure_message, COALESCE(l.created_at, n.created_at) AS created_at, c.updated_at AS changed_at
    FROM calls c LEFT JOIN lookups l ON l.id = c.id LEFT JOIN notifications n ON n.id = c.id";

impl Ledger {
    /// At most `limit` look-ups and events that failed permanently, newest first, older than `after`; those of one kind, or of
    /// both.
    pub async fn failed_side_calls(
        &self,
        kind: Option<CallKind>,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<SideCall>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let kinds = kind.map_or_else(|| "'look_up', 'notify'".to_owned(), |kind| format!("'{kind}'"));
        let older = after.map(|after| format!(" AND c.id < {}", query.bind(after))).unwrap_or_default();
        let sql = format!(
            "{SELECT} WHERE c.kind IN ({kinds}) AND c.state = 'failed'{older} ORDER BY c.id DESC LIMIT {}",
            limit.saturating_add(1)
        );
        Ok(cut(query.all(db, sql).await?, limit, |row: &SideCall| row.id))
    }

    /// The look-up or event with this id of Clawback's.
    pub async fn side_call(&self, id: &str) -> Result<Option<SideCall>, LedgerError> {
        let Ok(id) = id.parse::<Uuid>() else { return Ok(None) };
        let mut query = Query::new(&self.store.db);
        let sql = format!("{SELECT} WHERE c.id = {} AND c.kind IN ('look_up', 'notify')", query.bind(id));
        Ok(query.all(&self.store.db, sql).await?.pop())
    }
}
