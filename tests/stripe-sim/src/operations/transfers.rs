//! Transfers: create, read, list.

use std::collections::BTreeMap;

use serde_json::Value;

use super::new_id;
use super::paging::Paging;
use super::params::Params;
use crate::ledger::{PLATFORM, Transfer};
use crate::shapes::{self, ApiError};
use crate::spec::TransferSpec;
use crate::state::State;

/// The parameters of `POST /v1/transfers`.
#[derive(Debug)]
pub(crate) struct NewTransfer {
    amount: i64,
    currency: String,
    destination: String,
    metadata: BTreeMap<String, String>,
    description: Option<String>,
    transfer_group: Option<String>,
    source_transaction: Option<String>,
}

impl NewTransfer {
    pub(crate) fn take(params: &mut Params) -> Result<NewTransfer, ApiError> {
        params.expand(&["reversals"])?;
        let new = NewTransfer {
            amount: params.required_positive("amount")?,
            currency: params.required("currency")?.to_ascii_lowercase(),
            destination: params.required("destination")?,
            metadata: params.metadata(),
            description: params.text("description"),
            transfer_group: params.text("transfer_group"),
            source_transaction: params.text("source_transaction"),
        };
        // Taken, because Stripe knows it; there is one kind of balance here.
        params.text("source_type");
        if new.currency.len() != 3 {
            return Err(ApiError::invalid(format!("Invalid currency: {}.", new.currency)).param("currency"));
        }
        Ok(new)
    }
}

/// With a `source_transaction` the money comes from that charge, and the transfer joins the charge's group, whatever else
/// is asked for.
pub(crate) fn create(state: &mut State, new: NewTransfer) -> Result<Value, ApiError> {
    let NewTransfer { amount, currency, destination, metadata, description, transfer_group, source_transaction } = new;
    if !destination.starts_with("acct_") {
        let missing = ApiError::missing("destination", &destination, "destination");
        return Err(ApiError { status: 400, ..missing });
    }
    if source_transaction.is_none() {
        if !state.ledger.affords(PLATFORM, amount) {
            return Err(platform_short_of_balance());
        }
        state.ledger.credit(PLATFORM, -amount);
    }
    let group_of = |charge: &String| format!("group_{charge}");
    let transfer_group = source_transaction.as_ref().map(group_of).or(transfer_group);
    let transfer = Transfer {
        id: new_id("tr_"),
        amount,
        currency,
        destination,
        created: state.clock.now(),
        metadata,
        description,
        transfer_group,
        source_transaction,
        reversals: Vec::new(),
    };
    let shown = shapes::transfer(&transfer);
    state.ledger.credit(&transfer.destination, amount);
    state.ledger.transfers.insert(transfer.id.clone(), transfer);
    Ok(shown)
}

pub(crate) fn platform_short_of_balance() -> ApiError {
    let message = "You have insufficient available funds in your Stripe account.";
    ApiError::invalid(message).code("balance_insufficient")
}

/// Puts a transfer there without a request; an error names what is wrong with it.
pub(crate) fn add_transfer(state: &mut State, spec: TransferSpec) -> Result<(), String> {
    let TransferSpec { id, amount, currency, destination } = spec;
    if amount < 1 {
        return Err(format!("amount {amount}: transfer {id:?} needs an amount above 0"));
    }
    if state.ledger.transfers.contains_key(&id) {
        return Err(format!("id {id:?}: there is such a transfer already"));
    }
    let transfer = Transfer {
        id: id.clone(),
        amount,
        currency: currency.to_ascii_lowercase(),
        destination,
        created: state.clock.now(),
        metadata: BTreeMap::new(),
        description: None,
        transfer_group: None,
        source_transaction: None,
        reversals: Vec::new(),
    };
    state.ledger.transfers.insert(id, transfer);
    Ok(())
}

pub(crate) fn get(state: &State, id: &str) -> Result<Value, ApiError> {
    find(state, id).map(shapes::transfer)
}

pub(crate) fn find<'a>(state: &'a State, id: &str) -> Result<&'a Transfer, ApiError> {
    state.ledger.transfers.get(id).ok_or_else(|| ApiError::missing("transfer", id, "id"))
}

/// Which transfers a list is to have.
#[derive(Debug)]
pub(crate) struct Filter {
    destination: Option<String>,
    transfer_group: Option<String>,
    /// In seconds since 1970.
    created_from: Option<i64>,
}

impl Filter {
    pub(crate) fn take(params: &mut Params) -> Result<Filter, ApiError> {
        Ok(Filter {
            destination: params.text("destination"),
            transfer_group: params.text("transfer_group"),
            created_from: params.positive("created[gte]")?,
        })
    }

    fn admits(&self, transfer: &Transfer) -> bool {
        self.destination.as_ref().is_none_or(|wanted| transfer.destination == *wanted)
            && self.transfer_group.as_ref().is_none_or(|wanted| transfer.transfer_group.as_ref() == Some(wanted))
            && self.created_from.is_none_or(|from| transfer.created.timestamp() >= from)
    }
}

pub(crate) fn list(state: &State, paging: &Paging, filter: &Filter) -> Result<Value, ApiError> {
    let is_visible = |transfer: &&Transfer| filter.admits(transfer) && state.shows_in_lists(transfer.created);
    let mut transfers: Vec<&Transfer> = state.ledger.transfers.values().filter(is_visible).collect();
    transfers.sort_by(|a, b| (b.created, &b.id).cmp(&(a.created, &a.id)));
    let (page, has_more) = paging.cut(&transfers, |transfer| &transfer.id)?;
    Ok(shapes::list(page.into_iter().map(shapes::transfer).collect(), has_more, "/v1/transfers"))
}
