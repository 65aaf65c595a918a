//! Brings a claim and its payment together: plans what each transfer owes, then records the reversals with their calls and
//! jobs, and moves the transfers.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::named_shares::{Conflict, resolve};
use super::split::{Share, allocate};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::calls::not_created;
use crate::ledger::events::NamedShare;
use crate::ledger::history::Note;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{CallKind, CallState, ClaimStatus, ReversalStatus, TransferEvent, TransferStatus};

/// What a claim asks of each of its payment's transfers, in minor units.
pub(super) type Plan = Vec<(transfer::Model, i64)>;

/// The registered payment. The payment intent's registration wins over the charge's.
pub(super) fn payment_of(book: &Book, claim: &claim::Model) -> Option<payment::Model> {
    claim.names().find_map(|name| book.payment_by_ref(name)).cloned()
}

/// Matches `claim` to `payment`, and returns the ids of its reversals: none when it does not fit, which is recorded with the
/// reason.
pub(in crate::ledger) fn match_or_conflict(
    book: &mut Book,
    payment: &payment::Model,
    claim: &claim::Model,
    actor: &str,
    traceparent: Option<&str>,
) -> Result<Vec<Uuid>, LedgerError> {
    match plan(book, payment, claim) {
        Ok(plan) => carry_out(book, payment, claim, &plan, actor, traceparent),
        Err(Conflict { problem, .. }) => {
            tracing::warn!(refund_ref = claim.reference, problem, "the refund does not fit its payment");
            let note = Note::new(actor, &problem);
            let also = |row: &mut claim::Model| {
                row.status_reason = Some(problem);
                row.payment_id = None;
                row.matched_at = None;
                row.lookup_id = None;
            };
            book.move_claim(claim.clone(), ClaimStatus::Conflicting, &note, also);
            Ok(Vec::new())
        }
    }
}

/// What `claim` asks of the transfers of `payment`, or why it does not fit. Changes nothing.
pub(super) fn plan(book: &Book, payment: &payment::Model, claim: &claim::Model) -> Result<Plan, Conflict> {
    if payment.currency != claim.currency {
        let problem = format!("the refund is in {}, the payment in {}", claim.currency, payment.currency);
        return Err(Conflict { field: "currency".to_owned(), problem });
    }
    let transfers = book.transfers_of(payment.id);
    let earlier: Vec<&claim::Model> = book.claims.all().filter(|row| row.payment_id == Some(payment.id)).collect();
    let shares = shares(book, &transfers, &earlier);
    let asks = match &claim.shares {
        None => allocate(payment.amount, by_ratio_so_far(&earlier).saturating_add(claim.amount), &shares),
        Some(named) => resolve(&read_shares(named)?, &transfers, &shares)?,
    };
    Ok(transfers.into_iter().zip(asks).filter(|(_, ask)| *ask > 0).collect())
}

/// Records the claim as matched and what `plan` says, and returns the ids of its reversals.
pub(super) fn carry_out(
    book: &mut Book,
    payment: &payment::Model,
    claim: &claim::Model,
    plan: &Plan,
    actor: &str,
    traceparent: Option<&str>,
) -> Result<Vec<Uuid>, LedgerError> {
    let note = Note::new(actor, format!("matched to payment {}", payment.payment_ref));
    let now = book.now;
    book.move_claim(claim.clone(), ClaimStatus::Matched, &note, |row| {
        row.status_reason = Some(note.reason.clone());
        row.payment_id = Some(payment.id);
        row.matched_at = Some(now);
        // What a look-up at Stripe did not find is found.
        (row.lookup_id, row.attention) = (None, None);
    });
    plan.iter().map(|(transfer, ask)| owe(book, transfer, claim, *ask, actor, traceparent)).collect()
}

