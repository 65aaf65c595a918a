//! The outbox on real databases and a real RabbitMQ. `./dev test` sets them up; each test has its own of each.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod enqueueing;
mod examples;
mod handing_over;
mod relaying;
mod scheduling;
mod silent_queue;
mod support;
mod uniqueness;
