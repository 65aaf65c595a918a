//! Works on started operations, one batch of rows at a time. Called again and again by every process; a lease keeps all but
//! one of them away from an operation, and the state of each row decides in the end.

use std::collections::HashMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Statement};
use uuid::Uuid;

use super::{ItemChange, ItemState, OperationAction, OperationState, is_refusal};
use crate::ledger::db::rowset::Writes;
use crate::ledger::history::Note;
use crate::ledger::schema::{operation, operation_item};
use crate::ledger::time::{after, now};
use crate::ledger::{Ledger, LedgerError};

/// Rows that are worked on at a time.
const BATCH: u64 = 50;
/// Longer than a batch takes. A process that dies leaves the operation to another one after this.
const LEASE: Duration = Duration::from_secs(30);

/// What is left to do in running operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// No operation is running.
    Nothing,
    /// Its rows are not due yet, or another process works on them.
    Later,
    /// Its next rows are due.
    More,
}

/// Throws away the parked messages about these reversals, as far as they were parked before the time beside each, for this reason.
/// The error is for people.
pub type Discarder = dyn Fn(HashMap<Uuid, DateTime<Utc>>, Note) -> BoxFuture<'static, Result<(), String>> + Send + Sync;

impl Ledger {
    /// Works on a batch of each running operation that no other process works on. `worker` names this process, `discard` throws away
    /// the parked messages about reversals; what it could not is tried again.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: what was done is recorded, and the same call goes on.
    pub async fn work_on_operations(&self, worker: Uuid, discard: &Discarder) -> Result<Left, LedgerError> {
        use operation::Column as C;
        // Aborted while somebody worked on it: its last messages are still there.
        let cut_off = Condition::all().add(C::State.eq(OperationState::Aborted)).add(C::LeaseOwner.is_not_null());
        let running = operation::Entity::find()
            .filter(Condition::any().add(C::State.eq(OperationState::Running)).add(cut_off))
            .order_by_asc(C::Id)
            .all(&self.store.writer)
            .await?;
        let mut left = Left::Nothing;
        for row in running {
            let is_mine = self.lease(row.id, worker).await?;
            let there_is_more = is_mine
                && match row.state {
                    OperationState::Running => self.work_on(row, discard).await?,
                    _ => self.end(row, discard).await?,
                };
            left = left.max(if there_is_more { Left::More } else { Left::Later });
        }
        Ok(left)
    }

    /// Waits until an operation was started here, or this process has heard that one is running.
    pub async fn operation_running(&self) {
        self.store.operation_running.notified().await;
    }

    /// Says that rows were replayed or closed by somebody who does not look for their parked messages.
    pub fn supersede_messages(&self) {
        self.store.messages_superseded.notify_one();
    }

    /// Waits until [`Self::supersede_messages`] was called, here in this process.
    pub async fn messages_superseded(&self) {
        self.store.messages_superseded.notified().await;
    }

    /// Takes the lease, or keeps it. False while another process has it, and once the operation has ended.
    async fn lease(&self, id: Uuid, worker: Uuid) -> Result<bool, LedgerError> {
        let db = &self.store.writer;
        let sql = "UPDATE operations SET lease_owner = $1, lease_until = $2 WHERE id = $3 AND state IN ('running', 'aborted') AND
            (lease_owner = $1 OR lease_until IS NULL OR lease_until < $4)";
        let values = [worker.into(), after(now(), LEASE).into(), id.into(), now().into()];
        let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
        Ok(db.execute_raw(statement).await?.rows_affected() == 1)
    }

    async fn work_on(&self, row: operation::Model, discard: &Discarder) -> Result<bool, LedgerError> {
        let last = row.cap.unwrap_or(i32::MAX).min(row.items);
        let due = due(&row, last, now());
        let items = operation_item::Entity::find()
            .filter(operation_item::Column::OperationId.eq(row.id))
            .filter(operation_item::Column::State.eq(ItemState::Pending))
            .filter(operation_item::Column::Position.lt(due))
            .order_by_asc(operation_item::Column::Position)
            .limit(BATCH)
            .all(&self.store.writer)
            .await?;
        if items.is_empty() {
            return if due >= last { self.end(row, discard).await } else { Ok(false) };
        }
        let is_full = items.len() as u64 == BATCH;
        self.work_off(&row, items).await?;
        Ok(is_full || due >= last)
    }

