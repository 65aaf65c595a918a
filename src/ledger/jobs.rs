//! Jobs as the ledger knows them: rows of the outbox, written in the transaction that makes them necessary.
//!
//! The relay brings them to the broker. Nothing here knows a queue.

use sea_orm::{ActiveValue::Set, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, Statement};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entities::outbox;
use super::time::now;

/// The kind of the job that reverses a transfer. Part of what is stored and sent, so it never changes.
pub const REVERSE_TRANSFER: &str = "reverse_transfer";

/// The PostgreSQL channel on which a commit with new jobs is announced to relays in other processes.
pub const OUTBOX_CHANNEL: &str = "clawback_outbox";

/// Asks Stripe to take back what one refund makes one seller owe. What exactly is in the row, so that a duplicate or a
/// late delivery of the job is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReverseTransferJob {
    /// Clawback's id of the reversal.
    pub reversal_id: Uuid,
}

/// Puts a job for each of `reversals` into the outbox, and has PostgreSQL announce it when the transaction commits.
pub(super) async fn append(txn: &DatabaseTransaction, reversals: &[Uuid]) -> Result<(), DbErr> {
    if reversals.is_empty() {
        return Ok(());
    }
    let created_at = now();
    let rows = reversals.iter().map(|&reversal_id| outbox::ActiveModel {
        id: Set(Uuid::now_v7()),
        kind: Set(REVERSE_TRANSFER.to_owned()),
        payload: Set(serde_json::json!(ReverseTransferJob { reversal_id }).to_string()),
        entity_id: Set(reversal_id),
        created_at: Set(created_at),
        claimed_until: Set(None),
        published_at: Set(None),
        attempts: Set(0),
        last_error: Set(None),
    });
    outbox::Entity::insert_many(rows).exec_without_returning(txn).await?;
    if txn.get_database_backend() == DbBackend::Postgres {
        let notify = "SELECT pg_notify($1, '')";
        txn.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, notify, [OUTBOX_CHANNEL.into()])).await?;
    }
    Ok(())
}
