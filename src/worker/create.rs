//! Creating a transfer: what is asked of Stripe, and what its list means. A transfer that is created twice pays a seller twice.

use chrono::{DateTime, TimeDelta, Utc};

use super::sight::{Seen, Sight};
use crate::ledger::{Call, CreationTarget, Ledger, LedgerError, RegisteredTransfer};
use crate::stripe::{Client, CreateTransfer, Report, Transfer};

/// How far Stripe's clock may be behind ours: transfers are looked for from that long before the row was written.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// How old a transfer may be that a lost ledger had created, where Stripe lists no payment's transfers alone.
const LOST_LEDGER: TimeDelta = TimeDelta::days(30);

/// A function of what never changes in the row, and of the generation.
pub(crate) fn command(call: &Call, target: &CreationTarget) -> CreateTransfer {
    CreateTransfer {
        name: CreateTransfer::name_of(&target.destination, target.registered, &target.currency, target.ordinal),
        payment_ref: target.payment_ref.clone(),
        payment_currency: target.payment_currency.clone(),
        amount: target.amount,
        currency: target.currency.clone(),
        destination: target.destination.clone(),
        generation: call.generation,
    }
}

/// Reads all transfers among which this one must be if it was created.
pub(super) async fn look(
    stripe: &Client,
    ledger: &Ledger,
    call: &Call,
    target: &CreationTarget,
) -> Result<Result<Sight, Report>, LedgerError> {
    let command = &command(call, target);
    let list = match stripe.list_transfers(command, since(call, command)).await {
        Ok(list) => list,
        Err(report) => return Ok(Err(report)),
    };
    let seen = match named(&list.items, command) {
        Some(ours) => Some(match ours.difference(command) {
            None => Seen::Done { id: ours.id.clone(), balance_transaction: None },
            Some(message) => Seen::Mismatch { code: "transfer_mismatch", message },
        }),
        None => unregistered(ledger, command, &list.items).await?,
    };
    Ok(Ok(Sight { seen, foreign: None, complete: true, nothing_left: false, request_id: list.request_id }))
}

/// Of Stripe's transfers the one that is of `command` by its name: the oldest, should there be two.
fn named<'a>(listed: &'a [Transfer], command: &CreateTransfer) -> Option<&'a Transfer> {
    let name = (command.payment_ref.as_str(), command.name.as_str());
    listed.iter().rfind(|transfer| transfer.name() == Some(name))
}

/// Whether Stripe's transfer is the payment's row by the name that Clawback gave it.
pub(super) fn is_named(of: &Transfer, payment: &str, row: &RegisteredTransfer) -> bool {
    let name = CreateTransfer::name_of(&row.destination, row.amount, &row.currency, row.ordinal);
    of.name() == Some((payment, &name))
}

/// A transfer that Clawback has made for the same payment to the same seller, and the ledger does not know: one that was lost, and
/// was registered again with other terms, would be paid twice.
async fn unregistered(
    ledger: &Ledger,
    command: &CreateTransfer,
    listed: &[Transfer],
) -> Result<Option<Seen>, LedgerError> {
    let payment = &command.payment_ref;
    let is_like_it = |of: &&Transfer| {
        of.name().is_some_and(|(its, _)| its == payment)
            && of.destination.as_ref() == Some(&command.destination)
            && of.currency.eq_ignore_ascii_case(&command.currency)
    };
    let alike: Vec<&Transfer> = listed.iter().filter(is_like_it).collect();
    if alike.is_empty() {
        return Ok(None);
    }
    let registered = ledger.registered_transfers(payment).await?;
    let is_it = |of: &Transfer, row: &RegisteredTransfer| {
        row.stripe_transfer_id.as_ref() == Some(&of.id) || is_named(of, payment, row)
    };
    let is_known = |of: &Transfer| registered.iter().any(|row| is_it(of, row));
    let unknown = alike.into_iter().find(|of| !is_known(of));
    Ok(unknown.map(|Transfer { id, amount, currency, .. }| {
        let (asked, destination) = (command.amount, &command.destination);
        let message = format!(
            "Clawback has created {id} of {amount} {currency} to {destination} for payment {payment}, which is not \
             registered; is it this one of {asked} {currency}? If both are owed, add it to the payment with its id, and retry"
        );
        Seen::Mismatch { code: "transfer_mismatch", message }
    }))
}

/// What Stripe has of a transfer that Clawback was to create, as it is there.
pub(crate) async fn created(stripe: &Client, call: &Call, target: &CreationTarget) -> Result<Option<Transfer>, Report> {
    let command = command(call, target);
    let list = stripe.list_transfers(&command, since(call, &command)).await?;
    Ok(named(&list.items, &command).cloned())
}

/// From when on they are read: a call that was not made yet may repeat one that a lost ledger had made long before.
fn since(call: &Call, command: &CreateTransfer) -> Option<DateTime<Utc>> {
    match (call.requested_at, command.source_transaction()) {
        (Some(_), _) => Some(call.created_at - CLOCKS_DIFFER),
        (None, Some(_)) => Some(call.created_at - LOST_LEDGER),
        (None, None) => None,
    }
}
