//! The library against brokers, networks and processes that break under load. Each test ends with the same question: has
//! every confirmed job been handled, and is nothing left but what was parked? `./dev test` sets up a RabbitMQ; tests that
//! break one start their own with `./dev broker`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod alarm;
mod broker_killed;
mod consumer_cancelled;
mod handshake;
mod network;
mod silent_queue;
mod stopping;
mod support;
mod worker_killed;
