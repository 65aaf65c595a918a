//! A claim that takes nothing after all: its provider reports that it failed, or that the transfer was reversed together
//! with it. What Stripe was not asked for is called off; for the rest the claim's `attention` says what an operator must do.

use uuid::Uuid;

use super::matching::{self, By};
use super::{attention, dispute};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::calls::{Failure, give_back};
use crate::ledger::history::Note;
use crate::ledger::schema::{call, claim, reversal, transfer};
use crate::ledger::status::{CallState, ClaimStatus, ReversalEvent, ReversalStatus};

/// Why reversals are called off.
pub(super) struct Because<'a> {
    pub(super) code: &'static str,
    /// For the claim's attention.
    pub(super) what: &'a str,
}

/// A reversal that could not be called off, with its call and its transfer.
pub(super) type Kept = (reversal::Model, call::Model, transfer::Model);

const REFUND_FAILED: Because<'_> = Because { code: "refund_failed", what: "the refund failed" };
pub(super) const REVERSED_BY_PROVIDER: Because<'_> =
    Because { code: "reversed_by_provider", what: "the provider had reversed the transfer together with the refund" };
pub(super) const NEVER_CAPTURED: Because<'_> =
    Because { code: "never_captured", what: "the refund released money that was never captured" };
const WITHDRAWN: Because<'_> = Because { code: "withdrawn", what: "the report of the refund was withdrawn" };
const SUPERSEDED: Because<'_> = Because { code: "superseded", what: "the refund was reported otherwise" };

/// What became of the reversals of such a claim.
#[derive(Debug, Default)]
pub(super) struct Withdrawn {
    pub(super) called_off: usize,
    pub(super) attention: Option<String>,
}

impl Withdrawn {
    /// Of two refunds in one event.
    pub(super) fn and(self, other: Self) -> Self {
        let attention: Vec<String> = [self.attention, other.attention].into_iter().flatten().collect();
        Self {
            called_off: self.called_off + other.called_off,
            attention: (!attention.is_empty()).then(|| attention.join(". ")),
        }
    }
}

/// Records that `claim` has failed at its provider, which calls that `word`.
pub(super) fn fail(book: &mut Book, claim: claim::Model, word: &str, actor: &str) -> Result<Withdrawn, LedgerError> {
    let (before, now) = (claim.clone(), book.now);
    let reason = format!("{word} at its provider");
    book.move_claim(claim, ClaimStatus::Failed, &Note::new(actor, &reason), |row| {
        row.failed_at = Some(now);
        row.status_reason = Some(reason.clone());
    });
    let outcome = match before.status {
        ClaimStatus::Matched => call_off(book, &before, &REFUND_FAILED, actor)?,
        ClaimStatus::NothingToReverse if before.provider_reversal.is_some() => {
            let by = By { actor, event: None, traceparent: None };
            let payment = matching::payment_of(book, &before).ok().flatten();
            let short = payment.map(|payment| matching::take_shortfall(book, &payment, &before, by)).transpose()?;
            let said = std::iter::once(attention::reversed_by_the_provider(&before.reference));
            let attention = said.chain(short.unwrap_or_default()).collect::<Vec<_>>().join(". ");
            Withdrawn { called_off: 0, attention: Some(attention) }
        }
        // A conflict may stand beside what was asked for before.
        ClaimStatus::Conflicting | ClaimStatus::NothingToReverse => call_off(book, &before, &REFUND_FAILED, actor)?,
        ClaimStatus::Unmatched | ClaimStatus::Held | ClaimStatus::Failed => Withdrawn::default(),
    };
    set_result(book, before.id, reason, &outcome);
    Ok(outcome)
}

/// Records that an operator has taken back the report of `claim`.
///
/// # Errors
/// [`LedgerError::Conflict`] when Stripe was asked for it: then the book is not to be written.
pub(super) fn withdraw(book: &mut Book, claim: claim::Model, note: &Note) -> Result<(), LedgerError> {
    let before = claim.clone();
    let reason = format!("withdrawn by {}: {}", note.actor, note.reason);
    book.move_claim(claim, ClaimStatus::Failed, &note.because(format!("withdrawn: {}", note.reason)), |row| {
        (row.status_reason, row.attention) = (Some(reason.clone()), None);
        (row.payment_id, row.matched_at) = (None, None);
    });
    let (called_off, kept) = cancel(book, &before, &WITHDRAWN, &note.actor)?;
    if !kept.is_empty() {
        return Err(LedgerError::Conflict(attention::asked_before_it_was_withdrawn(&before, &kept)));
    }
    set_result(book, before.id, reason, &Withdrawn { called_off, attention: None });
    Ok(())
}

