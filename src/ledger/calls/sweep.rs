//! Finds open calls that no job is coming for, and gives them a new one. The broker may lose everything; the rows decide.
//!
//! A call whose job merely waits in a long queue can't be told from one whose job is lost. A second job does no harm, but during a
//! backlog there would be many: so there are no more new jobs than calls for which none can be in the queue.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, LockBehavior, LockType, Query};
use sea_orm::{
    ColumnTrait, Condition, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};
use uuid::Uuid;

use super::Call;
use crate::ledger::db::rowset::{self, Writes};
use crate::ledger::history::{self, Note};
use crate::ledger::schema::{call, outbox as outbox_table, transfer};
use crate::ledger::status::{CallKind, CallState, ReversalStatus};
use crate::ledger::time::{after, now};
use crate::ledger::{Ledger, LedgerError, outbox, pauses};
use crate::reached::reached;

/// The grace doubles with every sweep of the same call, this many times at most.
const MAX_DOUBLINGS: u32 = 6;

/// What one sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Calls that no job was coming for.
    pub looked_at: usize,
    /// New jobs: one for each of them that is not paused.
    pub jobs: usize,
}

fn due(kind: CallKind, at: DateTime<Utc>) -> Select<call::Entity> {
    use call::Column as C;
    let is_due = Condition::any().add(C::NextAttemptAt.is_null()).add(C::NextAttemptAt.lte(at));
    call::Entity::find().filter(C::State.eq(CallState::Open)).filter(C::Kind.eq(kind)).filter(is_due)
}

impl Ledger {
    /// How many open calls of `kind` are due, and how many of them have had no news for longer than the grace.
    pub async fn due_calls(&self, kind: CallKind) -> Result<(u64, u64), LedgerError> {
        let at = now();
        let without_news = due(kind, at).filter(call::Column::SweepAfter.lte(at)).count(&self.store.writer).await?;
        // Most of the time there is none, and that is found in no time.
        let all = if without_news == 0 { 0 } else { due(kind, at).count(&self.store.writer).await? };
        Ok((all, without_news))
    }

    /// Puts a new job into the outbox for each of at most `limit` open calls of `kind` that are due, have had no news for
    /// longer than the grace, and have no job in the outbox. What is paused gets none, and is looked at again later.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; nothing was changed.
    pub async fn sweep(&self, kind: CallKind, limit: u64) -> Result<Swept, LedgerError> {
        use call::Column as C;
        let at = now();
        let txn = self.store.begin().await?;
        let has_a_job = Query::select()
            .expr(Expr::value(1))
            .from(outbox_table::Entity)
            .and_where(Expr::col((outbox_table::Entity, outbox_table::Column::EntityId)).equals((call::Entity, C::Id)))
            .and_where(outbox_table::Column::PublishedAt.is_null())
            .to_owned();
        let lost = due(kind, at)
            .filter(C::SweepAfter.lte(at))
            .filter(Condition::all().not().add(Expr::exists(has_a_job)))
            .order_by_asc(C::SweepAfter)
            .limit(limit)
            // Another process may be sweeping too; it takes other rows.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .all(&txn)
            .await?;
        if lost.is_empty() {
            txn.rollback().await?;
            return Ok(Swept::default());
        }
        reached!("the sweep found a call without a job");
        let grace = self.store.graces.of(kind);
        let swept: Vec<Call> = lost
            .iter()
            .map(|row| {
                let doublings = u32::try_from(row.sweep_count).map_or(0, |sweeps| Ord::min(sweeps, MAX_DOUBLINGS));
                let sweep_after = after(at, grace.saturating_mul(1_u32 << doublings));
                Call { sweep_after, sweep_count: i32::saturating_add(row.sweep_count, 1), ..row.clone() }
            })
            .collect();
        let mut ids: Vec<Uuid> = lost.iter().map(|row| row.id).collect();
        let paused = pauses::paused_among(&txn, &ids).await?;
        ids.retain(|id| !paused.contains(id));
        let mut statuses = HashMap::new();
        if kind == CallKind::Create {
            let rows = rowset::select::<_, transfer::Model>(&txn, "id IN {ids}", &ids, &[]).await?;
            statuses = rows.into_iter().map(|row| (row.id, row.status.to_string())).collect();
        }
        let note = Note::new("sweeper", "due, and no news of its job: a new job was made");
        let remark = |id: &Uuid| {
            let status = match kind {
                CallKind::Reverse => ReversalStatus::Pending.to_string(),
                CallKind::Create => statuses.get(id).cloned().unwrap_or_default(),
                CallKind::LookUp | CallKind::Notify => CallState::Open.to_string(),
            };
            history::row(kind.entity().to_owned(), *id, Some(status.clone()), status, &note, at)
        };
        let goes_on = |call: &&Call| !paused.contains(&call.id);
        let jobs: Vec<_> = swept.iter().filter(goes_on).map(|call| outbox::row(call, None, at)).collect();
        let mut writes = Writes::new(&txn);
        writes.update(&[C::Version], &lost.iter().zip(&swept).collect::<Vec<_>>())?;
        writes.insert(&ids.iter().map(remark).collect::<Vec<_>>())?;
        writes.insert(&jobs)?;
        writes.run(&txn).await?;
        if self.store.handoff.lease(0).is_none() {
            outbox::announce(&txn).await?;
        }
        let swept = Swept { looked_at: lost.len(), jobs: jobs.len() };
        self.store.commit(txn, jobs).await?;
        Ok(swept)
    }
}
