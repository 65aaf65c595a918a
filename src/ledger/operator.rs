//! What operators may do to the ledger: have a reversal, or the creation of a transfer, tried again.
//!
//! Called by the API and by the command line. The transition and the new job are one transaction; who asked for it, and
//! why, is in the history. Stripe is not called here.

use sea_orm::{EntityTrait, QuerySelect};
use uuid::Uuid;

use super::entities::{reversal, transfer};
use super::history::Note;
use super::jobs::Job;
use super::state::{ReversalStatus, TransferStatus};
use super::time::in_future;
use super::{Ledger, LedgerError, ReversalTask, created, failing, jobs, settling};

impl Ledger {
    /// Has a reversal that was given up tried again, with fresh retries and a new job. Before it calls Stripe, the worker
    /// looks there whether the reversal has happened after all.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it was not given up, when its transfer was never created, or
    /// when its refund takes nothing after all; [`LedgerError::Stale`] when somebody else was faster;
    /// [`LedgerError::Database`].
    pub async fn replay_reversal(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let found = reversal::Entity::find_by_id(id).one(&self.db).await?;
        let row = found.ok_or(LedgerError::NotFound { entity: "reversal", id })?;
        if row.status != ReversalStatus::PermanentlyFailed {
            let problem = format!("reversal {id} is {}; only one that is permanently_failed is replayed", row.status);
            return Err(LedgerError::Conflict(problem));
        }
        let txn = self.begin().await?;
        settling::lock_transfer(&txn, row.transfer_id).await?;
        if let Some(why) = failing::nothing_owed(&txn, row.refund_id).await? {
            let problem = format!(
                "reversal {id} is not replayed, since nothing is owed for it any more: {why}; should Stripe have done it all \
                 the same, `clawback reconcile --fix` records that"
            );
            return Err(LedgerError::Conflict(problem));
        }
        settling::replay(&txn, id, row.transfer_id, in_future(self.sweep_grace), note).await?;
        jobs::append(&txn, [Job::reverse(id)]).await?;
        self.commit(txn, 1).await
    }

    /// The same for the worker, which holds the job: none is put into the outbox. `None` when nothing is owed any more,
    /// and so nothing is changed.
    ///
    /// # Errors
    /// As [`Self::replay_reversal`].
    pub async fn replay_if_owed(&self, task: &ReversalTask, note: &Note) -> Result<Option<ReversalTask>, LedgerError> {
        let txn = self.begin().await?;
        settling::lock_transfer(&txn, task.transfer_id).await?;
        if let Some(why) = failing::nothing_owed(&txn, task.refund_id).await? {
            tracing::info!(reversal_id = %task.id, why, "not replayed: nothing is owed any more");
            return Ok(None);
        }
        settling::replay(&txn, task.id, task.transfer_id, in_future(self.sweep_grace), note).await?;
        self.commit(txn, 0).await?;
        self.reversal_task(task.id).await
    }

    /// Has the creation of a transfer that was given up tried again, with fresh retries and a new job. Before it calls
    /// Stripe, the worker looks there whether the transfer was created after all.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when its creation was not given up;
    /// [`LedgerError::Database`].
    pub async fn retry_transfer(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let txn = self.begin().await?;
        let found = transfer::Entity::find_by_id(id).lock_exclusive().one(&txn).await?;
        let row = found.ok_or(LedgerError::NotFound { entity: "transfer", id })?;
        if let Some(problem) = not_to_be_retried(&row) {
            return Err(LedgerError::Conflict(format!("transfer {id} {problem}")));
        }
        created::replay(&txn, &row, in_future(self.creation_grace), note).await?;
        jobs::append(&txn, [Job::create(id)]).await?;
        self.commit(txn, 1).await
    }
}

/// Why creating the transfer can't be tried again; none when it can.
fn not_to_be_retried(row: &transfer::Model) -> Option<String> {
    if let Some(at_stripe) = &row.stripe_transfer_id {
        return Some(format!("exists at Stripe as {at_stripe}; replay its reversals instead"));
    }
    if !created::is_uncreated(row) {
        // To create it would be to pay the seller a second time.
        return Some("was not registered to be created by Clawback, and has lost its Stripe id".to_owned());
    }
    let given_up = row.status == TransferStatus::PermanentlyFailed;
    (!given_up).then(|| format!("is {}; only one that is permanently_failed is retried", row.status))
}