/// Records that `claim`, whose first report did not say so, takes nothing, for `reason`. What Clawback has taken nevertheless
/// stays the payment's: the next refund by ratio takes that much less.
pub(super) fn nothing_to_reverse(
    book: &mut Book,
    claim: claim::Model,
    because: &Because<'_>,
    reason: &str,
    actor: &str,
) -> Result<Withdrawn, LedgerError> {
    let before = claim.clone();
    book.move_claim(claim, ClaimStatus::NothingToReverse, &Note::new(actor, reason), |row| {
        row.status_reason = Some(reason.to_owned());
        // Whatever a look-up finds, and whoever registers the payment, this stays.
        (row.matched_at, row.lookup_id) = (None, None);
    });
    let outcome = call_off(book, &before, because, actor)?;
    set_result(book, before.id, reason.to_owned(), &outcome);
    Ok(outcome)
}

/// Calls off all reversals of a matched claim, of which Stripe was asked for none, and records it as `next`, which is to be
/// matched anew.
pub(super) fn supersede(book: &mut Book, next: &claim::Model, actor: &str) -> Result<claim::Model, LedgerError> {
    let note = Note::new(actor, "reported otherwise; matched anew, since Stripe was asked for nothing");
    let unmatched = book.move_claim(next.clone(), ClaimStatus::Unmatched, &note, |row| {
        row.status_reason = Some(note.reason.clone());
        (row.payment_id, row.matched_at) = (None, None);
    });
    call_off(book, next, &SUPERSEDED, actor)?;
    Ok(unmatched)
}

