#![doc = include_str!("../README.md")]
#![deny(missing_docs)]

mod connection;
mod enqueue;
mod error;
mod pool;
mod relay;
mod schedule;
mod schema;
mod sql;
mod store;

/// The crates whose types are part of this API.
#[doc(no_inline)]
pub use {chrono, queues, sqlx};

pub use connection::Connection;
pub use enqueue::{Enqueued, Outbox, OutboxJob};
pub use error::OutboxError;
pub use pool::Pool;
pub use relay::Relay;
pub use schedule::{Missed, Scheduler};
pub use schema::schema;
