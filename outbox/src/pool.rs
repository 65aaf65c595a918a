//! Where relay and scheduler get their connections.

use sqlx::{PgPool, SqlitePool};

/// Connections to the database with the outbox. Cheap to clone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Pool {
    /// PostgreSQL 12 or newer.
    Postgres(PgPool),
    /// SQLite 3.42 or newer. Use WAL mode.
    Sqlite(SqlitePool),
}

impl From<PgPool> for Pool {
    fn from(pool: PgPool) -> Self {
        Self::Postgres(pool)
    }
}

impl From<SqlitePool> for Pool {
    fn from(pool: SqlitePool) -> Self {
        Self::Sqlite(pool)
    }
}

#[cfg(feature = "sea-orm")]
impl From<&sea_orm::DatabaseConnection> for Pool {
    fn from(connection: &sea_orm::DatabaseConnection) -> Self {
        match connection.get_database_backend() {
            sea_orm::DbBackend::Sqlite => Self::Sqlite(connection.get_sqlite_connection_pool().clone()),
            _ => Self::Postgres(connection.get_postgres_connection_pool().clone()),
        }
    }
}

/// The same code for both databases: `$pool` is the pool, `$sql` makes a query of an `Sql`.
macro_rules! on {
    ($self:expr, |$pool:ident, $sql:ident| $body:expr) => {
        match $self {
            $crate::Pool::Postgres($pool) => {
                let $sql = |sql: $crate::sql::Sql| sqlx::query::<sqlx::Postgres>(sql.postgres);
                $body
            }
            $crate::Pool::Sqlite($pool) => {
                let $sql = |sql: $crate::sql::Sql| sqlx::query::<sqlx::Sqlite>(sql.sqlite);
                $body
            }
        }
    };
}
pub(crate) use on;
