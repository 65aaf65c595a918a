//! Stripe as Clawback needs it: one client for transfers, reversals and what look-ups read, and one classification of every
//! answer.
//!
//! The worker's jobs and `reconcile` call [`Client`]; whatever happens comes back as a [`Report`] whose [`Meaning`]
//! says what leads out of it. The module knows no database and no queue, decides no retries, never repeats a call by
//! itself, and never lets a key into a log, an error or a `Debug` text.

mod answer;
mod client;
mod fence;
mod objects;
pub mod outcome;
mod report;
mod types;

pub use client::{API_VERSION, Client, ClientError, Listed, Page};
pub use objects::{Charge, PaymentIntent, WebhookEndpoint};
pub use report::{MESSAGE_MAX_CHARS, Meaning, RETRY_AFTER_MAX, Report};
pub use types::{CreateTransfer, ReverseTransfer, Transfer, TransferReversal};
