//! What the worker reads of a reversal, and reports of it while it is still pending. How a reversal ends is in
//! `settling`.
//!
//! Directly before each call, however long a worker was held up since it read the row, `begin_calling` asks the row
//! whether that call is still the one to make, and marks it. A refund that fails calls off only reversals that are not
//! marked: both write the row only while it is pending, so that the database lets one of them win. A lost answer of that
//! commit leaves a reversal marked that was never asked for, which errs on the safe side.
//!
//! Every report is guarded by what the worker had read (status, retry count, epoch, what Stripe has accepted): of two
//! workers that hold the same job, one report counts and the other is [`LedgerError::Stale`].

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::entities::{reversal, transfer};
use super::history::{self, Entity, Note};
use super::state::ReversalStatus;
use super::time::now;
use super::{Ledger, LedgerError, created};

/// A reversal and its transfer, as the worker needs them.
#[derive(Clone, Debug)]
pub struct ReversalTask {
    /// Clawback's id of the reversal.
    pub id: Uuid,
    /// Clawback's id of the refund.
    pub refund_id: Uuid,
    /// Minor units to take back.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Where it stands.
    pub status: ReversalStatus,
    /// Retries used up.
    pub retry_count: i32,
    /// Stripe is not to be asked before.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Part of the idempotency key.
    pub epoch: i32,
    /// Not later than the epoch's first call.
    pub epoch_started_at: DateTime<Utc>,
    /// Since when Stripe may have done what its answer did not say.
    pub doubtful_since: Option<DateTime<Utc>>,
    /// Since when Stripe's list has been seen without our reversal.
    pub absent_since: Option<DateTime<Utc>>,
    /// A reversal that Stripe accepted and has not finished.
    pub pending_reversal_id: Option<String>,
    /// The last failure: code and words.
    pub failure_code: Option<String>,
    /// The last failure in words.
    pub failure_message: Option<String>,
    /// When the debt was recorded.
    pub created_at: DateTime<Utc>,
    /// When the row last changed: for one that is given up, when that was.
    pub updated_at: DateTime<Utc>,
    /// Since when Stripe may have been asked. `None`: it can't know of this reversal.
    pub called_at: Option<DateTime<Utc>>,
    /// Clawback's id of the transfer.
    pub transfer_id: Uuid,
    /// Stripe's id of the transfer; a legacy row has none.
    pub stripe_transfer_id: Option<String>,
    /// Clawback has yet to create the transfer, and then makes the reversal's job.
    pub waits_for_transfer: bool,
    /// Minor units of the transfer that the ledger knows to be back.
    pub transfer_amount_reversed: i64,
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stripe's code, or ours, for programs.
    pub code: String,
    /// For people; never a secret.
    pub message: String,
}

/// A reversal that is not done yet: when it is tried again, and under which key.
#[derive(Clone, Debug)]
pub struct Postponement {
    /// Stripe is not asked before.
    pub until: DateTime<Utc>,
    /// Whether this used up a retry, where Stripe has given no definite answer.
    pub counted: bool,
    /// What the next try has to know.
    pub aftermath: Aftermath,
    /// What happened.
    pub failure: Failure,
}

/// What a try that did not finish leaves behind for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// Nothing: the same call, under the same key.
    SameEpoch,
    /// Stripe refused, definitely, and may agree later: a new key, since the old one replays the refusal; and all retries,
    /// since what went wrong before is over.
    NewEpoch,
    /// Stripe may have done it: look before calling again.
    Doubtful,
    /// Looked, and it was not there: look once more after a settling time.
    Absent,
    /// Stripe has accepted it and is not done: look again, with all retries, and never call again.
    AcceptedByStripe {
        /// Stripe's id of the reversal.
        reversal_id: String,
    },
}

