#![doc = include_str!("../README.md")]
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a unit test fails by panicking"))]

mod acknowledge;
mod broker;
mod connection_state;
mod delivery;
#[cfg(any(doc, doctest))]
pub mod docs;
mod handler;
mod headers;
mod job;
mod measure;
mod message;
mod outcome;
mod parking;
mod publisher;
mod reconnect;
mod retry_policy;
#[cfg(feature = "testing")]
pub mod testing;
mod topology;
mod worker;

#[cfg(feature = "management")]
pub use broker::ManagementError;
pub use broker::{Broker, BrokerError, Difference, QueueStatus, TopologyReport};
pub use connection_state::ConnectionState;
pub use delivery::Delivery;
pub use handler::Handler;
pub use job::Job;
pub use message::Message;
pub use outcome::Outcome;
pub use parking::{ParkedJob, Parking, ParkingError, Selection, Verdict};
pub use publisher::{PublishError, Publisher};
pub use retry_policy::RetryPolicy;
pub use topology::{Argument, QueueSpec, Topology, TopologyError};
pub use worker::{Worker, WorkerControl, WorkerError};
