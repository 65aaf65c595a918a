//! What operators may do to the ledger: have a reversal, or the creation of a transfer, tried again.
//!
//! Called by the API and by the command line. The transition and the new job are one transaction; who asked for it, and
//! why, is in the history. Stripe is not called here.

use sea_orm::EntityTrait;
use sea_orm::sea_query::Expr;
use uuid::Uuid;

use super::entities::{reversal, transfer};
use super::history::Note;
use super::jobs::Job;
use super::settling::{self, lock_transfer};
use super::state::{ReversalStatus, TransferEvent, TransferStatus};
use super::time::{in_future, now};
use super::{Ledger, LedgerError, jobs, transition};

impl Ledger {
    /// Has a reversal that was given up tried again, with fresh retries and a new job. Before it calls Stripe, the worker
    /// looks there whether the reversal has happened after all.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when it was not given up; [`LedgerError::Stale`] when somebody
    /// else was faster; [`LedgerError::Database`].
    pub async fn replay_reversal(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        let found = reversal::Entity::find_by_id(id).one(&self.db).await?;
        let row = found.ok_or(LedgerError::NotFound { entity: "reversal", id })?;
        if row.status != ReversalStatus::PermanentlyFailed {
            let problem = format!("reversal {id} is {}; only one that is permanently_failed is replayed", row.status);
            return Err(LedgerError::Conflict(problem));
        }
        let txn = self.begin().await?;
        settling::replay(&txn, id, row.transfer_id, in_future(self.sweep_grace), note).await?;
        jobs::append(&txn, [Job::reverse(id)]).await?;
        self.commit(txn, 1).await
    }

    /// Has the creation of a transfer that was given up tried again, with fresh retries and a new job. Before it calls
    /// Stripe, the worker looks there whether the transfer was created after all.
    ///
    /// # Errors
    /// [`LedgerError::NotFound`]; [`LedgerError::Conflict`] when its creation was not given up; [`LedgerError::Stale`]
    /// when somebody else was faster; [`LedgerError::Database`].
    pub async fn retry_transfer(&self, id: Uuid, note: &Note) -> Result<(), LedgerError> {
        use transfer::Column as C;
        let txn = self.begin().await?;
        if transfer::Entity::find_by_id(id).one(&txn).await?.is_none() {
            return Err(LedgerError::NotFound { entity: "transfer", id });
        }
        let row = lock_transfer(&txn, id).await?;
        if row.status != TransferStatus::PermanentlyFailed || row.stripe_transfer_id.is_some() {
            let problem = match row.stripe_transfer_id {
                Some(at_stripe) => {
                    format!("transfer {id} exists at Stripe as {at_stripe}; replay its reversals instead")
                }
                None => format!("transfer {id} is {}; only one that is permanently_failed is retried", row.status),
            };
            return Err(LedgerError::Conflict(problem));
        }
        let at = now();
        let also = vec![
            (C::RetryCount, Expr::value(0)),
            (C::DoubtfulSince, Expr::value(Some(at))),
            (C::AbsentSince, settling::none_time()),
            (C::NextRetryAt, settling::none_time()),
            (C::SweepAfter, Expr::value(Some(in_future(self.sweep_grace)))),
            (C::SweepCount, Expr::value(0)),
        ];
        transition::transfer(&txn, id, row.status, TransferEvent::CreationReplayed, also, note).await?;
        jobs::append(&txn, [Job::create(id)]).await?;
        self.commit(txn, 1).await
    }
}
