//! Clawback takes back from sellers what a refund makes them owe.
//!
//! See ARCHITECTURE.md for the way of a refund through these modules. Imports run one way:
//! ingress → ledger; outbox → ledger, queues; worker → queues, ledger, stripe;
//! reconcile → ledger, stripe, the worker's limiter. Only `app` and `cli` see everything.

pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod ingress;
pub mod ledger;
pub mod openapi;
pub mod operator;
pub mod outbox;
mod problem;
pub mod reconcile;
mod request_id;
pub mod stripe;
pub mod telemetry;
mod trace_context;
pub mod worker;
