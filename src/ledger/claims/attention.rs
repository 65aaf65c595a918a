//! What an operator must do about a claim that takes nothing after all, in words. Pure.

use crate::ledger::schema::{call, reversal, transfer};
use crate::ledger::status::ReversalStatus;

/// What an operator has to do about the reversals that could not be called off. `why` says what made them needless.
pub(super) fn not_called_off(
    why: &str,
    called_off: usize,
    of: usize,
    stay: &[(reversal::Model, call::Model, transfer::Model)],
) -> String {
    let each: Vec<String> = stay.iter().map(|(row, call, parent)| about(row, call, parent)).collect();
    format!(
        "{why}, and {called_off} of its {of} reversals could be called off. {} (amounts in minor units). What was \
         taken back counts towards the same seller's part of the payment's next refund by ratio; if none will follow, pay \
         the seller back with a new transfer",
        each.join("; "),
    )
}

fn about(row: &reversal::Model, call: &call::Model, parent: &transfer::Model) -> String {
    let (id, amount, currency) = (row.id, row.amount, &row.currency);
    let transfer = parent.stripe_transfer_id.clone().unwrap_or_else(|| parent.id.to_string());
    match row.status {
        ReversalStatus::Reversed => {
            let at_stripe = row.stripe_reversal_id.as_deref().unwrap_or("without an id");
            format!(
                "{amount} {currency} were taken back from transfer {transfer} (reversal {id}, {at_stripe} at Stripe)"
            )
        }
        ReversalStatus::Pending => {
            format!(
                "{amount} {currency} are being taken back from transfer {transfer}: Stripe was asked (reversal {id})"
            )
        }
        ReversalStatus::PermanentlyFailed => {
            let code = call.failure_code.as_deref().unwrap_or("no code");
            format!(
                "{amount} {currency} of transfer {transfer} had failed permanently ({code}): reversal {id} is not owed any \
                 more, and its replay is refused"
            )
        }
        ReversalStatus::CalledOff | ReversalStatus::Closed => {
            format!("{amount} {currency} of transfer {transfer} were {} (reversal {id})", row.status)
        }
    }
}

/// What an operator has to do when a refund fails whose transfer the provider had reversed itself.
pub(super) fn reversed_by_the_provider(refund_ref: &str) -> String {
    format!(
        "refund {refund_ref} failed after its provider had reversed the transfer together with it: look there whether the \
         seller has the money again, and pay it back with a new transfer if not"
    )
}
