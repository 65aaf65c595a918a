//! Payment intents, charges, refunds, disputes and webhook endpoints: read and list.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::paging::{Created, Paging};
use super::params::Params;
use crate::ledger::{Charge, Dispute, PLATFORM, PaymentIntent, Refund};
use crate::shapes::{self, ApiError};
use crate::state::State;

/// What an account has whose balance is not counted.
const UNLIMITED: i64 = 1_000_000_000_000;

pub(crate) fn payment_intent(state: &State, id: &str) -> Result<Value, ApiError> {
    let intent: Option<&PaymentIntent> = state.ledger.payment_intents.get(id);
    let found = intent.and_then(|intent| state.ledger.charges.get(&intent.latest_charge).map(|of| (intent, of)));
    let (intent, charge) = found.ok_or_else(|| ApiError::missing("payment_intent", id, "intent"))?;
    Ok(shapes::payment_intent(intent, charge))
}

pub(crate) fn charge(state: &State, id: &str) -> Result<Value, ApiError> {
    state.ledger.charges.get(id).map(shapes::charge).ok_or_else(|| ApiError::missing("charge", id, "id"))
}

pub(crate) fn refund(state: &State, id: &str) -> Result<Value, ApiError> {
    state.ledger.refunds.get(id).map(shapes::refund).ok_or_else(|| ApiError::missing("refund", id, "id"))
}

pub(crate) fn dispute(state: &State, id: &str) -> Result<Value, ApiError> {
    state.ledger.disputes.get(id).map(shapes::dispute).ok_or_else(|| ApiError::missing("dispute", id, "id"))
}

/// Which charges, refunds or disputes a list is to have.
#[derive(Debug)]
pub(crate) struct Filter {
    charge: Option<String>,
    payment_intent: Option<String>,
    transfer_group: Option<String>,
    created: Created,
}

impl Filter {
    /// Of charges.
    pub(crate) fn of_charges(params: &mut Params) -> Result<Filter, ApiError> {
        let transfer_group = params.text("transfer_group")?;
        let payment_intent = params.text("payment_intent")?;
        Ok(Filter { charge: None, payment_intent, transfer_group, created: Created::take(params)? })
    }

    /// Of what belongs to a charge, which the path may have named.
    pub(crate) fn of_charge(charge: Option<String>, params: &mut Params) -> Result<Filter, ApiError> {
        let charge = match charge {
            None => params.text("charge")?,
            charge => charge,
        };
        let payment_intent = params.text("payment_intent")?;
        Ok(Filter { charge, payment_intent, transfer_group: None, created: Created::take(params)? })
    }

    fn admits(&self, charge: &str, payment_intent: Option<&String>, created: DateTime<Utc>) -> bool {
        self.charge.as_ref().is_none_or(|wanted| wanted == charge)
            && self.payment_intent.as_ref().is_none_or(|wanted| Some(wanted) == payment_intent)
            && self.created.admits(created)
    }
}

pub(crate) fn charges(state: &State, paging: &Paging, filter: &Filter) -> Result<Value, ApiError> {
    let is_wanted = |of: &&Charge| {
        filter.admits(&of.id, of.payment_intent.as_ref(), of.created)
            && filter.transfer_group.as_ref().is_none_or(|group| of.transfer_group.as_ref() == Some(group))
            && state.shows_in_lists(of.created)
    };
    let mut found: Vec<&Charge> = state.ledger.charges.values().rev().filter(is_wanted).collect();
    found.sort_by_key(|charge| Reverse(charge.created));
    let (page, has_more) = paging.cut(&found, |charge| &charge.id)?;
    Ok(shapes::list(page.into_iter().map(shapes::charge).collect(), has_more, "/v1/charges"))
}

pub(crate) fn refunds(state: &State, paging: &Paging, filter: &Filter, url: &str) -> Result<Value, ApiError> {
    let is_wanted = |of: &&Refund| {
        filter.admits(&of.charge, of.payment_intent.as_ref(), of.created) && state.shows_in_lists(of.created)
    };
    let ledger = &state.ledger;
    // By its charge a refund is found without looking at all refunds.
    let mut found: Vec<&Refund> = match &filter.charge {
        Some(id) => {
            let charge = ledger.charges.get(id);
            let charge = charge.ok_or_else(|| ApiError::missing("charge", id, "charge"))?;
            charge.refunds.iter().rev().filter_map(|id| ledger.refunds.get(id)).filter(is_wanted).collect()
        }
        None => ledger.refunds.values().rev().filter(is_wanted).collect(),
    };
    found.sort_by_key(|refund| Reverse(refund.created));
    let (page, has_more) = paging.cut(&found, |refund| &refund.id)?;
    Ok(shapes::list(page.into_iter().map(shapes::refund).collect(), has_more, url))
}

pub(crate) fn disputes(state: &State, paging: &Paging, filter: &Filter) -> Result<Value, ApiError> {
    let is_wanted = |of: &&Dispute| {
        filter.admits(&of.charge, of.payment_intent.as_ref(), of.created) && state.shows_in_lists(of.created)
    };
    let mut found: Vec<&Dispute> = state.ledger.disputes.values().rev().filter(is_wanted).collect();
    found.sort_by_key(|dispute| Reverse(dispute.created));
    let (page, has_more) = paging.cut(&found, |dispute| &dispute.id)?;
    Ok(shapes::list(page.into_iter().map(shapes::dispute).collect(), has_more, "/v1/disputes"))
}

/// Of a connected account, or of the platform. There is one kind of balance here, in each currency of the account's transfers.
pub(crate) fn balance(state: &State, account: Option<&str>) -> Result<Value, ApiError> {
    let ledger = &state.ledger;
    let account = account.unwrap_or(PLATFORM);
    let of_account =
        ledger.transfers.values().filter(|transfer| account == PLATFORM || transfer.destination == account);
    let mut currencies: BTreeSet<&str> = of_account.map(|transfer| transfer.currency.as_str()).collect();
    if currencies.is_empty() {
        currencies.insert("eur");
    }
    let available = ledger.balances.get(account).copied().unwrap_or(UNLIMITED);
    let of = |amount: i64| {
        let of = |currency: &&str| json!({"amount": amount, "currency": currency, "source_types": {"card": amount}});
        currencies.iter().map(of).collect::<Vec<_>>()
    };
    Ok(json!({"object": "balance", "available": of(available), "livemode": false, "pending": of(0)}))
}

pub(crate) fn endpoints(state: &State, paging: &Paging) -> Result<Value, ApiError> {
    let endpoints: Vec<_> = state.events.endpoints().rev().collect();
    let (page, has_more) = paging.cut(&endpoints, |endpoint| endpoint.id())?;
    Ok(shapes::list(page.into_iter().map(|endpoint| endpoint.shown()).collect(), has_more, "/v1/webhook_endpoints"))
}
