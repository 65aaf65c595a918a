//! The ledger: what was paid to sellers, what refunds ask back, and how far that is. The database's only writer.
//!
//! The ingress reports refunds here, the API registers payments, the worker reports what Stripe did. Every change is one
//! transaction: the guarded transition, its history row, and the job in the outbox. The ledger never talks to Stripe or
//! to the broker.

mod allocation;
mod attention;
mod created;
mod creation;
mod database;
pub(crate) mod entities;
mod error;
mod events;
mod failing;
mod history;
pub(crate) mod input;
mod intake;
mod jobs;
mod listing;
mod matching;
mod money;
mod named_shares;
mod operator;
mod payments;
mod reads;
mod reconciliation;
mod refunds;
mod remarks;
mod repeating;
mod reports;
mod reversals;
mod settling;
mod state;
mod sweep;
mod time;
mod trace;
mod transition;
mod views;
mod vitals;

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, DatabaseTransaction};
use tokio::sync::Notify;

pub use creation::CreationTask;
pub(crate) use database::begin;
pub use error::LedgerError;
pub use events::{EventContent, NamedShare, Receipt, RefundEvent, RefundProgress, Source, WebhookEvent};
pub use history::Note;
pub(crate) use history::append_published;
pub use input::FieldProblem;
pub(crate) use input::MAX_TRANSFERS;
pub use jobs::{CREATE_TRANSFER, CreateTransferJob, OUTBOX_CHANNEL, REVERSE_TRANSFER, ReverseTransferJob};
pub use money::{Amounts, Totals};
pub use payments::Registered;
pub use reads::TransferToProbe;
pub use reports::Reported;
pub use reversals::{Aftermath, Failure, Postponement, ReversalTask};
pub use settling::REVERSAL_ENDED;
pub use state::{IllegalTransition, RefundStatus, ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
pub(crate) use time::{in_future, now};
pub use trace::{Trace, TraceEvent, TracedPayment, TracedRefund, TracedReversal, TracedTransfer};
pub use views::{NewPayment, NewRefund, NewShare, NewTransfer, PaymentView, RefundView, ReversalView, TransferView};
pub use vitals::{Backlog, DatabaseFacts};

/// The ledger on its database. Cheap to clone; clones share the connections and the wake-up.
#[derive(Clone, Debug)]
pub struct Ledger {
    db: DatabaseConnection,
    outbox_wake: Arc<Notify>,
    sweep_grace: Duration,
    creation_grace: Duration,
}

impl Ledger {
    /// Connects to `url` (`postgres://…` or `sqlite://…`).
    ///
    /// `sweep_grace` is how long after its due time a reversal may be without news before the sweeper suspects that its
    /// job is lost.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when the database can't be reached.
    pub async fn connect(url: &str, sweep_grace: Duration) -> Result<Self, LedgerError> {
        let db = database::connect(url).await?;
        Ok(Self { db, outbox_wake: Arc::new(Notify::new()), sweep_grace, creation_grace: sweep_grace })
    }

    /// The same, with a grace of their own for transfers that are to be created.
    #[must_use]
    pub fn with_creation_grace(self, creation_grace: Duration) -> Self {
        Self { creation_grace, ..self }
    }

    /// Applies all pending migrations and returns how many there were. Several processes may do so at once.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; nothing is half applied.
    pub async fn migrate_up(&self) -> Result<usize, LedgerError> {
        Ok(database::migrate_up(&self.db).await?)
    }

    /// Takes back the newest `steps` migrations, and with them the data of their tables.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; nothing is half taken back.
    pub async fn migrate_down(&self, steps: u32) -> Result<(), LedgerError> {
        Ok(database::migrate_down(&self.db, steps).await?)
    }

    /// Every migration's name and whether it is applied, oldest first.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn migrations(&self) -> Result<Vec<(String, bool)>, LedgerError> {
        Ok(database::migration_status(&self.db).await?)
    }

    /// How many migrations are still to be applied.
    ///
    /// # Errors
    /// [`LedgerError::Database`].
    pub async fn pending_migrations(&self) -> Result<usize, LedgerError> {
        Ok(database::pending_migrations(&self.db).await?)
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when it does not.
    pub async fn ping(&self) -> Result<(), LedgerError> {
        Ok(self.db.ping().await?)
    }

    /// Closes the connections.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when they could not be closed cleanly.
    pub async fn close(self) -> Result<(), LedgerError> {
        Ok(self.db.close().await?)
    }

    /// The connection, for the outbox's relay, which claims and marks the rows of its own table.
    pub(crate) fn db(&self) -> &DatabaseConnection {
        &self.db
    }

    /// Is woken after every commit in this process that put a job into the outbox.
    pub(crate) fn outbox_wake(&self) -> &Arc<Notify> {
        &self.outbox_wake
    }

    async fn begin(&self) -> Result<DatabaseTransaction, LedgerError> {
        Ok(database::begin(&self.db).await?)
    }

    /// Commits, and wakes the relay if `jobs` were put into the outbox.
    async fn commit(&self, txn: DatabaseTransaction, jobs: usize) -> Result<(), LedgerError> {
        txn.commit().await?;
        if jobs > 0 {
            self.outbox_wake.notify_one();
        }
        Ok(())
    }
}
