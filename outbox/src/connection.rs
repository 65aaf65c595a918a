//! What a job can be enqueued on: your transaction, whichever library opened it.

use crate::{OutboxError, sql::Sql};
#[cfg(feature = "postgres")]
use sqlx::PgConnection;
use sqlx::Row;
#[cfg(feature = "sqlite")]
use sqlx::SqliteConnection;
use std::future::Future;

/// A parameter of a statement.
#[derive(Debug, Clone)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
}

/// A connection, usually within a transaction: sqlx's `&mut PgConnection` and `&mut SqliteConnection` (of a transaction:
/// `&mut *txn`), or with the feature `sea-orm` a reference to any `ConnectionTrait`. Nobody else implements it.
pub trait Connection: sealed::Connection {}

pub(crate) mod sealed {
    use super::{Future, OutboxError, Sql, Value};

    pub trait Connection: Send {
        /// Or else PostgreSQL; an error if neither.
        fn is_sqlite(&self) -> Result<bool, OutboxError>;

        /// The first column of the first row, if there is one.
        fn first(
            &mut self,
            sql: Sql,
            values: Vec<Value>,
        ) -> impl Future<Output = Result<Option<i64>, OutboxError>> + Send;
    }
}

macro_rules! bound {
    ($query:expr, $values:expr) => {
        $values.into_iter().fold($query, |query, value| match value {
            Value::Integer(number) => query.bind(number),
            Value::Text(text) => query.bind(text),
            Value::Bytes(bytes) => query.bind(bytes),
        })
    };
}

#[cfg(feature = "postgres")]
impl Connection for &mut PgConnection {}

#[cfg(feature = "postgres")]
impl sealed::Connection for &mut PgConnection {
    fn is_sqlite(&self) -> Result<bool, OutboxError> {
        Ok(false)
    }

    async fn first(&mut self, sql: Sql, values: Vec<Value>) -> Result<Option<i64>, OutboxError> {
        let query = bound!(sqlx::query::<sqlx::Postgres>(sql.postgres), values);
        let row = query.fetch_optional(&mut **self).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

#[cfg(feature = "sqlite")]
impl Connection for &mut SqliteConnection {}

#[cfg(feature = "sqlite")]
impl sealed::Connection for &mut SqliteConnection {
    fn is_sqlite(&self) -> Result<bool, OutboxError> {
        Ok(true)
    }

    async fn first(&mut self, sql: Sql, values: Vec<Value>) -> Result<Option<i64>, OutboxError> {
        let query = bound!(sqlx::query::<sqlx::Sqlite>(sql.sqlite), values);
        let row = query.fetch_optional(&mut **self).await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }
}

#[cfg(feature = "sea-orm")]
impl<C: sea_orm::ConnectionTrait + Sync> Connection for &C {}

#[cfg(feature = "sea-orm")]
impl<C: sea_orm::ConnectionTrait + Sync> sealed::Connection for &C {
    fn is_sqlite(&self) -> Result<bool, OutboxError> {
        match self.get_database_backend() {
            sea_orm::DbBackend::Sqlite => Ok(true),
            sea_orm::DbBackend::Postgres => Ok(false),
            other => Err(OutboxError::Backend { got: format!("{other:?}") }),
        }
    }

    async fn first(&mut self, sql: Sql, values: Vec<Value>) -> Result<Option<i64>, OutboxError> {
        let text = if self.is_sqlite()? { sql.sqlite } else { sql.postgres };
        let values = values.into_iter().map(|value| match value {
            Value::Integer(number) => sea_orm::Value::from(number),
            Value::Text(text) => sea_orm::Value::from(text),
            Value::Bytes(bytes) => sea_orm::Value::from(bytes),
        });
        let statement = sea_orm::Statement::from_sql_and_values(self.get_database_backend(), text, values);
        let row = self.query_one_raw(statement).await?;
        Ok(row.map(|row| row.try_get_by_index(0)).transpose()?)
    }
}
