//! A difference between the ledger and Stripe, as `clawback reconcile --format json` shows it: names are only ever added.

use serde::Serialize;
use uuid::Uuid;

use crate::ledger::{DifferenceView, TransferView, now};
use crate::stripe::TransferReversal;

/// Something that the ledger and Stripe don't agree on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What sort of difference it is.
    pub kind: Kind,
    /// Clawback's id of the transfer.
    pub transfer_id: Uuid,
    /// Stripe's id of the transfer, `tr_…`.
    pub stripe_transfer_id: String,
    /// Clawback's id of the reversal, where one is concerned.
    pub reversal_id: Option<Uuid>,
    /// Clawback's id of the refund that asked for it.
    pub refund_id: Option<Uuid>,
    /// Stripe's id of the reversal, `trr_…`, where one is concerned.
    pub stripe_reversal_id: Option<String>,
    /// The claim that the metadata of Stripe's reversal names; none where another program made it.
    pub claim: Option<String>,
    /// ISO 4217, lower case: the transfer's, as the ledger has it.
    pub currency: String,
    /// Minor units according to the ledger; none for what it does not know.
    pub amount_in_ledger: Option<i64>,
    /// Minor units according to Stripe; none for what is not there.
    pub amount_at_stripe: Option<i64>,
    /// The difference in words.
    pub detail: String,
    /// Whether the ledger can be made to agree, and whether it was.
    pub repair: Repair,
    /// What Stripe has, where a reversal is concerned.
    #[serde(skip)]
    pub at_stripe: Option<TransferReversal>,
}

impl Difference {
    /// One about the transfer as a whole.
    pub(super) fn of(transfer: &TransferView, kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            transfer_id: transfer.id,
            stripe_transfer_id: transfer.stripe_transfer_id.clone().unwrap_or_default(),
            reversal_id: None,
            refund_id: None,
            stripe_reversal_id: None,
            claim: None,
            currency: transfer.currency.clone(),
            amount_in_ledger: None,
            amount_at_stripe: None,
            detail: detail.into(),
            repair: Repair::ByHand,
            at_stripe: None,
        }
    }

    /// The same, about this reversal of Stripe's.
    pub(super) fn about(self, reversal: &TransferReversal) -> Self {
        Self {
            stripe_reversal_id: Some(reversal.id.clone()),
            claim: reversal.claim().map(ToOwned::to_owned),
            at_stripe: Some(reversal.clone()),
            ..self
        }
    }

    /// The same, with what either side says the amount is.
    pub(super) fn with_amounts(self, in_ledger: Option<i64>, at_stripe: Option<i64>) -> Self {
        Self { amount_in_ledger: in_ledger, amount_at_stripe: at_stripe, ..self }
    }

    /// Whether it is about the same thing in the same way. Amounts and words may have moved on.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        let what = |it: &Self| (it.kind, it.transfer_id, it.reversal_id, it.stripe_reversal_id.clone());
        what(self) == what(other)
    }
}

impl From<&Difference> for DifferenceView {
    fn from(found: &Difference) -> Self {
        Self {
            id: Uuid::now_v7(),
            kind: found.kind.to_string(),
            transfer_id: found.transfer_id,
            stripe_transfer_id: found.stripe_transfer_id.clone(),
            reversal_id: found.reversal_id,
            stripe_reversal_id: found.stripe_reversal_id.clone(),
            claim: found.claim.clone(),
            currency: found.currency.clone(),
            amount_in_ledger: found.amount_in_ledger,
            amount_at_stripe: found.amount_at_stripe,
            detail: found.detail.clone(),
            repair: found.repair.to_string(),
            found_at: now(),
        }
    }
}

/// The sorts of difference.
#[derive(Clone, Copy, Debug, strum::Display, strum::EnumString, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Stripe has done a reversal of ours, and the ledger does not say so. The one kind that can be repaired.
    Unrecorded,
    /// The ledger says reversed, and Stripe has not done it.
    Missing,
    /// Stripe did one reversal of ours more than once.
    Duplicate,
    /// The two sides have different amounts or currencies, of a reversal or of the whole transfer.
    WrongAmount,
    /// Somebody else took money back at Stripe, and no reversal of ours counts on it.
    ExternallyReversed,
    /// Stripe has a reversal with an id like ours, which the ledger does not have on this transfer.
    Orphan,
    /// Stripe knows no transfer of that id.
    UnknownTransfer,
    /// Stripe has a transfer of ours that the ledger says was never created.
    UnrecordedTransfer,
    /// Stripe's list does not add up to what its transfer says is reversed, so that nothing can be called missing.
    Incomplete,
}

impl Kind {
    /// What an operator does about it, and why `--fix` does not.
    #[must_use]
    pub fn what_to_do(self) -> &'static str {
        match self {
            Self::Unrecorded => {
                "Stripe has done it, the ledger does not say so. `clawback reconcile --fix` records it where that is \
                 safe. Its job, parked or queued, then finds it done."
            }
            Self::Missing => {
                "The ledger counts on a reversal that Stripe does not have, or has not done. Not touched: a row never \
                 leaves `reversed`. Check that STRIPE_API_KEY is of the right account and look at the transfer in \
                 Stripe's dashboard; the reversal's history has the Request-Id that Stripe's support asks for."
            }
            Self::Duplicate => {
                "The seller paid more than once. Not touched: a reversal can't be undone. Give the money back by a new \
                 transfer to the seller."
            }
            Self::WrongAmount => {
                "Not touched: which side is right can't be told from here. Compare both with the refund; make up for a \
                 shortfall in Stripe's dashboard, and for an excess by a new transfer to the seller."
            }
            Self::ExternallyReversed => {
                "Somebody took it back in Stripe's dashboard or by another program. Not touched: a later refund's \
                 reversal counts on it by itself, once nothing is left on the transfer. `clawback reconcile adopt ID` \
                 records it, so that refunds count with what is left. If it was a mistake, make a new transfer to the \
                 seller."
            }
            Self::Orphan => {
                "Another database uses this Stripe account, or this one was restored from an older backup. Not \
                 touched: its refund is not known here, or asks nothing of this transfer. Have the refund's provider \
                 report it again, then `clawback reconcile adopt --all` records it."
            }
            Self::UnknownTransfer => {
                "Not touched: nothing can be compared. Check the registered transfer id, and that STRIPE_API_KEY is of \
                 the transfer's account and mode (live or test)."
            }
            Self::UnrecordedTransfer => {
                "The ledger lost that it had paid this transfer, as after a restore, and withheld it for refunds or gave \
                 it up. Not touched: reverse at Stripe what the refunds ask of it, beside what is reversed there."
            }
            Self::Incomplete => "Stripe's lists can lag. Not touched: run it again in a few minutes.",
        }
    }
}

/// Whether the ledger can be made to agree.
#[derive(Clone, Copy, Debug, strum::Display, PartialEq, Eq, Serialize)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// Not by us.
    ByHand,
    /// `--fix` would.
    Possible,
    /// It was done.
    Done,
    /// It was tried, and the ledger refused; the detail says why.
    Refused,
}
