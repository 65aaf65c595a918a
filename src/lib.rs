//! Clawback takes back from sellers what a refund makes them owe.
//!
//! See ARCHITECTURE.md for the way of a refund through these modules. Imports run one way:
//! http, ui → operator, ledger; relay → ledger, queues; worker → queues, ledger, stripe;
//! reconcile → ledger, stripe, the worker's limiter. Only `app` and `cli` see everything.

pub mod app;
pub mod cli;
pub mod config;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail loudly, and say what they tried")]
#[path = "../tests/fuzz/mod.rs"]
mod fuzz;
pub mod http;
pub mod ledger;
pub mod lines;
#[cfg(test)]
#[expect(clippy::panic, clippy::print_stdout, reason = "tests fail loudly, and say what they found")]
#[path = "../tests/model/mod.rs"]
mod model;
pub mod operator;
mod reached;
pub mod reconcile;
mod reference;
pub mod relay;
pub mod stripe;
pub mod telemetry;
mod trace_context;
pub mod ui;
pub mod worker;
