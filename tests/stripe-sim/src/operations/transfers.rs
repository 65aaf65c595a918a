//! Transfers: create, read, list.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;

use super::paging::{Created, Paging};
use super::params::Params;
use super::{currency, new_id};
use crate::events;
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
        let new = NewTransfer {
            amount: params.required_positive("amount")?,
            currency: currency::check(&params.required("currency")?)?,
            destination: params.required("destination")?,
            metadata: params.metadata()?,
            description: params.unsettable("description"),
            transfer_group: params.text("transfer_group")?,
            source_transaction: params.text("source_transaction")?,
        };
        // There is one kind of balance here.
        match params.text("source_type")?.as_deref() {
            None | Some("card" | "bank_account" | "fpx") => Ok(new),
            Some(_) => {
                let message = "Invalid source_type: must be one of bank_account, card, or fpx";
                Err(ApiError::invalid(message).param("source_type"))
            }
        }
    }
}

/// With a `source_transaction` the money comes from that charge, and the transfer joins the charge's group, whatever else
/// is asked for. A charge that the simulator does not know is taken for one.
pub(crate) fn create(state: &mut State, new: NewTransfer) -> Result<Value, ApiError> {
    if !looks_like(&new.destination, "acct_") {
        let missing = ApiError::missing("destination", &new.destination, "destination");
        return Err(ApiError { status: 400, ..missing });
    }
    let transfer_group = match &new.source_transaction {
        Some(charge) => Some(draw_on(state, charge, &new)?),
        None if !state.ledger.affords(PLATFORM, new.amount) => return Err(platform_short_of_balance()),
        None => {
            state.ledger.credit(PLATFORM, -new.amount);
            new.transfer_group
        }
    };
    let transfer = Transfer {
        id: new_id("tr_"),
        amount: new.amount,
        currency: new.currency,
        destination: new.destination,
        created: state.clock.now(),
        metadata: new.metadata,
        description: new.description,
        transfer_group,
        source_transaction: new.source_transaction,
        of_destination_charge: false,
        reversals: Vec::new(),
    };
    let id = transfer.id.clone();
    state.ledger.credit(&transfer.destination, transfer.amount);
    state.ledger.add(transfer);
    if state.events.endpoints().next().is_some() {
        events::transferred(state, &id);
    }
    get(state, &id)
}

/// The group of a charge that is to pay for a transfer: a charge without one gets one.
fn draw_on(state: &mut State, charge: &str, new: &NewTransfer) -> Result<String, ApiError> {
    if !looks_like(charge, "ch_") && !looks_like(charge, "py_") {
        let missing = ApiError::missing("charge", charge, "source_transaction");
        return Err(ApiError { status: 400, ..missing });
    }
    let Some(known) = state.ledger.charges.get(charge) else { return Ok(format!("group_{charge}")) };
    if known.currency != new.currency {
        let message = format!(
            "The currency of source_transaction's balance transaction ({}) must be the same as the \
            transfer currency ({})",
            known.currency, new.currency
        );
        return Err(ApiError::invalid(message).param("currency"));
    }
    let group = known.transfer_group.clone();
    let group = group.unwrap_or_else(|| format!("group_{}", known.payment_intent.as_deref().unwrap_or(charge)));
    let drawn = state.ledger.group(&group).filter(|other| other.source_transaction.as_deref() == Some(charge));
    let drawn: i64 = drawn.map(|transfer| transfer.amount).sum();
    if drawn + new.amount > known.amount_captured {
        let (source, currency) = (known.amount_captured, &known.currency);
        let message = format!(
            "Transfers using this transaction as a source must not exceed the source amount of \
            {source} {currency}. (There are already transfers using this source, amounting to {drawn} {currency}.)"
        );
        return Err(ApiError::invalid(message).param("amount"));
    }
    state.ledger.join_group(charge, &group);
    Ok(group)
}

/// Whether it can be an id of Stripe's with that prefix.
pub(crate) fn looks_like(id: &str, prefix: &str) -> bool {
    let rest = id.strip_prefix(prefix).filter(|rest| !rest.is_empty());
    rest.is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
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
    for (name, value, prefix) in [("id", &id, "tr_"), ("destination", &destination, "acct_")] {
        if !looks_like(value, prefix) {
            return Err(format!("{name} must be {prefix} and letters, digits or _ (got {value:?})"));
        }
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
        of_destination_charge: false,
        reversals: Vec::new(),
    };
    state.ledger.add(transfer);
    Ok(())
}

/// Puts the transfers `tr_bench_1` to `tr_bench_{count}` there, in euros, for one account.
pub(crate) fn seed_transfers(state: &mut State, count: u32, amount: i64) -> Result<(), String> {
    state.ledger.transfers.reserve(count.try_into().unwrap_or_default());
    (1..=count).try_for_each(|n| {
        let (currency, destination) = ("eur".to_owned(), "acct_bench".to_owned());
        add_transfer(state, TransferSpec { id: format!("tr_bench_{n}"), amount, currency, destination })
    })
}

pub(crate) fn get(state: &State, id: &str) -> Result<Value, ApiError> {
    find(state, id).map(|transfer| shapes::transfer(state, transfer))
}

pub(crate) fn find<'a>(state: &'a State, id: &str) -> Result<&'a Transfer, ApiError> {
    state.ledger.transfers.get(id).ok_or_else(|| ApiError::missing("transfer", id, "id"))
}

/// Which transfers a list is to have.
#[derive(Debug)]
pub(crate) struct Filter {
    destination: Option<String>,
    transfer_group: Option<String>,
    created: Created,
}

impl Filter {
    pub(crate) fn take(params: &mut Params) -> Result<Filter, ApiError> {
        Ok(Filter {
            destination: params.text("destination")?,
            transfer_group: params.text("transfer_group")?,
            created: Created::take(params)?,
        })
    }

    fn admits(&self, transfer: &Transfer) -> bool {
        self.destination.as_ref().is_none_or(|wanted| transfer.destination == *wanted)
            && self.created.admits(transfer.created)
    }
}

pub(crate) fn list(state: &State, paging: &Paging, filter: &Filter) -> Result<Value, ApiError> {
    let is_visible = |transfer: &&Transfer| filter.admits(transfer) && state.shows_in_lists(transfer.created);
    let mut transfers: Vec<&Transfer> = match &filter.transfer_group {
        Some(group) => state.ledger.group(group).rev().filter(is_visible).collect(),
        None => state.ledger.transfers.values().rev().filter(is_visible).collect(),
    };
    transfers.sort_by_key(|transfer| Reverse(transfer.created));
    let (page, has_more) = paging.cut(&transfers, |transfer| &transfer.id)?;
    let data = page.into_iter().map(|transfer| shapes::transfer(state, transfer)).collect();
    Ok(shapes::list(data, has_more, "/v1/transfers"))
}
