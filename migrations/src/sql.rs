//! A migration that is made of SQL statements, and what the two databases call the same column type. Used by every
//! migration; knows no table.

use sea_orm_migration::async_trait::async_trait;
use sea_orm_migration::prelude::{ConnectionTrait, DbErr, MigrationName, MigrationTrait, SchemaManager};
use sea_orm_migration::sea_orm::DbBackend;

/// A migration under the name by which the database remembers it: its file's.
pub(crate) struct SqlMigration {
    pub(crate) name: &'static str,
    pub(crate) up: Statements,
    pub(crate) down: Statements,
}

/// Statements, run one after the other in one transaction.
pub(crate) enum Statements {
    /// In PostgreSQL's dialect. On SQLite the column types are replaced by the ones that sea-orm stores there: UUIDs as
    /// 16-byte blobs and times as RFC 3339 text in UTC, which sorts in the order of time.
    Both(&'static [&'static str]),
    /// Of each database's own.
    Each { postgres: &'static [&'static str], sqlite: &'static [&'static str] },
}

impl Statements {
    async fn run(&self, manager: &SchemaManager<'_>) -> Result<(), DbErr> {
        let is_sqlite = manager.get_database_backend() == DbBackend::Sqlite;
        let statements: Vec<String> = match self {
            Self::Both(statements) if is_sqlite => {
                statements.iter().map(|sql| sql.replace(" uuid", " blob").replace(" timestamptz", " text")).collect()
            }
            Self::Each { sqlite, .. } if is_sqlite => owned(sqlite),
            Self::Both(statements) | Self::Each { postgres: statements, .. } => owned(statements),
        };
        for statement in statements {
            manager.get_connection().execute_unprepared(&statement).await?;
        }
        Ok(())
    }
}

fn owned(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|sql| (*sql).to_owned()).collect()
}

impl MigrationName for SqlMigration {
    fn name(&self) -> &str {
        self.name
    }
}

#[async_trait]
impl MigrationTrait for SqlMigration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.up.run(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        self.down.run(manager).await
    }
}
