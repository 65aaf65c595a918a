//! Whether Stripe may have been asked for a reversal: what it has not been asked for can be called off.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration =
    SqlMigration { name: "m20261123_000005_calls_are_marked", up: Statements::Both(UP), down: Statements::Both(DOWN) };

/// Nobody wrote down whether the older rows were asked for, so that all of them count as such.
const UP: &[&str] =
    &["ALTER TABLE reversals ADD COLUMN called_at timestamptz", "UPDATE reversals SET called_at = created_at"];

const DOWN: &[&str] = &["ALTER TABLE reversals DROP COLUMN called_at"];
