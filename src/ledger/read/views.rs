//! The shapes of the HTTP API and of the commands' JSON.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ledger::status::{ClaimStatus, ReversalStatus, TransferStatus};
use crate::ledger::{DisputeStage, Source};

/// A succeeded refund, reported directly instead of by webhook.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRefund {
    /// The provider that made the refund. Identifies it together with `account` and `refund_ref`.
    pub source: Source,
    /// Hyperswitch's merchant, whose own id `refund_ref` is. Absent: the merchant of the payment.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("merchant_1"))]
    pub account: Option<String>,
    /// The provider's id of the refund (`re_…`).
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("re_1"))]
    pub refund_ref: String,
    /// The reference that the payment is registered under.
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("pi_1"))]
    pub payment_ref: String,
    /// What goes back to the buyer, in minor units.
    #[schema(minimum = 1, examples(4_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
    /// What to take back from each transfer; nothing from a transfer that is not listed. Absent: as reported before, or by
    /// ratio.
    #[serde(default)]
    pub transfers: Option<Vec<NewShare>>,
    /// The provider reversed the transfer itself, together with the refund.
    #[serde(default)]
    pub transfer_already_reversed: bool,
}

/// What to take back from one transfer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewShare {
    /// Stripe's id of the transfer (`tr_…`) or Clawback's.
    #[schema(examples("tr_1"))]
    pub transfer_id: String,
    /// Minor units of the transfer's currency, at least 0.
    #[schema(minimum = 0, examples(3_600))]
    pub amount: i64,
}

/// A registered payment with its transfers and their reversals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PaymentView {
    /// The provider's id of the payment.
    #[schema(examples("pi_1"))]
    pub payment_ref: String,
    /// Minor units.
    #[schema(examples(9_000))]
    pub amount: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// When it was registered.
    pub created_at: DateTime<Utc>,
    /// In the order of registration.
    pub transfers: Vec<TransferView>,
}

/// A transfer to a seller, and its reversals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct TransferView {
    /// Clawback's id.
    pub id: Uuid,
    /// The marketplace's id of the seller.
    #[schema(examples("s1"))]
    pub seller_id: String,
    /// Stripe's id; null until Clawback has created it.
    #[schema(examples("tr_1"))]
    pub stripe_transfer_id: Option<String>,
    /// The seller's connected account.
    #[schema(examples("acct_1"))]
    pub destination: String,
    /// Minor units.
    #[schema(examples(9_000))]
    pub amount: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// Its status.
    pub status: TransferStatus,
    /// Minor units taken back, or withheld.
    #[schema(examples(0))]
    pub amount_reversed: i64,
    /// Of it, what was taken back before the transfer was registered, or by others since, as an operator adopted it.
    #[schema(examples(0))]
    pub reversed_before: i64,
    /// Stripe's ids of the reversals that were adopted (`clawback reconcile adopt`).
    pub adopted_reversals: Vec<String>,
    /// Of it, what was never transferred: refunds came before Stripe was asked to create the transfer.
    #[schema(examples(0))]
    pub withheld: i64,
    /// Each reversal also refunds the application fee, in proportion.
    pub refund_application_fee: bool,
    /// Retries of its creation so far; 0 for a transfer registered with its Stripe id.
    pub retry_count: i32,
    /// When its creation is retried, if a retry is due.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// The code of the last failure to create it: Stripe's or ours.
    pub failure_code: Option<String>,
    /// That failure in words.
    pub failure_message: Option<String>,
    /// Oldest first.
    pub reversals: Vec<ReversalView>,
}

