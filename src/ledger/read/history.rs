//! The history a page at a time, newest first: who did what, when and why.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use strum::Display;
use utoipa::ToSchema;
use uuid::Uuid;

use super::lists::{Page, cut};
use super::query::Query;
use crate::ledger::{Ledger, LedgerError};
use crate::lines::line;

/// The most rows that one page looks at, so that a filter that few rows match costs no more than any other.
const LOOKED_AT: u64 = 10_000;
/// Who acts without anybody asking for it; in the words of the index of what people did.
pub const PROGRAMS: [&str; 7] = ["api", "import", "ingress", "reconcile", "stripe", "sweeper", "worker"];
/// A row's id is made when it is recorded, its time is that of its transaction: never further apart than this.
const APART: TimeDelta = TimeDelta::hours(1);

/// Which rows: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    /// Rows about such things.
    pub entity: Option<HistoryEntity>,
    /// What this program or operator did.
    pub actor: Option<String>,
    /// At this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// Changes of a status, or remarks.
    pub kind: Option<HistoryKind>,
    /// What hangs together with this: any id that [`Ledger::trace`] understands.
    pub id: Option<String>,
}

/// What a row is about.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, sea_orm::EnumIter, ToSchema)]
#[strum(serialize_all = "snake_case")]
#[schema(rename_all = "snake_case")]
pub enum HistoryEntity {
    /// A payment.
    Payment,
    /// A seller's transfer.
    Transfer,
    /// A refund.
    Refund,
    /// A dispute.
    Dispute,
    /// A reversal.
    Reversal,
    /// A look-up.
    Lookup,
    /// An outgoing event.
    Event,
    /// An operator's action on many rows.
    Operation,
    /// A pause of calls to Stripe.
    Pause,
    /// A running process, which an operator asked for a probe.
    Process,
}

/// What a row says.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, sea_orm::EnumIter, ToSchema)]
#[strum(serialize_all = "snake_case")]
#[schema(rename_all = "snake_case")]
pub enum HistoryKind {
    /// A status has changed, or a row was made.
    Change,
    /// Something else is worth knowing; the status stayed.
    Remark,
}

line! {
    /// A row of the history.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
    pub struct HistoryRow {
        /// Its own id.
        pub id: Uuid,
        /// When it happened.
        pub at: DateTime<Utc>,
        /// `payment`, `transfer`, `refund`, `dispute`, `reversal`, `lookup`, `event`, `operation`, `pause` or `process`.
        #[schema(examples("reversal"))]
        pub entity: String,
        /// Clawback's id of that.
        pub entity_id: Uuid,
        /// The status before; null for a new row.
        #[schema(examples("pending"))]
        pub from_status: Option<String>,
        /// The status after. The same in a remark.
        #[schema(examples("reversed"))]
        pub to_status: String,
        /// `ingress`, `worker`, `sweeper`, `api`, `import`, `stripe`, `reconcile`, or an operator's name.
        #[schema(examples("worker"))]
        pub actor: String,
        /// Why.
        pub reason: String,
        /// Stripe's `Request-Id`, where Stripe was asked.
        #[schema(examples("req_1"))]
        pub stripe_request_id: Option<String>,
    }
}

impl Ledger {
    /// At most `limit` rows, newest first, older than `after`, and the last row looked at if there may be more. Where few rows
    /// match, a page may be short, or even empty, and yet not be the last one.
    pub async fn history(
        &self,
        filter: &HistoryFilter,
        after: Option<Uuid>,
        limit: u64,
    ) -> Result<Page<HistoryRow>, LedgerError> {
        let related = match &filter.id {
            Some(id) => Some(self.related_ids(id).await?),
            None => None,
        };
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let found = candidates(&mut query, filter, related.as_deref(), after);
        let mut conditions = vec!["1 = 1".to_owned()];
        if let Some(entity) = filter.entity {
            conditions.push(format!("entity = '{entity}'"));
        }
        conditions.extend(filter.since.map(|since| format!("at >= {}", query.bind(since))));
        conditions.extend(filter.until.map(|until| format!("at < {}", query.bind(until))));
        if let Some(actor) = filter.actor.as_deref() {
            conditions.push(format!("actor = {}", query.bind(actor)));
        }
        conditions.extend(filter.kind.map(|kind| match kind {
            HistoryKind::Change => "(from_status IS NULL OR from_status <> to_status)".to_owned(),
            HistoryKind::Remark => "from_status = to_status".to_owned(),
        }));
        let sql = format!(
            "SELECT * FROM (SELECT * FROM history WHERE {found} ORDER BY id DESC LIMIT {LOOKED_AT}) h
            WHERE {} ORDER BY id DESC LIMIT {}",
            conditions.join(" AND "),
            limit.saturating_add(1),
        );
        let (rows, next) = cut(query.all(db, sql).await?, limit, |row: &HistoryRow| row.id);
        if next.is_some() {
            return Ok((rows, next));
        }
        // The last that match: were all looked at?
        let mut query = Query::new(db);
        let found = candidates(&mut query, filter, related.as_deref(), after);
        let last = LOOKED_AT - 1;
        let sql = format!("SELECT id FROM history WHERE {found} ORDER BY id DESC LIMIT 1 OFFSET {last}");
        let last = query.rows(db, sql).await?;
        let next = last.first().map(|row| row.try_get("", "id")).transpose()?;
        Ok((rows, next))
    }
}

/// What an index finds; the other conditions are asked of these rows alone.
fn candidates(query: &mut Query, filter: &HistoryFilter, related: Option<&[Uuid]>, after: Option<Uuid>) -> String {
    let mut conditions = vec!["1 = 1".to_owned()];
    conditions.extend(after.map(|after| format!("id < {}", query.bind(after))));
    conditions.extend(filter.since.map(|since| format!("id >= {}", query.bind(first_id(since - APART)))));
    conditions.extend(filter.until.map(|until| format!("id < {}", query.bind(first_id(until + APART)))));
    if let Some(ids) = related {
        conditions.push(query.among_ids("entity_id", ids));
    }
    if let Some(actor) = filter.actor.as_deref().filter(|actor| !PROGRAMS.contains(actor)) {
        let programs = PROGRAMS.map(|program| format!("'{program}'")).join(", ");
        conditions.push(format!("actor = {} AND actor NOT IN ({programs})", query.bind(actor)));
    }
    conditions.join(" AND ")
}

/// The smallest UUIDv7 of a time.
pub(super) fn first_id(time: DateTime<Utc>) -> Uuid {
    let milliseconds = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    Uuid::from_u128(u128::from(milliseconds.min((1 << 48) - 1)) << 80)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_not_smaller_than_the_first_of_its_time() {
        let before = Utc::now();
        let id = Uuid::now_v7();
        assert!(first_id(before) <= id);
        assert!(id < first_id(Utc::now() + TimeDelta::milliseconds(2)));
        assert_eq!(first_id(DateTime::<Utc>::MIN_UTC), Uuid::nil());
    }

    #[test]
    fn the_index_of_what_people_did_leaves_out_the_same_programs() {
        let schema = include_str!("../../../migrations/src/m20261101_000001_ledger.rs");
        let programs = PROGRAMS.map(|program| format!("'{program}'")).join(", ");
        assert!(schema.contains(&format!("WHERE actor NOT IN ({programs})")), "{programs}");
    }
}
