//! Jobs as the ledger knows them: rows of the outbox, written in the transaction that makes them necessary.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::schema::{call, outbox};

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
