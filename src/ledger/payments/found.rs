//! Payments and transfers that a look-up found at Stripe.

use uuid::Uuid;

use super::{Registration, STRIPE, What, refuse_others, same};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::claims::{take_lost, unclear};
use crate::ledger::input::{NewPayment, NewTransfer, NewTransfers};
use crate::ledger::lookups::{self, Earlier, Subject};
use crate::ledger::schema::payment;

/// Registers a payment as a look-up found it, and matches its claims. Of the transfers `reversed` others have taken something
/// back, which is only right where that is known here; what Clawback itself has reversed `earlier` counts. `names` are all
/// that are known of the payment. Returns what was done, in words.
///
/// # Errors
/// [`LedgerError::Conflict`], [`LedgerError::Invalid`] when it can't be registered like this; nothing was changed.
pub(in crate::ledger) fn register_found(
    book: &mut Book,
    (new, reversed, earlier): (&NewPayment, &[String], &Earlier),
    names: &[String],
    subject: Subject,
    traceparent: Option<&str>,
) -> Result<String, LedgerError> {
    let new = new.clone().checked()?;
    let known = names.iter().find_map(|name| book.payment_by_ref(name)).cloned();
    let registered: Vec<String> =
        known.iter().flat_map(|known| book.transfers_of(known.id)).filter_map(|row| row.stripe_transfer_id).collect();
    let foreign: Vec<&str> = reversed.iter().filter(|id| !registered.contains(id)).map(String::as_str).collect();
    if !foreign.is_empty() {
        let problem =
            format!("{} of payment {} is reversed already, at least in part", foreign.join(", "), new.payment_ref);
        return Err(LedgerError::Conflict(problem));
    }
    let payment_ref = known.as_ref().map_or(&new.payment_ref, |known| &known.payment_ref).clone();
    let new = NewPayment { payment_ref: payment_ref.clone(), ..new };
    let change =
        Registration { what: What::New(new.clone()), actor: STRIPE, traceparent: traceparent.map(ToOwned::to_owned) };
    let Some(known) = known else {
        refuse_others(book, Uuid::nil(), &new.transfers)?;
        let payment = change.add_rows(book, &new);
        take_lost(book, &payment, earlier, traceparent)?;
        change.match_waiting(book, &payment, std::slice::from_ref(&payment.payment_ref))?;
        return Ok(format!("payment {payment_ref} is registered with {} transfers", new.transfers.len()));
    };
    let unknown = unknown_transfers(book, &new);
    if subject == Subject::Transfer && !unknown.is_empty() {
        return change.add_found(book, &known, unknown);
    }
    // Its registration counts. What Stripe shows is only compared.
    let waiting = lookups::waiting(book, names);
    change.match_waiting(book, &known, names)?;
    let Err(LedgerError::Conflict(problem)) = same::as_registered(book, &known, &new) else {
        return Ok(format!("payment {payment_ref} was registered already"));
    };
    let problem = format!("{problem}; Stripe shows it otherwise");
    for claim in waiting.iter().filter_map(|claim| book.claims.get(claim.id).cloned()).collect::<Vec<_>>() {
        unclear(book, claim, &problem);
    }
    Ok(problem)
}

fn unknown_transfers(book: &Book, new: &NewPayment) -> Vec<NewTransfer> {
    let is_known = |new: &NewTransfer| {
        book.transfers
            .all()
            .any(|row| row.stripe_transfer_id.is_some() && row.stripe_transfer_id == new.stripe_transfer_id)
    };
    new.transfers.iter().filter(|new| !is_known(new)).cloned().collect()
}

impl Registration {
    /// Adds transfers that Stripe created after the payment was found. They owe their part of earlier claims.
    fn add_found(
        &self,
        book: &mut Book,
        payment: &payment::Model,
        unknown: Vec<NewTransfer>,
    ) -> Result<String, LedgerError> {
        let ids = unknown.iter().filter_map(|new| new.stripe_transfer_id.as_deref()).collect::<Vec<_>>().join(", ");
        if !payment.found_at_stripe {
            return Ok(format!("payment {} is registered without {ids}", payment.payment_ref));
        }
        self.add(book, payment, &NewTransfers { transfers: unknown, allow_excess: false })?;
        Ok(format!("{ids} is added to payment {}", payment.payment_ref))
    }
}
