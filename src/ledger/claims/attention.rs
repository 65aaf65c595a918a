//! What an operator must do about a claim, in words. Pure.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::ledger::book::Book;
use crate::ledger::calls::WITHHELD;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{ClaimStatus, ReversalStatus};

/// A payment is registered before its refund, or soon after.
pub(in crate::ledger) const UNMATCHED_TOO_LONG: TimeDelta = TimeDelta::hours(24);

pub(super) const OTHER_SHARES: &str =
    "its provider names other shares than those that Stripe was asked for already: compare the refund's metadata";

/// What an operator must do about the claim now: what was recorded, or what follows from its status and its age. Nothing, once
/// that was acknowledged.
pub(in crate::ledger) fn attention_of(row: &claim::Model, now: DateTime<Utc>) -> Option<String> {
    if row.acknowledged_at.is_some() {
        return None;
    }
    let hours = (now - row.created_at).num_hours();
    let reason = row.status_reason.as_deref().unwrap_or_default();
    let of_status = match row.status {
        ClaimStatus::Conflicting => Some(format!("takes nothing, for {hours} h: {reason}")),
        ClaimStatus::Unmatched if now - row.created_at >= UNMATCHED_TOO_LONG => {
            Some(format!("takes nothing, for {hours} h: payment {} is not registered", row.payment_ref))
        }
        _ => None,
    };
    let all: Vec<String> = [row.attention.clone(), of_status].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(". "))
}

/// Adds to what an operator must do, once.
pub(super) fn add(book: &mut Book, id: Uuid, what: &str) {
    let Some(row) = book.claims.get(id).cloned() else { return };
    let attention = Some(with(row.attention.clone(), what));
    if attention != row.attention {
        book.keep_claim(claim::Model { attention, ..row });
    }
}

/// `known` and, unless it says so already, `what`.
pub(super) fn with(known: Option<String>, what: &str) -> String {
    match known {
        Some(known) if known.contains(what) => known,
        Some(known) => format!("{known}. {what}"),
        None => what.to_owned(),
    }
}

/// Says that the claim's payment is not clear: beside what a claim that takes already needs, and in the place of what an earlier
/// look found about one that waits.
pub(in crate::ledger) fn unclear(book: &mut Book, claim: claim::Model, problem: &str) {
    let known = claim.attention.as_deref();
    let known = match claim.status {
        ClaimStatus::Matched => known.map(ToOwned::to_owned),
        _ => known.and_then(reinstatement),
    };
    book.keep_claim(claim::Model { attention: Some(with(known, problem)), ..claim });
}

/// The end of what `not_called_off` says.
const ADVICE: &str = "if none will follow, pay the seller back with a new transfer";

/// What an operator has to do about the reversals that could not be called off. `why` says what made them needless.
pub(super) fn not_called_off(
    why: &str,
    called_off: usize,
    of: usize,
    stay: &[(reversal::Model, call::Model, transfer::Model)],
) -> String {
    let each: Vec<String> = stay.iter().map(|(row, call, parent)| about(row, call, parent)).collect();
    format!(
        "{why}, and {called_off} of its {of} reversals could be called off. {} (amounts in minor units). What was \
         taken back counts towards the same seller's part of the payment's next refund by ratio; {ADVICE}",
        each.join("; "),
    )
}

/// Why a report can't be withdrawn any more.
pub(super) fn asked_before_it_was_withdrawn(
    claim: &claim::Model,
    kept: &[(reversal::Model, call::Model, transfer::Model)],
) -> String {
    let each: Vec<String> = kept.iter().map(|(row, call, parent)| about(row, call, parent)).collect();
    format!(
        "{} {} can't be withdrawn any more, since Stripe was asked for it: {} (amounts in minor units). Pay back with a new \
         transfer what was taken, close what failed permanently (`clawback reversals close`), then acknowledge",
        claim.kind,
        claim.reference,
        each.join("; ")
    )
}

