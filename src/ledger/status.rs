//! The states of transfers, reversals, claims and calls, and their total, pure transition functions.

use sea_orm::{EnumIter, Iterable};

use super::outbox::{CREATE_TRANSFER, LOOK_UP, NOTIFY, REVERSE_TRANSFER};

words! {
    /// Where a transfer to a seller stands.
    pub enum TransferStatus {
        /// Not created at Stripe yet. Creating it leads out.
        Pending,
        /// The seller has the money. A refund leads out.
        Completed,
        /// Creating it failed, and will be tried again.
        Failed,
        /// Creating or reversing it failed for good. An operator leads out, by a replay or by closing what failed, or that nothing
        /// is owed any more.
        PermanentlyFailed,
        /// At least one reversal is pending. The last of them to end leads out.
        ReversalPending,
        /// A part has come back. A further refund leads out.
        PartiallyReversed,
        /// Everything has come back: the end. Or everything was withheld before it was paid, which a failing refund undoes.
        Reversed,
    }
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
    /// Refunds ask for all of it before Stripe was asked to create it.
    Withheld,
    /// A refund for which it was withheld has failed, and Stripe is asked to create it after all.
    GivenBack,
    /// A refund asks for a part of it, or for all of it.
    RefundArrived,
    /// The last reversal that was pending or stood in the way has ended, and all the money is back.
    AllReversed,
    /// The last reversal that was pending or stood in the way has ended, and a part of the money is back.
    PartReversed,
    /// The last pending reversal has ended, and at least one has failed for good.
    ReversalFailedForGood,
    /// The last reversal that was pending or stood in the way has ended, nothing is owed any more, since the refunds took
    /// nothing after all, and no money is back.
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
            (S::Pending | S::Failed, E::Withheld) => Ok(S::Reversed),
            (S::Reversed, E::GivenBack) => Ok(S::Pending),
            (S::Completed | S::PartiallyReversed, E::RefundArrived) => Ok(S::ReversalPending),
            (S::ReversalPending | S::PermanentlyFailed, E::AllReversed) => Ok(S::Reversed),
            (S::ReversalPending | S::PermanentlyFailed, E::PartReversed) => Ok(S::PartiallyReversed),
            (S::ReversalPending, E::ReversalFailedForGood) => Ok(S::PermanentlyFailed),
            (S::ReversalPending | S::PermanentlyFailed, E::CalledOff) => Ok(S::Completed),
            (S::PermanentlyFailed, E::ReversalReplayed) => Ok(S::ReversalPending),
            (S::PermanentlyFailed, E::CreationReplayed) => Ok(S::Pending),
            (from, event) => Err(illegal(from, event)),
        }
    }
}

words! {
    /// Where the reversal of one transfer for one claim stands.
    pub enum ReversalStatus {
        /// Owed. A job is on its way, or the sweeper will make one.
        Pending,
        /// Stripe has reversed it. The end.
        Reversed,
        /// Failed permanently, still owed, and parked with a reason. An operator's replay or closing leads out.
        PermanentlyFailed,
        /// Not owed: its claim takes nothing after all, or its transfer was never created. Creating that transfer leads out.
        CalledOff,
        /// Settled without a reversal: withheld from its transfer before that was created, which a failing refund undoes; or
        /// elsewhere, as an operator recorded, which is the end.
        Closed,
    }
}

/// What can happen to a reversal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter)]
pub enum ReversalEvent {
    /// Stripe says that the money is back.
    Succeeded,
    /// It cannot succeed, or has used up its retries.
    FailedForGood,
    /// Nothing is owed any more, and Stripe was not asked.
    CalledOff,
    /// Its transfer was created after all.
    TransferCreated,
    /// An operator has it tried again.
    Replayed,
    /// An operator recorded that the debt was settled elsewhere.
    Closed,
    /// Its transfer is created for that much less.
    Withheld,
}

