//! The life of a seller transfer and of a reversal: total, pure transition functions.
//!
//! The rest of the ledger asks here what an event leads to, and writes only that. Nothing here touches a database.

use std::fmt;

use sea_orm::{DeriveActiveEnum, EnumIter};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a transfer to a seller stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum TransferStatus {
    /// Not created at Stripe yet. Creating it leads out.
    Pending,
    /// The seller has the money. A refund leads out.
    Completed,
    /// Creating it failed, and will be tried again.
    Failed,
    /// Creating or reversing it failed for good. Only an operator's replay leads out.
    PermanentlyFailed,
    /// At least one reversal is pending. The last of them to end leads out.
    ReversalPending,
    /// A part has come back. A further refund leads out.
    PartiallyReversed,
    /// Everything has come back. The end.
    Reversed,
}

/// What can happen to a seller transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter)]
pub enum TransferEvent {
    /// Stripe has created the transfer.
    Created,
    /// Creating it failed and will be tried again.
    CreationFailed,
    /// Creating it failed for good.
    CreationFailedForGood,
    /// A refund asks for a part of it, or for all of it.
    RefundArrived,
    /// The last pending reversal has ended, and all the money is back.
    AllReversed,
    /// The last pending reversal has ended, and a part of the money is back.
    PartReversed,
    /// The last pending reversal has ended, and at least one has failed for good.
    ReversalFailedForGood,
    /// The last pending reversal has ended, nothing is owed any more, since the refunds took nothing after all, and no money
    /// is back.
    CalledOff,
    /// An operator replays a reversal that had failed for good.
    ReversalReplayed,
    /// An operator has the creation tried again.
    CreationReplayed,
}

impl TransferStatus {
    /// The status that `event` leads to.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the table in ARCHITECTURE.md has no such arrow.
    pub fn after(self, event: TransferEvent) -> Result<Self, IllegalTransition> {
        use TransferEvent as E;
        use TransferStatus as S;
        match (self, event) {
            (S::Pending | S::Failed, E::Created) => Ok(S::Completed),
            (S::Pending, E::CreationFailed) => Ok(S::Failed),
            (S::Failed, E::CreationFailedForGood) => Ok(S::PermanentlyFailed),
            (S::Completed | S::PartiallyReversed, E::RefundArrived) => Ok(S::ReversalPending),
            (S::ReversalPending, E::AllReversed) => Ok(S::Reversed),
            (S::ReversalPending, E::PartReversed) => Ok(S::PartiallyReversed),
            (S::ReversalPending, E::ReversalFailedForGood) => Ok(S::PermanentlyFailed),
            (S::ReversalPending, E::CalledOff) => Ok(S::Completed),
            (S::PermanentlyFailed, E::ReversalReplayed) => Ok(S::ReversalPending),
            (S::PermanentlyFailed, E::CreationReplayed) => Ok(S::Pending),
            (from, event) => Err(IllegalTransition { from: from.to_string(), event: format!("{event:?}") }),
        }
    }
}

/// Where the reversal of one transfer for one refund stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ReversalStatus {
    /// Owed. A job is on its way, or will be put on its way by the sweeper.
    Pending,
    /// Stripe has reversed it. The end.
    Reversed,
    /// Given up, parked with a reason; only an operator's replay leads out. Or not owed any more, since its refund takes
    /// nothing after all; then no replay is taken.
    PermanentlyFailed,
}

/// What can happen to a reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter)]
pub enum ReversalEvent {
    /// Stripe says that the money is back.
    Succeeded,
    /// It cannot succeed, or has used up its retries.
    FailedForGood,
    /// An operator has it tried again.
    Replayed,
}

impl ReversalStatus {
    /// The status that `event` leads to.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the table in ARCHITECTURE.md has no such arrow.
    pub fn after(self, event: ReversalEvent) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (Self::Pending, ReversalEvent::Succeeded) => Ok(Self::Reversed),
            (Self::Pending, ReversalEvent::FailedForGood) => Ok(Self::PermanentlyFailed),
            (Self::PermanentlyFailed, ReversalEvent::Replayed) => Ok(Self::Pending),
            (from, event) => Err(IllegalTransition { from: from.to_string(), event: format!("{event:?}") }),
        }
    }
}

/// What became of a refund that a provider reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum, Serialize, Deserialize, ToSchema)]
#[sea_orm(rs_type = "String", db_type = "Text", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// Its payment is not registered yet; registering it matches the refund.
    Unmatched,
    /// Shared out over the payment's transfers.
    Matched,
    /// The provider had reversed the transfer itself, or the refund failed before anything was asked for it.
    NothingToReverse,
    /// It does not fit the registered payment; the reason is beside it, and an operator must look.
    Conflicting,
}

/// An event that the state machine has no arrow for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not allowed while the status is {from}")]
pub struct IllegalTransition {
    /// The status, as the database spells it.
    pub from: String,
    /// The event.
    pub event: String,
}

impl fmt::Display for TransferStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::PermanentlyFailed => "permanently_failed",
            Self::ReversalPending => "reversal_pending",
            Self::PartiallyReversed => "partially_reversed",
            Self::Reversed => "reversed",
        })
    }
}

impl fmt::Display for ReversalStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Reversed => "reversed",
            Self::PermanentlyFailed => "permanently_failed",
        })
    }
}

impl fmt::Display for RefundStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unmatched => "unmatched",
            Self::Matched => "matched",
            Self::NothingToReverse => "nothing_to_reverse",
            Self::Conflicting => "conflicting",
        })
    }
}
