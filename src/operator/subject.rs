//! Which call a parked message is about, and what that call's state means for the message. Pure.

use queues::ParkedJob;
use uuid::Uuid;

use crate::ledger::{CallJob, CallKind, CallState};

/// The call that a job makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct JobTarget {
    /// What kind of call.
    pub kind: CallKind,
    /// Its id: Clawback's id of the reversal, the transfer to create, or the look-up.
    pub id: Uuid,
}

impl JobTarget {
    /// `None` for a kind of job, or a payload, that this version does not know.
    #[must_use]
    pub fn of(job: &ParkedJob) -> Option<Self> {
        let kind = CallKind::of_job(&job.kind)?;
        let CallJob { call_id: id } = serde_json::from_slice(&job.payload).ok()?;
        Some(Self { kind, id })
    }

    /// `reversal`, `transfer` or `lookup`.
    #[must_use]
    pub fn entity(self) -> &'static str {
        self.kind.entity()
    }
}

/// What a call's state means for its parked message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowState {
    /// Failed permanently, as a parked message should find it: a replay opens it again.
    Failed,
    /// Still to be done: a replay only sends the message back to work.
    Open,
    /// Done: the message has nothing more to say.
    Settled,
    /// The ledger has no such call, or this version does not know the kind of job.
    Unknown,
}

impl From<CallState> for RowState {
    fn from(state: CallState) -> Self {
        match state {
            CallState::Failed => Self::Failed,
            CallState::Open | CallState::Waiting => Self::Open,
            CallState::Done | CallState::CalledOff => Self::Settled,
        }
    }
}