/// The reversal of one transfer for one refund.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReversalView {
    /// Clawback's id.
    pub id: Uuid,
    /// Clawback's id of the refund.
    pub refund_id: Uuid,
    /// Who reported the refund.
    pub source: Source,
    /// The provider's id of the refund (`re_…`).
    #[schema(examples("re_1"))]
    pub refund_ref: String,
    /// Clawback's id of the transfer.
    pub transfer_id: Uuid,
    /// What is taken back, in minor units of the transfer's currency.
    #[schema(examples(9_000))]
    pub amount: i64,
    /// What of the debt an operator recorded as settled elsewhere, beside `amount`.
    #[schema(examples(0))]
    pub amount_closed: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// Its status.
    pub status: ReversalStatus,
    /// Retries so far.
    pub retry_count: i32,
    /// When it is retried, if a retry is due.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Stripe's id of the reversal (`trr_…`).
    #[schema(examples("trr_1"))]
    pub stripe_reversal_id: Option<String>,
    /// The money was taken back outside Clawback, for example in Stripe's dashboard.
    pub externally_reversed: bool,
    /// The code of the last failure: Stripe's or ours.
    #[schema(examples("resource_missing"))]
    pub failure_code: Option<String>,
    /// The last failure in words.
    #[schema(examples("No such transfer: 'tr_1'"))]
    pub failure_message: Option<String>,
    /// When the debt was recorded.
    pub created_at: DateTime<Utc>,
}

/// A reported refund and its reversals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefundView {
    /// Clawback's id.
    pub id: Uuid,
    /// The provider that reported it.
    pub source: Source,
    /// The provider's account: Hyperswitch's merchant; empty for Stripe.
    pub account: String,
    /// The provider's id (`re_…`).
    #[schema(examples("re_1"))]
    pub refund_ref: String,
    /// The provider's id of the payment.
    #[schema(examples("pi_1"))]
    pub payment_ref: String,
    /// Minor units.
    #[schema(examples(9_000))]
    pub amount: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// Its status.
    pub status: ClaimStatus,
    /// The reason for the status, where it needs one.
    pub status_reason: Option<String>,
    /// When it was first reported.
    pub created_at: DateTime<Utc>,
    /// When its provider reported that it failed. It then takes nothing back.
    pub failed_at: Option<DateTime<Utc>>,
    /// What an operator must do about it.
    pub attention: Option<String>,
    /// When an operator recorded that nothing more needs to be done about it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// How far a dispute is at its provider.
    #[serde(skip)]
    pub stage: Option<DisputeStage>,
    /// One for each transfer that it takes money back from.
    pub reversals: Vec<ReversalView>,
}

/// A reported dispute and its reversals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DisputeView {
    /// Clawback's id.
    pub id: Uuid,
    /// The provider that reported it.
    pub source: Source,
    /// The provider's id (`du_…`).
    #[schema(examples("du_1"))]
    pub dispute_ref: String,
    /// The provider's id of the payment.
    #[schema(examples("pi_1"))]
    pub payment_ref: String,
    /// Minor units.
    #[schema(examples(9_000))]
    pub amount: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// How far it is at its provider.
    pub stage: Option<DisputeStage>,
    /// Its status.
    pub status: ClaimStatus,
    /// The reason for the status, where it needs one.
    pub status_reason: Option<String>,
    /// When it was first reported.
    pub created_at: DateTime<Utc>,
    /// When its provider reported that it is over. It then takes nothing back.
    pub failed_at: Option<DateTime<Utc>>,
    /// What an operator must do about it.
    pub attention: Option<String>,
    /// When an operator recorded that nothing more needs to be done about it.
    pub acknowledged_at: Option<DateTime<Utc>>,
    /// One for each transfer that it takes money back from.
    pub reversals: Vec<ReversalView>,
}

impl From<RefundView> for DisputeView {
    fn from(claim: RefundView) -> Self {
        Self {
            id: claim.id,
            source: claim.source,
            dispute_ref: claim.refund_ref,
            payment_ref: claim.payment_ref,
            amount: claim.amount,
            currency: claim.currency,
            stage: claim.stage,
            status: claim.status,
            status_reason: claim.status_reason,
            created_at: claim.created_at,
            failed_at: claim.failed_at,
            attention: claim.attention,
            acknowledged_at: claim.acknowledged_at,
            reversals: claim.reversals,
        }
    }
}

impl ReversalView {
    /// The claim, as the metadata of Stripe's reversal names it.
    #[must_use]
    pub fn claim(&self) -> String {
        claim_name(self.source, &self.refund_ref)
    }
}

/// What the metadata at Stripe calls a claim: `stripe:re_1`.
#[must_use]
pub fn claim_name(source: Source, reference: &str) -> String {
    format!("{source}:{reference}")
}
