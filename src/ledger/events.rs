//! What a payment provider told us, in the ledger's own words. Nothing here knows a provider's JSON.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::ToSchema;

use super::claims::DisputeEvent;
use super::lookups::Subject;

words! {
    /// The payment provider that reported a refund.
    pub enum Source {
        /// Stripe itself.
        Stripe,
        /// Juspay Hyperswitch.
        Hyperswitch,
    }
}

words! {
    /// What gave a buyer money back.
    pub enum ClaimKind {
        /// A refund.
        Refund,
        /// A buyer's dispute of a charge.
        Dispute,
    }
}

/// A verified webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookEvent {
    /// Who sent it.
    pub source: Source,
    /// The provider's id of the event (`evt_…`), by which a second delivery is known.
    pub event_id: String,
    /// The provider's name for what happened (`refund.created`).
    pub event_type: String,
    /// The provider's id of the object that it is about, if it is about one.
    pub object_id: Option<String>,
    /// What it means for the ledger.
    pub content: EventContent,
}

/// What a webhook means for the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventContent {
    /// The state of one refund, or of several.
    Refunds(Vec<RefundEvent>),
    /// The state of a dispute.
    Dispute(DisputeEvent),
    /// It names something that Stripe must be asked about.
    LookUp {
        /// What.
        subject: Subject,
        /// Stripe's id of it.
        reference: String,
    },
    /// Nothing; the reason is recorded.
    Irrelevant {
        /// Why, for people.
        reason: String,
    },
}

/// The state of one refund, as its provider reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundEvent {
    /// The provider's id of the refund (`re_…`).
    pub refund_ref: String,
    /// The provider's account within which that id is unique (Hyperswitch's merchant); else empty.
    pub account: String,
    /// The provider's id of the payment (`pi_…`, or the charge where there is no payment intent).
    pub payment_ref: String,
    /// The charge (`ch_…`), which a marketplace may have registered instead of the payment.
    pub charge_ref: Option<String>,
    /// How much goes back to the buyer, in minor units; more than zero.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// When its provider made it, as far as the event says.
    pub created: Option<DateTime<Utc>>,
    /// Whether the buyer really gets the money.
    pub progress: RefundProgress,
    /// When the provider last changed it, by its own clock. Of two reports that both know it, the later one counts.
    pub updated: Option<DateTime<Utc>>,
    /// What the report says of the charge.
    pub charge: Option<ChargeFacts>,
    /// The provider has already reversed a transfer together with the refund.
    pub provider_reversal: Option<ProviderReversal>,
    /// What the refund itself asks of the transfers. `None`: by ratio.
    pub shares: Option<Vec<NamedShare>>,
}

/// How much of a charge was captured, in minor units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChargeFacts {
    /// What was authorized.
    pub amount: i64,
    /// What was captured of it; 0 if nothing was.
    pub captured: i64,
    /// What was refunded of it in all.
    pub refunded: i64,
}

/// A reversal that the provider made together with a refund.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderReversal {
    /// Its id (`trr_…`), where the provider named it.
    pub id: Option<String>,
    /// The transfer (`tr_…`), where the provider named it: the charge's own.
    pub transfer_id: Option<String>,
}

/// What a refund itself asks of one transfer, as it was written. Whether it fits is found out when the refund is matched
/// to its payment, so that a refund with a share that makes no sense is kept, and shown with the reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NamedShare {
    /// Stripe's id of the transfer (`tr_…`) or Clawback's.
    pub transfer_id: String,
    /// Minor units of the transfer's currency, in digits. Zero: nothing is taken from it.
    pub amount: String,
}

/// How far a refund is, at its provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundProgress {
    /// Done: it counts.
    Succeeded,
    /// The buyer does not get the money after all (`failed`, `canceled`), in the provider's word. The end.
    Failed(String),
    /// It waits until the platform has the money, in the provider's word (`insufficient_funds`).
    AwaitingFunds(String),
    /// Anything else, in the provider's word: it does not count (yet).
    Other(String),
}

/// What became of a webhook.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr, Serialize, ToSchema)]
#[strum(serialize_all = "snake_case")]
#[serde(tag = "outcome", rename_all = "snake_case")]
#[schema(as = WebhookOutcome)]
pub enum Receipt {
    /// A refund was recorded.
    Accepted {
        /// The number of reversals it created.
        reversals: usize,
    },
    /// Recorded; its payment is not registered yet.
    Unmatched,
    /// Recorded; it takes nothing until an operator accepts it, or its provider says more.
    Held {
        /// Why.
        reason: String,
    },
    /// It contradicts what is registered or known; an operator must look.
    Conflicting {
        /// Why.
        reason: String,
    },
    /// A refund failed after it had succeeded.
    Failed {
        /// The number of reversals called off.
        called_off: usize,
        /// What an operator must do about the others.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schema(nullable = false)]
        attention: Option<String>,
    },
    /// Recorded; Stripe is asked about what it names.
    LookingUp {
        /// What.
        #[serde(skip)]
        subject: Subject,
        /// Stripe's id of it.
        #[serde(skip)]
        reference: String,
    },
    /// It was received before.
    Duplicate,
    /// Recorded; it reports no refund.
    Ignored {
        /// Why.
        reason: String,
    },
}

impl ChargeFacts {
    /// What was authorized and not captured: at least 0.
    pub(super) fn uncaptured(&self) -> i64 {
        self.amount.saturating_sub(self.captured).max(0)
    }
}

/// The names under which a payment may be registered: its own, and its charge's.
pub(super) fn payment_names<'a>(payment_ref: &'a str, charge_ref: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    [Some(payment_ref), charge_ref].into_iter().flatten()
}

impl RefundEvent {
    /// The names under which the payment may be registered.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        payment_names(&self.payment_ref, self.charge_ref.as_deref())
    }
}

impl Receipt {
    /// Whether the event may come to something when it is sent again: what it came to hung on the configuration.
    pub(super) fn may_change(outcome: &str) -> bool {
        matches!(outcome, "ignored" | "held")
    }

    /// The inbox row's outcome and detail.
    pub(super) fn in_inbox(&self) -> (&'static str, Option<String>) {
        match self {
            Self::Accepted { .. } => ("accepted", None),
            Self::Failed { called_off, attention: None } => ("accepted", Some(format!("{called_off} called off"))),
            Self::Failed { attention: Some(attention), .. } => ("accepted", Some(attention.clone())),
            Self::Unmatched => ("unmatched", None),
            Self::LookingUp { subject, reference } => ("looking_up", Some(format!("{subject} {reference}"))),
            Self::Held { reason } => ("held", Some(reason.clone())),
            Self::Conflicting { reason } => ("conflicting", Some(reason.clone())),
            Self::Duplicate => ("duplicate", None),
            Self::Ignored { reason } => ("ignored", Some(reason.clone())),
        }
    }
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self, self.in_inbox()) {
            (Self::Accepted { reversals }, _) => write!(f, "accepted, {reversals} reversals"),
            (_, (outcome, None)) => f.write_str(outcome),
            (_, (outcome, Some(detail))) => write!(f, "{outcome}: {detail}"),
        }
    }
}
