//! What follows in the ledger when a look-up has found something, or ends without.
//!
//! | subject | what it found | what follows |
//! |---|---|---|
//! | `refunds_of_charge`, `refund`, `dispute` | the objects | what an event with the same objects would do |
//! | `payment`, `transfer` | transfers, without any doubt | the payment is registered, as `stripe` found it, and its claims are matched |
//! | | no transfers | the claims have nothing to reverse, unless the payment is registered later |
//! | | anything else, or nothing | the claims need attention; without any, a look-up about a payment that was found fails |

use uuid::Uuid;

use super::{Call, Failure, TryOutcome};
use crate::ledger::LedgerError;
use crate::ledger::book::{Book, Reads};
use crate::ledger::claims::{Received, unclear};
use crate::ledger::events::Receipt;
use crate::ledger::history::Note;
use crate::ledger::input::sentences;
use crate::ledger::lookups::{Found, FoundPayment, Subject, waiting};
use crate::ledger::payments::{STRIPE, register_found};
use crate::ledger::schema::{claim, lookup};
use crate::ledger::status::{CallState, ClaimStatus};

/// The rows that an outcome of the look-up `id`, about `reference`, looks at.
pub(super) fn reads(id: Uuid, reference: &str, outcome: Option<&TryOutcome>, reads: &mut Reads) {
    reads.lookup_ids.insert(id);
    reads.names.insert(reference.to_owned());
    let Some(TryOutcome::Found(found)) = outcome else { return };
    match &**found {
        Found::Content(content) => Received::found(content.clone(), None).read(reads),
        Found::Payment { names, payment } => {
            reads.names.extend(names.iter().cloned());
            if let FoundPayment::Transfers { new, earlier, .. } = payment {
                earlier.claims.iter().for_each(|(_, claim)| Received::found(claim.clone(), None).read(reads));
                let ids = new.transfers.iter().filter_map(|transfer| transfer.stripe_transfer_id.clone());
                reads.stripe_transfers.extend(ids);
            }
        }
    }
}

/// What an outcome of the call means, whose row has it already.
pub(super) fn follow(
    book: &mut Book,
    before: &Call,
    outcome: &TryOutcome,
    note: &Note,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let row = book.lookups.get(before.id).cloned();
    let row = row.ok_or_else(|| LedgerError::NotFound { entity: "lookup", id: before.id.to_string() })?;
    let result = match outcome {
        TryOutcome::Found(found) => match &**found {
            Found::Content(content) => {
                let receipt =
                    Received::found(content.clone(), traceparent.map(ToOwned::to_owned)).take_in(book, row.event_id)?;
                in_words(&receipt)
            }
            Found::Payment { names, payment } => found_payment(book, &row, names, payment, traceparent)?,
        },
        TryOutcome::Failed(why) | TryOutcome::Ended(why) => {
            if row.subject == Subject::Payment {
                let problem = format!("the payment's transfers could not be looked up at Stripe: {}", why.message);
                mark(book, waiting(book, std::slice::from_ref(&row.reference)), &problem);
            }
            why.message.clone()
        }
        TryOutcome::Later(_) | TryOutcome::NewGeneration | TryOutcome::CalledOff(_) | TryOutcome::Done { .. } => {
            book.call_moved(before, note);
            return Ok(());
        }
    };
    book.call_moved(before, &note.because(format!("{}: {result}", note.reason)));
    book.keep_lookup(lookup::Model { result: Some(result), updated_at: book.now, ..row });
    Ok(())
}

fn in_words(receipt: &Receipt) -> String {
    match receipt {
        Receipt::Duplicate => "nothing that was not known".to_owned(),
        other => other.to_string(),
    }
}

fn found_payment(
    book: &mut Book,
    row: &lookup::Model,
    names: &[String],
    payment: &FoundPayment,
    traceparent: Option<&str>,
) -> Result<String, LedgerError> {
    match payment {
        FoundPayment::Transfers { new, reversed, earlier } => {
            learn_names(book, names, &new.payment_ref);
            match register_found(book, (new, reversed, earlier), names, row.subject, traceparent) {
                Err(LedgerError::Conflict(problem)) => attend(book, row.id, names, problem),
                Err(LedgerError::Invalid(problems)) => attend(book, row.id, names, sentences(&problems)),
                registered => registered,
            }
        }
        FoundPayment::None(reason) => {
            for claim in waiting(book, names) {
                let note = Note::new(STRIPE, reason);
                book.move_claim(claim, ClaimStatus::NothingToReverse, &note, |claim| {
                    claim.status_reason = Some(reason.clone());
                    (claim.lookup_id, claim.attention) = (Some(row.id), None);
                });
            }
            Ok(reason.clone())
        }
        FoundPayment::Unclear(reason) => attend(book, row.id, names, reason.clone()),
    }
}

/// The claims of the payment are known under its own name and its charge's from now on.
fn learn_names(book: &mut Book, names: &[String], payment_ref: &str) {
    let charge_ref = names.iter().find(|name| *name != payment_ref && !name.starts_with("pi_"));
    for claim in waiting(book, names) {
        let (payment_ref, charge_ref) = (payment_ref.to_owned(), charge_ref.cloned().or(claim.charge_ref.clone()));
        if (&claim.payment_ref, &claim.charge_ref) != (&payment_ref, &charge_ref) {
            book.keep_claim(claim::Model { payment_ref, charge_ref, ..claim });
        }
    }
}

/// Has an operator look at the claims that wait for the payment. Of one that was found before, at those that were matched without
/// what is not clear; where there is none, at the look-up itself, which fails. Returns why.
fn attend(book: &mut Book, id: Uuid, names: &[String], problem: String) -> Result<String, LedgerError> {
    let mut claims = waiting(book, names);
    let found_before = names.iter().find_map(|name| book.payment_by_ref(name)).filter(|known| known.found_at_stripe);
    if let Some(payment) = found_before.cloned() {
        let is_matched = |row: &&claim::Model| row.payment_id == Some(payment.id) && row.status == ClaimStatus::Matched;
        claims.extend(book.claims.all().filter(is_matched).cloned());
        if claims.is_empty() {
            let mut call = book.call(id)?.moved_to(CallState::Failed, book.now);
            call.fail(Some(&Failure { code: "unclear".to_owned(), message: problem.clone() }));
            book.put_call(call);
        }
    }
    mark(book, claims, &problem);
    Ok(problem)
}

fn mark(book: &mut Book, claims: Vec<claim::Model>, problem: &str) {
    for claim in claims {
        tracing::warn!(claim = claim.reference, problem, "the payment's transfers are not clear");
        let note = Note::new(STRIPE, problem);
        book.remark(&claim.kind.to_string(), claim.id, claim.status, &note);
        unclear(book, claim, problem);
    }
}