    async fn work_off(&self, row: &operation::Model, items: Vec<operation_item::Model>) -> Result<(), LedgerError> {
        let note = row.note("");
        let ids: Vec<Uuid> = items.iter().map(|item| item.target_id).collect();
        let acts = self.acts(row.action, &ids, &note).await?;
        let changes: Vec<ItemChange> =
            acts.into_iter().zip(items).map(|(act, item)| ItemChange { act, item: Some(item) }).collect();
        let answers = self.store.apply_all(&changes, true).await;
        let items = changes.into_iter().filter_map(|change| change.item);
        let (mut refused, mut failed) = (Vec::new(), None);
        for (item, answer) in items.zip(answers) {
            match answer {
                Ok(_) => {}
                Err(error) if is_refusal(&error) => {
                    let (state, done_at) = (ItemState::Refused, Some(now()));
                    let now =
                        operation_item::Model { state, done_at, problem: Some(error.to_string()), ..item.clone() };
                    refused.push((item, now));
                }
                Err(error) => failed = Some(error),
            }
        }
        for (before, now) in &refused {
            let txn = self.store.begin().await?;
            let mut writes = Writes::new(&txn);
            writes.update(&[operation_item::Column::State], &[(before, now)])?;
            // Another process may have done it: then it is not refused.
            if writes.run(&txn).await? { self.store.commit(txn, Vec::new()).await? } else { txn.rollback().await? }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Throws away the messages about the rows that are done, all at once: whoever dies before, or comes after an abort, finds
    /// none whose row does not say so. Then the operation has ended.
    async fn end(&self, row: operation::Model, discard: &Discarder) -> Result<bool, LedgerError> {
        if row.action == OperationAction::DiscardMessages {
            let done = operation_item::Entity::find()
                .filter(operation_item::Column::OperationId.eq(row.id))
                .filter(operation_item::Column::State.eq(ItemState::Done))
                .all(&self.store.writer)
                .await?;
            let done: HashMap<Uuid, DateTime<Utc>> =
                done.into_iter().filter_map(|item| Some((item.target_id, item.done_at?))).collect();
            let discarded = if done.is_empty() { Ok(()) } else { discard(done, row.note("")).await };
            if let Err(error) = discarded {
                tracing::warn!(operation = %row.id, %error, "parked messages can't be discarded; trying again");
                return Ok(false);
            }
        }
        let (ended, note) = match row.state {
            OperationState::Running => {
                let (state, finished_at) = (OperationState::Done, Some(now()));
                (operation::Model { state, finished_at, ..row.clone() }, row.note("all is done: "))
            }
            _ => (row.clone(), row.note("its messages are gone: ")),
        };
        let ended = operation::Model { lease_owner: None, lease_until: None, ..ended };
        self.supersede_messages();
        match self.move_operation(&row, &ended, &note).await {
            // It was aborted, or another process was faster.
            Ok(()) | Err(LedgerError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl operation::Model {
    /// What the history says of each row's change.
    fn note(&self, what: &str) -> Note {
        let actor = self.operator.as_deref().unwrap_or("operator");
        Note::new(actor, format!("{what}{} (operation {})", self.reason.as_deref().unwrap_or_default(), self.id))
    }
}

/// Rows before this position are due.
fn due(row: &operation::Model, last: i32, now: DateTime<Utc>) -> i32 {
    let (Some(started_at), spread @ 1..) = (row.started_at, i64::from(row.spread_seconds) * 1_000) else { return last };
    let elapsed = (now - started_at).max(TimeDelta::zero()).num_milliseconds();
    let due = elapsed.saturating_mul(i64::from(last)) / spread + 1;
    i32::try_from(due).unwrap_or(i32::MAX).min(last)
}
