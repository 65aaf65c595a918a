//! What follows in the ledger when a transfer is created at Stripe, or is not, also for the claims that did not wait for it.
//!
//! | a claim comes … | what is written, in one transaction |
//! |---|---|
//! | before the payment is registered | nothing; the registration then does what the next line says |
//! | while the transfer is `pending` or `failed` | a `pending` reversal whose call is `waiting`. Creating may be on its way and goes on |
//! | … and then Stripe creates it | the transfer goes through `completed` to `reversal_pending`, and the reversals get their jobs |
//! | … and then creating it fails permanently | nothing was paid, so nothing is owed: the reversals are `called_off`, their calls go on waiting |
//! | after it failed permanently | a reversal that begins like that |
//! | … and then it is created after all | exactly those reversals are pending again, and get their jobs |
//! | after it was created | what a claim on any transfer does |

use uuid::Uuid;

use super::{Call, Remainder, TryOutcome};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::history::Note;
use crate::ledger::status::{CallState, ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use crate::ledger::time::after;

/// Stripe has created the transfer. It counts, too, when creating it had failed permanently.
pub(super) fn done(
    book: &mut Book,
    call: &Call,
    stripe_id: &str,
    note: &Note,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let row = book.transfer(call.id)?;
    if let Some(known) = row.stripe_transfer_id.as_deref() {
        if known != stripe_id {
            tracing::error!(transfer_id = %row.id, known, stripe_id, "paid twice: Stripe has two transfers");
            let note = note.because(format!("paid twice: Stripe has created {stripe_id} beside {known}"));
            book.remark("transfer", row.id, row.status, &note);
        }
        return Ok(());
    }
    if book.transfers.all().any(|other| other.stripe_transfer_id.as_deref() == Some(stripe_id)) {
        return Err(LedgerError::Conflict(format!("{stripe_id} is registered with another payment")));
    }
    if row.status == TransferStatus::PermanentlyFailed {
        let late = note.because("Stripe had created it when creating it failed permanently");
        book.move_transfer(row.id, TransferEvent::CreationReplayed, &late, |_| {})?;
    }
    let outcome = TryOutcome::Done { stripe_id: stripe_id.to_owned(), externally: false };
    book.put_call(call.after(&outcome, book.now, book.graces.of(call.kind)));
    let set_id = |row: &mut crate::ledger::schema::transfer::Model| row.stripe_transfer_id = Some(stripe_id.to_owned());
    book.move_transfer(row.id, TransferEvent::Created, note, set_id)?;
    if open_waiting(book, row.id, note, traceparent)? > 0 {
        let note = note.because("a refund had arrived before it was created");
        book.move_transfer(row.id, TransferEvent::RefundArrived, &note, |_| {})?;
    }
    Ok(())
}

/// Opens the calls that were waiting for the transfer, and returns how many there were.
fn open_waiting(book: &mut Book, id: Uuid, note: &Note, traceparent: Option<&str>) -> Result<usize, LedgerError> {
    let note = note.because("its transfer is created");
    let mut opened = 0;
    for row in book.reversals_of(id) {
        let call = book.call(row.id)?;
        if call.state != CallState::Waiting {
            continue;
        }
        if row.status == ReversalStatus::CalledOff {
            book.move_reversal(row.id, ReversalEvent::TransferCreated, &note, |_| {})?;
        } else {
            book.remark("reversal", row.id, row.status, &note);
        }
        let mut call = call.moved_to(CallState::Open, book.now);
        // Nothing was called for it so far: its key is as young as this.
        call.generation_started_at = book.now;
        call.sweep_after = after(book.now, book.graces.of(call.kind));
        book.enqueue(&call, traceparent);
        book.put_call(call);
        opened += 1;
    }
    Ok(opened)
}

/// What another outcome of the call means for the transfer, and for the claims that wait for it.
pub(super) fn follow(book: &mut Book, call: &Call, outcome: &TryOutcome, note: &Note) -> Result<(), LedgerError> {
    let row = book.transfer(call.id)?;
    match outcome {
        TryOutcome::Failed(_) | TryOutcome::Ended(_) => {
            if row.status == TransferStatus::Pending {
                book.move_transfer(row.id, TransferEvent::CreationFailed, note, |_| {})?;
            }
            book.move_transfer(row.id, TransferEvent::CreationFailedForGood, note, |_| {})?;
            let reason = not_created(row.id);
            for waiting in book.reversals_of(row.id) {
                if waiting.status == ReversalStatus::Pending {
                    book.move_reversal(waiting.id, ReversalEvent::CalledOff, &note.because(&reason), |_| {})?;
                }
            }
            Ok(())
        }
        TryOutcome::Later(how)
            if row.status == TransferStatus::Pending && (how.counted || how.remainder == Remainder::NewKey) =>
        {
            book.move_transfer(row.id, TransferEvent::CreationFailed, note, |_| {})
        }
        TryOutcome::Later(_) | TryOutcome::NewGeneration | TryOutcome::Done { .. } | TryOutcome::Found(_) => {
            book.remark("transfer", row.id, row.status, note);
            Ok(())
        }
    }
}

/// Why nothing is owed on a transfer that was never created, for people.
pub(in crate::ledger) fn not_created(transfer_id: Uuid) -> String {
    format!(
        "creating transfer {transfer_id} failed permanently, so nothing was paid and nothing is owed; if it is retried and \
         created after all, this follows automatically"
    )
}
