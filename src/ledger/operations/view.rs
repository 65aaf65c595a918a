//! Operations and their rows, as the API and the commands show them.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder, QuerySelect, QueryTrait};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ItemState, OperationAction, OperationFilter, OperationState, StripeSays, StripeSum};
use crate::ledger::read::{CurrencySum, Page, Query, Sum, cut};
use crate::ledger::schema::{operation, operation_item};
use crate::ledger::{Ledger, LedgerError};

/// An operation: what is to be done with which rows, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OperationView {
    /// Its id.
    pub id: Uuid,
    /// What is done with each row.
    pub action: OperationAction,
    /// Which rows.
    pub filter: OperationFilter,
    /// How far it is.
    pub state: OperationState,
    /// How many rows matched when it was previewed; up to 100,000 are counted.
    pub matching: i64,
    /// How many of them it is about, the oldest: at most 10,000.
    pub items: i32,
    /// How far its rows are.
    pub progress: OperationProgress,
    /// How much its rows are, in each currency.
    pub sums: Vec<CurrencySum>,
    /// Since when the oldest row has failed; of a claim, when it was reported.
    pub oldest: Option<DateTime<Utc>>,
    /// How many rows the preview tried: the first 1,000.
    pub checked: i32,
    /// What would have been refused of those.
    pub refusals: Vec<Refusal>,
    /// What Stripe said of the first 100 rows at the time of the preview. Empty when it was not asked: without STRIPE_API_KEY, or for
    /// an action by which no money moves.
    pub at_stripe: Vec<StripeSum>,
    /// What must be typed to start it, since much is moved: `1200000 eur`. Null: nothing.
    pub confirm: Option<String>,
    /// Who started it.
    pub operator: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Its rows are worked on evenly over so many seconds; 0: as fast as it goes.
    pub spread_seconds: i32,
    /// No more rows than this are worked on.
    pub cap: Option<i32>,
    /// When it was previewed.
    pub created_at: DateTime<Utc>,
    /// When it was started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it was done, or aborted.
    pub finished_at: Option<DateTime<Utc>>,
}

/// How many rows of an operation are how far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct OperationProgress {
    /// Not worked on.
    pub pending: i64,
    /// Done.
    pub done: i64,
    /// Nothing was changed.
    pub refused: i64,
}

/// Rows that would be refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// Why, with `…` for each id, amount and number.
    pub reason: String,
    /// How many.
    pub count: i64,
    /// One of them.
    pub example: Uuid,
}

/// A row of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
pub struct ItemView {
    /// Its place: rows are worked on in this order, from 0.
    pub position: i32,
    /// Clawback's id of the reversal, transfer, refund or dispute.
    pub target_id: Uuid,
    /// Minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// What became of it.
    pub state: ItemState,
    /// Why nothing was changed.
    pub problem: Option<String>,
    /// When it was worked on.
    pub done_at: Option<DateTime<Utc>>,
    /// What Stripe said of it at the time of the preview; null when it was not asked.
    pub at_stripe: Option<StripeSays>,
    /// The same in more words.
    pub stripe_detail: Option<String>,
}

#[derive(FromQueryResult)]
struct Count {
    operation_id: Uuid,
    state: ItemState,
    at_stripe: Option<StripeSays>,
    currency: String,
    count: i64,
    amount: i64,
}

impl Ledger {
    /// The operation with this id.
    pub async fn operation(&self, id: Uuid) -> Result<Option<OperationView>, LedgerError> {
        let found = operation::Entity::find_by_id(id).all(&self.store.reader).await?;
        Ok(self.operation_views(found).await?.pop())
    }

    /// At most `limit` operations, newest first, older than `after`.
    pub async fn list_operations(&self, after: Option<Uuid>, limit: u64) -> Result<Page<OperationView>, LedgerError> {
        let older = |query: sea_orm::Select<_>, after: Uuid| query.filter(operation::Column::Id.lt(after));
        let found = operation::Entity::find().apply_if(after, older).order_by_desc(operation::Column::Id);
        let found = found.limit(limit.saturating_add(1)).all(&self.store.reader).await?;
        let (found, next) = cut(found, limit, |row| row.id);
        Ok((self.operation_views(found).await?, next))
    }

