//! What can go wrong in the ledger, told apart by what a caller must do about it.

use super::db::is_refusal;
use super::input::{FieldProblem, sentences};
use super::status::IllegalTransition;

/// An error of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database did not do its part; nothing was changed, and the same call may be made again.
    #[error("the database is unavailable: {0}")]
    Database(#[from] sea_orm::DbErr),
    /// Another writer was faster, or the caller knew an old state. Read again.
    #[error("{entity} {id} is no longer {expected}")]
    Stale {
        /// `call`, say.
        entity: &'static str,
        /// Clawback's id.
        id: uuid::Uuid,
        /// The status that the caller believed in.
        expected: String,
    },
    /// Another transaction came first. The ledger itself tries again.
    #[error("another transaction came first; try again")]
    Retry,
    /// The database is behind. Nothing is known to be changed, and the same call may be made again.
    #[error("the database is behind; try again")]
    Overloaded,
    /// The state machine has no such arrow.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The input can't be used.
    #[error("{}", sentences(.0))]
    Invalid(
        /// Every field that is wrong, at least one.
        Vec<FieldProblem>,
    ),
    /// There is no such row.
    #[error("the ledger has no {entity} {id}")]
    NotFound {
        /// `transfer` or `reversal`.
        entity: &'static str,
        /// As asked for.
        id: String,
    },
    /// It contradicts what is registered.
    #[error("{0}")]
    Conflict(String),
}

impl LedgerError {
    /// Providers' ids are theirs: two merchants may both have a `refund_1`.
    pub(super) fn names_several(id: &str) -> Self {
        Self::Conflict(format!("{id} names several claims; use Clawback's id of the one"))
    }

    /// Whether the database refuses our credentials.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Database(error) if is_refusal(error))
    }
}
