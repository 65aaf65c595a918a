//! What buyers paid, got back, and disputed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A payment, as the platform asked for it.
#[derive(Debug, Clone, Serialize)]
pub struct PaymentIntent {
    /// `pi_…`
    pub id: String,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// `ch_…` or `py_…`.
    pub latest_charge: String,
    /// As the platform gave it, or as Stripe chose it for a transfer with a `source_transaction`.
    pub transfer_group: Option<String>,
    /// As the platform gave it.
    pub metadata: BTreeMap<String, String>,
}

/// What was taken from the buyer.
#[derive(Debug, Clone, Serialize)]
pub struct Charge {
    /// `ch_…`, or `py_…` where it is no card payment.
    pub id: String,
    /// `pi_…`
    pub payment_intent: Option<String>,
    /// What was authorized, in minor units.
    pub amount: i64,
    /// What was taken, in minor units.
    pub amount_captured: i64,
    /// What its refunds gave back or released, in minor units.
    pub amount_refunded: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// Whether a capture took place.
    pub captured: bool,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// `card`, `sepa_debit`, …
    pub payment_method: String,
    /// Of a destination charge: the connected account, `acct_…`.
    pub destination: Option<String>,
    /// Of a destination charge: what is to be transferred, if not all.
    pub transfer_amount: Option<i64>,
    /// Of a captured destination charge: its transfer, `tr_…`.
    pub transfer: Option<String>,
    /// As the payment intent's.
    pub transfer_group: Option<String>,
    /// What the platform takes from the connected account, in minor units.
    pub application_fee_amount: Option<i64>,
    /// How much of the fee was given back, in minor units.
    pub application_fee_refunded: i64,
    /// Whether there was a dispute about it.
    pub disputed: bool,
    /// As the platform gave it.
    pub metadata: BTreeMap<String, String>,
    /// Ids, oldest first.
    pub refunds: Vec<String>,
}

/// What the buyer gets back, or what was authorized and never captured.
#[derive(Debug, Clone, Serialize)]
pub struct Refund {
    /// `re_…` or `pyr_…`.
    pub id: String,
    /// `ch_…` or `py_…`.
    pub charge: String,
    /// `pi_…`
    pub payment_intent: Option<String>,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How far it is.
    pub status: RefundStatus,
    /// Why it is pending: `processing`, `insufficient_funds`, `charge_pending`.
    pub pending_reason: Option<String>,
    /// Why it failed, as in `lost_or_stolen_card`.
    pub failure_reason: Option<String>,
    /// `duplicate`, `fraudulent`, `requested_by_customer`.
    pub reason: Option<String>,
    /// The bank's reference number, once it is known.
    pub reference: Option<String>,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// The reversal that Stripe made for it, `trr_…`.
    pub transfer_reversal: Option<String>,
    /// Whether it only releases money that was never captured.
    pub is_release: bool,
    /// As the platform gave it.
    pub metadata: BTreeMap<String, String>,
}

/// How far a refund is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundStatus {
    /// Leads to every other one.
    Pending,
    /// The buyer must act. Leads to every other one.
    RequiresAction,
    /// Leads to `failed` only, days later.
    #[default]
    Succeeded,
    /// The buyer did not get it. Final.
    Failed,
    /// Final.
    Canceled,
}

impl RefundStatus {
    /// As in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RefundStatus::Pending => "pending",
            RefundStatus::RequiresAction => "requires_action",
            RefundStatus::Succeeded => "succeeded",
            RefundStatus::Failed => "failed",
            RefundStatus::Canceled => "canceled",
        }
    }

    /// Whether its amount is the buyer's, or on its way.
    #[must_use]
    pub fn stands(self) -> bool {
        !matches!(self, RefundStatus::Failed | RefundStatus::Canceled)
    }

    /// Whether Stripe ever moves a refund from this status to `next`.
    pub(crate) fn leads_to(self, next: RefundStatus) -> bool {
        match self {
            RefundStatus::Pending | RefundStatus::RequiresAction => next != self,
            RefundStatus::Succeeded => next == RefundStatus::Failed,
            RefundStatus::Failed | RefundStatus::Canceled => false,
        }
    }
}

/// A buyer's dispute, or a bank's inquiry.
#[derive(Debug, Clone, Serialize)]
pub struct Dispute {
    /// `du_…` or `dp_…`.
    pub id: String,
    /// `ch_…` or `py_…`.
    pub charge: String,
    /// `pi_…`
    pub payment_intent: Option<String>,
    /// In minor units.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How far it is.
    pub status: DisputeStatus,
    /// `fraudulent`, `product_not_received`, …
    pub reason: String,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
    /// What it moved on the platform's balance, oldest first.
    pub balance_transactions: Vec<BalanceTransaction>,
}

/// How far a dispute is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeStatus {
    /// An inquiry: no money moved. Leads to all but `won` and `lost`.
    WarningNeedsResponse,
    /// As `warning_needs_response`.
    WarningUnderReview,
    /// An inquiry that came to nothing. Final.
    WarningClosed,
    /// The money is withdrawn. Leads to `under_review` and every ending.
    #[default]
    NeedsResponse,
    /// As `needs_response`.
    UnderReview,
    /// The money is reinstated. Final.
    Won,
    /// The money stays with the buyer. Final.
    Lost,
    /// A refund settled it. Final.
    ChargeRefunded,
}

impl DisputeStatus {
    /// As in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DisputeStatus::WarningNeedsResponse => "warning_needs_response",
            DisputeStatus::WarningUnderReview => "warning_under_review",
            DisputeStatus::WarningClosed => "warning_closed",
            DisputeStatus::NeedsResponse => "needs_response",
            DisputeStatus::UnderReview => "under_review",
            DisputeStatus::Won => "won",
            DisputeStatus::Lost => "lost",
            DisputeStatus::ChargeRefunded => "charge_refunded",
        }
    }

    /// Whether nothing follows.
    #[must_use]
    pub fn is_final(self) -> bool {
        use DisputeStatus::{ChargeRefunded, Lost, WarningClosed, Won};
        matches!(self, WarningClosed | Won | Lost | ChargeRefunded)
    }

    pub(crate) fn is_inquiry(self) -> bool {
        use DisputeStatus::{WarningClosed, WarningNeedsResponse, WarningUnderReview};
        matches!(self, WarningNeedsResponse | WarningUnderReview | WarningClosed)
    }

    /// Whether Stripe ever moves a dispute from this status to `next`.
    pub(crate) fn leads_to(self, next: DisputeStatus) -> bool {
        let is_possible = if self.is_inquiry() {
            !matches!(next, DisputeStatus::Won | DisputeStatus::Lost)
        } else {
            !next.is_inquiry()
        };
        is_possible && !self.is_final() && next != self
    }
}

/// What a dispute moved on the platform's balance.
#[derive(Debug, Clone, Serialize)]
pub struct BalanceTransaction {
    /// `txn_…`
    pub id: String,
    /// In minor units; negative when money was withdrawn.
    pub amount: i64,
    /// What Stripe took for it, in minor units.
    pub fee: i64,
    /// By the simulator's clock.
    pub created: DateTime<Utc>,
}
