//! The columns in which an operator's id is looked for, whatever kind of id it is.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration =
    SqlMigration { name: "m20261123_000006_ids_are_looked_up", up: Statements::Both(UP), down: Statements::Both(DOWN) };

const UP: &[&str] = &[
    "CREATE INDEX history_by_request ON history (stripe_request_id) WHERE stripe_request_id IS NOT NULL",
    "CREATE INDEX webhook_events_by_event ON webhook_events (event_id)",
    "CREATE INDEX webhook_events_by_object ON webhook_events (object_id) WHERE object_id IS NOT NULL",
    "CREATE INDEX refunds_by_refund_ref ON refunds (refund_ref)",
    "CREATE INDEX refunds_by_payment_ref ON refunds (payment_ref)",
    "CREATE INDEX refunds_by_charge_ref ON refunds (charge_ref) WHERE charge_ref IS NOT NULL",
];

const DOWN: &[&str] = &[
    "DROP INDEX refunds_by_charge_ref",
    "DROP INDEX refunds_by_payment_ref",
    "DROP INDEX refunds_by_refund_ref",
    "DROP INDEX webhook_events_by_object",
    "DROP INDEX webhook_events_by_event",
    "DROP INDEX history_by_request",
];
