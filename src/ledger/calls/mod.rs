//! What Stripe must do for us: one call, however many kinds. Of two workers with one job, one report counts, and the other is
//! [`LedgerError::Stale`]; that Stripe has done it counts whatever the version.

mod close;
mod creation;
mod fold;
mod kind;
mod load;
mod lookup;
mod replay;
mod report;
mod reversal;
mod sweep;
#[cfg(test)]
mod tests;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::events::Source;
use super::lookups::Subject;
use super::status::CallState;

pub use super::schema::call::Model as Call;
pub(super) use close::Close;
pub(super) use creation::{WITHHELD, give_back, not_created, withhold};
pub use fold::{Failure, Postponement, Remainder, Retries, TryOutcome};
pub(super) use load::Loader;
pub use load::RegisteredTransfer;
pub(super) use replay::Replay;
pub(super) use report::Report;
pub(super) use reversal::{await_reversal, done as reversal_done};
pub use sweep::Swept;

/// Stripe prunes a key once it is 24 h old, and it runs again. A key that may be older than this is not used, and what may
/// have been asked longer ago is looked for first.
const TRUSTED_KEY_AGE: TimeDelta = TimeDelta::hours(23);
/// The broker counts the time of its own parking in whole seconds.
const PARKING_CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

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

/// What is to be done about a call now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: it is done, called off, or brings a job of its own later.
    Nothing,
    /// Nothing before an operator replays it.
    Park {
        /// Why it failed.
        reason: String,
    },
    /// Nothing before this time.
    Wait {
        /// UTC.
        until: DateTime<Utc>,
    },
    /// Read what Stripe has of it.
    Look,
    /// Ask Stripe to do it, under the key of the call's generation.
    Make,
}

impl Task {
    /// What is to be done at `now`.
    #[must_use]
    pub fn next_step(&self, now: DateTime<Utc>) -> NextStep {
        let call = &self.call;
        match call.state {
            CallState::Waiting | CallState::Done | CallState::CalledOff => NextStep::Nothing,
            CallState::Failed => {
                let code = call.failure_code.as_deref().unwrap_or("permanently_failed");
                let message = call.failure_message.as_deref().unwrap_or("failed permanently earlier");
                NextStep::Park { reason: format!("{code}: {message}") }
            }
            CallState::Open => match call.next_attempt_at {
                Some(until) if until > now => NextStep::Wait { until },
                _ if self.may_be_made(now) && call.outcome_unknown_since.is_none() && !self.may_be_a_repetition() => {
                    NextStep::Make
                }
                _ => NextStep::Look,
            },
        }
    }

    /// Whether Stripe may be asked under the call's key, after a look if one is due.
    #[must_use]
    pub fn may_be_made(&self, now: DateTime<Utc>) -> bool {
        self.is_owed() && self.call.key_is_usable(now)
    }

    /// Whether it is still wanted: a claim may fail at any time.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        match &self.target {
            Target::Reversal(target) => target.claim_stands,
            Target::Creation(_) | Target::LookUp(_) | Target::Notification(_) => true,
        }
    }

    /// Whether a ledger that was lost since, in a failover or for a backup, may have asked for the same under a key that
    /// Stripe has forgotten. A payment does not say how old it is.
    fn may_be_a_repetition(&self) -> bool {
        let is_first = self.call.requested_at.is_none() && self.call.generation == 0;
        is_first
            && match &self.target {
                Target::Reversal(target) => {
                    target.claim_created_at.is_none_or(|at| at < self.read_at - TRUSTED_KEY_AGE)
                }
                Target::Creation(_) => true,
                // Reading or telling twice does no harm.
                Target::LookUp(_) | Target::Notification(_) => false,
            }
    }
}

impl Call {
    /// Whether it has surely changed since a message about it was parked. `parked_at` is the broker's time of that, if known.
    #[must_use]
    pub fn has_changed_since(&self, parked_at: Option<DateTime<Utc>>) -> bool {
        parked_at.is_some_and(|at| at + PARKING_CLOCK_TOLERANCE < self.updated_at)
    }

    /// Whether its key executes at most once more: Stripe has not forgotten it, did not accept the call, and is not known to
    /// answer it from what it has saved.
    pub(in crate::ledger) fn key_is_usable(&self, now: DateTime<Utc>) -> bool {
        self.accepted_id.is_none() && self.key_burnt_at.is_none() && self.generation_started_at >= now - TRUSTED_KEY_AGE
    }
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
