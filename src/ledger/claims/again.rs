//! A claim that is known is reported again by its provider: what the report adds or corrects. The signed word outranks what
//! was reported over the API, as long as Stripe was asked for nothing.

use super::attention;
use super::matching::{By, Match, bring_together, payments_of, plan, waits_for};
use super::own_reversal::{self, Part};
use super::policy::is_about_age;
use super::record::{BY_THE_PROVIDER, never_captured};
use super::report::{sorted, to_json};
use super::split;
use super::taken::Taken;
use super::withdrawn::{self, NEVER_CAPTURED, REVERSED_BY_PROVIDER, Withdrawn};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::events::{RefundEvent, RefundProgress};
use crate::ledger::history::Note;
use crate::ledger::schema::claim;
use crate::ledger::status::{ClaimStatus, ReversalStatus};

/// Takes in what the provider says of the refund `known`.
pub(super) fn reported_again(
    book: &mut Book,
    known: claim::Model,
    event: &RefundEvent,
    by: By<'_>,
) -> Result<Taken, LedgerError> {
    if let Some(problem) = contradiction(&known, event) {
        return Ok(contradicts(book, known, problem));
    }
    if known.provider_updated_at > event.updated && event.updated.is_some() {
        return Ok(Taken::NoEffect("its provider has reported a later state of the refund before".to_owned()));
    }
    if let RefundProgress::Failed(word) = &event.progress {
        let next = claim::Model { provider_updated_at: event.updated.or(known.provider_updated_at), ..known.clone() };
        if known.status == ClaimStatus::Failed {
            // A success that comes late is then known to be the older word.
            return Ok(keep(book, &known, &next));
        }
        return Ok(Taken::Failed(withdrawn::fail(book, next, word, by.actor)?));
    }
    let next = merged(book, &known, event);
    if known.status == ClaimStatus::Failed {
        // Only one of two states that have a time can be known to be the later one.
        if known.provider_updated_at.is_none() || known.provider_updated_at >= event.updated {
            return Ok(Taken::NoEffect("the refund has failed since; nothing is taken back for it".to_owned()));
        }
        return revive(book, next, event, by);
    }
    // Later events list the refund again: what an operator has decided since stays.
    let is_settled = known.status == ClaimStatus::NothingToReverse && known.lookup_id.is_none();
    let is_news = known.captured != next.captured && !is_settled;
    if let Some((reason, attention)) = never_captured(event).filter(|_| is_news) {
        let withdrawn = withdrawn::nothing_to_reverse(book, next, &NEVER_CAPTURED, &reason, by.actor)?;
        return Ok(nothing_is_owed(book, &known, &reason, withdrawn, attention));
    }
    if (&known.provider_reversal, &known.reversed_transfer) != (&next.provider_reversal, &next.reversed_transfer) {
        return provider_reversed(book, &known, next, event, by);
    }
    match known.status {
        ClaimStatus::Held => still_held(book, next, event, by),
        ClaimStatus::Unmatched => {
            keep(book, &known, &next);
            Ok(known_or(bring_together(book, &next, by)?))
        }
        ClaimStatus::Conflicting if has_same_terms(&known, &next) => Ok(keep(book, &known, &next)),
        ClaimStatus::Conflicting => {
            keep(book, &known, &next);
            Ok(bring_together(book, &next, by)?.into())
        }
        ClaimStatus::Matched => matched(book, known, next, event, by),
        ClaimStatus::NothingToReverse | ClaimStatus::Failed => Ok(keep(book, &known, &next)),
    }
}

/// Why what the provider says now can't be the same refund: it never changes its payment, amount or currency.
fn contradiction(known: &claim::Model, event: &RefundEvent) -> Option<String> {
    let same = known.shares_a_name_with(event) && (known.amount, &known.currency) == (event.amount, &event.currency);
    (known.signed_at.is_some() && !same).then(|| other_refund(known, event))
}

fn other_refund(known: &claim::Model, event: &RefundEvent) -> String {
    format!(
        "its provider reports {} {} of payment {} under this id, but {} {} of payment {} are known: look there which is right",
        event.amount, event.currency, event.payment_ref, known.amount, known.currency, known.payment_ref
    )
}

/// Records that an operator must look, once.
fn contradicts(book: &mut Book, known: claim::Model, problem: String) -> Taken {
    tracing::error!(reference = known.reference, problem, "reports of one refund contradict each other");
    attention::add(book, known.id, &problem);
    Taken::Conflicting(problem)
}

