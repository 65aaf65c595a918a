//! Transfers that Clawback creates at Stripe: what the worker reads of one, and reports of it while it is not created
//! yet. How creating one ends is in `created`.
//!
//! Every report is guarded by what the worker had read (status, retry count, epoch), as for reversals.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, SimpleExpr};
use sea_orm::{ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::entities::{payment, transfer};
use super::history::{self, Entity, Note};
use super::settling::{lock_transfer, none_time};
use super::state::{TransferEvent, TransferStatus};
use super::time::now;
use super::{Aftermath, Ledger, LedgerError, Postponement, transition};

/// A transfer that Clawback creates, as the worker needs it.
#[derive(Clone, Debug)]
pub struct CreationTask {
    /// Clawback's id of the transfer.
    pub id: Uuid,
    /// The provider's id of the payment.
    pub payment_ref: String,
    /// What the buyer paid in: ISO 4217, lower case.
    pub payment_currency: String,
    /// The seller's connected account.
    pub destination: String,
    /// Minor units to transfer.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Where it stands.
    pub status: TransferStatus,
    /// Stripe's id, once it is created.
    pub stripe_transfer_id: Option<String>,
    /// Retries used up.
    pub retry_count: i32,
    /// Stripe is not to be asked before.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Part of the idempotency key.
    pub epoch: i32,
    /// Not later than the epoch's first call.
    pub epoch_started_at: DateTime<Utc>,
    /// Since when Stripe may have created it without saying so.
    pub doubtful_since: Option<DateTime<Utc>>,
    /// Since when Stripe's list has been seen without it.
    pub absent_since: Option<DateTime<Utc>>,
    /// The last failure: Stripe's code, or ours.
    pub failure_code: Option<String>,
    /// The last failure in words.
    pub failure_message: Option<String>,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// When the row last changed: for one that is given up, when that was.
    pub updated_at: DateTime<Utc>,
}

impl Ledger {
    /// The transfer to create, as it stands now; none when there is no such transfer, or when it was registered with its
    /// Stripe id.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn creation_task(&self, id: Uuid) -> Result<Option<CreationTask>, LedgerError> {
        let Some(row) = transfer::Entity::find_by_id(id).one(&self.db).await? else { return Ok(None) };
        let Some(epoch_started_at) = row.epoch_started_at else { return Ok(None) };
        let payment = payment::Entity::find_by_id(row.payment_id).one(&self.db).await?;
        let payment = payment.ok_or_else(|| DbErr::RecordNotFound(format!("payment {}", row.payment_id)))?;
        Ok(Some(CreationTask {
            id: row.id,
            payment_ref: payment.payment_ref,
            payment_currency: payment.currency,
            destination: row.destination,
            amount: row.amount,
            currency: row.currency,
            status: row.status,
            stripe_transfer_id: row.stripe_transfer_id,
            retry_count: row.retry_count,
            next_retry_at: row.next_retry_at,
            epoch: row.epoch,
            epoch_started_at,
            doubtful_since: row.doubtful_since,
            absent_since: row.absent_since,
            failure_code: row.failure_code,
            failure_message: row.failure_message,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }))
    }

    /// Records that the transfer is not created yet: `failed`, when Stripe has refused it or a retry is used up; otherwise
    /// its status stays.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says; [`LedgerError::Database`].
    pub async fn postpone_creation(
        &self,
        task: &CreationTask,
        how: &Postponement,
        note: &Note,
    ) -> Result<(), LedgerError> {
        use transfer::Column as C;
        let at = now();
        let mut also = vec![
            (C::NextRetryAt, Expr::value(Some(how.until))),
            (C::FailureCode, Expr::value(Some(how.failure.code.clone()))),
            (C::FailureMessage, Expr::value(Some(how.failure.message.clone()))),
            (C::SweepAfter, Expr::value(Some(how.until + self.creation_grace))),
            (C::SweepCount, Expr::value(0)),
            (C::RetryCount, Expr::value(how.retry_count(task.retry_count))),
        ];
        let doubtful = (C::DoubtfulSince, Expr::value(Some(task.doubtful_since.unwrap_or(at))));
        match &how.aftermath {
            Aftermath::SameEpoch => {}
            Aftermath::NewEpoch => also.extend(new_epoch(task, at)),
            // Stripe accepts no transfer without creating it; if it ever does, it is looked for.
            Aftermath::Doubtful | Aftermath::AcceptedByStripe { .. } => also.push(doubtful),
            Aftermath::Absent => {
                also.extend([doubtful, (C::AbsentSince, Expr::value(Some(task.absent_since.unwrap_or(at))))]);
            }
        }
        let has_failed = how.counted || how.aftermath == Aftermath::NewEpoch;
        let txn = self.begin().await?;
        let row = as_read(&txn, task).await?;
        if has_failed && row.status == TransferStatus::Pending {
            transition::transfer(&txn, row.id, row.status, TransferEvent::CreationFailed, also, note).await?;
        } else {
            update(&txn, &row, also, note).await?;
        }
        self.commit(txn, 0).await
    }

    /// Makes sure, directly before every call, that Stripe is still to be asked under the key of `task`'s epoch. The worker
    /// may have waited long since it read the row, and another one may have gone on with it: an old key that Stripe has
    /// never carried out, or has forgotten, would pay the seller a second time.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says, when what Stripe has of it is in doubt, or when
    /// its epoch began before `oldest_epoch`; [`LedgerError::Database`].
    pub async fn begin_creating(&self, task: &CreationTask, oldest_epoch: DateTime<Utc>) -> Result<(), LedgerError> {
        use transfer::Column as C;
        // The lock makes it wait for whoever is writing the row.
        let row = transfer::Entity::find_by_id(task.id)
            .filter(C::Status.eq(task.status))
            .filter(C::RetryCount.eq(task.retry_count))
            .filter(C::Epoch.eq(task.epoch))
            .filter(C::DoubtfulSince.is_null())
            .filter(C::EpochStartedAt.gte(oldest_epoch))
            .lock_shared()
            .one(&self.db)
            .await?;
        row.map(drop).ok_or_else(|| stale(task))
    }

    /// Starts a new epoch, committed before its key is first used: nobody found the transfer at Stripe, and the old key
    /// can't be trusted any more.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says; [`LedgerError::Database`].
    pub async fn begin_creation_epoch(&self, task: &CreationTask, note: &Note) -> Result<CreationTask, LedgerError> {
        let at = now();
        let txn = self.begin().await?;
        let row = as_read(&txn, task).await?;
        update(&txn, &row, new_epoch(task, at).into(), note).await?;
        self.commit(txn, 0).await?;
        let epoch = task.epoch + 1;
        Ok(CreationTask { epoch, epoch_started_at: at, doubtful_since: None, absent_since: None, ..task.clone() })
    }
}

