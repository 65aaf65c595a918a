//! The library against a real RabbitMQ. `./dev test` sets one up; each test has queues of its own and deletes them.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod connections;
mod contract;
mod examples;
mod handlers;
mod handling;
mod long_delays;
mod observing;
mod operating;
mod order;
mod parking;
mod pausing;
mod publishing;
mod settling;
mod stopping;
mod support;
mod testing;
mod topology;
