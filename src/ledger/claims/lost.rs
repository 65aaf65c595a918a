//! What Clawback had reversed of a payment before its ledger was lost, as Stripe shows it: its claims take their places again, in the
//! order in which they took, and the reversals are theirs.

use super::adopt::{Adoption, parse_claim};
use super::attention;
use super::intake::Received;
use super::matching::{By, bring_together};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::db::Change;
use crate::ledger::history::Note;
use crate::ledger::lookups::Earlier;
use crate::ledger::payments::STRIPE;
use crate::ledger::schema::{claim, payment};
use crate::ledger::status::ClaimStatus;

const REASON: &str = "Stripe has it with Clawback's metadata: the ledger was lost since";

/// Takes in the claims of `payment`, which is registered now, and adopts what was reversed for them.
pub(in crate::ledger) fn take_lost(
    book: &mut Book,
    payment: &payment::Model,
    earlier: &Earlier,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let note = Note::new(STRIPE, REASON);
    for (name, content) in &earlier.claims {
        Received::found(content.clone(), traceparent.map(ToOwned::to_owned)).take_in(book, None)?;
        let held = claim_of(book, Some(name)).filter(|claim| claim.status == ClaimStatus::Held);
        let Some(held) = held else { continue };
        // It is held since it may have been taken back by other means. It was not.
        let claim = book.move_claim(held, ClaimStatus::Unmatched, &note, |row| {
            row.status_reason = Some(REASON.to_owned());
        });
        bring_together(book, &claim, By { actor: STRIPE, event: None, traceparent })?;
    }
    for transfer in book.transfers_of(payment.id) {
        let of_it = earlier.reversals.iter().filter(|(id, _)| transfer.stripe_transfer_id.as_ref() == Some(id));
        // What Stripe is not done with is found by its claim's call.
        let found: Vec<_> = of_it.map(|(_, reversal)| reversal).filter(|reversal| reversal.is_done).cloned().collect();
        let payment_ref = payment.payment_ref.clone();
        let adoption = Adoption { transfer_id: transfer.id, payment_ref, found: found.clone(), note: note.clone() };
        for (answer, reversal) in adoption.apply(book)?.into_iter().zip(found) {
            let Err(problem) = answer else { continue };
            tracing::warn!(%problem, reversal = reversal.stripe_reversal_id, "what was reversed before is not counted");
            if let Some(claim) = claim_of(book, reversal.claim.as_deref()) {
                attention::add(book, claim.id, &format!("{}: {problem}", reversal.stripe_reversal_id));
            }
        }
    }
    Ok(())
}

fn claim_of(book: &Book, name: Option<&str>) -> Option<claim::Model> {
    let (source, reference) = parse_claim(name?)?;
    book.claims.all().find(|row| (row.source, row.reference.as_str()) == (source, reference)).cloned()
}
