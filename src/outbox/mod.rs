//! Brings committed jobs to the broker: the relay publishes the outbox, the sweeper refills it with what was lost.
//!
//! Both run in `run` and `serve`, in as many processes as there are. They never call Stripe and never write a status.

mod announcements;
mod relay;
mod store;
mod sweeper;

pub use relay::{Relay, Route};
pub use sweeper::Sweeper;
