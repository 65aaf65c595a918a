//! The ledger's tables. Money is in minor units of the row's own currency; times are UTC.

use crate::sql::{SqlMigration, Statements};

pub(crate) const MIGRATION: SqlMigration =
    SqlMigration { name: "m20261101_000001_ledger", up: Statements::Both(UP), down: Statements::Both(DOWN) };

const UP: &[&str] = &[
    "CREATE TABLE payments (
        id uuid PRIMARY KEY,
        payment_ref text NOT NULL UNIQUE,
        amount bigint NOT NULL CHECK (amount > 0),
        currency text NOT NULL CHECK (length(currency) = 3),
        created_at timestamptz NOT NULL
    )",
    // A transfer that Clawback has yet to create has no Stripe id; neither has one from before Clawback's time.
    "CREATE TABLE seller_transfers (
        id uuid PRIMARY KEY,
        payment_id uuid NOT NULL REFERENCES payments (id),
        seller_id text NOT NULL,
        stripe_transfer_id text UNIQUE,
        destination text NOT NULL,
        amount bigint NOT NULL CHECK (amount > 0),
        amount_reversed bigint NOT NULL DEFAULT 0 CHECK (amount_reversed >= 0 AND amount_reversed <= amount),
        currency text NOT NULL CHECK (length(currency) = 3),
        status text NOT NULL CHECK (status IN ('pending', 'completed', 'failed', 'permanently_failed',
            'reversal_pending', 'partially_reversed', 'reversed')),
        retry_count integer NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
        next_retry_at timestamptz,
        failure_code text,
        failure_message text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CHECK (status <> 'reversed' OR amount_reversed = amount)
    )",
    "CREATE INDEX seller_transfers_by_payment ON seller_transfers (payment_id)",
    // `refund_ref` is the provider's id. A charge's own id is kept beside the payment's, since a marketplace may have
    // registered either as the payment's reference.
    "CREATE TABLE refunds (
        id uuid PRIMARY KEY,
        source text NOT NULL CHECK (source IN ('stripe', 'hyperswitch')),
        refund_ref text NOT NULL,
        payment_ref text NOT NULL,
        charge_ref text,
        payment_id uuid REFERENCES payments (id),
        amount bigint NOT NULL CHECK (amount > 0),
        currency text NOT NULL CHECK (length(currency) = 3),
        status text NOT NULL CHECK (status IN ('unmatched', 'matched', 'nothing_to_reverse', 'conflicting')),
        status_reason text,
        created_at timestamptz NOT NULL,
        matched_at timestamptz,
        UNIQUE (source, refund_ref),
        CHECK ((status = 'matched') = (payment_id IS NOT NULL AND matched_at IS NOT NULL))
    )",
    "CREATE INDEX refunds_by_payment ON refunds (payment_id)",
    "CREATE INDEX refunds_unmatched_by_payment_ref ON refunds (payment_ref) WHERE status = 'unmatched'",
    "CREATE INDEX refunds_unmatched_by_charge_ref ON refunds (charge_ref) WHERE status = 'unmatched'",
    // One reversal for each refund and transfer. A row says 'reversed' only with the id of Stripe's reversal.
    "CREATE TABLE reversals (
        id uuid PRIMARY KEY,
        refund_id uuid NOT NULL REFERENCES refunds (id),
        transfer_id uuid NOT NULL REFERENCES seller_transfers (id),
        amount bigint NOT NULL CHECK (amount > 0),
        currency text NOT NULL CHECK (length(currency) = 3),
        status text NOT NULL CHECK (status IN ('pending', 'reversed', 'permanently_failed')),
        retry_count integer NOT NULL DEFAULT 0 CHECK (retry_count >= 0),
        next_retry_at timestamptz,
        epoch integer NOT NULL DEFAULT 0 CHECK (epoch >= 0),
        epoch_started_at timestamptz NOT NULL,
        doubtful_since timestamptz,
        absent_since timestamptz,
        pending_reversal_id text,
        stripe_reversal_id text,
        externally_reversed boolean NOT NULL DEFAULT FALSE,
        failure_code text,
        failure_message text,
        sweep_after timestamptz,
        sweep_count integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        UNIQUE (refund_id, transfer_id),
        CHECK ((status = 'reversed') = (stripe_reversal_id IS NOT NULL)),
        CHECK (status = 'pending' OR next_retry_at IS NULL)
    )",
    "CREATE INDEX reversals_by_transfer ON reversals (transfer_id)",
    "CREATE INDEX reversals_to_sweep ON reversals (sweep_after) WHERE status = 'pending'",
    // A reversal that somebody else made may settle two of our rows; one that we made settles exactly one.
    "CREATE UNIQUE INDEX reversals_by_stripe_reversal ON reversals (stripe_reversal_id) WHERE NOT externally_reversed",
    "CREATE TABLE webhook_events (
        id uuid PRIMARY KEY,
        source text NOT NULL CHECK (source IN ('stripe', 'hyperswitch')),
        event_id text NOT NULL,
        event_type text NOT NULL,
        object_id text,
        outcome text NOT NULL CHECK (outcome IN ('accepted', 'unmatched', 'duplicate', 'ignored')),
        detail text,
        received_at timestamptz NOT NULL,
        UNIQUE (source, event_id)
    )",
    "CREATE TABLE outbox (
        id uuid PRIMARY KEY,
        kind text NOT NULL,
        payload text NOT NULL,
        entity_id uuid NOT NULL,
        created_at timestamptz NOT NULL,
        claimed_until timestamptz,
        published_at timestamptz,
        attempts integer NOT NULL DEFAULT 0,
        last_error text
    )",
    "CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL",
    "CREATE INDEX outbox_unpublished_by_entity ON outbox (entity_id) WHERE published_at IS NULL",
    "CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL",
    "CREATE TABLE history (
        id uuid PRIMARY KEY,
        entity text NOT NULL CHECK (entity IN ('payment', 'transfer', 'refund', 'reversal')),
        entity_id uuid NOT NULL,
        from_status text,
        to_status text NOT NULL,
        at timestamptz NOT NULL,
        actor text NOT NULL,
        reason text NOT NULL,
        stripe_request_id text
    )",
    "CREATE INDEX history_by_entity ON history (entity_id, id)",
];

const DOWN: &[&str] = &[
    "DROP TABLE history",
    "DROP TABLE outbox",
    "DROP TABLE webhook_events",
    "DROP TABLE reversals",
    "DROP TABLE refunds",
    "DROP TABLE seller_transfers",
    "DROP TABLE payments",
];
