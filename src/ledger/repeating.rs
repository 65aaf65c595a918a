//! Runs a transaction once more when another one came in between: then it sees what the other has done, and says so. Called
//! by what takes in payments and refunds, where two requests may speak of the same thing at the same time.

use sea_orm::{DbErr, RuntimeErr};

use super::LedgerError;

/// How often a transaction is begun at most. The second time it nearly always finds what the other has committed.
const TRIES: usize = 3;
/// SQLSTATE of PostgreSQL: `unique_violation`, `deadlock_detected`, `serialization_failure`. And SQLite's
/// `SQLITE_CONSTRAINT_PRIMARYKEY` and `SQLITE_CONSTRAINT_UNIQUE`.
const CAME_BETWEEN: [&str; 5] = ["23505", "40P01", "40001", "1555", "2067"];

/// What `attempt` says: a whole transaction, which leaves nothing behind when it errs.
pub(super) async fn repeated<T, F>(attempt: impl Fn() -> F) -> Result<T, LedgerError>
where
    F: Future<Output = Result<T, LedgerError>>,
{
    for _ in 1..TRIES {
        match attempt().await {
            Err(error) if came_between(&error) => tracing::info!(%error, "another transaction came in between; again"),
            result => return result,
        }
    }
    attempt().await
}

fn came_between(error: &LedgerError) -> bool {
    match error {
        LedgerError::Stale { .. } => true,
        LedgerError::Database(
            DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)),
        ) => {
            let code = error.as_database_error().and_then(|error| error.code());
            code.is_some_and(|code| CAME_BETWEEN.contains(&code.as_ref()))
        }
        _ => false,
    }
}
