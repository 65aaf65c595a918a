//! Clawback takes back from sellers what a refund makes them owe.
//!
//! See ARCHITECTURE.md for the way of a refund through these modules. Imports run one way:
//! ingress → ledger; outbox → ledger, queues; worker → queues, ledger, stripe. Only `app` sees everything.

pub mod ledger;
pub mod outbox;
pub mod stripe;
pub mod worker;
