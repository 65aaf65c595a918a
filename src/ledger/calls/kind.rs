//! What differs from one kind of call to another, apart from what it does: names that are stored, sent and shown.

use sea_orm::Iterable;

use crate::ledger::outbox::{CREATE_TRANSFER, LOOK_UP, NOTIFY, REVERSE_TRANSFER};
use crate::ledger::status::CallKind;

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
