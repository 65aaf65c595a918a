//! Clawback takes back from sellers what a refund makes them owe.
//!
//! See ARCHITECTURE.md for the way of a refund through these modules. Imports run one way:
//! http, ui → operator, ledger; relay → ledger, queues; worker → queues, ledger, stripe;
//! reconcile → ledger, stripe, the worker's limiter. Only `app` and `cli` see everything.

pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod ledger;
pub mod lines;
pub mod operator;
pub mod reconcile;
mod reference;
pub mod relay;
pub mod stripe;
pub mod telemetry;
mod trace_context;
pub mod ui;
pub mod worker;
