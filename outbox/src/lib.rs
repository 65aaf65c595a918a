#![doc = include_str!("../README.md")]
#![doc = ""]
#![doc = include_str!("../docs/reference.md")]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(any(feature = "postgres", feature = "sqlite")))]
compile_error!("an outbox needs a database: switch on the feature `postgres`, or `sqlite`, or both");

mod connection;
mod enqueue;
mod error;
mod handoff;
mod pool;
mod relay;
mod schedule;
mod schema;
mod sql;
mod standard;
mod table;

#[cfg(feature = "sea-orm")]
#[doc(no_inline)]
pub use sea_orm;
/// The crates whose types are part of this API.
#[doc(no_inline)]
pub use {chrono, queues, sqlx};

pub use connection::Connection;
pub use enqueue::{Batch, Enqueued, Outbox, OutboxJob};
pub use error::OutboxError;
pub use handoff::Handoff;
pub use pool::Pool;
pub use relay::Relay;
pub use schedule::{Missed, Scheduler};
pub use schema::schema;
pub use standard::{StandardRow, StandardTable};
pub use table::{Refusal, Table};
