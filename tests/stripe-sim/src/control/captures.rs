//! Captures of what is authorized, and the release of the rest.

use std::collections::BTreeMap;

use super::payments::{add_transfer, join};
use crate::events;
use crate::ledger::{PLATFORM, Refund, RefundStatus};
use crate::operations::new_id;
use crate::state::State;

/// Whether so much can be captured of what is left.
pub(super) fn check_capture(left: i64, amount: i64) -> Result<(), String> {
    if (1..=left).contains(&amount) {
        return Ok(());
    }
    Err(format!("amount must be from 1 to {left}, which is authorized (got {amount})"))
}

/// Takes what is authorized, or part of it. A final capture releases the rest, which Stripe shows as a refund.
pub(crate) fn capture(state: &mut State, id: &str, amount: Option<i64>, is_final: bool) -> Result<(), String> {
    let charge = state.ledger.charges.get_mut(id).ok_or_else(|| format!("charge must exist (got {id:?})"))?;
    let left = charge.amount - charge.amount_captured - charge.amount_refunded;
    let amount = amount.unwrap_or(left);
    check_capture(left, amount)?;
    if !is_final && charge.destination.is_some() {
        return Err("a destination charge must be captured at once".to_owned());
    }
    (charge.captured, charge.amount_captured) = (true, charge.amount_captured + amount);
    let (created, currency) = (charge.created, charge.currency.clone());
    let transferred = charge.destination.clone().map(|destination| {
        let transferred = charge.transfer_amount.unwrap_or(amount).min(amount);
        (destination, transferred, charge.transfer.take(), charge.transfer_group.clone())
    });
    let fee = charge.application_fee_amount.unwrap_or_default();
    state.ledger.credit(PLATFORM, amount + fee);
    if let Some((destination, transferred, transfer, group)) = transferred {
        let transfer = add_transfer(state, transfer, transferred, &currency, &destination);
        state.ledger.credit(&destination, -fee);
        if let Some(charge) = state.ledger.charges.get_mut(id) {
            charge.transfer = Some(transfer.clone());
        }
        if let Some(transfer) = state.ledger.transfers.get_mut(&transfer) {
            transfer.of_destination_charge = true;
        }
        join(state, &transfer, group, Some(id.to_owned()), created);
    }
    events::charged(state, "charge.captured", id);
    if is_final { release(state, id) } else { Ok(()) }
}

/// Gives up what is authorized and not captured.
pub(crate) fn void(state: &mut State, id: &str) -> Result<(), String> {
    match state.ledger.charges.get(id) {
        None => Err(format!("charge must exist (got {id:?})")),
        Some(charge) if charge.captured => Err(format!("charge must not be captured (got {id:?})")),
        Some(_) => release(state, id),
    }
}

fn release(state: &mut State, id: &str) -> Result<(), String> {
    let created = state.clock.now();
    let Some(charge) = state.ledger.charges.get_mut(id) else { return Ok(()) };
    let amount = charge.amount - charge.amount_captured - charge.amount_refunded;
    if amount < 1 {
        return Ok(());
    }
    let refund = Refund {
        id: new_id("re_"),
        charge: id.to_owned(),
        payment_intent: charge.payment_intent.clone(),
        amount,
        currency: charge.currency.clone(),
        status: RefundStatus::Succeeded,
        pending_reason: None,
        failure_reason: None,
        reason: None,
        reference: None,
        created,
        transfer_reversal: None,
        is_release: true,
        metadata: BTreeMap::new(),
    };
    charge.amount_refunded += amount;
    charge.refunds.push(refund.id.clone());
    let refund_id = refund.id.clone();
    state.ledger.refunds.insert(refund_id.clone(), refund);
    events::refunded(state, "refund.created", &refund_id);
    Ok(())
}
