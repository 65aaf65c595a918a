//! Set statements: many rows in one parameter, so a statement's text, and its plan, never depend on how many there are.
//!
//! The rows travel as one JSON array. PostgreSQL reads it with `jsonb_to_recordset`, SQLite with `json_each`.

use sea_orm::sea_query::ColumnType;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityName, EntityTrait, FromQueryResult,
    IdenStatic, Iterable, ModelTrait, Statement, Value,
};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

/// Inserts `rows`.
pub(in crate::ledger) async fn insert<M>(txn: &DatabaseTransaction, rows: &[&M]) -> Result<(), DbErr>
where
    M: ModelTrait + Serialize,
{
    if rows.is_empty() {
        return Ok(());
    }
    let backend = txn.get_database_backend();
    let (table, columns) = (M::Entity::default(), columns::<M>());
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let source = recordset(backend, &columns);
    let sql = format!("INSERT INTO {} ({names}) SELECT {names} FROM {source} AS v", table.table_name());
    txn.execute_raw(Statement::from_sql_and_values(backend, sql, [to_json(rows)?])).await?;
    Ok(())
}

/// Overwrites the rows of these ids, each only while its column `guard` still has the value that the old row has.
/// Returns how many were.
pub(in crate::ledger) async fn update<M>(
    txn: &DatabaseTransaction,
    guard: <M::Entity as EntityTrait>::Column,
    rows: &[(&M, &M)],
) -> Result<u64, DbErr>
where
    M: ModelTrait + Serialize,
{
    if rows.is_empty() {
        return Ok(0);
    }
    let backend = txn.get_database_backend();
    let mut columns = columns::<M>();
    let sets = columns.iter().filter(|(name, _)| *name != "id").map(|(name, _)| format!("{name} = v.{name}"));
    let sets = sets.collect::<Vec<_>>().join(", ");
    columns.push(("expected", kind(guard)));
    let table = M::Entity::default();
    let table = table.table_name();
    let (source, guard) = (recordset(backend, &columns), guard.as_str());
    let sql = format!(
        "UPDATE {table} SET {sets} FROM {source} AS v WHERE {table}.id = v.id AND {table}.{guard} = v.expected"
    );
    let mut objects = Vec::with_capacity(rows.len());
    for (old, new) in rows {
        let (old, mut new) = (to_value(old)?, to_value(new)?);
        new["expected"] = old[guard].clone();
        objects.push(new);
    }
    let done = txn.execute_raw(Statement::from_sql_and_values(backend, sql, [to_json(&objects)?])).await?;
    Ok(done.rows_affected())
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
