//! A buyer gets money back.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{ago, choose_id};
use crate::events;
use crate::ledger::{PLATFORM, Refund, RefundStatus};
use crate::operations::reverse_with_fee;
use crate::state::State;

/// A refund to create; all but the charge has a default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRefund {
    /// `ch_…` or `py_…`.
    pub charge: String,
    /// `re_…` or `pyr_…`.
    #[serde(default)]
    pub id: Option<String>,
    /// In minor units; by default all that is captured and not refunded.
    #[serde(default)]
    pub amount: Option<i64>,
    /// Whether Stripe reverses the destination charge's transfer in proportion.
    #[serde(default)]
    pub reverse_transfer: bool,
    /// Whether it gives back the application fee, too.
    #[serde(default)]
    pub refund_application_fee: bool,
    /// `succeeded` by default.
    #[serde(default)]
    pub status: RefundStatus,
    /// Why it is pending: `processing`, `insufficient_funds`, `charge_pending`.
    #[serde(default)]
    pub pending_reason: Option<String>,
    /// `duplicate`, `fraudulent`, `requested_by_customer`.
    #[serde(default)]
    pub reason: Option<String>,
    /// As the platform gives it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// How long ago it was, in seconds.
    #[serde(default)]
    pub seconds_ago: u32,
}

impl NewRefund {
    /// Of all that is left of a charge.
    #[must_use]
    pub fn of(charge: &str) -> NewRefund {
        NewRefund { charge: charge.to_owned(), ..NewRefund::default() }
    }

    /// Of so much, in minor units.
    #[must_use]
    pub fn part(charge: &str, amount: i64) -> NewRefund {
        NewRefund { amount: Some(amount), ..NewRefund::of(charge) }
    }
}

/// Creates a refund, and returns its id; an error names the field that is wrong, and nothing is done.
pub(crate) fn refund(state: &mut State, new: NewRefund) -> Result<String, String> {
    let ledger = &state.ledger;
    let charge = ledger.charges.get(&new.charge).ok_or_else(|| format!("charge must exist (got {:?})", new.charge))?;
    let id = choose_id(new.id, &["re_", "pyr_"], |id| ledger.refunds.contains_key(id))?;
    let refunds = charge.refunds.iter().filter_map(|id| ledger.refunds.get(id));
    let given: i64 =
        refunds.filter(|refund| !refund.is_release && refund.status.stands()).map(|refund| refund.amount).sum();
    let left = charge.amount_captured - given;
    let amount = new.amount.unwrap_or(left);
    if amount < 1 || amount > left {
        return Err(format!("amount must be from 1 to {left}, which is captured and not refunded (got {amount})"));
    }
    if new.pending_reason.is_some() && new.status != RefundStatus::Pending {
        return Err("pending_reason must come with the status pending".to_owned());
    }
    let transfer = match (&charge.transfer, new.reverse_transfer) {
        (_, false) => None,
        (Some(transfer), true) => Some(transfer.clone()),
        (None, true) => return Err("reverse_transfer must be false for a charge without a transfer".to_owned()),
    };
    if new.refund_application_fee && (charge.application_fee_amount.is_none() || !new.reverse_transfer) {
        return Err("refund_application_fee must come with a fee and reverse_transfer".to_owned());
    }
    let (payment_intent, currency) = (charge.payment_intent.clone(), charge.currency.clone());
    let captured = charge.amount_captured;
    let transfer_reversal = transfer.and_then(|transfer| {
        let whole = state.ledger.transfers.get(&transfer).map_or(0, |transfer| transfer.amount);
        let share = i128::from(whole) * i128::from(amount) / i128::from(captured);
        let share = i64::try_from(share).unwrap_or(whole);
        reverse_with_fee(state, &transfer, Some(share), Some(id.clone()), new.refund_application_fee)
    });
    let refund = Refund {
        id: id.clone(),
        charge: new.charge.clone(),
        payment_intent,
        amount,
        currency,
        status: new.status,
        pending_reason: new.pending_reason,
        failure_reason: None,
        reason: new.reason,
        reference: None,
        created: ago(state, new.seconds_ago),
        transfer_reversal,
        is_release: false,
        metadata: new.metadata,
    };
    state.ledger.refunds.insert(id.clone(), refund);
    if let Some(charge) = state.ledger.charges.get_mut(&new.charge) {
        charge.refunds.push(id.clone());
    }
    count(state, &new.charge, amount, new.status.stands());
    events::refunded(state, "refund.created", &id);
    Ok(id)
}

fn count(state: &mut State, charge: &str, amount: i64, stands: bool) {
    let amount = if stands { amount } else { 0 };
    state.ledger.credit(PLATFORM, -amount);
    if let Some(charge) = state.ledger.charges.get_mut(charge) {
        charge.amount_refunded += amount;
    }
}

/// Moves a refund on: a pending one to its end, a succeeded one to `failed`.
pub(crate) fn move_refund(
    state: &mut State,
    id: &str,
    status: RefundStatus,
    failure_reason: Option<String>,
) -> Result<(), String> {
    let refund = state.ledger.refunds.get_mut(id).ok_or_else(|| format!("refund must exist (got {id:?})"))?;
    if !refund.status.leads_to(status) {
        let (from, to) = (refund.status.as_str(), status.as_str());
        return Err(format!("refund {id:?} must not go from {from} to {to}"));
    }
    let stood = refund.status.stands();
    (refund.status, refund.pending_reason, refund.failure_reason) = (status, None, failure_reason);
    if status == RefundStatus::Failed && refund.failure_reason.is_none() {
        refund.failure_reason = Some("unknown".to_owned());
    }
    let (charge, amount) = (refund.charge.clone(), refund.amount);
    if stood && !status.stands() {
        count(state, &charge, -amount, true);
    }
    let kind = if status == RefundStatus::Failed { "refund.failed" } else { "refund.updated" };
    events::refunded(state, kind, id);
    Ok(())
}

/// The bank's reference number becomes known, which may be weeks later.
pub(crate) fn refer(state: &mut State, id: &str, reference: &str) -> Result<(), String> {
    let refund = state.ledger.refunds.get_mut(id).ok_or_else(|| format!("refund must exist (got {id:?})"))?;
    refund.reference = Some(reference.to_owned());
    events::refunded(state, "refund.updated", id);
    Ok(())
}
