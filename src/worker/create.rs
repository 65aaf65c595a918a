//! Creating a transfer: what is asked of Stripe, and what its list means. A transfer that is created twice pays a seller twice.

use chrono::TimeDelta;

use super::sight::{Seen, Sight};
use crate::ledger::{Call, CreationTarget};
use crate::stripe::{Client, CreateTransfer, Report};

/// How far Stripe's clock may be behind ours: transfers are looked for from that long before the row was written.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// A function of what never changes in the row, and of the generation.
pub(super) fn command(call: &Call, target: &CreationTarget) -> CreateTransfer {
    CreateTransfer {
        name: format!("{}:{}", target.payment_ref, target.position),
        payment_ref: target.payment_ref.clone(),
        payment_currency: target.payment_currency.clone(),
        amount: target.amount,
        currency: target.currency.clone(),
        destination: target.destination.clone(),
        generation: call.generation,
    }
}

/// Reads all transfers among which this one must be if it was created.
pub(super) async fn look(stripe: &Client, call: &Call, command: &CreateTransfer) -> Result<Sight, Report> {
    let list = stripe.list_transfers(command, call.created_at - CLOCKS_DIFFER).await?;
    // The oldest, should there be two.
    let ours = list.items.into_iter().rfind(|transfer| transfer.name() == Some(&command.name));
    let seen = ours.map(|ours| match ours.difference(command) {
        None => Seen::Done { id: ours.id },
        Some(message) => Seen::Mismatch { code: "transfer_mismatch", message },
    });
    Ok(Sight { seen, foreign: None, complete: true, request_id: list.request_id })
}
