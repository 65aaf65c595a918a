//! Creating a transfer: what is asked of Stripe, and what its list means. A transfer that is created twice pays a seller twice.

use chrono::{DateTime, TimeDelta, Utc};

use super::sight::{Seen, Sight};
use crate::ledger::{Call, CreationTarget};
use crate::stripe::{Client, CreateTransfer, Report, Transfer};

/// How far Stripe's clock may be behind ours: transfers are looked for from that long before the row was written.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// How old a transfer may be that a lost ledger had created, where Stripe lists no payment's transfers alone.
const LOST_LEDGER: TimeDelta = TimeDelta::days(30);

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
    let (ours, request_id) = find(stripe, call, command).await?;
    let seen = ours.map(|ours| match ours.difference(command) {
        None => Seen::Done { id: ours.id, balance_transaction: None },
        Some(message) => Seen::Mismatch { code: "transfer_mismatch", message },
    });
    Ok(Sight { seen, foreign: None, complete: true, request_id })
}

/// The transfer at Stripe that is of `command` by its name, as it is there, and the `Request-Id` of the list.
async fn find(
    stripe: &Client,
    call: &Call,
    command: &CreateTransfer,
) -> Result<(Option<Transfer>, Option<String>), Report> {
    let list = stripe.list_transfers(command, since(call, command)).await?;
    // The oldest, should there be two.
    Ok((list.items.into_iter().rfind(|transfer| transfer.name() == Some(&command.name)), list.request_id))
}

/// What Stripe has of a transfer that Clawback was to create, as it is there.
pub(crate) async fn created(stripe: &Client, call: &Call, target: &CreationTarget) -> Result<Option<Transfer>, Report> {
    Ok(find(stripe, call, &command(call, target)).await?.0)
}

/// From when on they are read: a call that was not made yet may repeat one that a lost ledger had made long before.
fn since(call: &Call, command: &CreateTransfer) -> Option<DateTime<Utc>> {
    match (call.requested_at, command.source_transaction()) {
        (Some(_), _) => Some(call.created_at - CLOCKS_DIFFER),
        (None, Some(_)) => Some(call.created_at - LOST_LEDGER),
        (None, None) => None,
    }
}
