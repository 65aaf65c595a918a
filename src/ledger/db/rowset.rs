//! Set statements: many rows in one parameter, so a statement's text, and its plan, never depend on how many there are.
//!
//! The rows travel as one JSON array. PostgreSQL reads it with `jsonb_to_recordset`, SQLite with `json_each`.

use std::collections::HashSet;

use sea_orm::sea_query::ColumnType;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityName, EntityTrait, FromQueryResult,
    IdenStatic, Iterable, ModelTrait, QueryResult, Statement, Value,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

/// What the columns that guard an update are called where they have the old row's values.
const EXPECTED: [&str; 2] = ["expected", "expected_too"];

/// What a transaction writes, where possible in one statement on PostgreSQL: one round trip, however many tables.
#[derive(Debug)]
pub(in crate::ledger) struct Writes {
    backend: DbBackend,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    table: String,
    /// With `$1` in the place of the rows.
    sql: String,
    rows: Value,
    /// How many rows an update must find unchanged.
    guarded: Option<u64>,
}

impl Writes {
    /// For `txn`.
    pub(in crate::ledger) fn new(txn: &DatabaseTransaction) -> Self {
        Self { backend: txn.get_database_backend(), parts: Vec::new() }
    }

    /// Inserts `rows`.
    pub(in crate::ledger) fn insert<'a, M>(&mut self, rows: impl IntoIterator<Item = &'a M>) -> Result<(), DbErr>
    where
        M: ModelTrait + Serialize + 'a,
    {
        let rows: Vec<&M> = rows.into_iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let (table, columns) = (M::Entity::default(), columns::<M>());
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let source = recordset(self.backend, &columns);
        let sql = format!("INSERT INTO {} ({names}) SELECT {names} FROM {source} AS v", table.table_name());
        let table = table.table_name().to_owned();
        self.parts.push(Part { table, sql, rows: to_json(&rows)?, guarded: None });
        Ok(())
    }

    /// Deletes the rows of these ids.
    pub(in crate::ledger) fn delete<E: EntityName + Default>(&mut self, ids: &[Uuid]) {
        if ids.is_empty() {
            return;
        }
        let table = E::default().table_name().to_owned();
        let sql = format!("DELETE FROM {table} WHERE id {}", in_ids(self.backend));
        self.parts.push(Part { table, sql, rows: id_set(ids), guarded: None });
    }

    /// Overwrites the rows of these ids, each only while its columns `guards` still have the values that the old row has.
    pub(in crate::ledger) fn update<M>(
        &mut self,
        guards: &[<M::Entity as EntityTrait>::Column],
        rows: &[(&M, &M)],
    ) -> Result<(), DbErr>
    where
        M: ModelTrait + Serialize,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let mut columns = columns::<M>();
        let sets = columns.iter().filter(|(name, _)| *name != "id").map(|(name, _)| format!("{name} = v.{name}"));
        let sets = sets.collect::<Vec<_>>().join(", ");
        let table = M::Entity::default();
        let table = table.table_name();
        let mut unchanged = String::new();
        for (guard, expected) in guards.iter().zip(EXPECTED) {
            columns.push((expected, kind(*guard)));
            unchanged.push_str(&format!(" AND {table}.{} IS NOT DISTINCT FROM v.{expected}", guard.as_str()));
        }
        let source = recordset(self.backend, &columns);
        let sql = format!("UPDATE {table} SET {sets} FROM {source} AS v WHERE {table}.id = v.id{unchanged}");
        let mut objects = Vec::with_capacity(rows.len());
        for (old, new) in rows {
            let (old, mut new) = (to_value(old)?, to_value(new)?);
            for (guard, expected) in guards.iter().zip(EXPECTED) {
                new[expected] = old[guard.as_str()].clone();
            }
            objects.push(new);
        }
        let (table, guarded) = (table.to_owned(), Some(rows.len() as u64));
        self.parts.push(Part { table, sql, rows: to_json(&objects)?, guarded });
        Ok(())
    }

    /// Writes it all. False when a guarded row has changed meanwhile: the transaction must then be rolled back.
    pub(in crate::ledger) async fn run(self, txn: &DatabaseTransaction) -> Result<bool, DbErr> {
        // The order of the parts of one statement is not defined: a new row may need the place of a changed one.
        let tables: HashSet<&str> = self.parts.iter().map(|part| part.table.as_str()).collect();
        match self.backend {
            DbBackend::Postgres if tables.len() == self.parts.len() => self.run_together(txn).await,
            _ => self.run_one_by_one(txn).await,
        }
    }

    async fn run_together(self, txn: &DatabaseTransaction) -> Result<bool, DbErr> {
        if self.parts.is_empty() {
            return Ok(true);
        }
        let (mut with, mut counts, mut expected, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (part, number) in self.parts.into_iter().zip(1..) {
            let sql = part.sql.replace("$1", &format!("${number}"));
            let returning = if part.guarded.is_some() { " RETURNING 1" } else { "" };
            with.push(format!("w{number} AS ({sql}{returning})"));
            values.push(part.rows);
            if let Some(guarded) = part.guarded {
                counts.push(format!("(SELECT count(*) FROM w{number})"));
                expected.push(guarded);
            }
        }
        let sql = format!("WITH {} SELECT jsonb_build_array({}) AS counts", with.join(", "), counts.join(", "));
        let row = txn.query_one_raw(Statement::from_sql_and_values(DbBackend::Postgres, sql, values)).await?;
        let counts = row.map(|row| row.try_get("", "counts")).transpose()?;
        Ok(counts == Some(json!(expected)))
    }

    async fn run_one_by_one(self, txn: &DatabaseTransaction) -> Result<bool, DbErr> {
        for part in self.parts {
            let statement = Statement::from_sql_and_values(self.backend, part.sql, [part.rows]);
            let written = txn.execute_raw(statement).await?.rows_affected();
            if part.guarded.is_some_and(|guarded| guarded != written) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The rows of `M` for which `condition` holds. In it `{ids}` stands for the set of `ids`, and `{texts}` for that of `texts`.
pub(in crate::ledger) async fn select<C, M>(
    db: &C,
    condition: &str,
    ids: &[Uuid],
    texts: &[&str],
) -> Result<Vec<M>, DbErr>
where
    C: ConnectionTrait,
    M: ModelTrait + FromQueryResult,
{
    let table = M::Entity::default();
    let sql = format!("SELECT * FROM {} WHERE {condition}", table.table_name());
    let rows = db.query_all_raw(in_sets(db.get_database_backend(), &sql, ids, texts)).await?;
    rows.iter().map(|row| M::from_query_result(row, "")).collect()
}

/// The rows of `A` and of `B` for which the conditions hold, as of one moment on PostgreSQL. Sets as in [`select`].
pub(in crate::ledger) async fn select_both<A, B>(
    txn: &DatabaseTransaction,
    (of_a, of_b): (&str, &str),
    ids: &[Uuid],
    texts: &[&str],
) -> Result<(Vec<A>, Vec<B>), DbErr>
where
    A: ModelTrait + FromQueryResult + DeserializeOwned,
    B: ModelTrait + FromQueryResult + DeserializeOwned,
{
    let backend = txn.get_database_backend();
    if backend != DbBackend::Postgres {
        return Ok((select(txn, of_a, ids, texts).await?, select(txn, of_b, ids, texts).await?));
    }
    let list =
        |table: &str, condition: &str| format!("(SELECT jsonb_agg(to_jsonb(t)) FROM {table} t WHERE {condition})");
    let (a, b) = (A::Entity::default(), B::Entity::default());
    let sql = format!("SELECT {} AS a, {} AS b", list(a.table_name(), of_a), list(b.table_name(), of_b));
    let row = txn.query_one_raw(in_sets(backend, &sql, ids, texts)).await?;
    let row = row.ok_or_else(|| DbErr::RecordNotFound("a query of two lists had no answer".to_owned()))?;
    Ok((json_rows(&row, "a")?, json_rows(&row, "b")?))
}

/// The list in `column`, null for an empty one.
pub(super) fn json_rows<M: DeserializeOwned>(row: &QueryResult, column: &str) -> Result<Vec<M>, DbErr> {
    let rows: Option<serde_json::Value> = row.try_get("", column)?;
    let rows = rows.map(serde_json::from_value).transpose();
    Ok(rows.map_err(|error| DbErr::Json(error.to_string()))?.unwrap_or_default())
}

/// `sql` with the sets in the places of `{ids}` and `{texts}`.
pub(in crate::ledger) fn in_sets(backend: DbBackend, sql: &str, ids: &[Uuid], texts: &[&str]) -> Statement {
    let (any, of_texts) = match backend {
        DbBackend::Postgres => ("= ANY ", "(ARRAY(SELECT jsonb_array_elements_text($2::jsonb)))"),
        _ => ("IN ", "(SELECT value FROM json_each($2))"),
    };
    let sql = sql.replace("IN {ids}", in_ids(backend)).replace("IN {texts}", &format!("{any}{of_texts}"));
    let mut values: Vec<Value> = vec![id_set(ids)];
    if sql.contains("$2") {
        values.push(json!(texts).to_string().into());
    }
    Statement::from_sql_and_values(backend, sql, values)
}

/// Whether a column is in the set of ids that is parameter `$1`.
pub(crate) fn in_ids(backend: DbBackend) -> &'static str {
    match backend {
        // An array, unlike a subquery, lets every plan use an index, however many there are.
        DbBackend::Postgres => "= ANY (ARRAY(SELECT jsonb_array_elements_text($1::jsonb)::uuid))",
        _ => "IN (SELECT unhex(replace(value, '-', '')) FROM json_each($1))",
    }
}

/// Whether a column is among what `query` finds.
pub(in crate::ledger) fn within(backend: DbBackend, query: &str) -> String {
    match backend {
        DbBackend::Postgres => format!("= ANY (ARRAY({query}))"),
        _ => format!("IN ({query})"),
    }
}

/// The parameter for [`in_ids`].
pub(crate) fn id_set(ids: &[Uuid]) -> Value {
    json!(ids).to_string().into()
}

/// How a column is read from JSON.
#[derive(Clone, Copy)]
enum Kind {
    Id,
    Time,
    Number,
    Boolean,
    Text,
}

fn columns<M: ModelTrait>() -> Vec<(&'static str, Kind)> {
    <M::Entity as EntityTrait>::Column::iter().map(|column| (column.as_str(), kind(column))).collect()
}

fn kind(column: impl ColumnTrait) -> Kind {
    match column.def().get_column_type() {
        ColumnType::Uuid => Kind::Id,
        ColumnType::TimestampWithTimeZone => Kind::Time,
        ColumnType::Integer | ColumnType::BigInteger => Kind::Number,
        ColumnType::Boolean => Kind::Boolean,
        _ => Kind::Text,
    }
}

/// `$1`, an array of objects, as a table expression.
fn recordset(backend: DbBackend, columns: &[(&str, Kind)]) -> String {
    if backend == DbBackend::Postgres {
        let typed = columns.iter().map(|(name, kind)| format!("{name} {}", postgres_type(*kind)));
        let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let typed = typed.collect::<Vec<_>>().join(", ");
        return format!("(SELECT {names} FROM jsonb_to_recordset($1::jsonb) AS r({typed}))");
    }
    let read = columns.iter().map(|(name, kind)| {
        let value = format!("value->>'{name}'");
        match kind {
            Kind::Id => format!("unhex(replace({value}, '-', '')) AS {name}"),
            // As sea-orm writes times.
            Kind::Time => format!("replace({value}, 'Z', '+00:00') AS {name}"),
            Kind::Number | Kind::Boolean | Kind::Text => format!("{value} AS {name}"),
        }
    });
    format!("(SELECT {} FROM json_each($1))", read.collect::<Vec<_>>().join(", "))
}

fn postgres_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Id => "uuid",
        Kind::Time => "timestamptz",
        Kind::Number => "bigint",
        Kind::Boolean => "boolean",
        Kind::Text => "text",
    }
}

fn to_json<T: Serialize + ?Sized>(rows: &T) -> Result<Value, DbErr> {
    serde_json::to_string(rows).map(Into::into).map_err(unserializable)
}

fn to_value<T: Serialize>(row: &T) -> Result<serde_json::Value, DbErr> {
    serde_json::to_value(row).map_err(unserializable)
}

fn unserializable(error: serde_json::Error) -> DbErr {
    DbErr::Custom(format!("a row can't be written as JSON: {error}"))
}
