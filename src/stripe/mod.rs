//! Stripe as Clawback needs it: one client for the transfer and reversal endpoints, and one classification of every
//! answer.
//!
//! The worker's jobs and `reconcile` call [`Client`]; whatever happens comes back as a [`Report`] whose [`Meaning`]
//! says what leads out of it. The module knows no database and no queue, decides no retries, never repeats a call by
//! itself, and never lets a key into a log, an error or a `Debug` text.

mod answer;
mod client;
pub mod outcome;
mod report;
mod types;

pub use client::{API_VERSION, Client, ClientError, Listed};
pub use report::{MESSAGE_MAX_CHARS, Meaning, RETRY_AFTER_MAX, Report};
pub use types::{CreateTransfer, ReverseTransfer, Transfer, TransferReversal};
