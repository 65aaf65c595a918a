//! What the ledger shows of itself: the shapes of the HTTP API and of the commands' JSON. Read-only.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::ledger::Source;
use crate::ledger::status::{ClaimStatus, ReversalStatus, TransferStatus};

/// A payment to register, with what was paid out of it to sellers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// The provider's id of the payment (`pi_…` or `ch_…`).
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("pi_1"))]
    pub payment_ref: String,
    /// What the buyer paid, in minor units.
    #[schema(minimum = 1, examples(10_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
    /// What went to the sellers.
    #[schema(min_items = 1, max_items = 1_000)]
    pub transfers: Vec<NewTransfer>,
}

/// A transfer to one seller, as registered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTransfer {
    /// The marketplace's id of the seller.
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("s1"))]
    pub seller_id: String,
    /// Stripe's id of the transfer (`tr_…`). None: Clawback creates it.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("tr_1"))]
    pub stripe_transfer_id: Option<String>,
    /// The seller's connected account (`acct_…`).
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("acct_1"))]
    pub destination: String,
    /// Minor units of the transfer's own currency.
    #[schema(minimum = 1, examples(9_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
}

/// A refund that has succeeded, reported by somebody who knows of it in another way than by webhook.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRefund {
    /// Whose refund it is. Together with `refund_ref` it is what the webhooks know the refund by.
    #[serde(default = "stripe")]
    pub source: Source,
    /// The provider's id of the refund (`re_…`).
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("re_1"))]
    pub refund_ref: String,
    /// The payment's reference, as it is registered.
    #[schema(min_length = 1, max_length = 255, pattern = "^\\S+$", examples("pi_1"))]
    pub payment_ref: String,
    /// What goes back to the buyer, in minor units.
    #[schema(minimum = 1, examples(4_000))]
    pub amount: i64,
    /// ISO 4217, any case.
    #[schema(pattern = "^[A-Za-z]{3}$", examples("eur"))]
    pub currency: String,
    /// What is taken back from each transfer; from one that is not named, nothing. Absent: by ratio.
    #[serde(default)]
    pub transfers: Option<Vec<NewShare>>,
}

/// What a refund asks of one transfer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewShare {
    /// Stripe's id of the transfer (`tr_…`) or Clawback's.
    #[schema(examples("tr_1"))]
    pub transfer_id: String,
    /// Minor units of the transfer's currency; 0: nothing.
    #[schema(minimum = 0, examples(3_600))]
    pub amount: i64,
}

fn stripe() -> Source {
    Source::Stripe
}

/// A registered payment with everything that hangs on it.
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
    /// Stripe's id; none while Clawback has yet to create it.
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
    /// Where it stands.
    pub status: TransferStatus,
    /// Minor units that are back.
    #[schema(examples(0))]
    pub amount_reversed: i64,
    /// Retries of its creation that are used up; 0 for a transfer that was registered with its Stripe id.
    pub retry_count: i32,
    /// When Stripe will be asked again to create it, if a retry is waiting.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Stripe's code, or ours, of the last failure to create it.
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
    /// Minor units of the transfer's currency.
    #[schema(examples(9_000))]
    pub amount: i64,
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// Where it stands.
    pub status: ReversalStatus,
    /// Retries used up.
    pub retry_count: i32,
    /// When Stripe will be asked again, if a retry is waiting.
    pub next_retry_at: Option<DateTime<Utc>>,
    /// Stripe's id of the reversal (`trr_…`).
    #[schema(examples("trr_1"))]
    pub stripe_reversal_id: Option<String>,
    /// The money came back by another hand than ours (Stripe's dashboard, say).
    pub externally_reversed: bool,
    /// Stripe's code, or ours, of the last failure.
    #[schema(examples("resource_missing"))]
    pub failure_code: Option<String>,
    /// The last failure in words.
    #[schema(examples("No such transfer: 'tr_1'"))]
    pub failure_message: Option<String>,
    /// When the debt was recorded.
    pub created_at: DateTime<Utc>,
}

/// A refund that a provider reported, and what it led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RefundView {
    /// Clawback's id.
    pub id: Uuid,
    /// Who reported it.
    pub source: Source,
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
    /// What became of it.
    pub status: ClaimStatus,
    /// Why, where that needs words.
    pub status_reason: Option<String>,
    /// When it was first reported.
    pub created_at: DateTime<Utc>,
    /// When its provider said that it has failed. It does not count any more.
    pub failed_at: Option<DateTime<Utc>>,
    /// What an operator has to do about it.
    pub attention: Option<String>,
    /// One for each transfer that it asks money from.
    pub reversals: Vec<ReversalView>,
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
