//! The simulator over HTTP, as any client sees it: one binary, one simulator a test.

#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod api;
mod bench;
mod disputes;
mod door;
mod door_payments;
mod expand;
mod faults;
mod idempotency;
mod payments;
mod refunds;
mod strict;
mod support;
mod webhooks;
