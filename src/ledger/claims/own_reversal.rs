//! A transfer that the provider itself has reversed together with a refund: the charge's own, where it is a destination
//! charge. Further transfers of the payment still owe their parts.

use uuid::Uuid;

use super::matching::{By, Match};
use super::record::BY_THE_PROVIDER;
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::calls::reversal_done;
use crate::ledger::history::Note;
use crate::ledger::schema::{claim, payment};
use crate::ledger::status::{CallState, ClaimStatus, ReversalEvent, ReversalStatus};

/// What the provider has done of what a claim asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Nothing that concerns the registered transfers.
    Nothing,
    /// All of it.
    All,
    /// One of several transfers, but it is not known which.
    Unknown,
    /// This transfer's part.
    Of(Uuid),
}

pub(super) fn part_of(book: &Book, payment: &payment::Model, claim: &claim::Model) -> Part {
    let Some(trr) = &claim.provider_reversal else { return Part::Nothing };
    let transfers = book.transfers_of(payment.id);
    // Shares that were reported over the API afterwards say what is still owed.
    let is_settled = claim.shares.is_some() && claim.shares != claim.signed_shares;
    match (&claim.reversed_transfer, transfers.as_slice()) {
        (Some(own), all) => match all.iter().find(|row| row.stripe_transfer_id.as_ref() == Some(own)) {
            None => Part::Nothing,
            Some(_) if all.len() == 1 => Part::All,
            Some(_) if trr.is_empty() => Part::Unknown,
            Some(row) => Part::Of(row.id),
        },
        (None, [_]) => Part::All,
        (None, _) if is_settled => Part::Nothing,
        (None, _) => Part::Unknown,
    }
}

/// The one transfer of several that the provider has reversed, and Stripe's id of the reversal.
pub(super) fn transfer_of(book: &Book, payment: &payment::Model, claim: &claim::Model) -> Option<(Uuid, String)> {
    match (part_of(book, payment, claim), &claim.provider_reversal) {
        (Part::Of(id), Some(trr)) => Some((id, trr.clone())),
        _ => None,
    }
}

/// Records that nothing is left to take back, as far as is known.
pub(super) fn settles_all(book: &mut Book, claim: &claim::Model, attention: Option<String>, by: By<'_>) -> Match {
    if claim.status == ClaimStatus::NothingToReverse {
        book.keep_claim(claim::Model { attention, ..claim.clone() });
    } else {
        book.move_claim(claim.clone(), ClaimStatus::NothingToReverse, &Note::new(by.actor, BY_THE_PROVIDER), |row| {
            row.status_reason = Some(BY_THE_PROVIDER.to_owned());
            row.attention = attention;
        });
    }
    Match::NothingToReverse
}

/// Records that the provider has done the reversal as `trr`.
pub(super) fn settle(book: &mut Book, id: Uuid, trr: &str, actor: &str) -> Result<(), LedgerError> {
    let (call, row) = (book.call(id)?, book.reversal(id)?);
    let note = Note::new(actor, BY_THE_PROVIDER);
    if row.status != ReversalStatus::PermanentlyFailed {
        return reversal_done(book, &call, trr, true, &note);
    }
    // Another debt, or nothing that is left, stands in the way of a reversal of ours: not of one that is done.
    book.put_call(call.moved_to(CallState::CalledOff, book.now));
    book.move_reversal(id, ReversalEvent::Closed, &note, |_| {})?;
    let amount_reversed = book.transfer(row.transfer_id)?.amount_reversed;
    book.settle_transfer(row.transfer_id, amount_reversed, &note)
}
