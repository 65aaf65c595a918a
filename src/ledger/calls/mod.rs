//! What Stripe must do for us: one call, however many kinds. Of two workers with one job, one report counts, and the other is
//! [`LedgerError::Stale`]; that Stripe has done it counts whatever the version.

mod close;
mod creation;
mod fold;
mod load;
mod lookup;
mod replay;
mod report;
mod reversal;
mod sweep;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::events::Source;
use super::lookups::Subject;

pub use super::schema::call::Model as Call;
pub(super) use close::Close;
pub(super) use creation::{WITHHELD, give_back, not_created, withhold};
pub use fold::{Failure, NextStep, Postponement, Remainder, Retries, TryOutcome};
pub(super) use load::Loader;
pub use load::RegisteredTransfer;
pub(super) use replay::Replay;
pub(super) use report::Report;
pub(super) use reversal::{await_reversal, done as reversal_done};
pub use sweep::Swept;

/// A call with all that is needed to make it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub struct Task {
    /// How far it is.
    pub call: Call,
    /// What it is for.
    pub target: Target,
    /// When it was read, by the database's clock.
    pub read_at: DateTime<Utc>,
    /// Whether an operator has paused it.
    pub paused: bool,
}

/// What a call is for.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub enum Target {
    /// To take back what one claim asks of one transfer.
    Reversal(ReversalTarget),
    /// To create a transfer.
    Creation(CreationTarget),
    /// To read something.
    LookUp(LookUpTarget),
    /// To tell another system something.
    Notification(NotificationTarget),
}

/// A notification, as the worker needs it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub struct NotificationTarget {
    /// What it tells of, like `reversal.reversed`.
    pub topic: String,
    /// JSON, as it is posted.
    pub body: String,
}

/// A look-up, as the worker needs it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub struct LookUpTarget {
    /// What it is about.
    pub subject: Subject,
    /// Stripe's id of it.
    pub reference: String,
}

/// A reversal, as the worker needs it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub struct ReversalTarget {
    /// Who reported the claim.
    pub source: Source,
    /// The provider's id of the claim.
    pub claim_ref: String,
    /// When its provider made the claim, as far as it was reported.
    pub claim_created_at: Option<DateTime<Utc>>,
    /// The provider's id of the payment.
    pub payment_ref: String,
    /// Clawback's id of the transfer.
    pub transfer_id: Uuid,
    /// Stripe's id of the transfer; a legacy row has none.
    pub stripe_transfer_id: Option<String>,
    /// Minor units to take back.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Whether the application fee is refunded in proportion.
    pub refund_application_fee: bool,
    /// Whether the claim still asks for money.
    pub claim_stands: bool,
    /// What Stripe's transfer must be: minor units, in the same currency.
    pub transfer_amount: i64,
    /// The seller's connected account.
    pub destination: String,
}

/// A transfer to create, as the worker needs it.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub struct CreationTarget {
    /// The provider's id of the payment.
    pub payment_ref: String,
    /// What the buyer paid in: ISO 4217, lower case.
    pub payment_currency: String,
    /// The seller's connected account.
    pub destination: String,
    /// Minor units that were registered. It never changes, and is a part of the transfer's name at Stripe.
    pub registered: i64,
    /// Which of the payment's equal transfers to create it is, from 0.
    pub ordinal: i32,
    /// Minor units to transfer: less than what was registered where claims came first.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
}

impl Target {
    /// Payment, transfer, amount in minor units and currency, as log lines name them.
    #[must_use]
    pub fn in_logs(&self) -> (&str, Option<&str>, i64, &str) {
        match self {
            Self::Reversal(it) => (&it.payment_ref, it.stripe_transfer_id.as_deref(), it.amount, &it.currency),
            Self::Creation(it) => (&it.payment_ref, None, it.amount, &it.currency),
            Self::LookUp(it) => (&it.reference, None, 0, ""),
            Self::Notification(_) => ("", None, 0, ""),
        }
    }
}
