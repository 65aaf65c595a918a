//! Reversals: create, read, list, and what happens to them from elsewhere.

use std::collections::BTreeMap;

use serde_json::Value;

use super::paging::Paging;
use super::params::Params;
use super::{new_id, transfers};
use crate::events;
use crate::ledger::{PLATFORM, Reversal, Transfer};
use crate::shapes::{self, ApiError};
use crate::state::State;

/// The parameters of `POST /v1/transfers/{id}/reversals`.
#[derive(Debug)]
pub(crate) struct NewReversal {
    transfer: String,
    /// None: all that is left.
    amount: Option<i64>,
    metadata: BTreeMap<String, String>,
    refund_application_fee: bool,
}

impl NewReversal {
    pub(crate) fn take(transfer: String, params: &mut Params) -> Result<NewReversal, ApiError> {
        let new = NewReversal {
            transfer,
            amount: params.positive("amount")?,
            metadata: params.metadata()?,
            refund_application_fee: params.flag("refund_application_fee")?,
        };
        // Taken, because Stripe knows it; it is not shown in the API.
        params.unsettable("description");
        Ok(new)
    }
}

pub(crate) fn create(
    state: &mut State,
    new: NewReversal,
    key: Option<&str>,
    status: Option<&str>,
) -> Result<Value, ApiError> {
    let transfer = transfers::find(state, &new.transfer)?;
    let (id, left, account) = (&transfer.id, transfer.left(), &transfer.destination);
    if left == 0 {
        return Err(ApiError::invalid(format!("The transfer {id} is already fully reversed.")));
    }
    let amount = new.amount.unwrap_or(left);
    if amount > left {
        let message = format!("Reversal amount ({amount}) is greater than unreversed amount on transfer ({left})");
        return Err(ApiError::invalid(message).param("amount"));
    }
    if !transfer.of_destination_charge && !state.ledger.affords(account, amount) {
        return Err(short_of_balance(account));
    }
    let application_fee_refunded = match new.refund_application_fee {
        true => fee_share(state, transfer, amount)?,
        false => 0,
    };
    let application_fee_refunded = if status == Some("failed") { 0 } else { application_fee_refunded };
    let reversal = Reversal {
        id: new_id("trr_"),
        amount,
        created: state.clock.now(),
        metadata: new.metadata,
        status: status.map(str::to_owned),
        application_fee_refunded,
        source_refund: None,
        idempotency_key: key.map(str::to_owned),
    };
    let id = reversal.id.clone();
    book(state, &new.transfer, reversal)?;
    get(state, &new.transfer, &id)
}

/// How much of the charge's application fee belongs to that much of its transfer. The parts of reversals that follow each
/// other add up to the fee.
fn fee_share(state: &State, transfer: &Transfer, amount: i64) -> Result<i64, ApiError> {
    let charge = transfer.source_transaction.as_ref().and_then(|id| state.ledger.charges.get(id));
    let charge = charge.filter(|_| transfer.of_destination_charge);
    let Some((charge, fee)) = charge.and_then(|charge| charge.application_fee_amount.map(|fee| (charge, fee))) else {
        let message = format!("The transfer {} has no application fee to refund.", transfer.id);
        return Err(ApiError::invalid(message).param("refund_application_fee"));
    };
    let until = |reversed: i64| i128::from(fee) * i128::from(reversed) / i128::from(transfer.amount);
    let reversed = transfer.amount_reversed();
    let due = i64::try_from(until(reversed + amount) - until(reversed)).unwrap_or(fee);
    Ok(due.clamp(0, fee - charge.application_fee_refunded))
}

pub(crate) fn short_of_balance(account: &str) -> ApiError {
    let message = format!("Insufficient funds in the Stripe balance of the connected account {account}.");
    ApiError::invalid(message).code("balance_insufficient")
}

/// Somebody else reverses: in the dashboard, say, or Stripe itself for a refund. Takes at most what is left, whatever the
/// balance, and returns the reversal's id.
pub(crate) fn reverse_from_elsewhere(
    state: &mut State,
    transfer: &str,
    amount: Option<i64>,
    source_refund: Option<String>,
) -> Option<String> {
    reverse_with_fee(state, transfer, amount, source_refund, false)
}