/// Whether Stripe was asked for anything of the claim, or it was settled.
pub(super) fn is_requested(book: &Book, claim: &claim::Model) -> Result<bool, LedgerError> {
    let rows = book.reversals.all().filter(|row| row.claim_id == claim.id && row.status != ReversalStatus::CalledOff);
    for row in rows {
        if is_beyond_recall(row, &book.call(row.id)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_beyond_recall(row: &reversal::Model, call: &call::Model) -> bool {
    call.requested_at.is_some() || matches!(row.status, ReversalStatus::Reversed | ReversalStatus::Closed)
}

pub(super) fn set_result(book: &mut Book, id: Uuid, reason: String, outcome: &Withdrawn) {
    if let Some(row) = book.claims.get(id).cloned() {
        let status_reason = Some(format!("{reason}; {} reversals were called off", outcome.called_off));
        book.keep_claim(claim::Model { status_reason, ..row });
    }
    if let Some(what) = &outcome.attention {
        attention::add(book, id, what);
    }
}

fn call_off(
    book: &mut Book,
    claim: &claim::Model,
    because: &Because<'_>,
    actor: &str,
) -> Result<Withdrawn, LedgerError> {
    let (called_off, kept) = cancel(book, claim, because, actor)?;
    let of = called_off + kept.len();
    let stays = (!kept.is_empty()).then(|| attention::not_called_off(because.what, called_off, of, &kept));
    let payment = claim.payment_id.and_then(|id| book.payments.get(id).cloned());
    let short = match payment.filter(|_| because.code != SUPERSEDED.code) {
        Some(payment) => {
            let by = By { actor, event: None, traceparent: None };
            let short = matching::take_shortfall(book, &payment, claim, by)?;
            dispute::review_ended(book, &payment, claim, &kept);
            short
        }
        None => Vec::new(),
    };
    let attention = stays.into_iter().chain(short).collect::<Vec<_>>().join(". ");
    Ok(Withdrawn { called_off, attention: (!attention.is_empty()).then_some(attention) })
}

/// Calls off what Stripe has not been asked for: what is pending, and what failed permanently before it could be asked for.
/// Returns how many that were, and the others.
pub(super) fn cancel(
    book: &mut Book,
    claim: &claim::Model,
    because: &Because<'_>,
    actor: &str,
) -> Result<(usize, Vec<Kept>), LedgerError> {
    let mut rows = Vec::new();
    for row in book.reversals.all().filter(|row| row.claim_id == claim.id) {
        let call = book.call(row.id)?;
        // What was called off because its transfer was never created is owed again once that is.
        if row.status != ReversalStatus::CalledOff || call.state == CallState::Waiting {
            rows.push(row.clone());
        }
    }
    let (mut called_off, mut kept) = (0, Vec::new());
    for row in rows {
        let mut call = book.call(row.id)?;
        let note = Note::new(actor, format!("{} ({})", because.what, claim.reference));
        let given_back = give_back(book, &row, &note, None)?;
        if is_beyond_recall(&row, &call) && !given_back {
            // What failed permanently is not owed any more, and holds no later claim.
            let parent = book.transfer(row.transfer_id)?;
            let note = Note::new(actor, because.what);
            book.settle_transfer(parent.id, parent.amount_reversed, &note)?;
            kept.push((row, call, parent));
            continue;
        }
        let message = format!("called off before Stripe was asked: {} ({})", because.what, claim.reference);
        let note = Note::new(actor, &message);
        call = call.moved_to(CallState::CalledOff, book.now);
        call.fail(Some(&Failure { code: because.code.to_owned(), message }));
        book.put_call(call);
        if row.status != ReversalStatus::CalledOff {
            book.move_reversal(row.id, ReversalEvent::CalledOff, &note, |_| {})?;
        }
        let amount_reversed = book.transfer(row.transfer_id)?.amount_reversed;
        book.settle_transfer(row.transfer_id, amount_reversed, &note)?;
        called_off += 1;
    }
    Ok((called_off, kept))
}

/// After a reversal of a claim that takes nothing has ended: has later claims take what they left to it, if Stripe has surely not
/// done it, and says anew what an operator must do. All the payment's claims must be in the book.
pub(in crate::ledger) fn review(
    book: &mut Book,
    (ended, is_surely_not_done): (Uuid, bool),
    actor: &str,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let ended = book.reversal(ended)?;
    let Some(claim) = book.takes_nothing(ended.claim_id).cloned() else { return Ok(()) };
    let counted = match is_surely_not_done {
        true => counted_meanwhile(book, &claim, &ended, By { actor, event: None, traceparent })?,
        false => perhaps_counted(book, &claim, &ended)?,
    };
    let known = claim.attention.clone();
    let says = |it: &&Because<'_>| known.as_deref().is_some_and(|known| known.starts_with(it.what));
    let said: Vec<String> = match [&REFUND_FAILED, &REVERSED_BY_PROVIDER].into_iter().find(says) {
        Some(because) => {
            let after_advice = known.as_deref().and_then(attention::after_advice);
            what_stays(book, &claim, because).into_iter().chain(after_advice).collect()
        }
        None => known.into_iter().collect(),
    };
    let said = (!said.is_empty()).then(|| said.join(". "));
    let attention = match counted {
        Some(counted) => Some(attention::with(said, &counted)),
        None => said,
    };
    if attention != claim.attention {
        book.keep_claim(claim::Model { attention, ..claim });
    }
    Ok(())
}

fn what_stays(book: &Book, claim: &claim::Model, because: &Because<'_>) -> Option<String> {
    let rows: Vec<&reversal::Model> = book.reversals.all().filter(|row| row.claim_id == claim.id).collect();
    let stay: Vec<Kept> = rows
        .iter()
        .filter(|row| row.status != ReversalStatus::CalledOff)
        .filter_map(|row| Some(((*row).clone(), book.call(row.id).ok()?, book.transfer(row.transfer_id).ok()?)))
        .collect();
    let called_off = rows.len() - stay.len();
    (!stay.is_empty()).then(|| attention::not_called_off(because.what, called_off, rows.len(), &stay))
}

/// What claims that were matched while Stripe might do it took for taken, though it was not, as far as none of them can take it
/// now.
fn counted_meanwhile(
    book: &mut Book,
    claim: &claim::Model,
    row: &reversal::Model,
    by: By<'_>,
) -> Result<Option<String>, LedgerError> {
    let payment = claim.payment_id.and_then(|id| book.payments.get(id).cloned());
    let Some(payment) = payment else { return Ok(None) };
    let left = matching::owe_again(book, &payment, row, by)?;
    let parent = book.transfer(row.transfer_id)?;
    Ok((left > 0).then(|| attention::counted_meanwhile(row, left, &parent)))
}

/// The same of what failed permanently, so that Stripe may have done it after all.
fn perhaps_counted(book: &Book, claim: &claim::Model, row: &reversal::Model) -> Result<Option<String>, LedgerError> {
    let payment = claim.payment_id.and_then(|id| book.payments.get(id));
    let Some(payment) = payment.filter(|_| row.status == ReversalStatus::PermanentlyFailed) else { return Ok(None) };
    let left = matching::left_to(book, payment, row);
    let parent = book.transfer(row.transfer_id)?;
    Ok((left > 0).then(|| attention::perhaps_counted(row, left, &parent)))
}
