//! Amendments of a registered payment: transfers that were made later, and corrections.

use std::collections::HashSet;

use uuid::Uuid;

use super::same::{difference, pair, refuse_difference};
use super::{Registration, refuse_others, same};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::claims::{match_again, owe_earlier};
use crate::ledger::history::Note;
use crate::ledger::input::{FieldProblem, MAX_TRANSFERS, NewPayment, NewTransfer, NewTransfers, excess};
use crate::ledger::schema::{payment, reversal, transfer};
use crate::ledger::status::ReversalStatus;

impl Registration {
    /// Adds those of `new` that are not registered. False if all are.
    pub(super) fn add(
        &self,
        book: &mut Book,
        payment: &payment::Model,
        new: &NewTransfers,
    ) -> Result<bool, LedgerError> {
        let rows = book.transfers_of(payment.id);
        let mut missing: Vec<&NewTransfer> = Vec::new();
        for (pair, new) in pair(&rows, &new.transfers).into_iter().zip(&new.transfers) {
            match pair {
                Some(at) => refuse_difference(&rows[at], new)?,
                None => missing.push(new),
            }
        }
        if missing.is_empty() {
            return Ok(false);
        }
        refuse_others(book, payment.id, &new.transfers)?;
        refuse_too_much(payment, &rows, &missing, new.allow_excess)?;
        let first = rows.last().map_or(0, |last| last.position + 1);
        let added: Vec<Uuid> = (first..)
            .zip(&missing)
            .map(|(position, new)| self.insert_transfer(book, payment.id, position, new))
            .collect();
        book.amend_payment(payment.clone(), &self.note(format!("transfers added: {}", names(&missing))));
        let traceparent = self.traceparent.as_deref();
        owe_earlier(book, payment, &added, self.actor, traceparent)?;
        match_again(book, payment, self.actor, traceparent)?;
        Ok(true)
    }

    /// Makes the payment what `new` says. False if it is that already.
    pub(super) fn correct(
        &self,
        book: &mut Book,
        payment: payment::Model,
        new: &NewPayment,
    ) -> Result<bool, LedgerError> {
        if same::as_registered(book, &payment, new).is_ok() {
            return Ok(false);
        }
        refuse_others(book, payment.id, &new.transfers)?;
        let rows = book.transfers_of(payment.id);
        refuse_if_matched(book, &payment, &rows)?;
        let pairs = pair(&rows, &new.transfers);
        let stays = |at: usize, new: &NewTransfer| difference(&rows[at], new).is_none();
        let kept: HashSet<usize> =
            pairs.iter().zip(&new.transfers).filter_map(|(at, new)| at.filter(|at| stays(*at, new))).collect();
        let (keep, remove): (Vec<_>, Vec<_>) = rows.iter().enumerate().partition(|(at, _)| kept.contains(at));
        refuse_if_created(&payment, new, &rows, &remove)?;
        refuse_if_asked(book, &payment, &remove)?;
        for (_, row) in &remove {
            book.remove_transfer(
                row,
                &self.note(format!("removed by a correction of payment {}", payment.payment_ref)),
            );
        }
        let missing: Vec<&NewTransfer> = pairs
            .iter()
            .zip(&new.transfers)
            .filter(|(at, _)| at.is_none_or(|at| !kept.contains(&at)))
            .map(|(_, new)| new)
            .collect();
        let taken: HashSet<i32> = keep.iter().map(|(_, row)| row.position).collect();
        let free = (0..).filter(|position| !taken.contains(position));
        for (position, new) in free.zip(&missing) {
            self.insert_transfer(book, payment.id, position, new);
        }
        let note = self.note(corrected(&payment, new, &remove, &missing));
        let payment = payment::Model { amount: new.amount, currency: new.currency.clone(), ..payment };
        book.amend_payment(payment.clone(), &note);
        match_again(book, &payment, self.actor, self.traceparent.as_deref())?;
        Ok(true)
    }

    fn note(&self, reason: String) -> Note {
        Note::new(self.actor, reason)
    }
}

