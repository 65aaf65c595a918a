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
        found_at_stripe boolean NOT NULL DEFAULT FALSE,
        created_at timestamptz NOT NULL
    )",
    // `position` is the transfer's place in its payment, from 0. `ordinal` counts the equal ones among those that Clawback
    // creates: with payment, destination, amount and currency it names such a transfer at Stripe. A registered transfer without a Stripe id that Clawback does not create can only be a repaired legacy row.
    // `reversed_before` is what was taken back before the registration, and by others since, as an operator adopted it: `adopted`
    // is JSON, Stripe's ids of those reversals with their amounts. `amount_reversed` contains it.
    "CREATE TABLE seller_transfers (
        id uuid PRIMARY KEY,
        payment_id uuid NOT NULL REFERENCES payments (id),
        position integer NOT NULL CHECK (position >= 0),
        ordinal integer NOT NULL DEFAULT 0 CHECK (ordinal >= 0),
        seller_id text NOT NULL,
        stripe_transfer_id text UNIQUE,
        destination text NOT NULL,
        amount bigint NOT NULL CHECK (amount > 0),
        amount_reversed bigint NOT NULL DEFAULT 0 CHECK (amount_reversed >= 0 AND amount_reversed <= amount),
        reversed_before bigint NOT NULL DEFAULT 0 CHECK (reversed_before >= 0 AND reversed_before <= amount_reversed),
        adopted text,
        withheld bigint NOT NULL DEFAULT 0 CHECK (withheld >= 0 AND withheld <= amount_reversed),
        currency text NOT NULL CHECK (length(currency) = 3),
        status text NOT NULL CHECK (status IN ('pending', 'completed', 'failed', 'permanently_failed',
            'reversal_pending', 'partially_reversed', 'reversed')),
        created_by_us boolean NOT NULL,
        refund_application_fee boolean NOT NULL DEFAULT FALSE,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        UNIQUE (payment_id, position),
        CHECK (status <> 'reversed' OR amount_reversed = amount)
    )",
    "CREATE UNIQUE INDEX seller_transfers_to_create ON seller_transfers (payment_id, destination, amount, currency, ordinal)
        WHERE created_by_us",
    "CREATE INDEX seller_transfers_by_status ON seller_transfers (status, id)",
    "CREATE INDEX seller_transfers_adopted ON seller_transfers (id) WHERE adopted IS NOT NULL",
    "CREATE INDEX seller_transfers_by_seller ON seller_transfers (seller_id, id)",
    // `reference` is the provider's id. A charge's id is kept beside the payment's: a marketplace may have registered either.
    // `account` is the provider's account where references are unique only within one (Hyperswitch's merchant), else empty.
    // `shares` is JSON, what the claim asks of each transfer; null means by ratio. `signed_at` and `signed_shares` are the
    // provider's own signed word, which outranks a report over the API. `captured` is what the provider said was captured of
    // the payment. `provider_reversal` is the reversal that came with the refund, of `reversed_transfer`; empty or null where
    // the provider did not name it. `attention` says what an operator must do, until `acknowledged_at`. `stage` is how far a
    // dispute is at its provider.
    "CREATE TABLE claims (
        id uuid PRIMARY KEY,
        kind text NOT NULL CHECK (kind IN ('refund', 'dispute')),
        source text NOT NULL CHECK (source IN ('stripe', 'hyperswitch')),
        account text NOT NULL DEFAULT '',
        reference text NOT NULL,
        payment_ref text NOT NULL,
        charge_ref text,
        payment_id uuid REFERENCES payments (id),
        amount bigint NOT NULL CHECK (amount > 0),
        currency text NOT NULL CHECK (length(currency) = 3),
        status text NOT NULL CHECK (status IN ('unmatched', 'held', 'matched', 'conflicting', 'nothing_to_reverse',
            'failed')),
        status_reason text,
        shares text,
        signed_at timestamptz,
        signed_shares text,
        captured bigint,
        provider_reversal text,
        reversed_transfer text,
        provider_updated_at timestamptz,
        provider_created_at timestamptz,
        failed_at timestamptz,
        attention text,
        acknowledged_at timestamptz,
        stage text CHECK (stage IN ('inquiry', 'open', 'withdrawn', 'lost', 'settled', 'won')),
        lookup_id uuid,
        created_at timestamptz NOT NULL,
        matched_at timestamptz,
        UNIQUE (kind, source, account, reference),
        CHECK ((kind = 'dispute') = (stage IS NOT NULL)),
        CHECK (status <> 'matched' OR (payment_id IS NOT NULL AND matched_at IS NOT NULL)),
        CHECK (lookup_id IS NULL OR status IN ('nothing_to_reverse', 'failed'))
    )",
    "CREATE INDEX claims_by_payment ON claims (payment_id)",
    "CREATE INDEX claims_by_reference ON claims (reference)",
    "CREATE INDEX claims_by_payment_ref ON claims (payment_ref)",
    "CREATE INDEX claims_by_charge_ref ON claims (charge_ref) WHERE charge_ref IS NOT NULL",
    "CREATE INDEX claims_by_status ON claims (status, id)",
    "CREATE INDEX claims_disputes ON claims (id) WHERE kind = 'dispute'",
    "CREATE INDEX claims_over ON claims (id) WHERE status IN ('failed', 'nothing_to_reverse')",
    "CREATE INDEX claims_needing_attention ON claims (id)
        WHERE attention IS NOT NULL AND acknowledged_at IS NULL",
    // One reversal for each claim and transfer, beside those that were called off. A row says 'reversed' only with the id of
    // Stripe's reversal. Of the debt, Stripe is asked for `amount`; an operator recorded `amount_closed` as settled elsewhere.
    "CREATE TABLE reversals (
        id uuid PRIMARY KEY,
        claim_id uuid NOT NULL REFERENCES claims (id),
        transfer_id uuid NOT NULL REFERENCES seller_transfers (id),
        seller_id text NOT NULL,
        amount bigint NOT NULL CHECK (amount > 0),
        amount_closed bigint NOT NULL DEFAULT 0 CHECK (amount_closed >= 0),
        currency text NOT NULL CHECK (length(currency) = 3),
        status text NOT NULL CHECK (status IN ('pending', 'reversed', 'permanently_failed', 'called_off', 'closed')),
        stripe_reversal_id text,
        externally_reversed boolean NOT NULL DEFAULT FALSE,
        balance_transaction text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CHECK ((status = 'reversed') = (stripe_reversal_id IS NOT NULL))
    )",
    "CREATE UNIQUE INDEX reversals_of_claim ON reversals (claim_id, transfer_id) WHERE status <> 'called_off'",
    "CREATE INDEX reversals_by_claim ON reversals (claim_id)",
    "CREATE INDEX reversals_by_transfer ON reversals (transfer_id)",
    "CREATE INDEX reversals_by_status ON reversals (status, id)",
    "CREATE INDEX reversals_by_change ON reversals (updated_at, id)",
    "CREATE INDEX reversals_by_seller ON reversals (seller_id, id)",
    // All that the figures and the lists of debtors read of what is owed.
    "CREATE INDEX reversals_open ON reversals (seller_id, status, id, claim_id, currency, amount, created_at)
        WHERE status IN ('pending', 'permanently_failed')",
    "CREATE INDEX reversals_closed ON reversals (seller_id) WHERE status = 'closed' OR amount_closed > 0",
    // A reversal that another program made may settle two of our rows; one that we made settles exactly one.
    "CREATE UNIQUE INDEX reversals_by_stripe_reversal ON reversals (stripe_reversal_id) WHERE NOT externally_reversed",
    "CREATE INDEX reversals_by_stripe_id ON reversals (stripe_reversal_id) WHERE stripe_reversal_id IS NOT NULL",
    // What Stripe must do, and how far that is. A call has the id of the row that it is for.
    "CREATE TABLE calls (
        id uuid PRIMARY KEY,
        kind text NOT NULL CHECK (kind IN ('reverse', 'create', 'look_up', 'notify')),
        version bigint NOT NULL CHECK (version > 0),
        state text NOT NULL CHECK (state IN ('waiting', 'open', 'done', 'failed', 'called_off')),
        attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
        next_attempt_at timestamptz,
        generation integer NOT NULL DEFAULT 0 CHECK (generation >= 0),
        generation_started_at timestamptz NOT NULL,
        requested_at timestamptz,
        key_burnt_at timestamptz,
        outcome_unknown_since timestamptz,
        absent_since timestamptz,
        refused_since timestamptz,
        accepted_id text,
        failure_code text,
        failure_message text,
        sweep_after timestamptz NOT NULL,
        sweep_count integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        CHECK (state = 'open' OR next_attempt_at IS NULL)
    )",
    "CREATE INDEX calls_to_sweep ON calls (sweep_after) WHERE state = 'open'",
    "CREATE INDEX calls_failed ON calls (kind, id) WHERE state = 'failed'",
    "CREATE INDEX calls_refused ON calls (id) WHERE state = 'open' AND refused_since IS NOT NULL",
    "CREATE INDEX calls_by_failure_code ON calls (failure_code, id) WHERE failure_code IS NOT NULL",
    "CREATE INDEX calls_by_accepted_id ON calls (accepted_id) WHERE accepted_id IS NOT NULL",
    // What Stripe is asked about, once for each subject; asking again opens its call again.
    "CREATE TABLE lookups (
        id uuid PRIMARY KEY,
        subject text NOT NULL CHECK (subject IN ('refunds_of_charge', 'refund', 'dispute', 'payment', 'transfer')),
        reference text NOT NULL,
        event_id uuid,
        result text,
        created_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        UNIQUE (reference, subject)
    )",
    // What another system is told: `body` as it is posted.
    "CREATE TABLE notifications (
        id uuid PRIMARY KEY,
        topic text NOT NULL,
        body text NOT NULL,
        created_at timestamptz NOT NULL
    )",
    // An operator's action on many rows: previewed, and then worked on the set that was previewed. Until `lease_until` it is one
    // process's.
    "CREATE TABLE operations (
        id uuid PRIMARY KEY,
        action text NOT NULL CHECK (action IN ('replay_reversals', 'retry_transfers', 'close_reversals', 'discard_messages',
            'accept_claims', 'acknowledge_claims')),
        filter text NOT NULL,
        state text NOT NULL CHECK (state IN ('previewed', 'running', 'done', 'aborted')),
        items integer NOT NULL CHECK (items >= 0),
        matching bigint NOT NULL,
        checked integer NOT NULL,
        refusals text NOT NULL,
        oldest timestamptz,
        operator text,
        reason text,
        spread_seconds integer NOT NULL DEFAULT 0 CHECK (spread_seconds >= 0),
        cap integer CHECK (cap > 0),
        created_at timestamptz NOT NULL,
        started_at timestamptz,
        finished_at timestamptz,
        lease_owner uuid,
        lease_until timestamptz,
        CHECK (state <> 'running' OR (operator IS NOT NULL AND reason IS NOT NULL AND started_at IS NOT NULL))
    )",
    "CREATE INDEX operations_by_state ON operations (state, created_at)",
    "CREATE INDEX operations_running ON operations (id) WHERE state = 'running'",
    // The rows that it is about, in the order in which they are worked on.
    "CREATE TABLE operation_items (
        id uuid PRIMARY KEY,
        operation_id uuid NOT NULL REFERENCES operations (id),
        position integer NOT NULL CHECK (position >= 0),
        target_id uuid NOT NULL,
        amount bigint NOT NULL,
        currency text NOT NULL CHECK (length(currency) = 3),
        state text NOT NULL CHECK (state IN ('pending', 'done', 'refused')),
        problem text,
        done_at timestamptz,
        at_stripe text CHECK (at_stripe IN ('ready', 'already_reversed', 'already_created', 'less_left', 'short_of_balance',
            'unknown')),
        stripe_detail text,
        UNIQUE (operation_id, position),
        UNIQUE (operation_id, target_id)
    )",
    "CREATE INDEX operation_items_pending ON operation_items (operation_id, position) WHERE state = 'pending'",
    // A run of `clawback reconcile`. It goes on behind `after_id`; `pages` counts its writes, so two processes can't both go on.
    "CREATE TABLE reconcile_runs (
        id uuid PRIMARY KEY,
        state text NOT NULL CHECK (state IN ('running', 'interrupted', 'done')),
        since timestamptz,
        fix boolean NOT NULL,
        after_id uuid,
        pages bigint NOT NULL CHECK (pages >= 0),
        transfers bigint NOT NULL,
        transfers_without_stripe_id bigint NOT NULL,
        agreed bigint NOT NULL,
        on_their_way bigint NOT NULL,
        given_up bigint NOT NULL,
        differences bigint NOT NULL,
        repaired bigint NOT NULL CHECK (repaired <= differences),
        problem text,
        operator text NOT NULL,
        started_at timestamptz NOT NULL,
        updated_at timestamptz NOT NULL,
        finished_at timestamptz,
        CHECK ((state = 'done') = (finished_at IS NOT NULL))
    )",
    "CREATE TABLE reconcile_differences (
        id uuid PRIMARY KEY,
        run_id uuid NOT NULL REFERENCES reconcile_runs (id),
        kind text NOT NULL CHECK (kind IN ('unrecorded', 'missing', 'duplicate', 'wrong_amount', 'externally_reversed', 'orphan',
            'unknown_transfer', 'unrecorded_transfer', 'incomplete')),
        transfer_id uuid NOT NULL,
        stripe_transfer_id text NOT NULL,
        reversal_id uuid,
        stripe_reversal_id text,
        claim text,
        currency text NOT NULL CHECK (length(currency) = 3),
        amount_in_ledger bigint,
        amount_at_stripe bigint,
        detail text NOT NULL,
        repair text NOT NULL CHECK (repair IN ('by_hand', 'possible', 'done', 'refused')),
        found_at timestamptz NOT NULL
    )",
    "CREATE INDEX reconcile_differences_of_run ON reconcile_differences (run_id, id)",
    // What operators say about a group of failures, by the group's key.
    "CREATE TABLE group_notes (
        id uuid PRIMARY KEY,
        group_key text NOT NULL,
        text text NOT NULL,
        operator text NOT NULL,
        created_at timestamptz NOT NULL
    )",
    "CREATE INDEX group_notes_by_group ON group_notes (group_key, id)",
    "CREATE TABLE webhook_events (
        id uuid PRIMARY KEY,
        source text NOT NULL CHECK (source IN ('stripe', 'hyperswitch')),
        event_id text NOT NULL,
        event_type text NOT NULL,
        object_id text,
        outcome text NOT NULL CHECK (outcome IN ('accepted', 'unmatched', 'held', 'conflicting', 'duplicate',
            'ignored', 'looking_up')),
        detail text,
        received_at timestamptz NOT NULL,
        UNIQUE (event_id, source)
    )",
    "CREATE INDEX webhook_events_by_object ON webhook_events (object_id) WHERE object_id IS NOT NULL",
    // `entity_id` is the call's id. `traceparent` is W3C's: the trace that the job belongs to.
    "CREATE TABLE outbox (
        id uuid PRIMARY KEY,
        kind text NOT NULL,
        payload text NOT NULL,
        entity_id uuid NOT NULL,
        traceparent text,
        created_at timestamptz NOT NULL,
        claimed_until timestamptz,
        published_at timestamptz,
        attempts integer NOT NULL DEFAULT 0,
        last_error text
    )",
    "CREATE INDEX outbox_unpublished ON outbox (id) WHERE published_at IS NULL",
    "CREATE INDEX outbox_by_entity ON outbox (entity_id)",
    "CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL",
    // Who is alive: each running process keeps its row fresh, and deletes it when it stops in order. `outage_…` says since when and
    // why Stripe can't be used, and at which transfer that was noticed. An operator who asks for a probe sets `probe_asked_at`.
    "CREATE TABLE processes (
        id uuid PRIMARY KEY,
        role text NOT NULL CHECK (role IN ('run', 'serve', 'worker')),
        version text NOT NULL,
        host text NOT NULL,
        pid bigint NOT NULL,
        breaker text CHECK (breaker IN ('closed', 'open', 'half_open')),
        outage_since timestamptz,
        outage_reason text,
        outage_about text,
        next_probe_at timestamptz,
        calls_per_second double precision,
        consumers integer NOT NULL CHECK (consumers >= 0),
        connected integer NOT NULL CHECK (connected >= 0 AND connected <= consumers),
        jobs_running integer NOT NULL CHECK (jobs_running >= 0),
        last_delivery_at timestamptz,
        webhooks_refused bigint NOT NULL DEFAULT 0,
        webhook_refused_at timestamptz,
        probe_asked_at timestamptz,
        started_at timestamptz NOT NULL,
        seen_at timestamptz NOT NULL,
        CHECK (breaker IS NULL OR (breaker = 'closed') = (outage_since IS NULL))
    )",
    // What operators have paused: one seller's account, or everything where `destination` is empty.
    "CREATE TABLE pauses (
        id uuid PRIMARY KEY,
        destination text NOT NULL,
        operator text NOT NULL,
        reason text NOT NULL,
        created_at timestamptz NOT NULL,
        ended_at timestamptz
    )",
    "CREATE UNIQUE INDEX pauses_in_force ON pauses (destination) WHERE ended_at IS NULL",
    "CREATE TABLE history (
        id uuid PRIMARY KEY,
        entity text NOT NULL CHECK (entity IN ('payment', 'transfer', 'refund', 'dispute', 'reversal', 'lookup',
            'event', 'operation', 'pause', 'process')),
        entity_id uuid NOT NULL,
        from_status text,
        to_status text NOT NULL,
        at timestamptz NOT NULL,
        actor text NOT NULL,
        reason text NOT NULL,
        stripe_request_id text
    )",
    "CREATE INDEX history_by_entity ON history (entity_id, id)",
    // What people did: few rows among many.
    "CREATE INDEX history_by_person ON history (actor, id)
        WHERE actor NOT IN ('api', 'import', 'ingress', 'reconcile', 'stripe', 'sweeper', 'worker')",
    "CREATE INDEX history_by_request ON history (stripe_request_id) WHERE stripe_request_id IS NOT NULL",
];

const DOWN: &[&str] = &[
    "DROP TABLE history",
    "DROP TABLE pauses",
    "DROP TABLE processes",
    "DROP TABLE outbox",
    "DROP TABLE webhook_events",
    "DROP TABLE notifications",
    "DROP TABLE group_notes",
    "DROP TABLE reconcile_differences",
    "DROP TABLE reconcile_runs",
    "DROP TABLE operation_items",
    "DROP TABLE operations",
    "DROP TABLE lookups",
    "DROP TABLE calls",
    "DROP TABLE reversals",
    "DROP TABLE claims",
    "DROP TABLE seller_transfers",
    "DROP TABLE payments",
];
