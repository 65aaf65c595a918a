//! Compares the ledger with Stripe, transfer by transfer, and repairs what is provably safe to repair.
//!
//! `clawback reconcile` runs a [`Walk`]. It reads Stripe and never writes there; the ledger it changes only through the
//! ledger's guarded transitions, and only when told to. It moves no money in either direction. What `--fix` does not dare
//! [`adopt`] records for an operator.

mod adopt;
mod compare;
mod difference;
mod now;
mod reader;
mod repair;
mod walk;

pub use adopt::{Candidate, adopt};
pub use compare::{AtStripe, Comparison, compare};
pub use difference::{Difference, Kind, Repair};
pub use now::{StripeNow, preview};
pub use walk::{Page, ReconcileError, Walk};