/// What was added to what `not_called_off` said.
pub(super) fn after_advice(attention: &str) -> Option<String> {
    let (_, added) = attention.split_once(ADVICE)?;
    let added = added.trim_start_matches(". ");
    (!added.is_empty()).then(|| added.to_owned())
}

/// What later refunds counted as taken, though it was called off in the end.
pub(super) fn counted_meanwhile(row: &reversal::Model, left: i64, parent: &transfer::Model) -> String {
    let transfer = parent.name();
    format!(
        "{left} {} of transfer {transfer} counted for refunds that came meanwhile, and were not taken (reversal {}): the payment's \
         next refund by ratio takes them; if none will follow, reverse them at Stripe",
        row.currency, row.id,
    )
}

/// The same of what failed permanently, where Stripe may have done it after all.
pub(super) fn perhaps_counted(row: &reversal::Model, left: i64, parent: &transfer::Model) -> String {
    let transfer = parent.name();
    format!(
        "{left} {} of transfer {transfer} counted for claims that came meanwhile, and whether they were taken is not known (reversal \
         {} has failed permanently): look there at Stripe, and reverse them if they were not",
        row.currency, row.id,
    )
}

pub(super) fn about(row: &reversal::Model, call: &call::Model, parent: &transfer::Model) -> String {
    let (id, amount, currency) = (row.id, row.amount, &row.currency);
    let transfer = parent.name();
    match row.status {
        ReversalStatus::Reversed => {
            let at_stripe = row.stripe_reversal_id.as_deref().unwrap_or("without an id");
            format!(
                "{amount} {currency} were taken back from transfer {transfer} (reversal {id}, {at_stripe} at Stripe)"
            )
        }
        ReversalStatus::Pending => {
            format!(
                "{amount} {currency} may be taken back from transfer {transfer}: Stripe was asked (reversal {id}, whose \
                 status says how that ended)"
            )
        }
        ReversalStatus::PermanentlyFailed => {
            let code = call.failure_code.as_deref().unwrap_or("no code");
            format!(
                "{amount} {currency} of transfer {transfer} had failed permanently ({code}): reversal {id} is not owed any \
                 more, and its replay is refused"
            )
        }
        ReversalStatus::Closed if call.failure_code.as_deref() == Some(WITHHELD) => format!(
            "{amount} {currency} were withheld from transfer {transfer} before it was created (reversal {id}), so the seller \
             was paid that much less"
        ),
        ReversalStatus::CalledOff | ReversalStatus::Closed => {
            format!("{amount} {currency} of transfer {transfer} were {} (reversal {id})", row.status)
        }
    }
}

/// What an operator has to do when a refund fails whose transfer the provider had reversed itself.
pub(super) fn reversed_by_the_provider(refund_ref: &str) -> String {
    format!(
        "refund {refund_ref} failed after its provider had reversed the transfer together with it: look there whether the \
         seller has the money again, and pay it back with a new transfer if not"
    )
}

/// What an operator has to do when a refund succeeds after all, whose failure needed attention: `before`.
pub(super) fn of_revived(before: &str) -> String {
    format!(
        "the refund failed at its provider and has succeeded there later; if a seller was paid back meanwhile, take that \
         back. Before: {before}"
    )
}

/// What an operator has to do when the provider has reversed one of several transfers and did not say which.
pub(super) fn one_of_several(payment: &payment::Model, transfers: &[transfer::Model]) -> String {
    let names = transfers.iter().take(10).map(transfer::Model::name);
    format!(
        "the provider reversed one of the {} transfers of payment {} with the refund, and did not say which ({}): report the \
         refund with what the others owe (POST /v1/refunds)",
        transfers.len(),
        payment.payment_ref,
        names.collect::<Vec<_>>().join(", ")
    )
}

