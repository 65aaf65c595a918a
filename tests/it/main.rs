//! Clawback on real services: RabbitMQ, PostgreSQL, SQLite, and HTTP to a simulated Stripe. `./dev test` starts them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::large_futures,
    clippy::print_stdout,
    reason = "a test fails by panicking, and its future may be as large as it likes"
)]

mod support;

mod adopt;
mod amendments;
mod api;
mod architecture;
mod availability;
mod broker_outage;
mod burnt_keys;
mod charge_facts;
mod circuit_breaker;
mod claims_api;
mod cli_config;
mod cli_doctor;
mod cli_import;
mod cli_queues;
mod clocks;
mod closing;
mod command_line;
mod crash;
mod creation;
mod creation_and_refunds;
mod credentials;
mod dashboards;
mod discovery;
mod disputes;
mod encrypted;
mod guards;
mod held_refunds;
mod hyperswitch;
mod ingress;
mod lookups;
mod lost_ledger;
mod metrics;
mod notifications;
mod openapi;
mod operations;
mod overtaken;
mod overview;
mod parity;
mod parked;
mod partial_refunds;
mod pauses;
mod plans;
mod pooler;
mod reconcile;
mod refund_failures;
mod refunds_by_charge;
mod relay;
mod requests;
mod restore;
mod reversal;
mod reversals_api;
mod rights;
mod schema;
mod seeds;
mod side_by_side;
mod slow_seller;
mod stripe_behaviour;
mod stripe_client;
mod sweeper;
mod trace;
mod traces;
mod ui;
mod ui_browser;
mod upgrade;
