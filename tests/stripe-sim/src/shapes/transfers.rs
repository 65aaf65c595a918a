//! Transfers and reversals as JSON.

use serde_json::{Value, json};

use super::{list, related};
use crate::ledger::{Reversal, Transfer};
use crate::state::State;

/// How many reversals a transfer object carries.
const REVERSALS_IN_TRANSFER: usize = 10;

/// A `transfer`.
pub(crate) fn transfer(state: &State, transfer: &Transfer) -> Value {
    let newest = transfer.reversals.iter().rev().take(REVERSALS_IN_TRANSFER);
    let newest = newest.map(|of| reversal(state, of, transfer)).collect();
    let mut reversals = list(newest, transfer.reversals.len() > REVERSALS_IN_TRANSFER, &reversals_url(&transfer.id));
    reversals["total_count"] = transfer.reversals.len().into();
    json!({
        "id": transfer.id,
        "object": "transfer",
        "amount": transfer.amount,
        "amount_reversed": transfer.amount_reversed(),
        "balance_transaction": related("txn_", &transfer.id),
        "created": transfer.created.timestamp(),
        "currency": transfer.currency,
        "description": transfer.description,
        "destination": transfer.destination,
        "destination_payment": related("py_", &transfer.id),
        "livemode": false,
        "metadata": transfer.metadata,
        "reversals": reversals,
        "reversed": transfer.left() == 0,
        "source_transaction": transfer.source_transaction,
        "source_type": "card",
        "transfer_group": transfer.transfer_group,
    })
}

/// A `transfer_reversal`; `status` is there only when it has one, as in Stripe's preview.
pub(crate) fn reversal(state: &State, reversal: &Reversal, of: &Transfer) -> Value {
    let mut value = json!({
        "id": reversal.id,
        "object": "transfer_reversal",
        "amount": reversal.amount,
        "balance_transaction": related("txn_", &reversal.id),
        "created": reversal.created.timestamp(),
        "currency": of.currency,
        "destination_payment_refund": related("pyr_", &reversal.id),
        "metadata": reversal.metadata,
        "source_refund": reversal.source_refund,
        "transfer": of.id,
    });
    if state.null_metadata && reversal.metadata.is_empty() {
        value["metadata"] = Value::Null;
    }
    if let Some(status) = &reversal.status {
        value["status"] = status.as_str().into();
    }
    value
}

pub(crate) fn reversals_url(transfer_id: &str) -> String {
    format!("/v1/transfers/{transfer_id}/reversals")
}
