//! The append-only record of what happened, by whom, and why. Every writer of the ledger appends here, in the same
//! transaction as the change; nothing is ever updated or deleted.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use super::LedgerError;
use super::entities::{history, outbox, reversal, transfer};
use super::jobs::{CREATE_TRANSFER, REVERSE_TRANSFER};
use super::state::{ReversalStatus, TransferStatus};
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

/// Appends a remark for each of these jobs, in one statement: the broker has confirmed its message.
///
/// The rows that the jobs are about are held against changes until `txn` ends, so that the remark names the status in which
/// they really were.
pub(crate) async fn append_published<C: ConnectionTrait>(txn: &C, jobs: &[outbox::Model]) -> Result<(), DbErr> {
    let of_kind =
        |kind: &str| -> Vec<Uuid> { jobs.iter().filter(|job| job.kind == kind).map(|job| job.entity_id).collect() };
    // Transfers before reversals, each in the order of their ids, as everywhere.
    let transfers: Vec<(Uuid, TransferStatus)> = transfer::Entity::find()
        .select_only()
        .columns([transfer::Column::Id, transfer::Column::Status])
        .filter(transfer::Column::Id.is_in(of_kind(CREATE_TRANSFER)))
        .order_by_asc(transfer::Column::Id)
        .lock_shared()
        .into_tuple()
        .all(txn)
        .await?;
    let reversals: Vec<(Uuid, ReversalStatus)> = reversal::Entity::find()
        .select_only()
        .columns([reversal::Column::Id, reversal::Column::Status])
        .filter(reversal::Column::Id.is_in(of_kind(REVERSE_TRANSFER)))
        .order_by_asc(reversal::Column::Id)
        .lock_shared()
        .into_tuple()
        .all(txn)
        .await?;
    let transfers = transfers.into_iter().map(|(id, status)| (id, (Entity::Transfer, status.to_string())));
    let reversals = reversals.into_iter().map(|(id, status)| (id, (Entity::Reversal, status.to_string())));
    let standing: HashMap<Uuid, (Entity, String)> = transfers.chain(reversals).collect();

    let at = now();
    let row = |job: &outbox::Model| {
        let (entity, status) = standing.get(&job.entity_id)?;
        Some(history::ActiveModel {
            id: Set(Uuid::now_v7()),
            entity: Set(entity.as_str().to_owned()),
            entity_id: Set(job.entity_id),
            from_status: Set(Some(status.clone())),
            to_status: Set(status.clone()),
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
