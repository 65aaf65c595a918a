//! A refund that its provider takes back after it had succeeded, and one that says itself what each transfer owes.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration = SqlMigration {
    name: "m20261123_000004_refunds_fail_and_name_shares",
    up: Statements::Both(UP),
    down: Statements::Both(DOWN),
};

/// `shares` is JSON: what the refund itself asks of each transfer, by id, in minor units of the transfer's currency; null
/// means by ratio. `attention` is what an operator has to do about the refund, in words; null means nothing.
const UP: &[&str] = &[
    "ALTER TABLE refunds ADD COLUMN shares text",
    "ALTER TABLE refunds ADD COLUMN failed_at timestamptz",
    "ALTER TABLE refunds ADD COLUMN attention text",
    "CREATE INDEX refunds_needing_attention ON refunds (id) WHERE attention IS NOT NULL",
];

const DOWN: &[&str] = &[
    "DROP INDEX refunds_needing_attention",
    "ALTER TABLE refunds DROP COLUMN attention",
    "ALTER TABLE refunds DROP COLUMN failed_at",
    "ALTER TABLE refunds DROP COLUMN shares",
];
