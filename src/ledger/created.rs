//! How creating a transfer at Stripe ends, and begins anew; and what follows for refunds that did not wait for it.
//!
//! A refund may come at any moment. Every order of events is decided here, or by `owe` in `matching`:
//!
//! | a refund comes … | what is written, in one transaction |
//! |---|---|
//! | before the payment is registered | nothing; the registration then does what the next line says |
//! | while the transfer is `pending` or `failed` | a `pending` reversal without a job. The call may be on its way, so the transfer goes on being created |
//! | … and then Stripe creates it | the transfer goes through `completed` to `reversal_pending`, and the reversals get their jobs |
//! | … and then creating it is given up | nothing was paid, so nothing is owed: the reversals are `permanently_failed` as [`TRANSFER_NOT_CREATED`] |
//! | after it was given up | a reversal that begins like that; no job parks it |
//! | … and then it is created after all, by an operator's retry or a late answer | exactly those reversals are pending again, and get their jobs |
//! | after it was created | what a refund of any transfer does |
//!
//! The worker reports through this; the transfer's row is locked first, as when a reversal ends.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, Condition, DatabaseTransaction, EntityTrait, QueryFilter, QueryOrder};
use uuid::Uuid;

use super::creation::{self, CreationTask};
use super::entities::{reversal, transfer};
use super::history::{self, Entity, Note};
use super::jobs::{self, Job};
use super::settling::{lock_transfer, none_time};
use super::state::{ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use super::time::{in_future, now};
use super::{Failure, Ledger, LedgerError, transition};

/// The failure code of a reversal whose transfer was never created: nothing is owed.
pub(super) const TRANSFER_NOT_CREATED: &str = "transfer_not_created";

impl Ledger {
    /// Records that Stripe has created the transfer, and puts what refunds have asked of it on its way.
    ///
    /// It counts, too, when creating it was given up meanwhile. When another transfer is recorded already, the seller has
    /// been paid twice: that goes into the history and the log, and changes nothing else.
    ///
    /// # Errors
    /// [`LedgerError::Conflict`] when another payment was registered with that id; [`LedgerError::Database`].
    pub async fn created(&self, id: Uuid, stripe_transfer_id: &str, note: &Note) -> Result<(), LedgerError> {
        use transfer::Column as C;
        let txn = self.begin().await?;
        let row = lock_transfer(&txn, id).await?;
        if let Some(known) = row.stripe_transfer_id.as_deref() {
            if known != stripe_transfer_id {
                tracing::error!(transfer_id = %id, known, stripe_transfer_id, "paid twice: Stripe has two transfers");
                let reason = format!("paid twice: Stripe has created {stripe_transfer_id} beside {known}");
                let status = row.status.to_string();
                let note = Note { reason, ..note.clone() };
                history::append(&txn, Entity::Transfer, id, Some(&status), &status, &note).await?;
            }
            return self.commit(txn, 0).await;
        }
        if transfer::Entity::find().filter(C::StripeTransferId.eq(stripe_transfer_id)).one(&txn).await?.is_some() {
            return Err(LedgerError::Conflict(format!("{stripe_transfer_id} is registered with another payment")));
        }
        let mut from = row.status;
        if from == TransferStatus::PermanentlyFailed {
            let late = Note { reason: "Stripe had created it when it was given up".to_owned(), ..note.clone() };
            from = transition::transfer(&txn, id, from, TransferEvent::CreationReplayed, vec![], &late).await?;
        }
        let also = vec![
            (C::StripeTransferId, Expr::value(Some(stripe_transfer_id.to_owned()))),
            (C::NextRetryAt, none_time()),
            (C::FailureCode, Expr::value(None::<String>)),
            (C::FailureMessage, Expr::value(None::<String>)),
        ];
        let completed = transition::transfer(&txn, id, from, TransferEvent::Created, also, note).await?;
        let owed = self.put_on_their_way(&txn, id, note).await?;
        if owed > 0 {
            let note = Note { reason: "a refund had arrived before it was created".to_owned(), ..note.clone() };
            transition::transfer(&txn, id, completed, TransferEvent::RefundArrived, vec![], &note).await?;
        }
        self.commit(txn, owed).await
    }

    /// The reversals that were waiting for their transfer, and those that were given up with it, get their jobs.
    async fn put_on_their_way(&self, txn: &DatabaseTransaction, id: Uuid, note: &Note) -> Result<usize, LedgerError> {
        use reversal::Column as C;
        let given_up = Condition::all()
            .add(C::Status.eq(ReversalStatus::PermanentlyFailed))
            .add(C::FailureCode.eq(TRANSFER_NOT_CREATED));
        let owed = reversal::Entity::find()
            .filter(C::TransferId.eq(id))
            .filter(Condition::any().add(C::Status.eq(ReversalStatus::Pending)).add(given_up))
            .order_by_asc(C::Id)
            .all(txn)
            .await?;
        for row in &owed {
            // Nothing was called for it so far, so that its key is as young as this.
            let also = vec![
                (C::EpochStartedAt, Expr::value(now())),
                (C::SweepAfter, Expr::value(Some(in_future(self.sweep_grace)))),
                (C::FailureCode, Expr::value(None::<String>)),
                (C::FailureMessage, Expr::value(None::<String>)),
            ];
            let note = Note { reason: "its transfer is created".to_owned(), ..note.clone() };
            if row.status == ReversalStatus::PermanentlyFailed {
                transition::reversal(txn, row.id, row.status, ReversalEvent::Replayed, also, &note).await?;
            } else {
                transition::keep_reversal(txn, row, also, &note).await?;
            }
        }
        jobs::append(txn, owed.iter().map(|row| Job::reverse(row.id))).await?;
        Ok(owed.len())
    }

    /// Records that creating the transfer is given up, and with it what refunds have asked of it.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when the row is no longer what `task` says; [`LedgerError::Database`].
    pub async fn fail_creation(&self, task: &CreationTask, failure: &Failure, note: &Note) -> Result<(), LedgerError> {
        use transfer::Column as C;
        let txn = self.begin().await?;
        let row = creation::as_read(&txn, task).await?;
        let also = vec![
            (C::NextRetryAt, none_time()),
            (C::FailureCode, Expr::value(Some(failure.code.clone()))),
            (C::FailureMessage, Expr::value(Some(failure.message.clone()))),
        ];
        let mut from = row.status;
        if from == TransferStatus::Pending {
            from = transition::transfer(&txn, row.id, from, TransferEvent::CreationFailed, vec![], note).await?;
        }
        transition::transfer(&txn, row.id, from, TransferEvent::CreationFailedForGood, also, note).await?;
        give_up_reversals(&txn, row.id, note).await?;
        self.commit(txn, 0).await
    }

    /// Makes a transfer whose creation was given up pending again, with fresh retries and in an epoch of its own. Stripe's
    /// list is read before the first call, since an earlier try may have had an effect after all.
    ///
    /// The caller holds the job; none is put into the outbox.
    ///
    /// # Errors
    /// [`LedgerError::Stale`] when its creation is not given up any more; [`LedgerError::Database`].
    pub async fn replay_creation(&self, task: &CreationTask, note: &Note) -> Result<CreationTask, LedgerError> {
        let txn = self.begin().await?;
        let row = creation::as_read(&txn, task).await?;
        let at = replay(&txn, &row, in_future(self.creation_grace), note).await?;
        self.commit(txn, 0).await?;
        Ok(CreationTask {
            status: TransferStatus::Pending,
            retry_count: 0,
            epoch: row.epoch + 1,
            epoch_started_at: at,
            doubtful_since: Some(at),
            absent_since: None,
            ..task.clone()
        })
    }
}

/// Makes a transfer whose creation was given up pending again inside `txn`, which holds its lock, in the next epoch, and
/// returns since when that is, and it is in doubt. The doubt keeps the new key from being used before Stripe's list was read.
pub(super) async fn replay(
    txn: &DatabaseTransaction,
    row: &transfer::Model,
    sweep_after: DateTime<Utc>,
    note: &Note,
) -> Result<DateTime<Utc>, LedgerError> {
    use transfer::Column as C;
    let at = now();
    let also = vec![
        (C::RetryCount, Expr::value(0)),
        (C::Epoch, Expr::value(row.epoch + 1)),
        (C::EpochStartedAt, Expr::value(Some(at))),
        (C::DoubtfulSince, Expr::value(Some(at))),
        (C::AbsentSince, none_time()),
        (C::SweepAfter, Expr::value(Some(sweep_after))),
        (C::SweepCount, Expr::value(0)),
    ];
    transition::transfer(txn, row.id, row.status, TransferEvent::CreationReplayed, also, note).await?;
    Ok(at)
}

/// Whether Clawback has yet to create it, or has given that up. False for a transfer that was registered with its Stripe
/// id, even if the row has lost it.
pub(super) fn is_uncreated(row: &transfer::Model) -> bool {
    row.stripe_transfer_id.is_none() && row.epoch_started_at.is_some()
}

/// Why nothing is owed on a transfer that was never created, for people.
pub(super) fn not_created(transfer_id: Uuid) -> String {
    format!(
        "creating transfer {transfer_id} was given up, so that nothing was paid and nothing is owed; if it is retried and \
         created after all, this follows by itself"
    )
}

async fn give_up_reversals(txn: &DatabaseTransaction, transfer_id: Uuid, note: &Note) -> Result<(), LedgerError> {
    use reversal::Column as C;
    let waiting = reversal::Entity::find()
        .filter(C::TransferId.eq(transfer_id))
        .filter(C::Status.eq(ReversalStatus::Pending))
        .order_by_asc(C::Id)
        .all(txn)
        .await?;
    let reason = not_created(transfer_id);
    let note = Note { reason: reason.clone(), ..note.clone() };
    for row in waiting {
        let also = vec![
            (C::FailureCode, Expr::value(Some(TRANSFER_NOT_CREATED))),
            (C::FailureMessage, Expr::value(Some(reason.clone()))),
        ];
        transition::reversal(txn, row.id, row.status, ReversalEvent::FailedForGood, also, &note).await?;
    }
    Ok(())
}
