//! Which row a parked message is about, and how that row stands: the two things that decide what can be done with the
//! message. Pure.

use queues::ParkedJob;
use uuid::Uuid;

use crate::ledger::{
    CREATE_TRANSFER, CreateTransferJob, REVERSE_TRANSFER, ReversalStatus, ReverseTransferJob, TransferStatus,
};

/// The row that a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The reversal with this id.
    Reversal(Uuid),
    /// The transfer with this id, which is to be created.
    Transfer(Uuid),
}

impl Subject {
    /// `None` for a kind of job, or a payload, that this version does not know.
    #[must_use]
    pub fn of(job: &ParkedJob) -> Option<Self> {
        match job.kind.as_str() {
            REVERSE_TRANSFER => {
                serde_json::from_slice(&job.payload).ok().map(|job: ReverseTransferJob| Self::Reversal(job.reversal_id))
            }
            CREATE_TRANSFER => {
                serde_json::from_slice(&job.payload).ok().map(|job: CreateTransferJob| Self::Transfer(job.transfer_id))
            }
            _ => None,
        }
    }

    /// Clawback's id of the row.
    #[must_use]
    pub fn id(self) -> Uuid {
        match self {
            Self::Reversal(id) | Self::Transfer(id) => id,
        }
    }

    /// `reversal` or `transfer`.
    #[must_use]
    pub fn entity(self) -> &'static str {
        match self {
            Self::Reversal(_) => "reversal",
            Self::Transfer(_) => "transfer",
        }
    }
}

/// How the row of a parked message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Given up, as a parked message should find it: a replay begins it anew.
    GivenUp,
    /// Still to be done: a replay only sends the message back to work.
    Open,
    /// Done: the message has nothing more to say.
    Settled,
    /// The ledger has no such row, or this version does not know the kind of job.
    Unknown,
}

impl From<ReversalStatus> for Standing {
    fn from(status: ReversalStatus) -> Self {
        match status {
            ReversalStatus::PermanentlyFailed => Self::GivenUp,
            ReversalStatus::Pending => Self::Open,
            ReversalStatus::Reversed => Self::Settled,
        }
    }
}

impl Standing {
    /// Of a transfer that is to be created: settled once it exists at Stripe, whatever became of it since.
    #[must_use]
    pub fn of_creation(status: TransferStatus, exists_at_stripe: bool) -> Self {
        match status {
            TransferStatus::Pending | TransferStatus::Failed => Self::Open,
            TransferStatus::PermanentlyFailed if !exists_at_stripe => Self::GivenUp,
            TransferStatus::PermanentlyFailed
            | TransferStatus::Completed
            | TransferStatus::ReversalPending
            | TransferStatus::PartiallyReversed
            | TransferStatus::Reversed => Self::Settled,
        }
    }
}