/// What an operator has to do about a reversal that was adopted, of a claim that takes nothing.
pub(super) fn adopted_needlessly(row: &reversal::Model, call: &call::Model, parent: &transfer::Model) -> String {
    let what = about(row, call, parent);
    format!("nothing is owed for it, and {what}. That counts towards the payment's next refund by ratio; {ADVICE}")
}

/// What an operator has to do where Stripe has taken another amount than the claim asks.
pub(super) fn adopted_with_another_amount(asked: i64, taken: i64, parent: &transfer::Model) -> String {
    let transfer = parent.name();
    let do_it =
        if taken < asked { "reverse the rest at Stripe if it is owed" } else { "pay the seller back if it is not" };
    format!(
        "Stripe has taken {taken} {} of transfer {transfer} for it, and it asks for {asked}: {do_it}",
        parent.currency
    )
}

/// What an operator has to do about what a payment's claims by ratio owe of a transfer, and none of them can ask for.
pub(super) fn missing(amount: i64, parent: &transfer::Model) -> String {
    format!(
        "{amount} {} more of transfer {} are owed for the payment's claims, and are not taken automatically, since each of them \
         has its reversal of that transfer: reverse them at Stripe",
        parent.currency,
        parent.name()
    )
}

/// What an operator has to do where a refund names another share of a transfer than it has asked of it before.
pub(super) fn another_share(row: &reversal::Model, share: i64, parent: &transfer::Model) -> String {
    let transfer = parent.name();
    let asked = row.amount + row.amount_closed;
    let do_it = if asked < share { "reverse the rest at Stripe" } else { "pay the seller back what is too much" };
    format!(
        "{share} {} of transfer {transfer} are named, and {asked} were asked for before (reversal {}): once that has ended, {do_it}",
        parent.currency, row.id
    )
}

const IN_PART: &str = " in dispute were reinstated";

/// `attention` without what `reinstated_in_part` said.
pub(super) fn without_reinstatement(attention: &str) -> Option<String> {
    sentences(attention, |sentence| !sentence.contains(IN_PART))
}

/// Of `attention` only what `reinstated_in_part` said.
pub(super) fn reinstatement(attention: &str) -> Option<String> {
    sentences(attention, |sentence| sentence.contains(IN_PART))
}

fn sentences(attention: &str, are_meant: impl Fn(&&str) -> bool) -> Option<String> {
    let meant: Vec<&str> = attention.split(". ").filter(are_meant).collect();
    (!meant.is_empty()).then(|| meant.join(". "))
}

/// What an operator has to do about a dispute of which a part came back to the platform. `too_much` of that are owed for by the
/// sellers all the same, if that is known: refunds of the same payment may need the rest.
pub(super) fn reinstated_in_part(reinstated: i64, too_much: Option<i64>, amount: i64, currency: &str) -> String {
    let so_far = too_much.map(|too_much| format!(" ({too_much} {currency} when this was told)")).unwrap_or_default();
    format!(
        "{reinstated} {currency} of the {amount} {currency}{IN_PART}: pay the sellers back, with new transfers, their part of as much \
         of that as the payment's refunds do not take{so_far}"
    )
}

/// What an operator has to look at where a dispute is about more than was paid, which exchange rates may make of it.
pub(super) fn more_than_paid(claim: &claim::Model, payment: &payment::Model) -> String {
    format!(
        "the dispute is about {} {}, and payment {} was of {} {}: the sellers owe for all of the payment, and for no more",
        claim.amount, claim.currency, payment.payment_ref, payment.amount, payment.currency
    )
}

/// What an operator has to do when the provider and Clawback may both have reversed a transfer for one refund.
pub(super) fn reversed_twice_perhaps(row: &reversal::Model, trr: &str) -> String {
    format!(
        "the provider reversed the transfer itself as {trr}, after Stripe was asked for reversal {} of {} {}: pay the seller \
         back if both were done",
        row.id, row.amount, row.currency
    )
}
