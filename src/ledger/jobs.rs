//! Jobs as the ledger knows them: rows of the outbox, written in the transaction that makes them necessary.
//!
//! The relay brings them to the broker. Nothing here knows a queue.

use sea_orm::{ActiveValue::Set, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, Statement};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::entities::outbox;
use super::time::now;
use crate::trace_context;

/// The kind of the job that reverses a transfer. Part of what is stored and sent, so it never changes.
pub const REVERSE_TRANSFER: &str = "reverse_transfer";

/// The kind of the job that creates a transfer. Part of what is stored and sent, so it never changes.
pub const CREATE_TRANSFER: &str = "create_transfer";

/// The PostgreSQL channel on which a commit with new jobs is announced to relays in other processes.
pub const OUTBOX_CHANNEL: &str = "clawback_outbox";

/// Asks Stripe to take back what one refund makes one seller owe. What exactly is in the row, so that a duplicate or a
/// late delivery of the job is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReverseTransferJob {
    /// Clawback's id of the reversal.
    pub reversal_id: Uuid,
}

/// Asks Stripe to create a transfer that was registered without a Stripe id. What exactly is in the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateTransferJob {
    /// Clawback's id of the transfer.
    pub transfer_id: Uuid,
}

/// A job to be done.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    Reverse(ReverseTransferJob),
    Create(CreateTransferJob),
}

impl Job {
    pub(super) fn reverse(reversal_id: Uuid) -> Self {
        Self::Reverse(ReverseTransferJob { reversal_id })
    }

    pub(super) fn create(transfer_id: Uuid) -> Self {
        Self::Create(CreateTransferJob { transfer_id })
    }

    /// Its kind, its payload, and the id of the row that it is about.
    fn parts(self) -> (&'static str, serde_json::Value, Uuid) {
        match self {
            Self::Reverse(job) => (REVERSE_TRANSFER, json!(job), job.reversal_id),
            Self::Create(job) => (CREATE_TRANSFER, json!(job), job.transfer_id),
        }
    }
}

/// Puts `jobs` into the outbox, and has PostgreSQL announce them when the transaction commits.
pub(super) async fn append(txn: &DatabaseTransaction, jobs: impl IntoIterator<Item = Job>) -> Result<(), DbErr> {
    let (created_at, traceparent) = (now(), trace_context::current());
    let row = |job: Job| {
        let (kind, payload, entity_id) = job.parts();
        outbox::ActiveModel {
            id: Set(Uuid::now_v7()),
            kind: Set(kind.to_owned()),
            payload: Set(payload.to_string()),
            entity_id: Set(entity_id),
            created_at: Set(created_at),
            claimed_until: Set(None),
            published_at: Set(None),
            attempts: Set(0),
            last_error: Set(None),
            traceparent: Set(traceparent.clone()),
        }
    };
    let rows: Vec<_> = jobs.into_iter().map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    outbox::Entity::insert_many(rows).exec_without_returning(txn).await?;
    if txn.get_database_backend() == DbBackend::Postgres {
        let notify = "SELECT pg_notify($1, '')";
        txn.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, notify, [OUTBOX_CHANNEL.into()])).await?;
    }
    Ok(())
}
