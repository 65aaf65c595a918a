//! Triggers that refuse to change or delete a row of `history`: what happened to money is not rewritten, by whatever
//! program or hand.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::DbBackend;

use crate::dialect;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match manager.get_database_backend() {
            DbBackend::Sqlite => dialect::execute(manager, SQLITE_UP).await,
            _ => dialect::execute(manager, POSTGRES_UP).await,
        }
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        match manager.get_database_backend() {
            DbBackend::Sqlite => dialect::execute(manager, SQLITE_DOWN).await,
            _ => dialect::execute(manager, POSTGRES_DOWN).await,
        }
    }
}

const SQLITE_UP: &[&str] = &[
    "CREATE TRIGGER history_no_update BEFORE UPDATE ON history
        BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
    "CREATE TRIGGER history_no_delete BEFORE DELETE ON history
        BEGIN SELECT RAISE(ABORT, 'history is append-only'); END",
];

const SQLITE_DOWN: &[&str] = &["DROP TRIGGER history_no_delete", "DROP TRIGGER history_no_update"];

const POSTGRES_UP: &[&str] = &[
    "CREATE FUNCTION refuse_history_change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'history is append-only'; END $$",
    "CREATE TRIGGER history_append_only BEFORE UPDATE OR DELETE ON history
        FOR EACH ROW EXECUTE FUNCTION refuse_history_change()",
];

const POSTGRES_DOWN: &[&str] =
    &["DROP TRIGGER history_append_only ON history", "DROP FUNCTION refuse_history_change()"];
