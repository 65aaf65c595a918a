//! Where relay and scheduler get their connections.

#[cfg(feature = "sea-orm")]
use crate::OutboxError;
#[cfg(feature = "sea-orm")]
use sea_orm::DatabaseConnectionType;
#[cfg(feature = "postgres")]
use sqlx::PgPool;
#[cfg(feature = "sqlite")]
use sqlx::SqlitePool;

/// Connections to the database with the outbox. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Pool {
    /// PostgreSQL 12 or newer.
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
    /// SQLite 3.42 or newer. Use WAL mode.
    #[cfg(feature = "sqlite")]
    Sqlite(SqlitePool),
}

#[cfg(feature = "postgres")]
impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self::Postgres(pool)
    }
}

#[cfg(feature = "sqlite")]
impl From<SqlitePool> for Pool {
    fn from(pool: SqlitePool) -> Self {
        Self::Sqlite(pool)
    }
}

#[cfg(feature = "sea-orm")]
impl TryFrom<&sea_orm::DatabaseConnection> for Pool {
    type Error = OutboxError;

    /// # Errors
    /// [`OutboxError::Backend`] for a connection that is no pool of a database whose feature is on.
    fn try_from(connection: &sea_orm::DatabaseConnection) -> Result<Self, OutboxError> {
        match &connection.inner {
            #[cfg(feature = "sqlite")]
            DatabaseConnectionType::SqlxSqlitePoolConnection(_) => {
                Ok(Self::Sqlite(connection.get_sqlite_connection_pool().clone()))
            }
            #[cfg(feature = "postgres")]
            DatabaseConnectionType::SqlxPostgresPoolConnection(_) => {
                Ok(Self::Postgres(connection.get_postgres_connection_pool().clone()))
            }
            other => Err(OutboxError::Backend { got: format!("{other:?}") }),
        }
    }
}

#[cfg(all(test, feature = "sea-orm"))]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_no_pool_of_a_known_database_is_an_error_and_no_panic() {
        let error = Pool::try_from(&sea_orm::DatabaseConnection::default()).err();
        assert!(matches!(&error, Some(OutboxError::Backend { got }) if got == "Disconnected"), "{error:?}");
    }
}

/// The same code for both databases: `$pool` is the pool, `$sql` makes a query of an `Sql`.
macro_rules! on {
    ($self:expr, |$pool:ident, $sql:ident| $body:expr) => {
        match $self {
            #[cfg(feature = "postgres")]
            $crate::Pool::Postgres($pool) => {
                let $sql = |sql: $crate::sql::Sql| sqlx::query::<sqlx::Postgres>(sql.postgres);
                $body
            }
            #[cfg(feature = "sqlite")]
            $crate::Pool::Sqlite($pool) => {
                let $sql = |sql: $crate::sql::Sql| sqlx::query::<sqlx::Sqlite>(sql.sqlite);
                $body
            }
        }
    };
}
pub(crate) use on;