fn refuse_too_much(
    payment: &payment::Model,
    rows: &[transfer::Model],
    missing: &[&NewTransfer],
    allow_excess: bool,
) -> Result<(), LedgerError> {
    let count = rows.len() + missing.len();
    let too_many = || {
        FieldProblem::new("transfers", format!("must be at most {MAX_TRANSFERS} in all of the payment (got {count})"))
    };
    let registered = rows.iter().map(|row| (row.amount, row.currency.as_str()));
    let all = registered.chain(missing.iter().map(|new| (new.amount, new.currency.as_str())));
    let problem = (count > MAX_TRANSFERS).then(too_many).or_else(|| excess(payment.amount, &payment.currency, all));
    match problem.filter(|_| count > MAX_TRANSFERS || !allow_excess) {
        Some(problem) => Err(LedgerError::Invalid(vec![problem])),
        None => Ok(()),
    }
}

/// Errors if anything was asked of the payment's transfers: it was shared out by what is registered now. What was called off before
/// Stripe was asked hinders no correction.
fn refuse_if_matched(book: &Book, payment: &payment::Model, rows: &[transfer::Model]) -> Result<(), LedgerError> {
    let counts = |row: &reversal::Model| {
        row.status != ReversalStatus::CalledOff || book.call(row.id).is_ok_and(|call| call.requested_at.is_some())
    };
    let asked = rows.iter().flat_map(|row| book.reversals_of(row.id)).find(counts).map(|row| row.claim_id);
    let matched = book.claims.all().find(|row| row.payment_id == Some(payment.id));
    let claim = asked.and_then(|id| book.claims.get(id)).or(matched);
    if claim.is_none() && asked.is_none() {
        return Ok(());
    }
    let what = claim.map_or("a refund".to_owned(), |row| format!("{} {}", row.kind, row.reference));
    Err(LedgerError::Conflict(format!(
        "payment {} can't be corrected any more: {what} was shared out over its transfers. Transfers that are missing can \
         still be added",
        payment.payment_ref
    )))
}

/// Errors if a transfer would go that something hangs on, though it was called off: the history stays.
fn refuse_if_asked(
    book: &Book,
    payment: &payment::Model,
    remove: &[(usize, &transfer::Model)],
) -> Result<(), LedgerError> {
    match remove.iter().find(|(_, row)| !book.reversals_of(row.id).is_empty()) {
        None => Ok(()),
        Some((_, row)) => Err(LedgerError::Conflict(format!(
            "payment {} can't be corrected like this: a reversal of transfer {} was called off, and the transfer has to stay as it is",
            payment.payment_ref,
            row.name(),
        ))),
    }
}

/// Errors if a transfer that Clawback creates would change: its creation is on its way, or done.
fn refuse_if_created(
    payment: &payment::Model,
    new: &NewPayment,
    rows: &[transfer::Model],
    remove: &[(usize, &transfer::Model)],
) -> Result<(), LedgerError> {
    let currency_changes = payment.currency != new.currency;
    let mut changing = remove.iter().map(|(_, row)| *row).chain(rows.iter().filter(|_| currency_changes));
    match changing.find(|row| row.created_by_us) {
        None => Ok(()),
        Some(row) => Err(LedgerError::Conflict(format!(
            "payment {} can't be corrected like this: Clawback creates transfer {} to seller {}, which has to stay as it is",
            payment.payment_ref,
            row.name(),
            row.seller_id
        ))),
    }
}

/// What a correction changed, for the history.
fn corrected(
    payment: &payment::Model,
    new: &NewPayment,
    removed: &[(usize, &transfer::Model)],
    added: &[&NewTransfer],
) -> String {
    let mut said = vec!["corrected".to_owned()];
    if (payment.amount, &payment.currency) != (new.amount, &new.currency) {
        said.push(format!("{} {} was {} {}", new.amount, new.currency, payment.amount, payment.currency));
    }
    if !removed.is_empty() {
        let removed: Vec<String> = removed.iter().map(|(_, row)| row.name()).collect();
        said.push(format!("transfers removed: {}", removed.join(", ")));
    }
    if !added.is_empty() {
        said.push(format!("transfers added: {}", names(added)));
    }
    said.join("; ")
}

fn names(new: &[&NewTransfer]) -> String {
    let name = |new: &&NewTransfer| match &new.stripe_transfer_id {
        Some(id) => id.clone(),
        None => format!("one to create for seller {}", new.seller_id),
    };
    new.iter().map(name).collect::<Vec<_>>().join(", ")
}
