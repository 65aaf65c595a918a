//! The schema of Clawback's ledger, on PostgreSQL and on SQLite.
//!
//! The application and its tests run these through [`Migrator`]. A migration that has been released is never edited;
//! a change is a new file. The statements are written as SQL so that the constraints, which do real work here, can be
//! read as the databases will see them.

#![expect(elided_lifetimes_in_paths, reason = "async_trait needs the very signature that the trait declares")]

use sea_orm_migration::async_trait::async_trait;
pub use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager};

mod m20261101_000001_ledger;
mod m20261101_000002_history_is_append_only;
mod sql;

/// All migrations, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261101_000001_ledger::MIGRATION), Box::new(m20261101_000002_history_is_append_only::MIGRATION)]
    }
}
