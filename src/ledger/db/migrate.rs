//! Which migrations a database has, and applying and taking them back, each in a transaction of its own.
//!
//! While a new version is rolled out, two versions work on one schema. So a migration that only a newer version knows is no
//! reason to stop: migrations add what older versions do not read, and may leave out (docs/runbook.md, "Upgrade").

use std::collections::HashSet;

use clawback_migrations::{MigrationTrait, Migrator, MigratorTrait, SchemaManager};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement};

use super::begin;
use crate::ledger::time::now;

/// Serializes migrations that several processes start at once. Any number that nothing else uses.
const MIGRATION_LOCK: i64 = 0x0c1a_3bac;
/// Where a database remembers what was applied.
const APPLIED: &str = "seaql_migrations";

/// The migrations of this version and of its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrations {
    /// Those of this version, oldest first, and whether each is applied.
    pub known: Vec<(String, bool)>,
    /// Those that are applied, and that only a newer version knows.
    pub newer: Vec<String>,
}

impl Migrations {
    /// How many are still to be applied.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.known.iter().filter(|(_, applied)| !applied).count()
    }
}

/// What a database has that taking migrations back would delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The database's name; on SQLite its file.
    pub database: String,
    /// The tables that have rows.
    pub tables: Vec<String>,
    /// Who else is connected, on PostgreSQL: user, address and program of each.
    pub others: Vec<String>,
}

/// Changes nothing.
pub(crate) async fn migrations(db: &impl ConnectionTrait) -> Result<Migrations, DbErr> {
    let applied = applied(db).await?;
    let known: Vec<_> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let newer = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    let names: HashSet<String> = applied.into_iter().collect();
    let known = known.into_iter().map(|name| (name.clone(), names.contains(&name))).collect();
    Ok(Migrations { known, newer })
}

async fn applied(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let backend = db.get_database_backend();
    let exists = match backend {
        DbBackend::Postgres => format!("SELECT 1 WHERE to_regclass('{APPLIED}') IS NOT NULL"),
        _ => format!("SELECT 1 FROM sqlite_master WHERE name = '{APPLIED}'"),
    };
    if db.query_one_raw(Statement::from_string(backend, exists)).await?.is_none() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT version FROM {APPLIED} ORDER BY version");
    let rows = db.query_all_raw(Statement::from_string(backend, sql)).await?;
    rows.iter().map(|row| row.try_get("", "version")).collect()
}

/// Applies all pending migrations, and returns how many there were. Safe to run from several processes at once. What was
/// applied before one fails stays applied.
pub(crate) async fn migrate_up(db: &DatabaseConnection) -> Result<usize, DbErr> {
    let pending = migrations(db).await?.pending();
    let mut applied = 0;
    for _ in 0..pending {
        let txn = begin_migration(db).await?;
        Migrator::install(&txn).await?;
        // Another process may have applied some meanwhile.
        let found = migrations(&txn).await?;
        let Some(next) = Migrator::migrations().into_iter().zip(&found.known).find(|(_, (_, applied))| !applied) else {
            txn.rollback().await?;
            break;
        };
        let (migration, _) = next;
        migration.up(&SchemaManager::new(&txn)).await?;
        let values = [migration.name().into(), now().timestamp().into()];
        let sql = format!("INSERT INTO {APPLIED} (version, applied_at) VALUES ($1, $2)");
        txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await?;
        txn.commit().await?;
        tracing::info!(migration = migration.name(), "migration applied");
        applied += 1;
    }
    Ok(applied)
}

/// Takes back the newest `steps` migrations, with the data in their tables.
///
/// # Errors
/// When the newest one is only known to a newer version, which must take it back.
pub(crate) async fn migrate_down(db: &DatabaseConnection, steps: u32) -> Result<(), DbErr> {
    for _ in 0..steps {
        let txn = begin_migration(db).await?;
        let found = migrations(&txn).await?;
        if let Some(newer) = found.newer.last() {
            return Err(DbErr::Custom(format!(
                "the migration {newer} is of a newer version of Clawback, which must revert it"
            )));
        }
        let applied = Migrator::migrations().into_iter().zip(&found.known).rfind(|(_, (_, applied))| *applied);
        let Some((migration, _)) = applied else { return txn.rollback().await };
        revert(&txn, migration.as_ref()).await?;
        txn.commit().await?;
    }
    Ok(())
}

async fn revert(txn: &DatabaseTransaction, migration: &dyn MigrationTrait) -> Result<(), DbErr> {
    migration.down(&SchemaManager::new(txn)).await?;
    let sql = format!("DELETE FROM {APPLIED} WHERE version = $1");
    let values = [migration.name().into()];
    txn.execute_raw(Statement::from_sql_and_values(txn.get_database_backend(), sql, values)).await.map(drop)
}

async fn begin_migration(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let txn = begin(db).await?;
    if txn.get_database_backend() == DbBackend::Postgres {
        // Another process may be migrating, and an index takes its time; but nobody shall queue behind a table that is in use.
        txn.execute_unprepared("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
        let lock = "SELECT pg_advisory_xact_lock($1)";
        txn.execute_raw(Statement::from_sql_and_values(DbBackend::Postgres, lock, [MIGRATION_LOCK.into()])).await?;
        txn.execute_unprepared("SET LOCAL lock_timeout = '10s'").await?;
    }
    Ok(txn)
}

/// Changes nothing. `db` must have one connection: each further one counts as somebody else's.
pub(crate) async fn contents(db: &DatabaseConnection) -> Result<Contents, DbErr> {
    let backend = db.get_database_backend();
    let texts = async |sql: &str| {
        let rows = db.query_all_raw(Statement::from_string(backend, sql)).await?;
        rows.iter().map(|row| row.try_get::<String>("", "text")).collect::<Result<Vec<_>, DbErr>>()
    };
    let (name, tables) = match backend {
        DbBackend::Postgres => (
            "SELECT current_database()::text AS text",
            "SELECT table_name::text AS text FROM information_schema.tables
                WHERE table_schema = current_schema() AND table_type = 'BASE TABLE' ORDER BY table_name",
        ),
        _ => (
            "SELECT file AS text FROM pragma_database_list WHERE name = 'main'",
            "SELECT name AS text FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name",
        ),
    };
    let mut filled = Vec::new();
    for table in texts(tables).await?.into_iter().filter(|table| table != APPLIED) {
        let sql = format!("SELECT 'x' AS text FROM \"{table}\" LIMIT 1");
        if !texts(&sql).await?.is_empty() {
            filled.push(table);
        }
    }
    let others = match backend {
        DbBackend::Postgres => {
            texts(
                "SELECT concat_ws(' ', usename, coalesce(host(client_addr), 'on a local socket'), nullif(application_name, '')) AS text
                FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
                    AND pid <> pg_backend_pid() ORDER BY backend_start",
            )
            .await?
        }
        _ => Vec::new(),
    };
    let database = texts(name).await?.pop().unwrap_or_default();
    Ok(Contents { database, tables: filled, others })
}
