//! What the two databases call the same column type. Called by the migrations; knows no table.

use sea_orm_migration::prelude::{ConnectionTrait, DbErr, SchemaManager};
use sea_orm_migration::sea_orm::DbBackend;

/// Runs `statements`, written in PostgreSQL's dialect, one after the other.
///
/// On SQLite the column types are replaced by the ones that sea-orm stores there: UUIDs as 16-byte blobs and times as
/// RFC 3339 text in UTC, which sorts in the order of time.
pub(crate) async fn execute(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    for statement in statements {
        let statement = match manager.get_database_backend() {
            DbBackend::Sqlite => statement.replace(" uuid", " blob").replace(" timestamptz", " text"),
            _ => (*statement).to_owned(),
        };
        connection.execute_unprepared(&statement).await?;
    }
    Ok(())
}
