//! Payment intents, charges, refunds and disputes as JSON.

use serde_json::{Value, json};

use super::{list, related};
use crate::ledger::{Charge, Dispute, PaymentIntent, Refund};
use crate::state::State;

/// How many refunds a charge object carries, where it carries any.
const REFUNDS_IN_CHARGE: usize = 10;

/// A `payment_intent` with its latest charge.
pub(crate) fn payment_intent(intent: &PaymentIntent, charge: &Charge) -> Value {
    let is_void = !charge.captured && charge.amount_refunded == charge.amount;
    let status = match (charge.captured, is_void) {
        (true, _) => "succeeded",
        (false, true) => "canceled",
        (false, false) => "requires_capture",
    };
    json!({
        "id": intent.id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_capturable": if status == "requires_capture" { charge.amount } else { 0 },
        "amount_received": charge.amount_captured,
        "application_fee_amount": charge.application_fee_amount,
        "capture_method": "automatic_async",
        "confirmation_method": "automatic",
        "created": intent.created.timestamp(),
        "currency": intent.currency,
        "customer": null,
        "description": null,
        "latest_charge": intent.latest_charge,
        "livemode": false,
        "metadata": intent.metadata,
        "on_behalf_of": null,
        "payment_method_types": [charge.payment_method],
        "status": status,
        "transfer_data": transfer_data(charge),
        "transfer_group": intent.transfer_group,
    })
}

/// A `charge` without its refunds; `transfer` is there only when it has one.
pub(crate) fn charge(charge: &Charge) -> Value {
    let mut value = json!({
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_captured": charge.amount_captured,
        "amount_refunded": charge.amount_refunded,
        "application_fee": charge.application_fee_amount.filter(|_| charge.captured).map(|_| fee_id(charge)),
        "application_fee_amount": charge.application_fee_amount,
        "balance_transaction": charge.captured.then(|| related("txn_", &charge.id)),
        "billing_details": {"address": null, "email": null, "name": null, "phone": null, "tax_id": null},
        "captured": charge.captured,
        "created": charge.created.timestamp(),
        "currency": charge.currency,
        "customer": null,
        "description": null,
        "disputed": charge.disputed,
        "failure_code": null,
        "livemode": false,
        "metadata": charge.metadata,
        "on_behalf_of": null,
        "paid": true,
        "payment_intent": charge.payment_intent,
        "payment_method_details": {"type": charge.payment_method},
        "refunded": charge.amount_refunded >= charge.amount,
        "source_transfer": null,
        "status": "succeeded",
        "transfer_data": transfer_data(charge),
        "transfer_group": charge.transfer_group,
    });
    if let Some(transfer) = &charge.transfer {
        value["transfer"] = transfer.as_str().into();
    }
    value
}

fn transfer_data(charge: &Charge) -> Value {
    match &charge.destination {
        Some(destination) => json!({ "amount": charge.transfer_amount, "destination": destination }),
        None => Value::Null,
    }
}

/// The newest refunds of a charge, as a list.
pub(crate) fn refunds_of(state: &State, charge: &str) -> Value {
    let ids = state.ledger.charges.get(charge).map_or(&[][..], |charge| &charge.refunds);
    let newest = ids.iter().rev().take(REFUNDS_IN_CHARGE).filter_map(|id| state.ledger.refunds.get(id));
    let mut refunds =
        list(newest.map(refund).collect(), ids.len() > REFUNDS_IN_CHARGE, &format!("/v1/charges/{charge}/refunds"));
    refunds["total_count"] = ids.len().into();
    refunds
}

/// The id of a charge's application fee.
pub(crate) fn fee_id(charge: &Charge) -> String {
    related("fee_", &charge.id)
}

/// The `application_fee` of a charge.
pub(crate) fn application_fee(charge: &Charge) -> Value {
    let amount = charge.application_fee_amount.unwrap_or_default();
    json!({
        "id": fee_id(charge),
        "object": "application_fee",
        "account": charge.destination,
        "amount": amount,
        "amount_refunded": charge.application_fee_refunded,
        "application": related("ca_", &charge.id),
        "balance_transaction": related("txn_", &fee_id(charge)),
        "charge": charge.id,
        "created": charge.created.timestamp(),
        "currency": charge.currency,
        "livemode": false,
        "originating_transaction": charge.id,
        "refunded": charge.application_fee_refunded == amount,
        "refunds": list(Vec::new(), false, &format!("/v1/application_fees/{}/refunds", fee_id(charge))),
    })
}

/// A `refund`; `pending_reason` and `failure_reason` are there only when it has one.
pub(crate) fn refund(refund: &Refund) -> Value {
    let mut card = json!({
        "reference_status": if refund.reference.is_some() { "available" } else { "pending" },
        "reference_type": "acquirer_reference_number",
        "type": "refund",
    });
    if let Some(reference) = &refund.reference {
        card["reference"] = reference.as_str().into();
    }
    let mut value = json!({
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "balance_transaction": related("txn_", &refund.id),
        "charge": refund.charge,
        "created": refund.created.timestamp(),
        "currency": refund.currency,
        "destination_details": {"card": card, "type": "card"},
        "metadata": refund.metadata,
        "payment_intent": refund.payment_intent,
        "reason": refund.reason,
        "receipt_number": null,
        "source_transfer_reversal": null,
        "status": refund.status.as_str(),
        "transfer_reversal": refund.transfer_reversal,
    });
    for (name, reason) in [("pending_reason", &refund.pending_reason), ("failure_reason", &refund.failure_reason)] {
        if let Some(reason) = reason {
            value[name] = reason.as_str().into();
        }
    }
    value
}

/// A `dispute`.
pub(crate) fn dispute(dispute: &Dispute) -> Value {
    let moved = dispute.balance_transactions.iter().map(|of| {
        json!({
            "id": of.id,
            "object": "balance_transaction",
            "amount": of.amount,
            "available_on": of.created.timestamp(),
            "balance_type": "payments",
            "created": of.created.timestamp(),
            "currency": dispute.currency,
            "fee": of.fee,
            "fee_details": [],
            "net": of.amount - of.fee,
            "reporting_category": if of.amount < 0 { "dispute" } else { "dispute_reversal" },
            "source": dispute.id,
            "status": "available",
            "type": "adjustment",
        })
    });
    json!({
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": moved.collect::<Vec<_>>(),
        "charge": dispute.charge,
        "created": dispute.created.timestamp(),
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": {"enhanced_evidence": {}},
        "evidence_details": {"due_by": null, "enhanced_eligibility": {}, "has_evidence": false, "past_due": false,
            "submission_count": 0},
        "is_charge_refundable": dispute.status.is_inquiry(),
        "livemode": false,
        "metadata": {},
        "payment_intent": dispute.payment_intent,
        "reason": dispute.reason,
        "status": dispute.status.as_str(),
    })
}
