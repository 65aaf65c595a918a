//! What follows in the ledger when a transfer is created at Stripe, or is not, also for the claims that did not wait for it.
//!
//! | a claim comes … | what is written, in one transaction |
//! |---|---|
//! | before the payment is registered | nothing; the registration then does what the next line says |
//! | before Stripe is asked to create the transfer | a `closed` reversal: that much is withheld. The transfer is created for less, or, when nothing is left, not at all |
//! | while Stripe may have been asked | a `pending` reversal whose call is `waiting`. Creating may be on its way and goes on |
//! | … and then Stripe refuses, definitely and for now | the same is withheld: Stripe has to be asked anew |
//! | … and then Stripe creates it | the transfer goes through `completed` to `reversal_pending`, and the reversals get their jobs |
//! | … and then creating it fails permanently | nothing was paid, so nothing is owed: the reversals are `called_off`, their calls go on waiting |
//! | after it failed permanently | a reversal that begins like that |
//! | … and then it is created after all | exactly those reversals are pending again, and get their jobs |
//! | after it was created | what a claim on any transfer does |

use uuid::Uuid;

use super::{Call, Failure, Remainder, Retries, TryOutcome};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::history::Note;
use crate::ledger::schema::{reversal, transfer};
use crate::ledger::status::{CallState, ReversalEvent, ReversalStatus, TransferEvent, TransferStatus};
use crate::ledger::time::after;
use crate::reached::reached;

/// A reversal's code when its transfer was created for that much less.
pub(in crate::ledger) const WITHHELD: &str = "withheld";

/// Withholds `amount` from the transfer, if Stripe was not asked to create it: it is then created for less, or not at all.
/// Returns why the reversal needs no call.
pub(in crate::ledger) fn withhold(
    book: &mut Book,
    id: Uuid,
    amount: i64,
    note: &Note,
) -> Result<Option<Failure>, LedgerError> {
    let (row, call) = (book.transfer(id)?, book.call(id)?);
    let left = row.amount - row.withheld - amount;
    if call.state != CallState::Open || call.requested_at.is_some() || left < 0 {
        return Ok(None);
    }
    let (currency, version) = (&row.currency, call.version + 1);
    let message = match left {
        0 => format!(
            "{amount} {currency} withheld before Stripe was asked: nothing is left, so the transfer is not created"
        ),
        _ => format!(
            "{amount} {currency} withheld before Stripe was asked: the transfer is created for {left} {currency}"
        ),
    };
    let why = Failure { code: WITHHELD.to_owned(), message };
    reached!("a debt was withheld before the transfer was created");
    let note = note.because(format!("{}: {}", note.reason, why.message));
    let take = |row: &mut transfer::Model| {
        row.withheld += amount;
        row.amount_reversed += amount;
    };
    if left == 0 {
        let mut call = call.moved_to(CallState::CalledOff, book.now);
        call.fail(Some(&why));
        book.put_call(call);
        book.move_transfer(id, TransferEvent::Withheld, &note, take)?;
    } else {
        // A worker that has read the amount before must read it again.
        book.put_call(Call { version, updated_at: book.now, ..call });
        book.remark("transfer", id, row.status, &note);
        book.keep_transfer(row, take);
    }
    Ok(Some(why))
}

