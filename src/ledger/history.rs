//! The append-only record of what happened, by whom, and why. Every writer of the ledger appends here, in the same
//! transaction as the change; nothing is ever updated or deleted.

use sea_orm::{ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait};
use uuid::Uuid;

use super::LedgerError;
use super::entities::{history, outbox};
use super::jobs::{CREATE_TRANSFER, REVERSE_TRANSFER};
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

/// What the history says in place of a status about a job that has reached the broker. No status: the row that the job is
/// about may have moved on before its relay gets to write this.
pub(super) const PUBLISHED: &str = "published";

/// Appends a row for each of these jobs, in one statement: the broker has confirmed its message.
pub(crate) async fn append_published<C: ConnectionTrait>(txn: &C, jobs: &[outbox::Model]) -> Result<(), DbErr> {
    let at = now();
    let row = |job: &outbox::Model| {
        let entity = match job.kind.as_str() {
            REVERSE_TRANSFER => Entity::Reversal,
            CREATE_TRANSFER => Entity::Transfer,
            _ => return None,
        };
        Some(history::ActiveModel {
            id: Set(Uuid::now_v7()),
            entity: Set(entity.as_str().to_owned()),
            entity_id: Set(job.entity_id),
            from_status: Set(None),
            to_status: Set(PUBLISHED.to_owned()),
            at: Set(at),
            actor: Set("relay".to_owned()),
            reason: Set(format!("the broker has confirmed job {}", job.id)),
            stripe_request_id: Set(None),
        })
    };
    let rows: Vec<_> = jobs.iter().filter_map(row).collect();
    if !rows.is_empty() {
        history::Entity::insert_many(rows).exec_without_returning(txn).await?;
    }
    Ok(())
}
