//! Objects that look-ups read, reduced to what Clawback looks at.

use serde::Deserialize;

use crate::reference::optional_id;

/// A payment intent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PaymentIntent {
    /// `pi_…`
    pub id: String,
    /// Its newest charge, `ch_…` or `py_…`; where one succeeded, that one.
    #[serde(default, deserialize_with = "optional_id")]
    pub latest_charge: Option<String>,
}

/// A charge.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Charge {
    /// `ch_…` or `py_…`
    pub id: String,
    /// `pi_…`
    #[serde(default, deserialize_with = "optional_id")]
    pub payment_intent: Option<String>,
    /// What was taken from the buyer, in minor units.
    pub amount_captured: i64,
    /// What its refunds gave back, in minor units.
    pub amount_refunded: i64,
    /// False for an attempt to pay that failed; true once it is authorized.
    #[serde(default)]
    pub paid: bool,
    /// Whether all of it went back: for one that was never captured, that it was given up.
    #[serde(default)]
    pub refunded: bool,
    /// ISO 4217, lower case.
    pub currency: String,
    /// The transfer of a destination charge.
    #[serde(default, deserialize_with = "optional_id")]
    pub transfer: Option<String>,
    /// What the platform takes from the seller, if it does: a reversal may give it back in proportion.
    #[serde(default)]
    pub application_fee_amount: Option<i64>,
    /// What it has in common with its transfers.
    #[serde(default)]
    pub transfer_group: Option<String>,
}

impl Charge {
    /// Whether transfers may be of it: money was captured, or may yet be.
    #[must_use]
    pub fn may_pay(&self) -> bool {
        self.amount_captured > 0 || (self.paid && !self.refunded)
    }
}

/// Where Stripe sends events.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct WebhookEndpoint {
    /// `we_…`
    pub id: String,
    /// Where it is.
    pub url: String,
    /// Types as in `refund.created`, or `*`.
    pub enabled_events: Vec<String>,
    /// `enabled` or `disabled`.
    pub status: String,
}
