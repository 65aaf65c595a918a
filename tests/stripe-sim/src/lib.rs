//! A stateful simulator of Stripe's transfers, reversals, payments, refunds and disputes, as nasty as Stripe: strict
//! parameters, idempotency keys with saved answers that are pruned after 24 hours, balances, rate limits, lists that lag,
//! signed webhooks of every API version, and faults on demand.
//!
//! Tests start a [`Sim`] in-process and compare its [`Ledger`], which says what really happened, with their own. The
//! binary of the same name serves hands and compose. It moves no money, keeps nothing on disk, and is never part of the
//! product's binary.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests fail loudly"))]

mod auth;
mod builder;
mod clock;
mod control;
mod events;
mod exchange;
mod faults;
mod idempotency;
mod ledger;
mod limiter;
mod operations;
mod random_faults;
mod refusals;
mod routes;
mod server;
mod shapes;
mod sim;
mod spec;
mod state;

pub use builder::Builder;
pub use control::{Capture, NewDispute, NewPayment, NewRefund, PaymentTransfer};
pub use events::{Delivery, Endpoint, Event, Webhook, sign};
pub use faults::Fault;
pub use ledger::{
    BalanceTransaction, Charge, Counts, Dispute, DisputeStatus, Ledger, PLATFORM, PaymentIntent, Refund, RefundStatus,
    Request, Reversal, Transfer,
};
pub use sim::{NotInTime, Sim, Target};
pub use spec::TransferSpec;

/// The API version that answers name when a request names none.
pub const API_VERSION: &str = "2026-08-26.dahlia";