/// Undoes `withhold`, if Stripe has not been asked since. Returns whether it did.
pub(in crate::ledger) fn give_back(
    book: &mut Book,
    reversal: &reversal::Model,
    note: &Note,
    traceparent: Option<&str>,
) -> Result<bool, LedgerError> {
    let (id, amount) = (reversal.transfer_id, reversal.amount);
    let was_withheld = book.call(reversal.id)?.failure_code.as_deref() == Some(WITHHELD);
    if !was_withheld || reversal.status != ReversalStatus::Closed {
        return Ok(false);
    }
    let (row, call) = (book.transfer(id)?, book.call(id)?);
    let give = |row: &mut transfer::Model| {
        row.withheld -= amount;
        row.amount_reversed -= amount;
    };
    match call.state {
        CallState::Open if call.requested_at.is_none() => {
            let version = call.version + 1;
            book.put_call(Call { version, updated_at: book.now, ..call });
            book.remark("transfer", id, row.status, note);
            book.keep_transfer(row, give);
        }
        CallState::CalledOff => {
            let mut call = call.moved_to(CallState::Open, book.now);
            call.fail(None);
            call.generation_started_at = book.now;
            call.sweep_after = after(book.now, book.graces.of(call.kind));
            book.enqueue(&call, traceparent);
            book.put_call(call);
            book.move_transfer(id, TransferEvent::GivenBack, note, give)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Withholds what the waiting reversals ask for, once Stripe has refused to create the transfer for now.
fn withhold_for_waiting(book: &mut Book, id: Uuid, note: &Note) -> Result<(), LedgerError> {
    for row in book.reversals_of(id).into_iter().filter(|row| row.status == ReversalStatus::Pending) {
        let Some(why) = withhold(book, id, row.amount, note)? else { return Ok(()) };
        let mut call = book.call(row.id)?.moved_to(CallState::CalledOff, book.now);
        call.fail(Some(&why));
        book.put_call(call);
        book.move_reversal(row.id, ReversalEvent::Withheld, &note.because(&why.message), |_| {})?;
    }
    Ok(())
}

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
            metrics::counter!("clawback_paid_twice_total").increment(1);
            tracing::error!(transfer_id = %row.id, known, stripe_id, "paid twice: Stripe has two transfers");
            let note = note.because(format!("paid twice: Stripe has created {stripe_id} beside {known}"));
            book.remark("transfer", row.id, row.status, &note);
        }
        return Ok(());
    }
    if let Some(other) = book.transfers.all().find(|other| other.stripe_transfer_id.as_deref() == Some(stripe_id)) {
        let whose =
            if other.payment_id == row.payment_id { "as another transfer of it" } else { "with another payment" };
        return Err(LedgerError::Conflict(format!("{stripe_id}, which is this transfer, is registered {whose}")));
    }
    if row.status == TransferStatus::Reversed {
        let paid = row.amount - row.withheld;
        tracing::error!(transfer_id = %row.id, stripe_id, paid, "Stripe has a transfer that refunds had called off");
        let note = note.because(format!("Stripe has created {stripe_id}, though everything was withheld for refunds"));
        book.remark("transfer", row.id, row.status, &note);
        return Ok(());
    }
    if row.status == TransferStatus::PermanentlyFailed {
        let late = note.because("Stripe had created it when creating it failed permanently");
        book.move_transfer(row.id, TransferEvent::CreationReplayed, &late, |_| {})?;
    }
    let outcome = TryOutcome::Done { stripe_id: stripe_id.to_owned(), externally: false };
    book.put_call(call.after(&outcome, book.now, book.graces.of(call.kind)));
    let set_id = |row: &mut transfer::Model| row.stripe_transfer_id = Some(stripe_id.to_owned());
    book.move_transfer(row.id, TransferEvent::Created, note, set_id)?;
    if open_waiting(book, row.id, note, traceparent)? > 0 {
        let note = note.because("a refund had arrived before it was created");
        book.move_transfer(row.id, TransferEvent::RefundArrived, &note, |_| {})?;
    } else if row.withheld > 0 {
        let note = note.because("a part was withheld for refunds that had arrived before");
        book.move_transfer(row.id, TransferEvent::RefundArrived, &note, |_| {})?;
        book.settle_transfer(row.id, row.amount_reversed, &note)?;
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
            if row.status == TransferStatus::Pending
                && (how.retries == Retries::Used || how.remainder == Remainder::NewKey) =>
        {
            book.move_transfer(row.id, TransferEvent::CreationFailed, note, |_| {})?;
            withhold_for_waiting(book, row.id, note)
        }
        TryOutcome::Later(_)
        | TryOutcome::NewGeneration
        | TryOutcome::Done { .. }
        | TryOutcome::CalledOff(_)
        | TryOutcome::Found(_) => {
            book.remark("transfer", row.id, row.status, note);
            withhold_for_waiting(book, row.id, note)
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