impl ReversalStatus {
    /// The status that `event` leads to.
    ///
    /// # Errors
    /// [`IllegalTransition`] when the chart in ARCHITECTURE.md has no such arrow.
    pub fn after(self, event: ReversalEvent) -> Result<Self, IllegalTransition> {
        use ReversalEvent as E;
        match (self, event) {
            (Self::Pending, E::Succeeded) => Ok(Self::Reversed),
            (Self::Pending, E::FailedForGood) => Ok(Self::PermanentlyFailed),
            (Self::Pending | Self::PermanentlyFailed | Self::Closed, E::CalledOff) => Ok(Self::CalledOff),
            (Self::CalledOff, E::TransferCreated) => Ok(Self::Pending),
            (Self::PermanentlyFailed, E::Replayed) => Ok(Self::Pending),
            (Self::PermanentlyFailed, E::Closed) | (Self::Pending, E::Withheld) => Ok(Self::Closed),
            (from, event) => Err(illegal(from, event)),
        }
    }
}

words! {
    /// What became of a claim that a provider reported.
    pub enum ClaimStatus {
        /// Its payment is not registered yet. Registering it matches the claim.
        Unmatched,
        /// Older than this ledger, or pending at its provider. Takes nothing until an operator accepts it, or it has succeeded.
        Held,
        /// Shared out over the payment's transfers.
        Matched,
        /// Does not fit the registered payment. The reason is beside it, and an operator must look.
        Conflicting,
        /// The provider had reversed the transfer itself, or the money was never captured.
        NothingToReverse,
        /// Its provider took it back after it had been matched.
        Failed,
    }
}

impl ClaimStatus {
    /// Those of claims that take nothing before something else happens.
    pub(super) const WAITING: [Self; 3] = [Self::Unmatched, Self::Held, Self::Conflicting];

    /// Whether such a claim asks nothing of any transfer after all.
    #[must_use]
    pub fn takes_nothing(self) -> bool {
        matches!(self, Self::Failed | Self::NothingToReverse)
    }
}

words! {
    /// What Stripe must do.
    pub enum CallKind {
        /// Reverse a transfer, wholly or in part.
        Reverse,
        /// Create a transfer.
        Create,
        /// Read what an event left out, or what a payment's transfers are.
        LookUp,
        /// Tell another system what has happened.
        Notify,
    }
}

impl CallKind {
    /// Every kind, in the order in which their queues are shown.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    /// The kind of the job that makes such a call.
    #[must_use]
    pub fn job(self) -> &'static str {
        match self {
            Self::Reverse => REVERSE_TRANSFER,
            Self::Create => CREATE_TRANSFER,
            Self::LookUp => LOOK_UP,
            Self::Notify => NOTIFY,
        }
    }

    /// The kind of call that such a job makes; `None` for a job that this version does not know.
    #[must_use]
    pub fn of_job(job: &str) -> Option<Self> {
        Self::all().find(|kind| kind.job() == job)
    }

    /// The queue of its jobs.
    #[must_use]
    pub fn queue(self) -> &'static str {
        match self {
            Self::Reverse => "reversals",
            Self::Create => "transfers",
            Self::LookUp => "lookups",
            Self::Notify => "events",
        }
    }

    /// What such a call is for: `reversal`, `transfer`, `lookup` or `event`.
    #[must_use]
    pub fn entity(self) -> &'static str {
        match self {
            Self::Reverse => "reversal",
            Self::Create => "transfer",
            Self::LookUp => "lookup",
            Self::Notify => "event",
        }
    }
}

words! {
    /// How far a call is.
    pub enum CallState {
        /// Its transfer does not exist yet. Creating it opens the call.
        Waiting,
        /// To be made, or to be made again.
        Open,
        /// Stripe has done it.
        Done,
        /// Failed permanently. A replay opens it again.
        Failed,
        /// Not to be made.
        CalledOff,
    }
}

fn illegal(from: impl ToString, event: impl std::fmt::Debug) -> IllegalTransition {
    IllegalTransition { from: from.to_string(), event: format!("{event:?}") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_keep_the_names_that_waiting_messages_and_operators_know() {
        let names: Vec<_> = CallKind::all().map(|kind| (kind.job(), kind.queue(), kind.entity())).collect();
        let known = [
            ("reverse_transfer", "reversals", "reversal"),
            ("create_transfer", "transfers", "transfer"),
            ("look_up", "lookups", "lookup"),
            ("notify", "events", "event"),
        ];
        assert_eq!(names, known);
        for kind in CallKind::all() {
            assert_eq!(CallKind::of_job(kind.job()), Some(kind));
        }
        assert_eq!(CallKind::of_job("a_job_of_a_newer_version"), None);
    }
}
