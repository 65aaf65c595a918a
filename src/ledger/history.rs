//! The append-only record of what happened, by whom, and why. Written in the same transaction as the change.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::schema::history;

/// Who did something, why, and under which of Stripe's request ids.
#[derive(Clone, Debug)]
pub struct Note {
    /// `ingress`, `worker`, `sweeper`, `api`, or an operator's name.
    pub actor: String,
    /// For people; never a secret or a body.
    pub reason: String,
    /// Stripe's `Request-Id`, where Stripe was asked.
    pub stripe_request_id: Option<String>,
    /// Stripe's id of what moved the money (`txn_…`), where Stripe has done something and told it.
    pub balance_transaction: Option<String>,
}

impl Note {
    /// A note of what Clawback did by itself.
    pub fn new(actor: &str, reason: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: reason.into(), stripe_request_id: None, balance_transaction: None }
    }

    /// The same, with Stripe's `Request-Id`.
    #[must_use]
    pub fn with_request_id(mut self, request_id: Option<String>) -> Self {
        self.stripe_request_id = request_id;
        self
    }

    /// The same, with Stripe's id of what moved the money.
    #[must_use]
    pub fn with_balance_transaction(mut self, id: Option<String>) -> Self {
        self.balance_transaction = id;
        self
    }

    /// The same actor and request, with another reason.
    pub(super) fn because(&self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self.clone() }
    }
}

pub(super) fn row(
    entity: String,
    entity_id: Uuid,
    from_status: Option<String>,
    to_status: String,
    note: &Note,
    at: DateTime<Utc>,
) -> history::Model {
    history::Model {
        id: Uuid::now_v7(),
        entity,
        entity_id,
        from_status,
        to_status,
        at,
        actor: note.actor.clone(),
        reason: note.reason.clone(),
        stripe_request_id: note.stripe_request_id.clone(),
    }
}
