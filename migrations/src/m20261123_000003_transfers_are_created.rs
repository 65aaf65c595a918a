//! What creating a transfer at Stripe has to remember between two tries: the same as reversing one.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261123_000003_transfers_are_created",
    up: Statements::Both(UP),
    down: Statements::Both(DOWN),
};

/// `epoch_started_at` is null for a transfer that was registered with its Stripe id: nothing is created for it.
const UP: &[&str] = &[
    "ALTER TABLE seller_transfers ADD COLUMN epoch integer NOT NULL DEFAULT 0 CHECK (epoch >= 0)",
    "ALTER TABLE seller_transfers ADD COLUMN epoch_started_at timestamptz",
    "ALTER TABLE seller_transfers ADD COLUMN doubtful_since timestamptz",
    "ALTER TABLE seller_transfers ADD COLUMN absent_since timestamptz",
    "ALTER TABLE seller_transfers ADD COLUMN sweep_after timestamptz",
    "ALTER TABLE seller_transfers ADD COLUMN sweep_count integer NOT NULL DEFAULT 0",
    "CREATE INDEX seller_transfers_to_sweep ON seller_transfers (sweep_after) WHERE status IN ('pending', 'failed')",
];

const DOWN: &[&str] = &[
    "DROP INDEX seller_transfers_to_sweep",
    "ALTER TABLE seller_transfers DROP COLUMN sweep_count",
    "ALTER TABLE seller_transfers DROP COLUMN sweep_after",
    "ALTER TABLE seller_transfers DROP COLUMN absent_since",
    "ALTER TABLE seller_transfers DROP COLUMN doubtful_since",
    "ALTER TABLE seller_transfers DROP COLUMN epoch_started_at",
    "ALTER TABLE seller_transfers DROP COLUMN epoch",
];
