//! Jobs as the ledger knows them: rows of the outbox, written in the transaction that makes them necessary.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use super::schema::{call, outbox};
use super::status::CallKind;

/// The kind of the job that reverses a transfer. Part of what is stored and sent: it never changes.
pub const REVERSE_TRANSFER: &str = "reverse_transfer";

/// The kind of the job that creates a transfer. Part of what is stored and sent: it never changes.
pub const CREATE_TRANSFER: &str = "create_transfer";

/// The PostgreSQL channel on which a commit with new jobs is announced to relays in other processes.
pub const OUTBOX_CHANNEL: &str = "clawback_outbox";

/// Makes one call to Stripe. The row says which, so a duplicate or a late job is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallJob {
    /// The id of the call: also that of the reversal, or of the transfer to create.
    pub call_id: Uuid,
}

impl CallKind {
    /// The kind of the job that makes such a call.
    #[must_use]
    pub fn job(self) -> &'static str {
        match self {
            Self::Reverse => REVERSE_TRANSFER,
            Self::Create => CREATE_TRANSFER,
        }
    }
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
