//! The simulator over HTTP, as any client sees it: one binary, one simulator a test.

#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

mod api;
mod door;
mod faults;
mod idempotency;
mod support;
