//! Reversals: create, read, list, and what happens to them from elsewhere.

use std::collections::BTreeMap;

use serde_json::Value;

use super::paging::Paging;
use super::params::Params;
use super::{new_id, transfers};
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
    shows_transfer: bool,
}

impl NewReversal {
    pub(crate) fn take(transfer: String, params: &mut Params) -> Result<NewReversal, ApiError> {
        let new = NewReversal {
            transfer,
            amount: params.positive("amount")?,
            metadata: params.metadata(),
            shows_transfer: !params.expand(&["transfer"])?.is_empty(),
        };
        // Taken, because Stripe knows them; neither changes what is reversed.
        params.text("description");
        params.text("refund_application_fee");
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
    let (id, left, account) = (&transfer.id, transfer.left(), transfer.destination.clone());
    if left == 0 {
        return Err(ApiError::invalid(format!("The transfer {id} is already fully reversed.")));
    }
    let amount = new.amount.unwrap_or(left);
    if amount > left {
        let message = format!("Reversal amount ({amount}) is greater than unreversed amount on transfer ({left})");
        return Err(ApiError::invalid(message).param("amount"));
    }
    if !state.ledger.affords(&account, amount) {
        return Err(short_of_balance(&account));
    }
    let reversal = Reversal {
        id: new_id("trr_"),
        amount,
        created: state.clock.now(),
        metadata: new.metadata,
        status: status.map(str::to_owned),
        source_refund: None,
        idempotency_key: key.map(str::to_owned),
    };
    let transfer = book(state, &new.transfer, reversal.clone())?;
    let mut shown = shapes::reversal(&reversal, transfer);
    if new.shows_transfer {
        shown["transfer"] = shapes::transfer(transfer);
    }
    Ok(shown)
}

pub(crate) fn short_of_balance(account: &str) -> ApiError {
    let message = format!("Insufficient funds in the Stripe balance of the connected account {account}.");
    ApiError::invalid(message).code("balance_insufficient")
}

/// Somebody else reverses: in the dashboard, say, or Stripe itself for a refund. Takes at most what is left, whatever the
/// balance.
pub(crate) fn reverse_from_elsewhere(
    state: &mut State,
    transfer: &str,
    amount: Option<i64>,
    source_refund: Option<String>,
) {
    let Some(left) = state.ledger.transfers.get(transfer).map(Transfer::left) else { return };
    let amount = amount.unwrap_or(left).min(left);
    if amount > 0 {
        let (id, created) = (new_id("trr_"), state.clock.now());
        let metadata = BTreeMap::new();
        let reversal = Reversal { id, amount, created, metadata, status: None, source_refund, idempotency_key: None };
        // Its only error is that there is no such transfer.
        let _ = book(state, transfer, reversal);
    }
}

fn book<'a>(state: &'a mut State, transfer: &str, reversal: Reversal) -> Result<&'a Transfer, ApiError> {
    let account = transfers::find(state, transfer)?.destination.clone();
    if reversal.counts() {
        state.ledger.credit(&account, -reversal.amount);
        state.ledger.credit(PLATFORM, reversal.amount);
    }
    if let Some(transfer) = state.ledger.transfers.get_mut(transfer) {
        transfer.reversals.push(reversal);
    }
    transfers::find(state, transfer)
}

/// A pending reversal ends: as `succeeded`, or with the money given back.
pub(crate) fn settle(state: &mut State, id: &str, status: &str) -> Result<(), String> {
    if !matches!(status, "succeeded" | "failed" | "canceled") {
        return Err(format!("status {status:?}: a reversal ends as succeeded, failed or canceled"));
    }
    let mut transfers = state.ledger.transfers.values_mut();
    let found = transfers.find_map(|transfer| {
        let account = transfer.destination.clone();
        transfer.reversals.iter_mut().find(|reversal| reversal.id == id).map(|reversal| (account, reversal))
    });
    let Some((account, reversal)) = found else { return Err(format!("there is no reversal {id:?}")) };
    if reversal.status.as_deref() != Some("pending") {
        return Err(format!("reversal {id:?} is not pending"));
    }
    reversal.status = Some(status.to_owned());
    let given_back = if reversal.counts() { 0 } else { reversal.amount };
    state.ledger.credit(&account, given_back);
    state.ledger.credit(PLATFORM, -given_back);
    Ok(())
}

pub(crate) fn get(state: &State, transfer: &str, id: &str) -> Result<Value, ApiError> {
    let transfer = transfers::find(state, transfer)?;
    let found = transfer.reversals.iter().find(|reversal| reversal.id == id);
    found
        .map(|reversal| shapes::reversal(reversal, transfer))
        .ok_or_else(|| ApiError::missing("transfer reversal", id, "id"))
}

pub(crate) fn list(state: &State, transfer: &str, paging: &Paging) -> Result<Value, ApiError> {
    let transfer = transfers::find(state, transfer)?;
    let is_visible = |reversal: &&Reversal| state.shows_in_lists(reversal.created);
    let reversals: Vec<&Reversal> = transfer.reversals.iter().rev().filter(is_visible).collect();
    let (page, has_more) = paging.cut(&reversals, |reversal| &reversal.id)?;
    let data = page.into_iter().map(|reversal| shapes::reversal(reversal, transfer)).collect();
    Ok(shapes::list(data, has_more, &shapes::reversals_url(&transfer.id)))
}