/// As [`reverse_from_elsewhere`]; gives back the application fee, too, if there is one.
pub(crate) fn reverse_with_fee(
    state: &mut State,
    transfer: &str,
    amount: Option<i64>,
    source_refund: Option<String>,
    refund_application_fee: bool,
) -> Option<String> {
    let found = state.ledger.transfers.get(transfer)?;
    let left = found.left();
    let amount = amount.unwrap_or(left).min(left);
    if amount < 1 {
        return None;
    }
    let fee = if refund_application_fee { fee_share(state, found, amount).unwrap_or_default() } else { 0 };
    let id = new_id("trr_");
    let reversal = Reversal {
        id: id.clone(),
        amount,
        created: state.clock.now(),
        metadata: BTreeMap::new(),
        status: None,
        application_fee_refunded: fee,
        source_refund,
        idempotency_key: None,
    };
    book(state, transfer, reversal).ok()?;
    Some(id)
}

fn book(state: &mut State, transfer: &str, reversal: Reversal) -> Result<(), ApiError> {
    let found = transfers::find(state, transfer)?;
    let (account, charge) = (found.destination.clone(), found.source_transaction.clone());
    if reversal.counts() {
        let fee = reversal.application_fee_refunded;
        state.ledger.credit(&account, fee - reversal.amount);
        state.ledger.credit(PLATFORM, reversal.amount - fee);
        if let Some(charge) = charge.and_then(|id| state.ledger.charges.get_mut(&id)) {
            charge.application_fee_refunded += fee;
        }
    }
    state.ledger.counts.reversals += 1;
    state.ledger.counts.amount_reversed += reversal.amount;
    let id = reversal.id.clone();
    if let Some(transfer) = state.ledger.transfers.get_mut(transfer) {
        transfer.reversals.push(reversal);
    }
    events::reversed(state, transfer, &id);
    Ok(())
}

/// A pending reversal ends: as `succeeded`, or with the money given back.
pub(crate) fn settle(state: &mut State, id: &str, status: &str) -> Result<(), String> {
    if !matches!(status, "succeeded" | "failed" | "canceled") {
        return Err(format!("status {status:?}: a reversal ends as succeeded, failed or canceled"));
    }
    let mut transfers = state.ledger.transfers.values_mut();
    let found = transfers.find_map(|transfer| {
        let (account, charge) = (transfer.destination.clone(), transfer.source_transaction.clone());
        let reversal = transfer.reversals.iter_mut().find(|reversal| reversal.id == id)?;
        Some((account, charge, reversal))
    });
    let Some((account, charge, reversal)) = found else { return Err(format!("there is no reversal {id:?}")) };
    if reversal.status.as_deref() != Some("pending") {
        return Err(format!("reversal {id:?} is not pending"));
    }
    reversal.status = Some(status.to_owned());
    if reversal.counts() {
        return Ok(());
    }
    let fee = std::mem::take(&mut reversal.application_fee_refunded);
    let given_back = reversal.amount - fee;
    state.ledger.credit(&account, given_back);
    state.ledger.credit(PLATFORM, -given_back);
    if let Some(charge) = charge.and_then(|id| state.ledger.charges.get_mut(&id)) {
        charge.application_fee_refunded -= fee;
    }
    Ok(())
}

pub(crate) fn get(state: &State, transfer: &str, id: &str) -> Result<Value, ApiError> {
    let transfer = transfers::find(state, transfer)?;
    let found = transfer.reversals.iter().find(|reversal| reversal.id == id);
    found
        .map(|reversal| shapes::reversal(state, reversal, transfer))
        .ok_or_else(|| ApiError::missing("transfer reversal", id, "id"))
}

pub(crate) fn list(state: &State, transfer: &str, paging: &Paging) -> Result<Value, ApiError> {
    let transfer = transfers::find(state, transfer)?;
    let is_visible = |reversal: &&Reversal| state.shows_in_lists(reversal.created);
    let reversals: Vec<&Reversal> = transfer.reversals.iter().rev().filter(is_visible).collect();
    let (page, has_more) = paging.cut(&reversals, |reversal| &reversal.id)?;
    let data = page.into_iter().map(|reversal| shapes::reversal(state, reversal, transfer)).collect();
    Ok(shapes::list(data, has_more, &shapes::reversals_url(&transfer.id)))
}
