//! The run's PostgreSQL: a database and a role for what is measured, and the superuser's connection for looking at it.

use anyhow::{Result, ensure};
use sea_orm::sqlx::{AssertSqlSafe, PgPool, postgres::PgPoolOptions, query, query_scalar};

use crate::place::Place;

/// The role, its password and the database of everything that is measured; the statements of other roles are not counted.
pub(crate) const MEASURED: &str = "clawback";

/// Makes the role and the database, and returns a connection of the superuser's to it.
///
/// # Errors
/// When commits would not be durable, or statements can't be counted.
pub(crate) async fn prepare(place: &Place) -> Result<PgPool> {
    let admin = connect(&place.database_url).await?;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let value: String = query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&admin).await?;
        ensure!(value == "on", "PostgreSQL's {setting} must be on (got {value}): the numbers would not be real");
    }
    for statement in ["CREATE ROLE clawback LOGIN PASSWORD 'clawback'", "CREATE DATABASE clawback OWNER clawback"] {
        query(statement).execute(&admin).await?;
    }
    admin.close().await;
    let mut url = url::Url::parse(&place.database_url)?;
    url.set_path(MEASURED);
    let db = connect(url.as_str()).await?;
    query("CREATE EXTENSION pg_stat_statements").execute(&db).await?;
    Ok(db)
}

async fn connect(url: &str) -> Result<PgPool> {
    Ok(PgPoolOptions::new().max_connections(2).connect(url).await?)
}

/// A table of `count` pending jobs, for what is compared with the program.
///
/// # Errors
/// PostgreSQL's.
pub(crate) async fn make_jobs(db: &PgPool, table: &str, count: u32) -> Result<()> {
    for statement in [
        format!("CREATE TABLE {table} (id bigint PRIMARY KEY, status text NOT NULL)"),
        format!("ALTER TABLE {table} OWNER TO {MEASURED}"),
        format!("INSERT INTO {table} SELECT n, 'pending' FROM generate_series(0, {count} - 1) n"),
        format!("ANALYZE {table}"),
    ] {
        query(AssertSqlSafe(statement)).execute(db).await?;
    }
    Ok(())
}

/// How many rows of `table` have this status.
///
/// # Errors
/// PostgreSQL's.
pub(crate) async fn count(db: &PgPool, table: &str, status: &str) -> Result<u32> {
    let statement = format!("SELECT count(*) FROM {table} WHERE status = $1");
    let count: i64 = query_scalar(AssertSqlSafe(statement)).bind(status).fetch_one(db).await?;
    Ok(u32::try_from(count)?)
}

/// # Errors
/// PostgreSQL's.
pub(crate) async fn count_all(db: &PgPool, table: &str) -> Result<u32> {
    let count: i64 = query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(db).await?;
    Ok(u32::try_from(count)?)
}
