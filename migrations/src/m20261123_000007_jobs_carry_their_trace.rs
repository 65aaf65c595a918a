//! Which trace a job belongs to, so that what a webhook leads to is one trace with it.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261123_000007_jobs_carry_their_trace",
    up: Statements::Both(&["ALTER TABLE outbox ADD COLUMN traceparent text"]),
    down: Statements::Both(&["ALTER TABLE outbox DROP COLUMN traceparent"]),
};
