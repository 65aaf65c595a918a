//! The ledger: what was paid to sellers, what claims ask back, and how far that is. The database's only writer; it never talks
//! to Stripe or to the broker.

#[macro_use]
mod words;

mod book;
mod calls;
mod claims;
mod db;
mod error;
mod events;
mod forget;
mod group_notes;
mod history;
pub(crate) mod input;
mod large;
mod lookups;
mod notifications;
mod operations;
mod outbox;
mod pauses;
mod payments;
mod processes;
mod read;
mod runs;
pub(crate) mod schema;
mod status;
mod time;

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbBackend};

use calls::{Loader, Report};
use claims::Received;
use db::{Batcher, Graces, Purpose, Store};
use payments::Registration;
use read::Figures;

pub use self::outbox::{CREATE_TRANSFER, CallJob, LOOK_UP, NOTIFY, OUTBOX_CHANNEL, REVERSE_TRANSFER};
#[cfg(test)]
pub(crate) use book::Rows;
pub use calls::{
    Call, CreationTarget, Failure, LookUpTarget, NextStep, NotificationTarget, Postponement, RegisteredTransfer,
    Remainder, Retries, ReversalTarget, Swept, Target, Task, TryOutcome,
};
pub use claims::{Adopted, ClaimPolicy, DisputeEvent, DisputePolicy, DisputeStage, Reported, UnknownReversal};
pub use db::migrate::{Contents, Migrations};
pub(crate) use db::rowset::{id_set, in_ids};
pub use error::LedgerError;
pub use events::{
    ChargeFacts, ClaimKind, EventContent, NamedShare, ProviderReversal, Receipt, RefundEvent, RefundProgress, Source,
    WebhookEvent,
};
pub use group_notes::GroupNote;
pub use history::Note;
pub(crate) use input::MAX_TRANSFERS;
pub use input::{CorrectedPayment, FieldProblem, NewPayment, NewTransfer, NewTransfers};
pub use lookups::{Earlier, Found, FoundPayment, Subject};
pub use operations::{
    About, Debt, Discarder, ItemState, ItemView, Left, MAX_ITEMS, OperationAction, OperationFilter, OperationProgress,
    OperationState, OperationView, Pace, Question, Refusal, Said, StripeSays, StripeSum,
};
pub use pauses::{Pause, parse_account};
pub use payments::Registered;
pub use processes::{BreakerState, Process, ProcessRole, Processes};
pub use read::{
    AtRisk, Backlog, ByAge, ClaimFilter, ClaimLine, CurrencySum, CurrencySummary, DatabaseFacts, DaySum, DisputeView,
    ExportCursor, ExportFilter, ExportRow, FailedCall, FailedFilter, FailureGroup, FailureGroups, FoundReversal,
    FoundTransfer, HistoryEntity, HistoryFilter, HistoryKind, HistoryRow, NeedsAttention, NewRefund, NewShare,
    OldestOpen, OutboxBacklog, PROGRAMS, Page, PaymentView, Recorded, RefundView, ReversalFilter, ReversalLine,
    ReversalView, Risk, SellerDebt, SellerLine, SellerMoney, SellerView, SideCall, Situation, Sum, Summary,
    TimeToReverse, Trace, TraceEvent, TracedLookup, TracedPayment, TracedRefund, TracedReversal, TracedTransfer,
    TransferFilter, TransferLine, TransferView, TransfersToProbe, Unpaid, WaitingClaims, claim_name,
};
pub use runs::{Counts, DifferenceView, RunPage, RunState, RunView};
pub use status::{
    CallKind, CallState, ClaimStatus, IllegalTransition, ReversalEvent, ReversalStatus, TransferEvent, TransferStatus,
};
pub(crate) use time::{TIMES, after, in_future, now, parse as parse_time};

/// The ledger on its database. Cheap to clone; clones share the connections, the batches and the wake-up.
#[derive(Clone, Debug)]
pub struct Ledger {
    store: Store,
    intake: Batcher<Received>,
    reports: Batcher<Report>,
    /// Apart from the reports: one batch is prepared while the other waits for the disk.
    authorizations: Batcher<Report>,
    registrations: Batcher<Registration>,
    loader: Loader,
    figures: Arc<Figures>,
    /// Minor units of one currency from which a replay is confirmed; 0: none is.
    large_amount: u32,
}

/// How the ledger is set up.
#[derive(Clone, Copy, Debug)]
pub struct LedgerOptions {
    /// How long after its due time a reversal may be without news before the sweeper suspects a lost job.
    pub reversal_grace: Duration,
    /// The same for transfers to create.
    pub creation_grace: Duration,
    /// The most connections to the database, at least 6: 3 for the relay, the others for changes and for reading.
    pub max_connections: u32,
    /// Which claims are held.
    pub claims: ClaimPolicy,
    /// Whether another system is told what happens.
    pub notifies: bool,
}