impl Postponement {
    /// The retries that are used up after it, when `before` were before it. Where they begin anew, the row differs in
    /// something else from all that it has been.
    pub(super) fn retry_count(&self, before: i32) -> i32 {
        match self.aftermath {
            Aftermath::NewEpoch | Aftermath::AcceptedByStripe { .. } => 0,
            Aftermath::SameEpoch | Aftermath::Doubtful | Aftermath::Absent if self.counted => before.saturating_add(1),
            Aftermath::SameEpoch | Aftermath::Doubtful | Aftermath::Absent => before,
        }
    }
}

impl Ledger {
    /// The reversal with this id, if there is one.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn reversal_task(&self, id: Uuid) -> Result<Option<ReversalTask>, LedgerError> {
        let Some(row) = reversal::Entity::find_by_id(id).one(&self.db).await? else { return Ok(None) };
        let parent = transfer::Entity::find_by_id(row.transfer_id).one(&self.db).await?;
        let parent = parent.ok_or_else(|| DbErr::RecordNotFound(format!("transfer {}", row.transfer_id)))?;
        Ok(Some(ReversalTask {
            id: row.id,
            refund_id: row.refund_id,
            amount: row.amount,
            currency: row.currency,
            status: row.status,
            retry_count: row.retry_count,
            next_retry_at: row.next_retry_at,
            epoch: row.epoch,
            epoch_started_at: row.epoch_started_at,
            doubtful_since: row.doubtful_since,
            absent_since: row.absent_since,
            pending_reversal_id: row.pending_reversal_id,
            failure_code: row.failure_code,
            failure_message: row.failure_message,
            created_at: row.created_at,
            updated_at: row.updated_at,
            called_at: row.called_at,
            transfer_id: row.transfer_id,
            waits_for_transfer: created::is_uncreated(&parent),
            stripe_transfer_id: parent.stripe_transfer_id,
            transfer_amount_reversed: parent.amount_reversed,
        }))
    }

    /// Records that `task` is not done yet.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says; [`LedgerError::Database`].
    pub async fn postpone(&self, task: &ReversalTask, how: &Postponement, note: &Note) -> Result<(), LedgerError> {
        use reversal::Column as C;
        let at = now();
        let mut update = reversal::Entity::update_many()
            .col_expr(C::NextRetryAt, Expr::value(Some(how.until)))
            .col_expr(C::FailureCode, Expr::value(Some(how.failure.code.clone())))
            .col_expr(C::FailureMessage, Expr::value(Some(how.failure.message.clone())))
            .col_expr(C::SweepAfter, Expr::value(Some(how.until + self.sweep_grace)))
            .col_expr(C::SweepCount, Expr::value(0))
            .col_expr(C::RetryCount, Expr::value(how.retry_count(task.retry_count)))
            .col_expr(C::UpdatedAt, Expr::value(at));
        update = match &how.aftermath {
            Aftermath::SameEpoch => update,
            Aftermath::NewEpoch => update
                .col_expr(C::Epoch, Expr::value(task.epoch + 1))
                .col_expr(C::EpochStartedAt, Expr::value(at))
                .col_expr(C::DoubtfulSince, Expr::value(None::<DateTime<Utc>>))
                .col_expr(C::AbsentSince, Expr::value(None::<DateTime<Utc>>)),
            Aftermath::Doubtful => {
                update.col_expr(C::DoubtfulSince, Expr::value(Some(task.doubtful_since.unwrap_or(at))))
            }
            Aftermath::Absent => update
                .col_expr(C::DoubtfulSince, Expr::value(Some(task.doubtful_since.unwrap_or(at))))
                .col_expr(C::AbsentSince, Expr::value(Some(task.absent_since.unwrap_or(at)))),
            Aftermath::AcceptedByStripe { reversal_id } => {
                update.col_expr(C::PendingReversalId, Expr::value(Some(reversal_id.clone())))
            }
        };
        let txn = self.begin().await?;
        if update.filter(as_read(task)).exec(&txn).await?.rows_affected != 1 {
            return Err(stale(task));
        }
        let pending = ReversalStatus::Pending.to_string();
        history::append(&txn, Entity::Reversal, task.id, Some(&pending), &pending, note).await?;
        self.commit(txn, 0).await
    }

    /// Makes sure, directly before every call, that Stripe is still to be asked under the key of `task`'s epoch; before the
    /// first call it commits that Stripe is asked. From then on a refund that fails does not call the reversal off any more;
    /// one that was called off by then is never asked for.
    ///
    /// The worker may have waited long since it read the row, and another one may have gone on with it: an old key that
    /// Stripe has never carried out, or has forgotten, would reverse a second time.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says, when what Stripe has of it is in doubt, or when
    /// its epoch began before `oldest_epoch`; [`LedgerError::Database`].
    pub async fn begin_calling(&self, task: &ReversalTask, oldest_epoch: DateTime<Utc>) -> Result<(), LedgerError> {
        use reversal::Column as C;
        let guard = as_read(task)
            .add(C::DoubtfulSince.is_null())
            .add(C::PendingReversalId.is_null())
            .add(C::EpochStartedAt.gte(oldest_epoch));
        let holds = match task.called_at {
            None => {
                let mark = reversal::Entity::update_many().col_expr(C::CalledAt, Expr::value(Some(now())));
                mark.filter(guard).exec(&self.db).await?.rows_affected == 1
            }
            // The lock makes it wait for whoever is writing the row.
            Some(_) => reversal::Entity::find().filter(guard).lock_shared().one(&self.db).await?.is_some(),
        };
        if holds { Ok(()) } else { Err(stale(task)) }
    }

    /// Starts a new epoch, committed before its key is first used: nobody found the reversal at Stripe, and the old key
    /// can't be trusted any more.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says; [`LedgerError::Database`].
    pub async fn begin_epoch(&self, task: &ReversalTask, note: &Note) -> Result<ReversalTask, LedgerError> {
        use reversal::Column as C;
        let at = now();
        let update = reversal::Entity::update_many()
            .col_expr(C::Epoch, Expr::value(task.epoch + 1))
            .col_expr(C::EpochStartedAt, Expr::value(at))
            .col_expr(C::DoubtfulSince, Expr::value(None::<DateTime<Utc>>))
            .col_expr(C::AbsentSince, Expr::value(None::<DateTime<Utc>>))
            .col_expr(C::UpdatedAt, Expr::value(at));
        let txn = self.begin().await?;
        if update.filter(as_read(task)).exec(&txn).await?.rows_affected != 1 {
            return Err(stale(task));
        }
        let pending = ReversalStatus::Pending.to_string();
        history::append(&txn, Entity::Reversal, task.id, Some(&pending), &pending, note).await?;
        self.commit(txn, 0).await?;
        Ok(ReversalTask {
            epoch: task.epoch + 1,
            epoch_started_at: at,
            doubtful_since: None,
            absent_since: None,
            ..task.clone()
        })
    }
}

/// The guard: only if the row is still pending and as `task` was read.
fn as_read(task: &ReversalTask) -> Condition {
    use reversal::Column as C;
    let accepted = match &task.pending_reversal_id {
        Some(id) => C::PendingReversalId.eq(id),
        None => C::PendingReversalId.is_null(),
    };
    Condition::all()
        .add(C::Id.eq(task.id))
        .add(C::Status.eq(ReversalStatus::Pending))
        .add(C::RetryCount.eq(task.retry_count))
        .add(C::Epoch.eq(task.epoch))
        .add(accepted)
}

/// Locks the row in `txn`, if it is still pending and as `task` was read.
pub(super) async fn lock_as_read(txn: &DatabaseTransaction, task: &ReversalTask) -> Result<(), LedgerError> {
    let row = reversal::Entity::find().filter(as_read(task)).lock_exclusive().one(txn).await?;
    row.map(drop).ok_or_else(|| stale(task))
}

fn stale(task: &ReversalTask) -> LedgerError {
    let expected = format!("pending at retry {} and epoch {}", task.retry_count, task.epoch);
    LedgerError::Stale { entity: "reversal", id: task.id, expected }
}
