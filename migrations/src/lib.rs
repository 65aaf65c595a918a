//! The schema of Clawback's ledger, on PostgreSQL and on SQLite.
//!
//! The application and its tests run these through [`Migrator`]. A migration that has been released is never edited;
//! a change is a new file. The statements are written as SQL so that the constraints, which do real work here, can be
//! read as the databases will see them.

#![expect(elided_lifetimes_in_paths, reason = "async_trait needs the very signature that the trait declares")]

use sea_orm_migration::{MigrationTrait, async_trait::async_trait};
pub use sea_orm_migration::{MigratorTrait, migrator};

mod m20261101_000001_ledger;
mod m20261101_000002_history_is_append_only;
mod m20261123_000003_transfers_are_created;
mod m20261123_000004_refunds_fail_and_name_shares;
mod m20261123_000005_calls_are_marked;
mod m20261123_000006_ids_are_looked_up;
mod m20261123_000007_jobs_carry_their_trace;
mod sql;

/// All migrations, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261101_000001_ledger::MIGRATION),
            Box::new(m20261101_000002_history_is_append_only::MIGRATION),
            Box::new(m20261123_000003_transfers_are_created::MIGRATION),
            Box::new(m20261123_000004_refunds_fail_and_name_shares::MIGRATION),
            Box::new(m20261123_000005_calls_are_marked::MIGRATION),
            Box::new(m20261123_000006_ids_are_looked_up::MIGRATION),
            Box::new(m20261123_000007_jobs_carry_their_trace::MIGRATION),
        ]
    }
}