/// The row, locked, if it is still as `task` was read.
pub(super) async fn as_read(txn: &DatabaseTransaction, task: &CreationTask) -> Result<transfer::Model, LedgerError> {
    let row = lock_transfer(txn, task.id).await?;
    if (row.status, row.retry_count, row.epoch) == (task.status, task.retry_count, task.epoch) {
        return Ok(row);
    }
    Err(stale(task))
}

fn stale(task: &CreationTask) -> LedgerError {
    let expected = format!("{} at retry {} and epoch {}", task.status, task.retry_count, task.epoch);
    LedgerError::Stale { entity: "transfer", id: task.id, expected }
}

fn new_epoch(task: &CreationTask, at: DateTime<Utc>) -> [(transfer::Column, SimpleExpr); 4] {
    use transfer::Column as C;
    [
        (C::Epoch, Expr::value(task.epoch + 1)),
        (C::EpochStartedAt, Expr::value(Some(at))),
        (C::DoubtfulSince, none_time()),
        (C::AbsentSince, none_time()),
    ]
}

/// Writes into a row that `txn` has locked, and whose status stays.
async fn update(
    txn: &DatabaseTransaction,
    row: &transfer::Model,
    columns: Vec<(transfer::Column, SimpleExpr)>,
    note: &Note,
) -> Result<(), LedgerError> {
    let mut update = transfer::Entity::update_many().col_expr(transfer::Column::UpdatedAt, Expr::value(now()));
    for (column, value) in columns {
        update = update.col_expr(column, value);
    }
    update.filter(transfer::Column::Id.eq(row.id)).exec(txn).await?;
    let status = row.status.to_string();
    history::append(txn, Entity::Transfer, row.id, Some(&status), &status, note).await
}
