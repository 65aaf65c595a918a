//! A claim that takes nothing after all: its provider reports that it failed, or that the transfer was reversed together
//! with it. What Stripe was not asked for is called off; for the rest the claim's `attention` says what an operator must do.

use uuid::Uuid;

use super::attention;
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::calls::Failure;
use crate::ledger::history::Note;
use crate::ledger::schema::{claim, reversal};
use crate::ledger::status::{CallState, ClaimStatus, ReversalEvent, ReversalStatus, TransferStatus};

/// Why reversals are called off.
struct Because {
    code: &'static str,
    /// For the claim's attention.
    what: &'static str,
}

const REFUND_FAILED: Because = Because { code: "refund_failed", what: "the refund failed" };
const REVERSED_BY_PROVIDER: Because =
    Because { code: "reversed_by_provider", what: "the provider had reversed the transfer together with the refund" };

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
        ClaimStatus::NothingToReverse => {
            let so_far = Withdrawn { called_off: 0, attention: before.attention.clone() };
            let more = attention::reversed_by_the_provider(&before.reference);
            so_far.and(Withdrawn { called_off: 0, attention: Some(more) })
        }
        ClaimStatus::Unmatched | ClaimStatus::Held | ClaimStatus::Conflicting | ClaimStatus::Failed => {
            Withdrawn::default()
        }
    };
    set_result(book, before.id, reason, &outcome);
    Ok(outcome)
}

/// Records that the provider has reversed the transfer together with `claim`, whose first report did not say so. What
/// Clawback has taken nevertheless stays the payment's: the next refund by ratio takes that much less.
pub(super) fn reversed_by_provider(
    book: &mut Book,
    claim: claim::Model,
    actor: &str,
) -> Result<Withdrawn, LedgerError> {
    let before = claim.clone();
    let reason = "the provider reversed the transfer itself".to_owned();
    book.move_claim(claim, ClaimStatus::NothingToReverse, &Note::new(actor, &reason), |row| {
        row.status_reason = Some(reason.clone());
        row.matched_at = None;
    });
    let outcome = call_off(book, &before, &REVERSED_BY_PROVIDER, actor)?;
    set_result(book, before.id, reason, &outcome);
    Ok(outcome)
}

fn set_result(book: &mut Book, id: Uuid, reason: String, outcome: &Withdrawn) {
    if let Some(row) = book.claims.get(id).cloned() {
        let status_reason = Some(format!("{reason}; {} reversals were called off", outcome.called_off));
        book.keep_claim(claim::Model { status_reason, attention: outcome.attention.clone(), ..row });
    }
}

/// Calls off what Stripe has not been asked for: what is pending, and what failed permanently before it could be asked for.
fn call_off(book: &mut Book, claim: &claim::Model, because: &Because, actor: &str) -> Result<Withdrawn, LedgerError> {
    let rows: Vec<reversal::Model> = book.reversals.all().filter(|row| row.claim_id == claim.id).cloned().collect();
    let (mut called_off, mut stay) = (0, Vec::new());
    for row in &rows {
        let mut call = book.call(row.id)?;
        if call.requested_at.is_some() || matches!(row.status, ReversalStatus::Reversed | ReversalStatus::Closed) {
            stay.push((row.clone(), call, book.transfer(row.transfer_id)?));
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
        let parent = book.transfer(row.transfer_id)?;
        if parent.status == TransferStatus::ReversalPending {
            book.settle_transfer(parent.id, parent.amount_reversed, &note)?;
        }
        called_off += 1;
    }
    let attention = (!stay.is_empty()).then(|| attention::not_called_off(because.what, called_off, rows.len(), &stay));
    Ok(Withdrawn { called_off, attention })
}
