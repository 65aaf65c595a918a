#![doc = include_str!("../README.md")]
#![doc = ""]
#![doc = include_str!("../docs/reference.md")]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a unit test fails by panicking"))]

mod acknowledge;
mod batch;
mod broker;
mod connection;
#[cfg(any(doc, doctest))]
pub mod docs;
mod headers;
mod job;
#[cfg(feature = "tower")]
mod layer;
mod measure;
mod message;
mod parking;
mod publisher;
mod retry_policy;
#[cfg(feature = "testing")]
pub mod testing;
mod topology;
mod worker;

/// The crates whose types are part of this API.
#[doc(no_inline)]
pub use {chrono, serde, serde_json, tokio, url};
#[cfg(feature = "tower")]
#[doc(no_inline)]
pub use {tower_layer, tower_service};

#[cfg(feature = "management")]
pub use broker::ManagementError;
pub use broker::{Broker, BrokerError, Difference, QueueStatus, TopologyReport};
pub use connection::ConnectionState;
pub use job::{Delivery, Handler, Job, Outcome};
#[cfg(feature = "tower")]
pub use layer::{Attempt, HandlerService};
pub use message::Message;
pub use parking::{ParkedJob, Parking, ParkingError, Selection, Verdict};
pub use publisher::{PublishError, Publisher, PublisherHealth};
pub use retry_policy::RetryPolicy;
pub use topology::{Argument, Binding, ExchangeSpec, QueueSpec, Topology, TopologyError};
pub use worker::{KeyLimit, KeyPermit, KeyPermits, RetryOrder, Worker, WorkerControl, WorkerError, WorkerHealth};
