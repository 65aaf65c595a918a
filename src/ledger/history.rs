//! The append-only record of what happened, by whom, and why. Every writer of the ledger appends here, in the same
//! transaction as the change; nothing is ever updated or deleted.

use sea_orm::{ActiveValue::Set, ConnectionTrait, EntityTrait};
use uuid::Uuid;

use super::LedgerError;
use super::entities::history;
use super::time::now;

/// What a history row is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entity {
    Payment,
    Transfer,
    Refund,
    Reversal,
}

impl Entity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Transfer => "transfer",
            Self::Refund => "refund",
            Self::Reversal => "reversal",
        }
    }
}

/// Who did something, why, and under which of Stripe's request ids.
#[derive(Clone, Debug)]
pub struct Note {
    /// `ingress`, `worker`, `sweeper`, `api`, or an operator's name.
    pub actor: String,
    /// For people; never a secret or a body.
    pub reason: String,
    /// Stripe's `Request-Id`, where Stripe was asked.
    pub stripe_request_id: Option<String>,
}

impl Note {
    /// A note of what Clawback did by itself.
    pub fn new(actor: &str, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into(), stripe_request_id: None }
    }

    /// The same, with Stripe's `Request-Id`.
    #[must_use]
    pub fn with_request_id(mut self, request_id: Option<String>) -> Self {
        self.stripe_request_id = request_id;
        self
    }
}

pub(super) async fn append<C: ConnectionTrait>(
    txn: &C,
    entity: Entity,
    entity_id: Uuid,
    from: Option<&str>,
    to: &str,
    note: &Note,
) -> Result<(), LedgerError> {
    let row = history::ActiveModel {
        id: Set(Uuid::now_v7()),
        entity: Set(entity.as_str().to_owned()),
        entity_id: Set(entity_id),
        from_status: Set(from.map(ToOwned::to_owned)),
        to_status: Set(to.to_owned()),
        at: Set(now()),
        actor: Set(note.actor.clone()),
        reason: Set(note.reason.clone()),
        stripe_request_id: Set(note.stripe_request_id.clone()),
    };
    history::Entity::insert(row).exec_without_returning(txn).await?;
    Ok(())
}
