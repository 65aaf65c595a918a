//! What can go wrong in the ledger, told apart by what a caller must do about it.

use super::state::IllegalTransition;

/// An error of the ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The database did not do its part; nothing was changed, and the same call may be made again.
    #[error("the database is unavailable: {0}")]
    Database(#[from] sea_orm::DbErr),
    /// Another writer was faster, or the caller knew an old state. Read again.
    #[error("{entity} {id} is no longer {expected}")]
    Stale {
        /// `transfer` or `reversal`.
        entity: &'static str,
        /// Clawback's id.
        id: uuid::Uuid,
        /// The status that the caller believed in.
        expected: String,
    },
    /// The state machine has no such arrow.
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    /// The input is not acceptable.
    #[error("{field}: {problem}")]
    Invalid {
        /// Where in the input, as a JSON path.
        field: String,
        /// What is wrong, with the value and what is allowed.
        problem: String,
    },
    /// There is no such row.
    #[error("the ledger has no {entity} {id}")]
    NotFound {
        /// `transfer` or `reversal`.
        entity: &'static str,
        /// As asked for.
        id: uuid::Uuid,
    },
    /// It contradicts what is registered.
    #[error("{0}")]
    Conflict(String),
}
