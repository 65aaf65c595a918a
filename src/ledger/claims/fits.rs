//! Whether a claim fits the payment that it names. Pure; called by the matching.

use super::named_shares::Conflict;
use crate::ledger::book::Book;
use crate::ledger::schema::{claim, payment};
use crate::ledger::status::ClaimStatus;

/// Why `claim` can't be shared out over `payment`, with both numbers. Nothing is ever clamped in silence.
pub(super) fn check(book: &Book, payment: &payment::Model, claim: &claim::Model) -> Result<(), Conflict> {
    let conflict = |field: &str, problem| Err(Conflict { field: field.to_owned(), problem });
    let payment::Model { amount, currency, .. } = payment;
    if *currency != claim.currency {
        let problem = format!("the {} is in {}, the payment in {currency}", claim.kind, claim.currency);
        return conflict("currency", problem);
    }
    if let Some(captured) = claim.captured.filter(|captured| captured != amount) {
        let problem = format!(
            "payment {} is registered with {amount} {currency}, but its provider captured {captured}; correct the \
             registration",
            payment.payment_ref
        );
        return conflict("amount", problem);
    }
    let before = so_far(book, payment, claim);
    if before.saturating_add(claim.amount) > *amount {
        let more = if before > 0 { format!(" beside {before} before") } else { String::new() };
        let problem = format!(
            "the {} of {} {currency}{more} is more than payment {} of {amount} {currency}",
            claim.kind, claim.amount, payment.payment_ref
        );
        return conflict("amount", problem);
    }
    Ok(())
}

/// What other claims of its kind have given back of the payment. Refunds and disputes share each transfer's cap, but one
/// payment may have both in full.
fn so_far(book: &Book, payment: &payment::Model, claim: &claim::Model) -> i64 {
    let counts = |row: &&claim::Model| match row.status {
        ClaimStatus::Matched => row.payment_id == Some(payment.id),
        ClaimStatus::NothingToReverse => {
            row.provider_reversal.is_some() && row.names().any(|name| name == payment.payment_ref)
        }
        _ => false,
    };
    let others = book.claims.all().filter(|row| row.id != claim.id && row.kind == claim.kind).filter(counts);
    let others = others.filter(|row| row.currency == claim.currency);
    others.fold(0, |sum, row| sum.saturating_add(row.amount))
}
