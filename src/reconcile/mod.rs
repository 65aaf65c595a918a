//! Compares the ledger with Stripe, transfer by transfer. It moves no money, and repairs the ledger alone where that is safe.

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
