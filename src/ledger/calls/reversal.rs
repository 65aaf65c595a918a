//! What follows in the ledger when a reversal's call ends, or opens again.

use uuid::Uuid;

use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::history::Note;
use crate::ledger::schema::reversal;
use crate::ledger::status::{ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use crate::reached::reached;

use super::{Call, TryOutcome};

/// Stripe has reversed, under `stripe_id`. It counts whatever the ledger believed.
pub(in crate::ledger) fn done(
    book: &mut Book,
    call: &Call,
    stripe_id: &str,
    externally: bool,
    note: &Note,
) -> Result<(), LedgerError> {
    let row = book.reversal(call.id)?;
    match row.status {
        ReversalStatus::Reversed => {
            let known = row.stripe_reversal_id.as_deref().unwrap_or_default();
            if known != stripe_id && !externally {
                metrics::counter!("clawback_reversed_twice_total").increment(1);
                tracing::error!(reversal_id = %row.id, known, stripe_id, "reversed twice: Stripe has two reversals");
                let note = note.because(format!("reversed twice: Stripe has {stripe_id} beside {known}"));
                book.remark("reversal", row.id, row.status, &note);
            }
            reached!("a success was reported twice");
            return Ok(());
        }
        ReversalStatus::CalledOff | ReversalStatus::Closed => return done_but_not_owed(book, &row, stripe_id, note),
        ReversalStatus::PermanentlyFailed => {
            reopen(book, &row, &note.because("Stripe had done it when it failed permanently"), |_| {})?
        }
        ReversalStatus::Pending => {}
    }
    let outcome = TryOutcome::Done { stripe_id: stripe_id.to_owned(), externally };
    book.put_call(call.after(&outcome, book.now, book.graces.of(call.kind)));
    book.move_reversal(row.id, ReversalEvent::Succeeded, note, |row| {
        row.stripe_reversal_id = Some(stripe_id.to_owned());
        row.externally_reversed = externally;
        row.balance_transaction.clone_from(&note.balance_transaction);
    })?;
    let parent = book.transfer(row.transfer_id)?;
    let amount_reversed = parent.amount_reversed.saturating_add(row.amount).min(parent.amount);
    book.settle_transfer(parent.id, amount_reversed, note)
}

/// It was called off or closed, and Stripe has done it all the same: the seller is owed the money.
fn done_but_not_owed(book: &mut Book, row: &reversal::Model, stripe_id: &str, note: &Note) -> Result<(), LedgerError> {
    let claim = book.claims.get(row.claim_id).cloned();
    let known = claim.as_ref().and_then(|claim| claim.attention.as_deref());
    if known.is_some_and(|known| known.contains(stripe_id)) {
        return Ok(());
    }
    tracing::error!(reversal_id = %row.id, stripe_id, status = %row.status, "reversed at Stripe, but not owed");
    let problem =
        format!("Stripe has reversed {} {} as {stripe_id}, though it was {}", row.amount, row.currency, row.status);
    book.remark("reversal", row.id, row.status, &note.because(&problem));
    if let Some(claim) = claim {
        let attention = claim.attention.into_iter().chain([problem]).collect::<Vec<_>>().join(". ");
        book.keep_claim(crate::ledger::schema::claim::Model { attention: Some(attention), ..claim });
    }
    Ok(())
}

/// What another outcome of the call means for its reversal and its transfer.
pub(super) fn follow(book: &mut Book, call: &Call, outcome: &TryOutcome, note: &Note) -> Result<(), LedgerError> {
    let row = book.reversal(call.id)?;
    match outcome {
        TryOutcome::Failed(_) | TryOutcome::Ended(_) => {
            book.move_reversal(row.id, ReversalEvent::FailedForGood, note, |_| {})?;
            let amount_reversed = book.transfer(row.transfer_id)?.amount_reversed;
            book.settle_transfer(row.transfer_id, amount_reversed, note)
        }
        TryOutcome::CalledOff(_) => {
            book.move_reversal(row.id, ReversalEvent::CalledOff, note, |_| {})?;
            let amount_reversed = book.transfer(row.transfer_id)?.amount_reversed;
            book.settle_transfer(row.transfer_id, amount_reversed, note)
        }
        TryOutcome::Later(_) | TryOutcome::NewGeneration | TryOutcome::Done { .. } | TryOutcome::Found(_) => {
            book.remark("reversal", row.id, row.status, note);
            Ok(())
        }
    }
}

/// Makes a reversal pending again that had failed permanently, with `also` in the same row.
pub(super) fn reopen(
    book: &mut Book,
    row: &reversal::Model,
    note: &Note,
    also: impl FnOnce(&mut reversal::Model),
) -> Result<(), LedgerError> {
    book.move_reversal(row.id, ReversalEvent::Replayed, note, also)?;
    await_reversal(book, row.transfer_id, note)
}

/// Makes a transfer `reversal_pending`, unless another reversal of it is on its way already.
pub(in crate::ledger) fn await_reversal(book: &mut Book, transfer_id: Uuid, note: &Note) -> Result<(), LedgerError> {
    let event = match book.transfer(transfer_id)?.status {
        TransferStatus::ReversalPending => return Ok(()),
        TransferStatus::Completed | TransferStatus::PartiallyReversed => TransferEvent::RefundArrived,
        _ => TransferEvent::ReversalReplayed,
    };
    book.move_transfer(transfer_id, event, note, |_| {})
}

/// After a failure of the transfer is gone: opens what was recorded as failed only because of it, which Stripe was never
/// asked for, unless another failure is still in the way; and gives the transfer the status that follows.
pub(super) fn unblock(
    book: &mut Book,
    transfer_id: Uuid,
    note: &Note,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let failed = |row: &reversal::Model| row.status == ReversalStatus::PermanentlyFailed && book.is_asked(row);
    let mut held = Vec::new();
    for row in book.reversals_of(transfer_id).into_iter().filter(failed) {
        let call = book.call(row.id)?;
        if call.requested_at.is_some() {
            return Ok(());
        }
        held.push((row, call));
    }
    for (row, call) in held {
        let call = call.replayed(book.now, book.graces.of(call.kind));
        reopen(book, &row, &note.because("the failure of its transfer that held it is settled"), |_| {})?;
        book.enqueue(&call, traceparent);
        book.put_call(call);
    }
    let amount_reversed = book.transfer(transfer_id)?.amount_reversed;
    book.settle_transfer(transfer_id, amount_reversed, note)
}
