//! A statement that is put together from parts, each with its values, for the lists and figures that both databases answer
//! in the same words.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, QueryResult, Statement, Value};
use serde_json::json;
use uuid::Uuid;

use crate::ledger::db::rowset::id_set;
use crate::ledger::now;

/// See the module's words.
#[derive(Debug)]
pub(in crate::ledger) struct Query {
    backend: DbBackend,
    values: Vec<Value>,
}

impl Query {
    pub(in crate::ledger) fn new(db: &impl ConnectionTrait) -> Self {
        Self { backend: db.get_database_backend(), values: Vec::new() }
    }

    /// The place of a value.
    pub(in crate::ledger) fn bind(&mut self, value: impl Into<Value>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// Now, by PostgreSQL's own clock: that of this machine may be wrong.
    pub(in crate::ledger) fn clock(&mut self) -> String {
        match self.backend {
            DbBackend::Postgres => "CURRENT_TIMESTAMP".to_owned(),
            _ => self.bind(now()),
        }
    }

    /// `column IN (…)`, however many there are.
    pub(in crate::ledger) fn among_ids(&mut self, column: &str, ids: &[Uuid]) -> String {
        let place = self.bind(id_set(ids));
        match self.backend {
            DbBackend::Postgres => {
                format!("{column} = ANY (ARRAY(SELECT jsonb_array_elements_text({place}::jsonb)::uuid))")
            }
            _ => format!("{column} IN (SELECT unhex(replace(value, '-', '')) FROM json_each({place}))"),
        }
    }

    /// `column IN (…)`, however many there are.
    pub(in crate::ledger) fn among_texts(&mut self, column: &str, texts: &[&str]) -> String {
        let place = self.bind(json!(texts).to_string());
        match self.backend {
            DbBackend::Postgres => format!("{column} = ANY (ARRAY(SELECT jsonb_array_elements_text({place}::jsonb)))"),
            _ => format!("{column} IN (SELECT value FROM json_each({place}))"),
        }
    }

    /// The sum of `amount`, 0 without rows; at most what an `i64` holds. Exact on PostgreSQL, up to 2^53 on SQLite.
    pub(in crate::ledger) fn sum(&self, amount: &str) -> String {
        match self.backend {
            DbBackend::Postgres => format!("LEAST(COALESCE(SUM({amount}), 0), {})::bigint", i64::MAX),
            _ => format!("CAST(TOTAL({amount}) AS bigint)"),
        }
    }

    /// The day in UTC, as `2026-11-01`.
    pub(in crate::ledger) fn day(&self, time: &str) -> String {
        match self.backend {
            DbBackend::Postgres => format!("CAST(CAST({time} AT TIME ZONE 'UTC' AS date) AS text)"),
            _ => format!("substr({time}, 1, 10)"),
        }
    }

    /// The rows as they come.
    pub(in crate::ledger) async fn rows(
        self,
        db: &impl ConnectionTrait,
        sql: String,
    ) -> Result<Vec<QueryResult>, DbErr> {
        db.query_all_raw(Statement::from_sql_and_values(self.backend, sql, self.values)).await
    }

    /// The rows.
    pub(in crate::ledger) async fn all<T: FromQueryResult>(
        self,
        db: &DatabaseConnection,
        sql: String,
    ) -> Result<Vec<T>, DbErr> {
        self.rows(db, sql).await?.iter().map(|row| T::from_query_result(row, "")).collect()
    }
}
