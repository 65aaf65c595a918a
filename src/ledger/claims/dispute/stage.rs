//! How far a dispute is at its provider, and which stage takes money back. Pure.

use chrono::{DateTime, Utc};
use strum::{Display, EnumString};

use crate::ledger::events::payment_names;
use crate::ledger::status::ClaimStatus;

words! {
    /// How far a dispute is. Events come in any order: the furthest stage that was reported counts.
    pub enum DisputeStage {
        /// A bank asks (`warning_…`). No money has moved.
        Inquiry,
        /// Open. The platform may still have the money.
        Open,
        /// The platform's money was withdrawn. The platform may get it back.
        Withdrawn,
        /// The buyer keeps the money.
        Lost,
        /// A refund settled it, and that refund is a claim of its own.
        Settled,
        /// The platform keeps the money, or has it back.
        Won,
    }
}

/// Which disputes reverse transfers (`DISPUTE_POLICY`).
#[derive(Clone, Copy, Debug, Default, Display, EnumString, PartialEq, Eq)]
#[strum(serialize_all = "lowercase")]
pub enum DisputePolicy {
    /// None; an operator may accept each.
    #[default]
    Off,
    /// Those that were lost.
    Lost,
    /// Those whose funds were withdrawn.
    Withdrawn,
}

/// The state of one dispute, as its provider reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisputeEvent {
    /// The provider's id of the dispute (`du_…`, `dp_…`).
    pub dispute_ref: String,
    /// The provider's id of the payment (`pi_…`, or the charge where there is no payment intent).
    pub payment_ref: String,
    /// The charge (`ch_…`), which a marketplace may have registered instead of the payment.
    pub charge_ref: Option<String>,
    /// How much is disputed, in minor units; more than zero, and perhaps less than the payment.
    pub amount: i64,
    /// ISO 4217, lower case.
    pub currency: String,
    /// How far it is.
    pub stage: DisputeStage,
    /// How much of it came back, while the rest is withdrawn. In minor units.
    pub reinstated: i64,
    /// When its provider opened it.
    pub created: Option<DateTime<Utc>>,
}

impl DisputePolicy {
    /// The stages at which a dispute takes.
    pub(in crate::ledger) fn takes(self) -> &'static [DisputeStage] {
        match self {
            Self::Off => &[],
            Self::Lost => &[DisputeStage::Lost],
            Self::Withdrawn => &[DisputeStage::Withdrawn, DisputeStage::Lost],
        }
    }
}

impl DisputeEvent {
    /// The names under which the payment may be registered.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        payment_names(&self.payment_ref, self.charge_ref.as_deref())
    }
}

impl DisputeStage {
    /// Whether nothing is taken for it any more, whatever the policy.
    pub(super) fn is_over(self) -> bool {
        self >= Self::Settled
    }

    /// What that means for a claim that nothing was taken for yet, with the reason. [`ClaimStatus::Unmatched`]: it takes.
    pub(super) fn untaken(self, policy: DisputePolicy) -> (ClaimStatus, String) {
        let unless = match (self, policy) {
            (Self::Settled | Self::Won, _) => return (ClaimStatus::Failed, self.ending()),
            (Self::Inquiry, _) => {
                return (ClaimStatus::NothingToReverse, "an inquiry: no money has moved".to_owned());
            }
            _ if policy.takes().contains(&self) => {
                return (ClaimStatus::Unmatched, "no payment of its reference is registered yet".to_owned());
            }
            (_, DisputePolicy::Off) => "until an operator accepts it",
            (_, DisputePolicy::Lost) => "unless it is lost, or an operator accepts it",
            (_, DisputePolicy::Withdrawn) => "unless its funds are withdrawn, or an operator accepts it",
        };
        let state = if self == Self::Withdrawn { "open, its funds withdrawn".to_owned() } else { self.to_string() };
        (ClaimStatus::Held, format!("the dispute is {state}; DISPUTE_POLICY is {policy}: takes nothing {unless}"))
    }

    /// Why nothing is taken for a dispute that is over.
    pub(super) fn ending(self) -> String {
        let how = if self == Self::Settled { "settled by a refund" } else { "won, or its funds were reinstated" };
        format!("the dispute was {how}")
    }
}
