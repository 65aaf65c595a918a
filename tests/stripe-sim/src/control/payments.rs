//! A buyer pays: the authorization, and the transfers to connected accounts.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::captures::{capture, check_capture};
use super::{ago, choose_id};
use crate::events;
use crate::ledger::{Charge, PLATFORM, PaymentIntent, Transfer};
use crate::operations::{check_currency, looks_like, new_id};
use crate::state::State;

/// A payment to create; all but amount and currency have a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPayment {
    /// What is authorized, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// Of the charge: `ch_…` or `py_…`.
    #[serde(default)]
    pub charge: Option<String>,
    /// `pi_…`
    #[serde(default)]
    pub payment_intent: Option<String>,
    /// Makes it a destination charge: the connected account, `acct_…`.
    #[serde(default)]
    pub destination: Option<String>,
    /// Of a destination charge's transfer: `tr_…`.
    #[serde(default)]
    pub transfer: Option<String>,
    /// Of a destination charge: what is transferred, in minor units; by default all that is captured.
    #[serde(default)]
    pub transfer_amount: Option<i64>,
    /// Of a destination charge: the platform's fee, in minor units.
    #[serde(default)]
    pub application_fee_amount: Option<i64>,
    /// Of the charge and its payment intent.
    #[serde(default)]
    pub transfer_group: Option<String>,
    /// Of separate charges and transfers: the transfers, created with the payment.
    #[serde(default)]
    pub transfers: Vec<PaymentTransfer>,
    /// What is taken of what is authorized; all by default.
    #[serde(default)]
    pub capture: Capture,
    /// `card` by default.
    #[serde(default)]
    pub payment_method: Option<String>,
    /// Of the charge and its payment intent.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// How long ago it was, in seconds.
    #[serde(default)]
    pub seconds_ago: u32,
}

/// What is taken of what is authorized.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// All of it.
    #[default]
    All,
    /// So much, in minor units; the rest is released.
    Part(i64),
    /// Nothing yet.
    Later,
}

/// A transfer of separate charges and transfers.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PaymentTransfer {
    /// `tr_…`
    #[serde(default)]
    pub id: Option<String>,
    /// In minor units of the transfer's currency.
    pub amount: i64,
    /// The payment's by default.
    #[serde(default)]
    pub currency: Option<String>,
    /// The connected account, `acct_…`.
    pub destination: String,
    /// Whether the charge is its `source_transaction`.
    #[serde(default)]
    pub from_charge: bool,
}

impl NewPayment {
    /// A captured card payment without transfers.
    #[must_use]
    pub fn new(amount: i64, currency: &str) -> NewPayment {
        NewPayment {
            amount,
            currency: currency.to_owned(),
            charge: None,
            payment_intent: None,
            destination: None,
            transfer: None,
            transfer_amount: None,
            application_fee_amount: None,
            transfer_group: None,
            transfers: Vec::new(),
            capture: Capture::All,
            payment_method: None,
            metadata: BTreeMap::new(),
            seconds_ago: 0,
        }
    }
}

/// Creates a payment, and returns its charge's id; an error names the field that is wrong, and nothing is done.
pub(crate) fn pay(state: &mut State, new: NewPayment) -> Result<String, String> {
    let currency = check(&new)?;
    let ledger = &state.ledger;
    let charge = choose_id(new.charge.clone(), &["ch_", "py_"], |id| ledger.charges.contains_key(id))?;
    let intent = choose_id(new.payment_intent.clone(), &["pi_"], |id| ledger.payment_intents.contains_key(id))?;
    for id in new.transfer.iter().chain(new.transfers.iter().filter_map(|of| of.id.as_ref())) {
        choose_id(Some(id.clone()), &["tr_"], |id| ledger.transfers.contains_key(id))?;
    }
    let created = ago(state, new.seconds_ago);
    let from_charge = new.transfers.iter().any(|of| of.from_charge);
    let group = new.transfer_group.clone().or_else(|| from_charge.then(|| format!("group_{intent}")));
    state.ledger.payment_intents.insert(
        intent.clone(),
        PaymentIntent {
            id: intent.clone(),
            amount: new.amount,
            currency: currency.clone(),
            created,
            latest_charge: charge.clone(),
            transfer_group: group.clone(),
            metadata: new.metadata.clone(),
        },
    );
    state.ledger.charges.insert(
        charge.clone(),
        Charge {
            id: charge.clone(),
            payment_intent: Some(intent),
            amount: new.amount,
            amount_captured: 0,
            amount_refunded: 0,
            currency: currency.clone(),
            captured: false,
            created,
            payment_method: new.payment_method.clone().unwrap_or_else(|| "card".to_owned()),
            destination: new.destination.clone(),
            transfer_amount: new.transfer_amount,
            transfer: new.transfer.clone(),
            transfer_group: group.clone(),
            application_fee_amount: new.application_fee_amount,
            application_fee_refunded: 0,
            disputed: false,
            metadata: new.metadata.clone(),
            refunds: Vec::new(),
        },
    );
    match new.capture {
        Capture::All => capture(state, &charge, Some(new.amount), true)?,
        Capture::Part(amount) => capture(state, &charge, Some(amount), true)?,
        Capture::Later => events::charged(state, "charge.succeeded", &charge),
    }
    for of in &new.transfers {
        add_to(state, &charge, of, group.clone(), created);
    }
    Ok(charge)
}

