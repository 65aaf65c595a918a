//! Which of a payment's transfers a body names: by Stripe's id, or else an equal one that Clawback creates. Pure.

use std::fmt::Display;

use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::history::Note;
use crate::ledger::input::{NewPayment, NewTransfer};
use crate::ledger::schema::{payment, transfer};

/// For each of `new` the row that it names, whatever their order. A row is named once.
pub(super) fn pair(rows: &[transfer::Model], new: &[NewTransfer]) -> Vec<Option<usize>> {
    let by_id = |new: &NewTransfer| {
        let id = new.stripe_transfer_id.as_ref()?;
        rows.iter().position(|row| row.stripe_transfer_id.as_ref() == Some(id))
    };
    let mut pairs: Vec<Option<usize>> = new.iter().map(by_id).collect();
    // What Clawback creates was registered without an id, and has one later.
    for (at, new) in new.iter().enumerate().filter(|(_, new)| new.create) {
        let is_it = |row: &transfer::Model| row.created_by_us && difference(row, new).is_none();
        let free = (0..rows.len()).find(|index| is_it(&rows[*index]) && !pairs.contains(&Some(*index)));
        pairs[at] = free;
    }
    pairs
}

/// What to do about a registration that was wrong.
const CORRECT: &str = "; before a refund was matched, PUT /v1/payments/{payment_ref} corrects it";

/// The first value that is registered otherwise, as it is registered and as it came.
pub(super) fn difference(row: &transfer::Model, new: &NewTransfer) -> Option<String> {
    let differs =
        |what: &str, registered: &dyn Display, got: &dyn Display| Some(format!("{what} {registered} (got {got})"));
    if row.seller_id != new.seller_id {
        differs("seller_id", &row.seller_id, &new.seller_id)
    } else if row.destination != new.destination {
        differs("destination", &row.destination, &new.destination)
    } else if (row.amount, &row.currency) != (new.amount, &new.currency) {
        let (registered, got) =
            (format!("{} {}", row.amount, row.currency), format!("{} {}", new.amount, new.currency));
        differs("amount", &registered, &got)
    } else if registered_as_reversed(row) != new.amount_reversed {
        differs("amount_reversed", &registered_as_reversed(row), &new.amount_reversed)
    } else if row.refund_application_fee != new.refund_application_fee {
        differs("refund_application_fee", &row.refund_application_fee, &new.refund_application_fee)
    } else {
        None
    }
}

/// Without what an operator has adopted since.
fn registered_as_reversed(row: &transfer::Model) -> i64 {
    row.reversed_before - row.adopted().values().sum::<i64>()
}

/// The error if `new` contradicts `row`.
pub(super) fn refuse_difference(row: &transfer::Model, new: &NewTransfer) -> Result<(), LedgerError> {
    let Some(registered) = difference(row, new) else { return Ok(()) };
    Err(LedgerError::Conflict(format!("transfer {} is registered with {registered}{CORRECT}", row.name())))
}

/// Calls the sellers of what was found at Stripe what `new` calls them, where they are called as their accounts. Returns whether
/// that changed anything.
pub(super) fn name_sellers(book: &mut Book, found: &payment::Model, new: &[NewTransfer], actor: &str) -> bool {
    let rows = book.transfers_of(found.id);
    let as_found = |new: &NewTransfer| NewTransfer { seller_id: new.destination.clone(), ..new.clone() };
    let transfers: Vec<NewTransfer> = new.iter().map(as_found).collect();
    let mut any = false;
    for ((pair, as_found), new) in pair(&rows, &transfers).into_iter().zip(&transfers).zip(new) {
        let Some(row) = pair.map(|at| &rows[at]) else { continue };
        if new.seller_id != row.seller_id && difference(row, as_found).is_none() {
            let note = Note::new(actor, format!("the seller {} is {}", row.seller_id, new.seller_id));
            book.name_seller(row.clone(), &new.seller_id, &note);
            any = true;
        }
    }
    any
}

/// Whether `new` names all of what was found at Stripe as it was found, and more.
pub(super) fn says_more(book: &Book, existing: &payment::Model, new: &NewPayment) -> bool {
    let rows = book.transfers_of(existing.id);
    let named = pair(&rows, &new.transfers).into_iter().flatten().count();
    existing.found_at_stripe
        && (existing.amount, &existing.currency) == (new.amount, &new.currency)
        && named == rows.len()
        && named < new.transfers.len()
}

/// Errors unless `new` says what is registered.
pub(super) fn as_registered(book: &Book, existing: &payment::Model, new: &NewPayment) -> Result<(), LedgerError> {
    let conflict = |problem: String| Err(LedgerError::Conflict(format!("payment {} {problem}", existing.payment_ref)));
    if (existing.amount, &existing.currency) != (new.amount, &new.currency) {
        let registered = format!("{} {}", existing.amount, existing.currency);
        return conflict(format!(
            "is registered with the amount {registered} (got {} {}){CORRECT}",
            new.amount, new.currency
        ));
    }
    let rows = book.transfers_of(existing.id);
    if rows.len() != new.transfers.len() {
        let (registered, got) = (rows.len(), new.transfers.len());
        return conflict(format!(
            "is registered with {registered} transfers (got {got}); those that were made later are added by POST \
             /v1/payments/{}/transfers",
            existing.payment_ref
        ));
    }
    for (pair, new) in pair(&rows, &new.transfers).into_iter().zip(&new.transfers) {
        let Some(row) = pair.map(|at| &rows[at]) else {
            let id = new.stripe_transfer_id.as_deref().unwrap_or("to create");
            return conflict(format!("is registered without the transfer {id} to seller {}{CORRECT}", new.seller_id));
        };
        refuse_difference(row, new)?;
    }
    Ok(())
}
