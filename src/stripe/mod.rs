//! Stripe as Clawback needs it: one client, and one classification of every answer, a [`Report`] with its [`Meaning`].

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