/// Makes another transfer of a payment, now.
pub(crate) fn transfer_of(state: &mut State, charge: &str, of: PaymentTransfer) -> Result<(), String> {
    let known = state.ledger.charges.get(charge).ok_or_else(|| format!("charge must exist (got {charge:?})"))?;
    let group = known.transfer_group.clone();
    choose_id(of.id.clone(), &["tr_"], |id| state.ledger.transfers.contains_key(id))?;
    let now = state.clock.now();
    add_to(state, charge, &of, group, now);
    Ok(())
}

fn add_to(
    state: &mut State,
    charge: &str,
    of: &PaymentTransfer,
    group: Option<String>,
    created: chrono::DateTime<chrono::Utc>,
) {
    let its = state.ledger.charges.get(charge).map(|charge| charge.currency.clone()).unwrap_or_default();
    let id = add_transfer(state, of.id.clone(), of.amount, of.currency.as_ref().unwrap_or(&its), &of.destination);
    join(state, &id, group, of.from_charge.then(|| charge.to_owned()), created);
}

fn check(new: &NewPayment) -> Result<String, String> {
    let currency = check_currency(&new.currency)?;
    let amounts = [("amount", Some(new.amount)), ("transfer_amount", new.transfer_amount)];
    let amounts = amounts.into_iter().chain(new.transfers.iter().map(|of| ("transfers.amount", Some(of.amount))));
    for (name, amount) in amounts.chain([("application_fee_amount", new.application_fee_amount)]) {
        if let Some(amount) = amount.filter(|amount| *amount < 1) {
            return Err(format!("{name} must be a positive integer in minor units (got {amount})"));
        }
    }
    if let Capture::Part(amount) = new.capture {
        check_capture(new.amount, amount)?;
    }
    for account in new.destination.iter().chain(new.transfers.iter().map(|of| &of.destination)) {
        if !looks_like(account, "acct_") {
            return Err(format!("destination must be acct_ and letters, digits or _ (got {account:?})"));
        }
    }
    for currency in new.transfers.iter().filter_map(|of| of.currency.as_ref()) {
        check_currency(currency)?;
    }
    let captured = match new.capture {
        Capture::Part(amount) => amount,
        Capture::All | Capture::Later => new.amount,
    };
    for (name, amount) in
        [("transfer_amount", new.transfer_amount), ("application_fee_amount", new.application_fee_amount)]
    {
        if amount.is_some() && new.destination.is_none() {
            return Err(format!("{name} must come with a destination"));
        }
        if let Some(amount) = amount.filter(|amount| *amount > captured) {
            return Err(format!("{name} must be at most {captured}, which is captured (got {amount})"));
        }
    }
    if new.transfer_amount.is_some() && new.application_fee_amount.is_some() {
        return Err("transfer_amount must not come with application_fee_amount".to_owned());
    }
    Ok(currency)
}

/// Moves money to a connected account, whatever the balance, and returns the transfer's id.
pub(super) fn add_transfer(
    state: &mut State,
    id: Option<String>,
    amount: i64,
    currency: &str,
    destination: &str,
) -> String {
    let id = id.unwrap_or_else(|| new_id("tr_"));
    state.ledger.credit(PLATFORM, -amount);
    state.ledger.credit(destination, amount);
    state.ledger.add(Transfer {
        id: id.clone(),
        amount,
        currency: currency.to_ascii_lowercase(),
        destination: destination.to_owned(),
        created: state.clock.now(),
        metadata: BTreeMap::new(),
        description: None,
        transfer_group: None,
        source_transaction: None,
        of_destination_charge: false,
        reversals: Vec::new(),
    });
    id
}

pub(super) fn join(
    state: &mut State,
    id: &str,
    group: Option<String>,
    charge: Option<String>,
    created: chrono::DateTime<chrono::Utc>,
) {
    state.ledger.group_transfer(id, group);
    if let Some(transfer) = state.ledger.transfers.get_mut(id) {
        (transfer.source_transaction, transfer.created) = (charge, created);
    }
    events::transferred(state, id);
}