/// The claim with what the provider says now.
fn merged(book: &Book, known: &claim::Model, event: &RefundEvent) -> claim::Model {
    let mut next = known.clone();
    // The first report may have known the payment intent alone, or the charge alone.
    let all_reported = known.names().all(|name| event.names().any(|reported| reported == name));
    if all_reported || !known.shares_a_name_with(event) {
        (next.payment_ref, next.charge_ref) = (event.payment_ref.clone(), event.charge_ref.clone());
    }
    (next.amount, next.currency) = (event.amount, event.currency.clone());
    next.signed_at = known.signed_at.or(Some(book.now));
    let shares = event.shares.as_deref().map(to_json);
    if shares.is_some() && sorted(shares.as_deref()) != sorted(known.signed_shares.as_deref()) {
        (next.signed_shares, next.shares) = (shares.clone(), shares);
    }
    if next.account.is_empty() {
        next.account.clone_from(&event.account);
    }
    next.captured = event.charge.map(|charge| charge.captured).or(known.captured);
    next.provider_created_at = known.provider_created_at.or(event.created);
    next.provider_updated_at = event.updated.or(known.provider_updated_at);
    if let Some(reversal) = &event.provider_reversal {
        let id = reversal.id.clone().or_else(|| known.provider_reversal.clone());
        next.provider_reversal = Some(id.unwrap_or_default());
        next.reversed_transfer = reversal.transfer_id.clone().or_else(|| known.reversed_transfer.clone());
    }
    next
}

/// Keeps what is new in a claim whose status stays.
fn keep(book: &mut Book, known: &claim::Model, next: &claim::Model) -> Taken {
    if known != next {
        book.keep_claim(next.clone());
    }
    Taken::Known
}

/// A claim that still waits for its payment was known before.
fn known_or(found: Match) -> Taken {
    if matches!(found, Match::Unmatched) { Taken::Known } else { found.into() }
}

fn has_same_terms(known: &claim::Model, next: &claim::Model) -> bool {
    let terms = |row: &claim::Model| (row.amount, row.currency.clone(), sorted(row.shares.as_deref()), row.captured);
    terms(known) == terms(next) && known.names().eq(next.names())
}

fn still_held(book: &mut Book, next: claim::Model, event: &RefundEvent, by: By<'_>) -> Result<Taken, LedgerError> {
    if let Some(reason) = book.policy.holds(next.provider_created_at, &event.progress) {
        book.keep_claim(claim::Model { status_reason: Some(reason), ..next });
        return Ok(Taken::Known);
    }
    // The operator has decided about its age, which is no news.
    if next.acknowledged_at.is_some() && next.status_reason.as_deref().is_some_and(is_about_age) {
        book.keep_claim(next);
        return Ok(Taken::Known);
    }
    let note = Note::new(by.actor, "its provider reports that it has succeeded");
    let next =
        book.move_claim(next, ClaimStatus::Unmatched, &note, |row| row.status_reason = Some(note.reason.clone()));
    Ok(bring_together(book, &next, by)?.into())
}

/// The refund had failed, and its provider says later that it has succeeded.
fn revive(book: &mut Book, next: claim::Model, event: &RefundEvent, by: By<'_>) -> Result<Taken, LedgerError> {
    let note = Note::new(by.actor, "succeeded at its provider after it had failed there");
    let attention = next.attention.as_deref().map(attention::of_revived);
    let next = claim::Model { failed_at: None, attention: None, ..next };
    let next = book.move_claim(next, ClaimStatus::Unmatched, &note, |row| {
        row.status_reason = Some(note.reason.clone());
        (row.payment_id, row.matched_at) = (None, None);
    });
    let id = next.id;
    let taken = match book.policy.holds(next.provider_created_at, &event.progress) {
        Some(reason) => {
            book.move_claim(next, ClaimStatus::Held, &Note::new(by.actor, &reason), |row| {
                row.status_reason = Some(reason.clone());
            });
            Taken::Held(reason)
        }
        None => bring_together(book, &next, by)?.into(),
    };
    // Afterwards: a match takes away what was to be done before.
    if let Some(attention) = attention {
        attention::add(book, id, &attention);
    }
    Ok(taken)
}

/// The provider has reversed a transfer together with the refund.
pub(super) fn provider_reversed(
    book: &mut Book,
    known: &claim::Model,
    next: claim::Model,
    event: &RefundEvent,
    by: By<'_>,
) -> Result<Taken, LedgerError> {
    let payments = payments_of(book, &next);
    let [payment] = payments.as_slice() else {
        return reversed_it_all(book, known, next, None, by);
    };
    match (own_reversal::part_of(book, payment, &next), known.status) {
        (Part::Nothing, ClaimStatus::Matched) => Ok(keep(book, known, &next)),
        (Part::Of(transfer), ClaimStatus::Matched) => reversed_its_own(book, known, next, transfer, by),
        (Part::All, _) => reversed_it_all(book, known, next, None, by),
        (Part::Unknown, _) => {
            let attention = attention::one_of_several(payment, &book.transfers_of(payment.id));
            reversed_it_all(book, known, next, Some(attention), by)
        }
        (Part::Nothing | Part::Of(_), ClaimStatus::Held) => still_held(book, next, event, by),
        (Part::Nothing | Part::Of(_), ClaimStatus::NothingToReverse) => {
            let next = claim::Model { attention: None, ..next };
            keep(book, known, &next);
            let waits = waits_for(book, &next, &payment.payment_ref);
            if waits { Ok(bring_together(book, &next, by)?.into()) } else { Ok(Taken::Known) }
        }
        (Part::Nothing | Part::Of(_), _) => {
            keep(book, known, &next);
            Ok(bring_together(book, &next, by)?.into())
        }
    }
}

