//! Jobs as the ledger knows them: rows of the outbox, written in the transaction that makes them necessary.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::schema::{call, outbox};
use super::time::in_future;

/// The kind of the job that reverses a transfer. Part of what is stored and sent: it never changes.
pub const REVERSE_TRANSFER: &str = "reverse_transfer";

/// The kind of the job that creates a transfer. Part of what is stored and sent: it never changes.
pub const CREATE_TRANSFER: &str = "create_transfer";

/// The kind of the job that reads something at Stripe. Part of what is stored and sent: it never changes.
pub const LOOK_UP: &str = "look_up";

/// The kind of the job that tells another system what has happened. Part of what is stored and sent: it never changes.
pub const NOTIFY: &str = "notify";

/// The PostgreSQL channel on which a commit with new jobs is announced to relays in other processes.
pub const OUTBOX_CHANNEL: &str = "clawback_outbox";

/// Makes one call to Stripe. The row says which, so a duplicate or a late job is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallJob {
    /// The id of the call: also that of the reversal, the transfer to create, the look-up, or the
    /// notification.
    pub call_id: Uuid,
}

/// How long a job that was committed for the relay of this process is left to it. Should the process die, another relay takes it
/// after that.
const LEASE: Duration = Duration::from_secs(15);
/// Jobs that wait for the relay in memory. Those beyond wait in the table alone.
const MOST_WAITING: usize = 1_000;

/// Committed jobs on their way to the relay of the same process, which then has no need to look for them in the table.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    jobs: Mutex<Vec<outbox::Model>>,
    /// Whether a relay takes jobs here.
    open: AtomicBool,
    handed: Notify,
    committed: Notify,
}

impl Handoff {
    /// Until when jobs that are committed now belong to this process's relay; `None` when it takes none.
    pub(super) fn lease(&self) -> Option<DateTime<Utc>> {
        let takes = self.open.load(Ordering::Relaxed) && self.lock().len() < MOST_WAITING;
        takes.then(|| in_future(LEASE))
    }

    /// Hands over what was committed, or wakes the relay to look for it.
    pub(super) fn hand(&self, jobs: Vec<outbox::Model>) {
        match jobs.first() {
            None => {}
            Some(job) if job.claimed_until.is_some() => {
                self.lock().extend(jobs);
                self.handed.notify_one();
            }
            Some(_) => self.committed.notify_one(),
        }
    }

    /// Whether a relay takes jobs here from now on.
    pub(crate) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// At most `limit` jobs that were handed over, oldest first.
    pub(crate) fn take(&self, limit: usize) -> Vec<outbox::Model> {
        let mut jobs = self.lock();
        let taken = jobs.len().min(limit);
        jobs.drain(..taken).collect()
    }

    /// Waits until something was handed over since the last [`Self::take`].
    pub(crate) async fn handed(&self) {
        self.handed.notified().await;
    }

    /// Waits until a commit, perhaps of another process, has left jobs in the table.
    pub(crate) async fn committed(&self) {
        self.committed.notified().await;
    }

    /// Another process has committed jobs.
    pub(crate) fn notify_committed(&self) {
        self.committed.notify_one();
    }

    // A panic while the lock is held can't leave the list in a bad state.
    fn lock(&self) -> MutexGuard<'_, Vec<outbox::Model>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the relays of other processes, once `txn` is committed, that there are jobs. On SQLite they look by themselves.
pub(super) async fn announce(txn: &DatabaseTransaction) -> Result<(), DbErr> {
    if txn.get_database_backend() == DbBackend::Postgres {
        let notify = "SELECT pg_notify($1, '')";
        txn.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, notify, [OUTBOX_CHANNEL.into()])).await?;
    }
    Ok(())
}

pub(super) fn row(call: &call::Model, traceparent: Option<&str>, now: DateTime<Utc>) -> outbox::Model {
    outbox::Model {
        id: Uuid::now_v7(),
        kind: call.kind.job().to_owned(),
        payload: json!(CallJob { call_id: call.id }).to_string(),
        entity_id: call.id,
        traceparent: traceparent.map(ToOwned::to_owned),
        created_at: now,
        claimed_until: None,
        published_at: None,
        attempts: 0,
        last_error: None,
    }
}
