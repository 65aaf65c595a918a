//! Which events belong to a change of an object.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Event;
use crate::ledger::{Charge, Refund, RefundStatus, Reversal, Transfer};
use crate::operations::new_id;
use crate::shapes;
use crate::state::State;

/// A charge changed.
pub(crate) fn charged(state: &mut State, kind: &str, id: &str) {
    let Some(charge) = state.ledger.charges.get(id) else { return };
    let is_card = charge.payment_method == "card";
    add(state, kind, charge_with_refunds(state, charge), is_card);
}

/// A refund was created, updated, or has failed, which its charge is told of, too.
pub(crate) fn refunded(state: &mut State, kind: &str, id: &str) {
    let Some(refund) = state.ledger.refunds.get(id) else { return };
    let charge = state.ledger.charges.get(&refund.charge);
    let is_card = charge.is_none_or(|charge| charge.payment_method == "card");
    let (object, charge_id) = (shapes::refund(refund), refund.charge.clone());
    add(state, kind, object.clone(), is_card);
    match kind {
        "refund.created" => charged(state, "charge.refunded", &charge_id),
        "refund.failed" => {
            add(state, "refund.updated", object.clone(), is_card);
            add(state, "charge.refund.updated", object, is_card);
        }
        _ => add(state, "charge.refund.updated", object, is_card),
    }
}

/// A dispute changed.
pub(crate) fn disputed(state: &mut State, kind: &str, id: &str) {
    let Some(dispute) = state.ledger.disputes.get(id) else { return };
    add(state, kind, shapes::dispute(dispute), true);
}

/// A transfer was created.
pub(crate) fn transferred(state: &mut State, id: &str) {
    let Some(transfer) = state.ledger.transfers.get(id) else { return };
    add(state, "transfer.created", shapes::transfer(state, transfer), true);
}

/// A transfer was reversed, in part or as a whole: the platform is told, and the connected account, in which the payment is
/// refunded. Costs nothing while there is no endpoint.
pub(crate) fn reversed(state: &mut State, transfer: &str, reversal: &str) {
    if state.events.endpoints.is_empty() {
        return;
    }
    let Some(transfer) = state.ledger.transfers.get(transfer) else { return };
    let Some(reversal) = transfer.reversals.iter().find(|of| of.id == reversal) else { return };
    let shown = shapes::transfer(state, transfer);
    let (refund, charge) = in_account(transfer, reversal);
    let account = Some(transfer.destination.clone());
    add(state, "transfer.reversed", shown, true);
    for (kind, object) in [("refund.created", refund), ("charge.refunded", charge)] {
        let event = new_event(state, kind, object, false);
        state.events.add(Event { account: account.clone(), ..event });
    }
}

/// The refund and the payment that a reversal makes in the connected account.
fn in_account(transfer: &Transfer, reversal: &Reversal) -> (Value, Value) {
    let payment = Charge {
        id: shapes::related("py_", &transfer.id),
        payment_intent: None,
        amount: transfer.amount,
        amount_captured: transfer.amount,
        amount_refunded: transfer.amount_reversed(),
        currency: transfer.currency.clone(),
        captured: true,
        created: transfer.created,
        payment_method: "stripe_account".to_owned(),
        destination: None,
        transfer_amount: None,
        transfer: None,
        transfer_group: None,
        application_fee_amount: None,
        application_fee_refunded: 0,
        disputed: false,
        metadata: BTreeMap::new(),
        refunds: Vec::new(),
    };
    let refund = Refund {
        id: shapes::related("pyr_", &reversal.id),
        charge: payment.id.clone(),
        payment_intent: None,
        amount: reversal.amount,
        currency: transfer.currency.clone(),
        status: RefundStatus::Succeeded,
        pending_reason: None,
        failure_reason: None,
        reason: None,
        reference: None,
        created: reversal.created,
        transfer_reversal: None,
        is_release: false,
        metadata: BTreeMap::new(),
    };
    let (mut shown, mut charge) = (shapes::refund(&refund), shapes::charge(&payment));
    shown["source_transfer_reversal"] = reversal.id.as_str().into();
    charge["source_transfer"] = transfer.id.as_str().into();
    let url = format!("/v1/charges/{}/refunds", payment.id);
    charge["refunds"] = shapes::list(vec![shown.clone()], false, &url);
    (shown, charge)
}

/// Lets Stripe tell of an object as it is now, by whichever type of event; an error says that there is no such object.
pub(crate) fn happen(state: &mut State, kind: &str, id: &str) -> Result<Event, String> {
    let ledger = &state.ledger;
    let charge = ledger.charges.get(id);
    let of = charge.or_else(|| ledger.charges.get(&ledger.refunds.get(id)?.charge));
    let is_card = of.is_none_or(|charge| charge.payment_method == "card");
    let object = charge
        .map(|charge| charge_with_refunds(state, charge))
        .or_else(|| ledger.refunds.get(id).map(shapes::refund))
        .or_else(|| ledger.disputes.get(id).map(shapes::dispute))
        .or_else(|| ledger.transfers.get(id).map(|transfer| shapes::transfer(state, transfer)));
    let object = object.ok_or_else(|| format!("object must be a charge, refund, dispute or transfer (got {id:?})"))?;
    let event = new_event(state, kind, object, is_card);
    state.events.add(event.clone());
    Ok(event)
}

fn charge_with_refunds(state: &State, charge: &Charge) -> Value {
    let mut object = shapes::charge(charge);
    object["refunds"] = shapes::refunds_of(state, &charge.id);
    object
}

fn add(state: &mut State, kind: &str, object: Value, is_card: bool) {
    let event = new_event(state, kind, object, is_card);
    state.events.add(event);
}

fn new_event(state: &State, kind: &str, object: Value, is_card: bool) -> Event {
    Event {
        id: new_id("evt_"),
        thin_id: new_id("evt_"),
        kind: kind.to_owned(),
        created: state.clock.now(),
        account: None,
        object,
        is_card,
    }
}