    /// At most `limit` rows of an operation in their order, after the position `after`; only those with `state`, if one is
    /// given.
    pub async fn operation_items(
        &self,
        id: Uuid,
        state: Option<ItemState>,
        after: Option<i32>,
        limit: u64,
    ) -> Result<Page<ItemView, i32>, LedgerError> {
        use operation_item::Column as C;
        let found = operation_item::Entity::find()
            .filter(C::OperationId.eq(id))
            .apply_if(state, |query, state| query.filter(C::State.eq(state)))
            .apply_if(after, |query, after| query.filter(C::Position.gt(after)))
            .order_by_asc(C::Position)
            .limit(limit.saturating_add(1));
        Ok(cut(found.into_model().all(&self.store.reader).await?, limit, |row: &ItemView| row.position))
    }

    /// In their order.
    async fn operation_views(&self, rows: Vec<operation::Model>) -> Result<Vec<OperationView>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let of = query.among_ids("operation_id", &rows.iter().map(|row| row.id).collect::<Vec<_>>());
        let amount = query.sum("amount");
        let sql = format!(
            "SELECT operation_id, state, at_stripe, currency, COUNT(*) AS count, {amount} AS amount FROM operation_items
            WHERE {of} GROUP BY operation_id, state, at_stripe, currency"
        );
        let mut counts: HashMap<Uuid, Vec<Count>> = HashMap::new();
        for count in query.all::<Count>(db, sql).await? {
            counts.entry(count.operation_id).or_default().push(count);
        }
        Ok(rows
            .into_iter()
            .map(|row| {
                let of = counts.remove(&row.id).unwrap_or_default();
                self.shown(row, of)
            })
            .collect())
    }
}

impl Ledger {
    fn shown(&self, row: operation::Model, counts: Vec<Count>) -> OperationView {
        let moves = row.action.moves_money() && row.state == OperationState::Previewed;
        let shown = view(row, counts);
        let sums = shown.sums.iter().map(|of| (of.currency.as_str(), of.sum.amount));
        let confirm = if moves { self.to_confirm(sums) } else { None };
        OperationView { confirm, ..shown }
    }
}

fn view(row: operation::Model, counts: Vec<Count>) -> OperationView {
    let mut progress = OperationProgress::default();
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    let mut at_stripe: BTreeMap<StripeSays, BTreeMap<String, Sum>> = BTreeMap::new();
    for Count { state, at_stripe: says, currency, count, amount, .. } in counts {
        *match state {
            ItemState::Pending => &mut progress.pending,
            ItemState::Done => &mut progress.done,
            ItemState::Refused => &mut progress.refused,
        } += count;
        let sum = Sum { count, amount };
        if let Some(says) = says {
            at_stripe.entry(says).or_default().entry(currency.clone()).or_default().add(sum);
        }
        sums.entry(currency).or_default().add(sum);
    }
    let at_stripe = at_stripe.into_iter().map(|(says, of)| StripeSum { says, sums: in_currencies(of) }).collect();
    OperationView {
        id: row.id,
        action: row.action,
        filter: serde_json::from_str(&row.filter).unwrap_or_default(),
        state: row.state,
        matching: row.matching,
        items: row.items,
        progress,
        sums: in_currencies(sums),
        oldest: row.oldest,
        checked: row.checked,
        refusals: serde_json::from_str(&row.refusals).unwrap_or_default(),
        at_stripe,
        confirm: None,
        operator: row.operator,
        reason: row.reason,
        spread_seconds: row.spread_seconds,
        cap: row.cap,
        created_at: row.created_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
    }
}

fn in_currencies(sums: BTreeMap<String, Sum>) -> Vec<CurrencySum> {
    sums.into_iter().map(|(currency, sum)| CurrencySum { currency, sum }).collect()
}