/// Records that `transfer` owes `amount` for `claim`. For a transfer that is not created yet see `calls::creation`.
fn owe(
    book: &mut Book,
    transfer: &transfer::Model,
    claim: &claim::Model,
    amount: i64,
    actor: &str,
    traceparent: Option<&str>,
) -> Result<Uuid, LedgerError> {
    let mut note = Note::new(actor, format!("{} {}", claim.kind, claim.reference));
    let mut failure = None;
    let (status, state) = match transfer.status {
        TransferStatus::ReversalPending => (ReversalStatus::Pending, CallState::Open),
        TransferStatus::Completed | TransferStatus::PartiallyReversed => {
            book.move_transfer(transfer.id, TransferEvent::RefundArrived, &note, |_| {})?;
            (ReversalStatus::Pending, CallState::Open)
        }
        TransferStatus::Pending | TransferStatus::Failed => {
            note.reason.push_str("; waits for its transfer to be created");
            (ReversalStatus::Pending, CallState::Waiting)
        }
        TransferStatus::PermanentlyFailed if book.is_uncreated(transfer) => {
            note.reason = not_created(transfer.id);
            (ReversalStatus::CalledOff, CallState::Waiting)
        }
        // The debt is kept, but only an operator's replay may move such a transfer. Its job parks it with the reason.
        from @ (TransferStatus::PermanentlyFailed | TransferStatus::Reversed) => {
            note.reason = format!("the transfer was {from} when the refund arrived");
            failure = Some((format!("transfer_{from}"), note.reason.clone()));
            (ReversalStatus::PermanentlyFailed, CallState::Failed)
        }
    };
    let id = Uuid::now_v7();
    let mut call = call::Model::new(id, CallKind::Reverse, state, book.now, book.graces);
    (call.failure_code, call.failure_message) = failure.unzip();
    if state != CallState::Waiting {
        note.reason.push_str("; its job is in the outbox");
        book.enqueue(&call, traceparent);
    }
    book.put_call(call);
    let row = reversal::Model {
        id,
        claim_id: claim.id,
        transfer_id: transfer.id,
        amount,
        currency: transfer.currency.clone(),
        status,
        stripe_reversal_id: None,
        externally_reversed: false,
        created_at: book.now,
        updated_at: book.now,
    };
    book.add_reversal(row, &note);
    Ok(id)
}

fn read_shares(named: &str) -> Result<Vec<NamedShare>, Conflict> {
    serde_json::from_str(named).map_err(|error| Conflict {
        field: "transfers".to_owned(),
        problem: format!("the shares that were recorded can't be read: {error}"),
    })
}

/// What each transfer has been asked for so far, unless it is not owed any more. What a refund that failed has taken all the
/// same counts as taken by ratio: the next refund does not take it again.
fn shares(book: &Book, transfers: &[transfer::Model], earlier: &[&claim::Model]) -> Vec<Share> {
    let by_name: HashSet<Uuid> =
        earlier.iter().filter(|row| row.shares.is_some() && !row.takes_nothing()).map(|row| row.id).collect();
    let mut totals: HashMap<Uuid, (i64, i64)> = HashMap::new();
    for row in book.reversals.all().filter(|row| book.is_asked(row)) {
        let (ratio, name) = totals.entry(row.transfer_id).or_default();
        *if by_name.contains(&row.claim_id) { name } else { ratio } += row.amount;
    }
    let share = |transfer: &transfer::Model| {
        let (by_ratio, by_name) = totals.get(&transfer.id).copied().unwrap_or_default();
        Share { amount: transfer.amount, by_ratio, by_name, currency: transfer.currency.clone() }
    };
    transfers.iter().map(share).collect()
}

/// The sum of the earlier claims that were shared out by ratio and still count.
fn by_ratio_so_far(earlier: &[&claim::Model]) -> i64 {
    let counting = earlier.iter().filter(|row| row.shares.is_none() && row.status == ClaimStatus::Matched);
    counting.fold(0, |sum, row| sum.saturating_add(row.amount))
}