impl Ledger {
    /// Connects to `url` (`postgres://…` or `sqlite://…`).
    ///
    /// # Errors
    /// [`LedgerError::Database`] when the database can't be reached.
    pub async fn connect(url: &str, options: LedgerOptions) -> Result<Self, LedgerError> {
        let db = db::connect(url, options.max_connections).await?;
        let graces = Graces { reverse: options.reversal_grace, create: options.creation_grace };
        let writer = db::connect_for(Purpose::Changes, url, &db, options.max_connections).await?;
        let reader = db::connect_for(Purpose::Lists, url, &db, options.max_connections).await?;
        let relay_db = db::connect_for(Purpose::Relay, url, &db, options.max_connections).await?;
        let (handoff, set_up_at) = (Arc::default(), Arc::default());
        let store = Store {
            db,
            writer,
            reader,
            relay_db,
            handoff,
            graces,
            claims: options.claims,
            notifies: options.notifies,
            set_up_at,
            resumed: tokio::sync::watch::Sender::new(0),
            operation_running: Arc::default(),
            messages_superseded: Arc::default(),
        };
        let (intake, registrations) = (Batcher::start(store.clone()), Batcher::start(store.clone()));
        let (reports, authorizations) = (Batcher::start(store.clone()), Batcher::start(store.clone()));
        let loader = Loader::start(store.clone());
        Ok(Self {
            loader,
            store,
            intake,
            reports,
            authorizations,
            registrations,
            figures: Arc::default(),
            large_amount: 0,
        })
    }

    /// Applies all pending migrations and returns how many there were. Several processes may do so at once.
    ///
    /// # Errors
    /// [`LedgerError::Database`]; no migration is half applied, and those before the one that failed stay.
    pub async fn migrate_up(&self) -> Result<usize, LedgerError> {
        Ok(db::migrate::migrate_up(&self.store.db).await?)
    }

    /// Takes back the newest `steps` migrations, and with them the data of their tables.
    ///
    /// # Errors
    /// [`LedgerError::Database`], also when the newest is only known to a newer version; none is half taken back.
    pub async fn migrate_down(&self, steps: u32) -> Result<(), LedgerError> {
        Ok(db::migrate::migrate_down(&self.store.db, steps).await?)
    }

    /// The migrations of this version and of its database.
    pub async fn migrations(&self) -> Result<Migrations, LedgerError> {
        Ok(db::migrate::migrations(&self.store.db).await?)
    }

    /// What taking migrations back would delete, and who would miss it.
    pub async fn contents(&self) -> Result<Contents, LedgerError> {
        Ok(db::migrate::contents(&self.store.db).await?)
    }

    /// How many migrations are still to be applied.
    pub async fn pending_migrations(&self) -> Result<usize, LedgerError> {
        Ok(self.migrations().await?.pending())
    }

    /// Whether the database takes changes.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when it does not answer, or is read-only.
    pub async fn ping(&self) -> Result<(), LedgerError> {
        Ok(self.store.ping().await?)
    }

    /// The pools of connections: name, open connections, and how many of them are idle.
    #[must_use]
    pub fn connections(&self) -> Vec<(&'static str, u32, usize)> {
        let Store { db, writer, reader, relay_db, .. } = &self.store;
        let pools = [("others", db), ("changes", writer), ("figures", reader), ("relay", relay_db)];
        let of = |(name, pool): (&'static str, &DatabaseConnection)| match pool.get_database_backend() {
            DbBackend::Postgres => {
                let pool = pool.get_postgres_connection_pool();
                Some((name, pool.size(), pool.num_idle()))
            }
            // There is one, and the relay's.
            _ if ["changes", "figures"].contains(&name) => None,
            _ => {
                let pool = pool.get_sqlite_connection_pool();
                Some((name, pool.size(), pool.num_idle()))
            }
        };
        pools.into_iter().filter_map(of).collect()
    }

    /// Has new connections to the database made as `url` says; those that are there stay.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when `url` can't be used; the text does not show it.
    pub fn reconnect_by(&self, url: &str) -> Result<(), LedgerError> {
        Ok(self.store.reconnect_by(url)?)
    }

    /// Closes the connections.
    ///
    /// # Errors
    /// [`LedgerError::Database`] when they could not be closed cleanly.
    pub async fn close(self) -> Result<(), LedgerError> {
        self.store.relay_db.close().await?;
        self.store.writer.close().await?;
        self.store.reader.close().await?;
        Ok(self.store.db.close().await?)
    }

    /// Counts the pauses that this process has ended.
    pub(crate) fn resumed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.resumed.subscribe()
    }

    /// The connection for the relay, which claims and marks the outbox's rows.
    pub(crate) fn relay_db(&self) -> &DatabaseConnection {
        &self.store.relay_db
    }

    /// What this process has committed for its relay.
    pub(crate) fn handoff(&self) -> &Arc<::outbox::Handoff<schema::outbox::Model>> {
        &self.store.handoff
    }
}
