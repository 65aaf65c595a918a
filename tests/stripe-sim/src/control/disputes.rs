//! A buyer disputes a charge, or a bank asks about one.

use serde::Deserialize;

use super::{ago, choose_id};
use crate::events;
use crate::ledger::{BalanceTransaction, Dispute, DisputeStatus, PLATFORM};
use crate::operations::new_id;
use crate::state::State;

/// A dispute to open; all but the charge has a default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDispute {
    /// `ch_…` or `py_…`.
    pub charge: String,
    /// `du_…` or `dp_…`.
    #[serde(default)]
    pub id: Option<String>,
    /// In minor units; by default all that is captured.
    #[serde(default)]
    pub amount: Option<i64>,
    /// `needs_response` by default; `warning_needs_response` for an inquiry.
    #[serde(default)]
    pub status: DisputeStatus,
    /// `fraudulent` by default.
    #[serde(default)]
    pub reason: Option<String>,
    /// What Stripe takes for it, in minor units.
    #[serde(default)]
    pub fee: i64,
    /// How long ago it was, in seconds.
    #[serde(default)]
    pub seconds_ago: u32,
}

impl NewDispute {
    /// Of all that was captured of a charge.
    #[must_use]
    pub fn of(charge: &str) -> NewDispute {
        NewDispute { charge: charge.to_owned(), ..NewDispute::default() }
    }

    /// As [`NewDispute::of`], but only asked about: no money moves.
    #[must_use]
    pub fn inquiry(charge: &str) -> NewDispute {
        NewDispute { status: DisputeStatus::WarningNeedsResponse, ..NewDispute::of(charge) }
    }
}

/// Opens a dispute, and returns its id; an error names the field that is wrong, and nothing is done.
pub(crate) fn open_dispute(state: &mut State, new: NewDispute) -> Result<String, String> {
    let ledger = &mut state.ledger;
    let charge = ledger.charges.get(&new.charge).ok_or_else(|| format!("charge must exist (got {:?})", new.charge))?;
    let id = choose_id(new.id, &["du_", "dp_"], |id| ledger.disputes.contains_key(id))?;
    let captured = charge.amount_captured;
    let amount = new.amount.unwrap_or(captured);
    if amount < 1 || amount > captured {
        return Err(format!("amount must be from 1 to {captured}, which is captured (got {amount})"));
    }
    if !matches!(new.status, DisputeStatus::NeedsResponse | DisputeStatus::WarningNeedsResponse) {
        return Err(format!("status must be needs_response or warning_needs_response (got {})", new.status.as_str()));
    }
    let (payment_intent, currency) = (charge.payment_intent.clone(), charge.currency.clone());
    let dispute = Dispute {
        id: id.clone(),
        charge: new.charge.clone(),
        payment_intent,
        amount,
        currency,
        status: new.status,
        reason: new.reason.unwrap_or_else(|| "fraudulent".to_owned()),
        created: ago(state, new.seconds_ago),
        balance_transactions: Vec::new(),
    };
    state.ledger.disputes.insert(id.clone(), dispute);
    if let Some(charge) = state.ledger.charges.get_mut(&new.charge) {
        charge.disputed = true;
    }
    if new.status == DisputeStatus::NeedsResponse {
        transact(state, &id, -amount, new.fee);
    }
    events::disputed(state, "charge.dispute.created", &id);
    if new.status == DisputeStatus::NeedsResponse {
        events::disputed(state, "charge.dispute.funds_withdrawn", &id);
    }
    Ok(id)
}

/// Moves a dispute on, with the money and the events that belong to it.
pub(crate) fn move_dispute(state: &mut State, id: &str, status: DisputeStatus) -> Result<(), String> {
    let dispute = state.ledger.disputes.get_mut(id).ok_or_else(|| format!("dispute must exist (got {id:?})"))?;
    if !dispute.status.leads_to(status) {
        let (from, to) = (dispute.status.as_str(), status.as_str());
        return Err(format!("dispute {id:?} must not go from {from} to {to}"));
    }
    let becomes_dispute = dispute.status.is_inquiry() && !status.is_inquiry() && !status.is_final();
    dispute.status = status;
    let amount = dispute.amount;
    if becomes_dispute {
        transact(state, id, -amount, 0);
        events::disputed(state, "charge.dispute.funds_withdrawn", id);
    }
    if status == DisputeStatus::Won {
        transact(state, id, withdrawn(state, id), 0);
        events::disputed(state, "charge.dispute.funds_reinstated", id);
    }
    let kind = if status.is_final() { "charge.dispute.closed" } else { "charge.dispute.updated" };
    events::disputed(state, kind, id);
    Ok(())
}

/// Stripe gives a part of what it withdrew back, whatever becomes of the dispute.
pub(crate) fn reinstate(state: &mut State, id: &str, amount: i64) -> Result<(), String> {
    if !state.ledger.disputes.contains_key(id) {
        return Err(format!("dispute must exist (got {id:?})"));
    }
    let most = withdrawn(state, id);
    if amount < 1 || amount > most {
        return Err(format!("amount must be from 1 to {most}, which is withdrawn (got {amount})"));
    }
    transact(state, id, amount, 0);
    events::disputed(state, "charge.dispute.funds_reinstated", id);
    Ok(())
}

/// What is withdrawn for a dispute and was not reinstated, without fees.
fn withdrawn(state: &State, id: &str) -> i64 {
    let dispute = state.ledger.disputes.get(id);
    dispute.map_or(0, |dispute| -dispute.balance_transactions.iter().map(|of| of.amount).sum::<i64>())
}

fn transact(state: &mut State, id: &str, amount: i64, fee: i64) {
    let created = state.clock.now();
    state.ledger.credit(PLATFORM, amount - fee);
    if let Some(dispute) = state.ledger.disputes.get_mut(id) {
        dispute.balance_transactions.push(BalanceTransaction { id: new_id("txn_"), amount, fee, created });
    }
}