fn reversed_it_all(
    book: &mut Book,
    known: &claim::Model,
    next: claim::Model,
    attention: Option<String>,
    by: By<'_>,
) -> Result<Taken, LedgerError> {
    if known.status == ClaimStatus::NothingToReverse {
        return Ok(keep(
            book,
            known,
            &claim::Model { attention: attention.or_else(|| known.attention.clone()), ..next },
        ));
    }
    let withdrawn = withdrawn::nothing_to_reverse(book, next, &REVERSED_BY_PROVIDER, BY_THE_PROVIDER, by.actor)?;
    Ok(nothing_is_owed(book, known, BY_THE_PROVIDER, withdrawn, attention))
}

/// The provider has reversed one of several transfers; the others still owe what they owe.
fn reversed_its_own(
    book: &mut Book,
    known: &claim::Model,
    next: claim::Model,
    transfer: uuid::Uuid,
    by: By<'_>,
) -> Result<Taken, LedgerError> {
    let trr = next.provider_reversal.clone().unwrap_or_default();
    keep(book, known, &next);
    let Some(row) = book.live_reversal_of(known.id, transfer).cloned() else { return Ok(Taken::Known) };
    if row.status == ReversalStatus::Closed || row.stripe_reversal_id.as_ref() == Some(&trr) {
        return Ok(Taken::Known);
    }
    if book.call(row.id)?.requested_at.is_some() {
        return Ok(contradicts(book, next, attention::reversed_twice_perhaps(&row, &trr)));
    }
    own_reversal::settle(book, row.id, &trr, by.actor)?;
    Ok(Taken::NoEffect(BY_THE_PROVIDER.to_owned()))
}

fn nothing_is_owed(
    book: &mut Book,
    known: &claim::Model,
    reason: &str,
    withdrawn: Withdrawn,
    more: Option<String>,
) -> Taken {
    let Withdrawn { called_off, attention } = withdrawn;
    tracing::warn!(
        reference = known.reference,
        called_off,
        attention,
        reason,
        "nothing is owed for a refund after all"
    );
    if let Some(more) = &more {
        attention::add(book, known.id, more);
    }
    let reason = format!("{reason}; {called_off} reversals were called off");
    Taken::NoEffect([Some(reason), attention, more].into_iter().flatten().collect::<Vec<_>>().join(". "))
}

/// A matched claim: what is new is kept; what differs replaces what was planned, or needs an operator.
fn matched(
    book: &mut Book,
    known: claim::Model,
    next: claim::Model,
    event: &RefundEvent,
    by: By<'_>,
) -> Result<Taken, LedgerError> {
    let payments = payments_of(book, &next);
    let payment = payments.first().filter(|payment| payments.len() == 1 && known.payment_id == Some(payment.id));
    let misfit = payment.filter(|_| known.captured != next.captured).and_then(|it| split::check(book, it, &next).err());
    let shares_differ = sorted(known.shares.as_deref()) != sorted(next.shares.as_deref());
    let amounts_differ = (known.amount, &known.currency) != (next.amount, &next.currency);
    if payment.is_some() && misfit.is_none() && !shares_differ && !amounts_differ {
        return Ok(keep(book, &known, &next));
    }
    let bad_shares = payment.filter(|_| shares_differ && !amounts_differ).and_then(|it| plan(book, it, &next).err());
    let problem = match (withdrawn::is_requested(book, &known)?, misfit, bad_shares) {
        (true, Some(conflict), _) | (_, None, Some(conflict)) => Some(conflict.problem),
        (true, None, None) if amounts_differ || payment.is_none() => Some(other_refund(&known, event)),
        (true, None, None) => Some(attention::OTHER_SHARES.to_owned()),
        (false, ..) => None,
    };
    if let Some(problem) = problem {
        // What was reported before stays; so does the memory of what the provider says.
        let claim::Model { shares, payment_ref, charge_ref, amount, currency, .. } = known.clone();
        keep(book, &known, &claim::Model { shares, payment_ref, charge_ref, amount, currency, ..next });
        return Ok(contradicts(book, known, problem));
    }
    let unmatched = withdrawn::supersede(book, &next, by.actor)?;
    Ok(bring_together(book, &unmatched, by)?.into())
}
