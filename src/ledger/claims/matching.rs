//! Brings a claim and its payment together: plans what each transfer owes, then records the reversals with their calls and
//! jobs, and moves the transfers.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::attention;
use super::discovery::look_for_payment;
use super::own_reversal::{self, Part};
use super::split::{self, Conflict, Share, allocate, resolve};
use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::calls::{not_created, withhold};
use crate::ledger::events::{ClaimKind, NamedShare};
use crate::ledger::history::Note;
use crate::ledger::schema::{call, claim, payment, reversal, transfer};
use crate::ledger::status::{CallKind, CallState, ClaimStatus, ReversalStatus, TransferEvent, TransferStatus};

/// What a claim asks of its payment's transfers, in minor units.
#[derive(Debug)]
pub(super) struct Plan {
    /// Of transfers of which it has asked nothing so far.
    asks: Vec<(transfer::Model, i64)>,
    /// Its share of transfers of which it has asked for another amount before.
    others: Vec<(transfer::Model, i64)>,
}

/// What became of a claim that was brought together with its payment.
#[derive(Debug)]
pub(super) enum Match {
    /// Shared out over the transfers.
    Reversals(Vec<Uuid>),
    /// Its provider has done it all, as far as is known.
    NothingToReverse,
    /// It does not fit.
    Conflict(String),
    /// No payment of its names is registered.
    Unmatched,
}

/// What else is known when claims are matched: who does it, and in which trace.
#[derive(Clone, Copy, Debug)]
pub(super) struct By<'a> {
    pub(super) actor: &'a str,
    /// The inbox row of the event that it follows from.
    pub(super) event: Option<Uuid>,
    pub(super) traceparent: Option<&'a str>,
}

/// The payments that are registered under the claim's names: more than one is one too many.
pub(super) fn payments_of(book: &Book, claim: &claim::Model) -> Vec<payment::Model> {
    let mut found: Vec<payment::Model> = claim.names().filter_map(|name| book.payment_by_ref(name)).cloned().collect();
    found.dedup_by_key(|payment| payment.id);
    found
}

/// The one payment of the claim, if it is registered.
pub(super) fn payment_of(book: &Book, claim: &claim::Model) -> Result<Option<payment::Model>, Conflict> {
    match payments_of(book, claim).as_slice() {
        [] => Ok(None),
        [payment] => Ok(Some(payment.clone())),
        several => {
            let names: Vec<&str> = several.iter().map(|payment| payment.payment_ref.as_str()).collect();
            let names = names.join(" and ");
            let problem =
                format!("names one payment that is registered twice, as {names}; keep one registration of it");
            Err(Conflict { field: "payment_ref".to_owned(), problem })
        }
    }
}

/// Brings a recorded claim, which takes nothing so far, together with its payment.
pub(super) fn bring_together(book: &mut Book, claim: &claim::Model, by: By<'_>) -> Result<Match, LedgerError> {
    match payment_of(book, claim) {
        Ok(None) => {
            look_for_payment(book, claim, by);
            Ok(Match::Unmatched)
        }
        Ok(Some(payment)) => match_to(book, &payment, claim, by),
        Err(conflict) => Ok(conflicts(book, claim, conflict, by)),
    }
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
    match match_to(book, payment, claim, By { actor, event: None, traceparent })? {
        Match::Reversals(ids) => Ok(ids),
        Match::NothingToReverse | Match::Conflict(_) | Match::Unmatched => Ok(Vec::new()),
    }
}

/// Tries again what waits for `payment`, which was amended since, or did not fit it. What an operator acknowledged may be settled
/// elsewhere.
pub(in crate::ledger) fn match_again(
    book: &mut Book,
    payment: &payment::Model,
    actor: &str,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let is_open = |row: &&claim::Model| match row.status {
        ClaimStatus::Conflicting => row.acknowledged_at.is_none(),
        _ => waits_for(book, row, &payment.payment_ref),
    };
    let open: Vec<claim::Model> = book.claims.all().filter(is_open).cloned().collect();
    for claim in open {
        let its = payment_of(book, &claim).ok().flatten();
        if its.is_some_and(|its| its.id == payment.id) && plan(book, payment, &claim).is_ok() {
            bring_together(book, &claim, By { actor, event: None, traceparent })?;
        }
    }
    Ok(())
}

/// Has transfers that were added to `payment` owe their part of the claims that were shared out by ratio before: what each
/// would have owed had the payment had these transfers alone. What the claims have asked of the others stays.
pub(in crate::ledger) fn owe_earlier(
    book: &mut Book,
    payment: &payment::Model,
    added: &[Uuid],
    actor: &str,
    traceparent: Option<&str>,
) -> Result<(), LedgerError> {
    let its = |row: &&claim::Model| row.payment_id == Some(payment.id) && takes_by_ratio(row);
    let mut earlier: Vec<claim::Model> = book.claims.all().filter(its).cloned().collect();
    earlier.sort_by_key(|row| (row.matched_at, row.id));
    let mut refunded: i64 = 0;
    for claim in &earlier {
        refunded = refunded.saturating_add(claim.amount);
        // Read anew: the claim before has changed their statuses.
        let mut transfers = book.transfers_of(payment.id);
        transfers.retain(|row| added.contains(&row.id));
        let earlier: Vec<&claim::Model> = earlier.iter().collect();
        let asks = allocate(payment.amount, refunded, &shares(book, payment, &transfers, &earlier, None));
        for (transfer, ask) in transfers.iter().zip(asks).filter(|(_, ask)| *ask > 0) {
            owe(book, payment, transfer, claim, ask, By { actor, event: None, traceparent })?;
        }
    }
    Ok(())
}

/// Whether registering a payment concerns the claim: it waits for it, or its provider has reversed one of the transfers.
pub(in crate::ledger) fn waits_for(book: &Book, claim: &claim::Model, payment_ref: &str) -> bool {
    let waits = match claim.status {
        ClaimStatus::Unmatched => true,
        // A registration knows of transfers that Stripe does not show as the payment's.
        ClaimStatus::NothingToReverse if claim.lookup_id.is_some() => true,
        ClaimStatus::NothingToReverse => {
            claim.provider_reversal.is_some() && book.policy.too_old(claim.provider_created_at).is_none()
        }
        _ => false,
    };
    waits && claim.names().any(|name| name == payment_ref)
}

fn match_to(book: &mut Book, payment: &payment::Model, claim: &claim::Model, by: By<'_>) -> Result<Match, LedgerError> {
    match own_reversal::part_of(book, payment, claim) {
        Part::All => return Ok(own_reversal::settles_all(book, claim, None, by)),
        Part::Unknown => {
            let attention = attention::one_of_several(payment, &book.transfers_of(payment.id));
            return Ok(own_reversal::settles_all(book, claim, Some(attention), by));
        }
        Part::Nothing | Part::Of(_) => {}
    }
    match plan(book, payment, claim) {
        Ok(plan) => Ok(Match::Reversals(carry_out(book, payment, claim, &plan, by)?)),
        Err(conflict) => Ok(conflicts(book, claim, conflict, by)),
    }
}

/// Records that the claim does not fit.
fn conflicts(book: &mut Book, claim: &claim::Model, Conflict { problem, .. }: Conflict, by: By<'_>) -> Match {
    if claim.status == ClaimStatus::Conflicting && claim.status_reason.as_ref() == Some(&problem) {
        return Match::Conflict(problem);
    }
    tracing::warn!(kind = %claim.kind, reference = claim.reference, problem, "the claim does not fit its payment");
    let note = Note::new(by.actor, &problem);
    book.move_claim(claim.clone(), ClaimStatus::Conflicting, &note, |row| {
        row.status_reason = Some(problem.clone());
        row.payment_id = None;
        row.matched_at = None;
        row.lookup_id = None;
    });
    Match::Conflict(problem)
}

/// What `claim` asks of the transfers of `payment`, or why it does not fit. Changes nothing.
pub(super) fn plan(book: &Book, payment: &payment::Model, claim: &claim::Model) -> Result<Plan, Conflict> {
    split::check(book, payment, claim)?;
    let transfers = book.transfers_of(payment.id);
    let mut others = claims_of(book, payment);
    others.retain(|row| row.id != claim.id);
    let shares = shares(book, payment, &transfers, &others, Some(claim.id));
    let asks = match &claim.shares {
        None => allocate(payment.amount, sum_by_ratio(book, payment, &others).saturating_add(claim.amount), &shares),
        Some(named) => resolve(&read_shares(named)?, &transfers, &shares)?,
    };
    let mut plan = Plan { asks: Vec::new(), others: Vec::new() };
    for (transfer, ask) in transfers.into_iter().zip(asks) {
        match book.live_reversal_of(claim.id, transfer.id).map(|row| row.amount + row.amount_closed) {
            None if ask > 0 => plan.asks.push((transfer, ask)),
            Some(asked) if asked != ask => plan.others.push((transfer, ask)),
            None | Some(_) => {}
        }
    }
    Ok(plan)
}

/// Records the claim as matched and what `plan` says, and returns the ids of its new reversals.
pub(super) fn carry_out(
    book: &mut Book,
    payment: &payment::Model,
    claim: &claim::Model,
    plan: &Plan,
    by: By<'_>,
) -> Result<Vec<Uuid>, LedgerError> {
    let note = Note::new(by.actor, format!("matched to payment {}", payment.payment_ref));
    let now = book.now;
    book.move_claim(claim.clone(), ClaimStatus::Matched, &note, |row| {
        row.status_reason = Some(note.reason.clone());
        row.payment_id = Some(payment.id);
        row.matched_at = Some(now);
        // What a look-up at Stripe did not find is found. What came back of a dispute is still to be paid back.
        row.lookup_id = None;
        row.attention = row.attention.as_deref().and_then(attention::reinstatement);
    });
    let ids = plan.asks.iter().map(|(transfer, ask)| owe(book, payment, transfer, claim, *ask, by)).collect();
    if claim.kind == ClaimKind::Dispute && claim.amount > payment.amount {
        attention::add(book, claim.id, &attention::more_than_paid(claim, payment));
    }
    if !plan.others.is_empty() {
        for what in settle_differences(book, payment, claim, &plan.others, by)? {
            attention::add(book, claim.id, &what);
        }
    }
    ids
}

/// Deals with transfers of which `claim`, which is matched, has asked for another amount before than its share. A second
/// reversal beside the first is not possible: both would have the same metadata at Stripe. By ratio the payment's other claims
/// take what is missing. Returns, in words, what is left to an operator.
fn settle_differences(
    book: &mut Book,
    payment: &payment::Model,
    claim: &claim::Model,
    others: &[(transfer::Model, i64)],
    by: By<'_>,
) -> Result<Vec<String>, LedgerError> {
    if claim.shares.is_none() {
        return take_missing(book, payment, by);
    }
    let differs = |(transfer, share): &(transfer::Model, i64)| {
        book.live_reversal_of(claim.id, transfer.id).map(|row| attention::another_share(row, *share, transfer))
    };
    Ok(others.iter().filter_map(differs).collect())
}

/// Records that `transfer` owes `amount` for `claim`, or that the provider has taken that back already. For a transfer that is
/// not created yet see `calls::creation`.
fn owe(
    book: &mut Book,
    payment: &payment::Model,
    transfer: &transfer::Model,
    claim: &claim::Model,
    amount: i64,
    by: By<'_>,
) -> Result<Uuid, LedgerError> {
    let done = own_reversal::transfer_of(book, payment, claim).filter(|(id, _)| *id == transfer.id).map(|(_, trr)| trr);
    let mut note = Note::new(by.actor, format!("{} {}", claim.kind, claim.reference));
    let mut failure = None;
    let (status, state) = match transfer.status {
        TransferStatus::ReversalPending => (ReversalStatus::Pending, CallState::Open),
        TransferStatus::Completed | TransferStatus::PartiallyReversed => {
            book.move_transfer(transfer.id, TransferEvent::RefundArrived, &note, |_| {})?;
            (ReversalStatus::Pending, CallState::Open)
        }
        TransferStatus::Pending | TransferStatus::Failed => match withhold(book, transfer.id, amount, &note)? {
            Some(why) => {
                note.reason = format!("{}; {}", note.reason, why.message);
                failure = Some((why.code, why.message));
                (ReversalStatus::Closed, CallState::CalledOff)
            }
            None => {
                note.reason.push_str("; waits for its transfer to be created");
                (ReversalStatus::Pending, CallState::Waiting)
            }
        },
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
    go_on_with_the_key(book, &mut call, (claim.id, transfer.id), amount)?;
    (call.failure_code, call.failure_message) = failure.unzip();
    if matches!(state, CallState::Open | CallState::Failed) && done.is_none() {
        note.reason.push_str("; its job is in the outbox");
        book.enqueue(&call, by.traceparent);
    }
    book.put_call(call);
    let row = reversal::Model {
        id,
        claim_id: claim.id,
        transfer_id: transfer.id,
        seller_id: transfer.seller_id.clone(),
        amount,
        amount_closed: 0,
        currency: transfer.currency.clone(),
        status,
        stripe_reversal_id: None,
        externally_reversed: false,
        balance_transaction: None,
        created_at: book.now,
        updated_at: book.now,
    };
    book.add_reversal(row, &note);
    if let Some(trr) = done {
        own_reversal::settle(book, id, &trr, by.actor)?;
    }
    Ok(id)
}

/// The key follows from claim and transfer alone. One that was used for a reversal of them that was called off is known to Stripe:
/// the new call goes on with it where that one left it.
fn go_on_with_the_key(
    book: &Book,
    call: &mut call::Model,
    (claim_id, transfer_id): (Uuid, Uuid),
    amount: i64,
) -> Result<(), LedgerError> {
    // The newest: each went on where the one before it left it.
    let Some(before) = book.all_reversals_of(claim_id, transfer_id).last() else { return Ok(()) };
    let known = book.call(before.id)?;
    (call.generation, call.generation_started_at) = (known.generation, known.generation_started_at);
    (call.requested_at, call.key_burnt_at) = (known.requested_at, known.key_burnt_at);
    if known.requested_at.is_some() {
        call.outcome_unknown_since = Some(book.now);
        if before.amount != amount {
            // Stripe may know the key with another amount, and would refuse it: it is left, after two looks.
            call.key_burnt_at.get_or_insert(book.now);
        }
    }
    Ok(())
}

fn read_shares(named: &str) -> Result<Vec<NamedShare>, Conflict> {
    serde_json::from_str(named).map_err(|error| Conflict {
        field: "transfers".to_owned(),
        problem: format!("the shares that were recorded can't be read: {error}"),
    })
}

/// What each transfer has been asked for by claims other than `except`, unless it is not owed any more. What a refund that failed
/// has taken all the same counts as taken by ratio: the next refund does not take it again.
fn shares(
    book: &Book,
    payment: &payment::Model,
    transfers: &[transfer::Model],
    claims: &[&claim::Model],
    except: Option<Uuid>,
) -> Vec<Share> {
    let by_name: HashSet<Uuid> =
        claims.iter().filter(|row| row.shares.is_some() && !row.takes_nothing()).map(|row| row.id).collect();
    let by_ratio: HashSet<Uuid> = claims.iter().filter(|row| takes_by_ratio(row)).map(|row| row.id).collect();
    let mut totals: HashMap<Uuid, (i64, i64, i64)> = HashMap::new();
    for row in book.reversals.all().filter(|row| Some(row.claim_id) != except && book.is_asked(row)) {
        let (standing, failed, name) = totals.entry(row.transfer_id).or_default();
        let total = match row.claim_id {
            claim if by_name.contains(&claim) => name,
            claim if by_ratio.contains(&claim) => standing,
            _ => failed,
        };
        *total += row.amount + row.amount_closed;
    }
    // The provider took it in proportion. There are no rows of that.
    let by_provider: i64 = claims.iter().filter(|row| is_settled(book, payment, row)).map(|row| row.amount).sum();
    let share = |transfer: &transfer::Model| {
        let (standing, of_failed, by_name) = totals.get(&transfer.id).copied().unwrap_or_default();
        let standing = standing + part_of(transfer.amount, by_provider, payment.amount);
        let (by_ratio, by_name) = (standing + of_failed, by_name + transfer.reversed_before);
        Share { amount: transfer.amount, by_ratio, of_failed, by_name, currency: transfer.currency.clone() }
    };
    transfers.iter().map(share).collect()
}

/// Has the payment's other claims by ratio take what they could not take beside `gone`, which is not owed any more. Returns,
/// in words, what none of them can take.
pub(super) fn take_shortfall(
    book: &mut Book,
    payment: &payment::Model,
    gone: &claim::Model,
    by: By<'_>,
) -> Result<Vec<String>, LedgerError> {
    let counts_still = book.claims.get(gone.id).is_some_and(|row| is_settled(book, payment, row));
    let amount = if counts_still { 0 } else { gone.amount };
    if by_ratio_so_far(book, payment).saturating_add(amount) <= payment.amount {
        return Ok(Vec::new()); // They had room beside it.
    }
    take_missing(book, payment, by)
}

/// Has the payment's claims by ratio take what is missing of what they should take together. Returns, in words, what none of
/// them can take, since each of them has its reversal of that transfer.
fn take_missing(book: &mut Book, payment: &payment::Model, by: By<'_>) -> Result<Vec<String>, LedgerError> {
    let of_payment: Vec<claim::Model> = claims_of(book, payment).into_iter().cloned().collect();
    let transfers = book.transfers_of(payment.id);
    let missing = missing(book, payment, &transfers);
    let mut left = Vec::new();
    for (transfer, ask) in transfers.iter().zip(missing).filter(|(_, ask)| *ask > 0) {
        let has_row = |claim: &claim::Model| book.live_reversal_of(claim.id, transfer.id).is_some();
        match of_payment.iter().rev().find(|claim| takes_by_ratio(claim) && !has_row(claim)).cloned() {
            Some(claim) => drop(owe(book, payment, &book.transfer(transfer.id)?, &claim, ask, by)?),
            None => left.push(attention::missing(ask, transfer)),
        }
    }
    Ok(left)
}

/// How much of what later claims by ratio have left to `gone` they would have to take, were it surely not done.
pub(super) fn left_to(book: &Book, payment: &payment::Model, gone: &reversal::Model) -> i64 {
    let transfers = book.transfers_of(payment.id);
    let missing = missing(book, payment, &transfers);
    let of_gone = transfers.iter().zip(missing).find(|(row, _)| row.id == gone.transfer_id);
    of_gone.map_or(0, |(_, ask)| ask.min(gone.amount))
}

/// Has a later claim by ratio take what it left to `gone`, which is surely not done. Returns how much of that none can take.
pub(super) fn owe_again(
    book: &mut Book,
    payment: &payment::Model,
    gone: &reversal::Model,
    by: By<'_>,
) -> Result<i64, LedgerError> {
    let ask = left_to(book, payment, gone);
    let takes = |row: &&claim::Model| takes_by_ratio(row) && book.live_reversal_of(row.id, gone.transfer_id).is_none();
    match claims_of(book, payment).into_iter().rev().find(takes).cloned() {
        Some(claim) if ask > 0 => {
            let transfer = book.transfer(gone.transfer_id)?;
            owe(book, payment, &transfer, &claim, ask, by).map(|_| 0)
        }
        _ => Ok(ask),
    }
}

/// What each transfer has been asked for by ratio beyond what the payment's claims should take.
pub(super) fn excess(book: &Book, payment: &payment::Model) -> HashMap<Uuid, i64> {
    let transfers = book.transfers_of(payment.id);
    let asked = shares(book, payment, &transfers, &claims_of(book, payment), None);
    let fresh: Vec<Share> = asked.iter().map(|share| Share { by_ratio: 0, of_failed: 0, ..share.clone() }).collect();
    let targets = allocate(payment.amount, by_ratio_so_far(book, payment), &fresh);
    let each = transfers.iter().zip(asked).zip(targets);
    each.map(|((transfer, share), target)| (transfer.id, (share.by_ratio - target).max(0))).collect()
}

/// How much of what the payment's claims take by ratio they would not take were they less by `part`.
pub(super) fn owed_for(book: &Book, payment: &payment::Model, part: i64) -> i64 {
    let total = by_ratio_so_far(book, payment);
    total.min(payment.amount) - total.saturating_sub(part).clamp(0, payment.amount)
}

/// What is missing of each transfer of what the payment's claims by ratio should take together.
fn missing(book: &Book, payment: &payment::Model, transfers: &[transfer::Model]) -> Vec<i64> {
    let shares = shares(book, payment, transfers, &claims_of(book, payment), None);
    allocate(payment.amount, by_ratio_so_far(book, payment), &shares)
}

/// The sum of the payment's claims that were shared out by ratio and still count.
fn by_ratio_so_far(book: &Book, payment: &payment::Model) -> i64 {
    sum_by_ratio(book, payment, &claims_of(book, payment))
}

fn sum_by_ratio(book: &Book, payment: &payment::Model, claims: &[&claim::Model]) -> i64 {
    let counts = |row: &&&claim::Model| takes_by_ratio(row) || is_settled(book, payment, row);
    claims.iter().filter(counts).fold(0, |sum, row| sum.saturating_add(row.amount))
}

/// What was matched to the payment, and what its provider has settled.
fn claims_of<'b>(book: &'b Book, payment: &payment::Model) -> Vec<&'b claim::Model> {
    let its = |row: &&claim::Model| row.payment_id == Some(payment.id) || is_settled(book, payment, row);
    book.claims.all().filter(its).collect()
}

fn takes_by_ratio(row: &claim::Model) -> bool {
    row.shares.is_none() && row.status == ClaimStatus::Matched
}

/// Whether the provider has taken the claim's part back itself, of the payment's only transfer. Where Clawback had asked for it as
/// well, that counts alone.
fn is_settled(book: &Book, payment: &payment::Model, row: &claim::Model) -> bool {
    row.status == ClaimStatus::NothingToReverse
        && row.provider_reversal.is_some()
        && row.shares.is_none()
        && row.currency == payment.currency
        // What is older than the ledger was registered as taken back before.
        && book.policy.too_old(row.provider_created_at).is_none()
        && row.names().any(|name| name == payment.payment_ref)
        && match book.transfers_of(payment.id).as_slice() {
            [only] => book.live_reversal_of(row.id, only.id).is_none_or(|ours| !book.is_asked(ours)),
            _ => false,
        }
}

/// What of `amount` goes with `refunded` of `whole`.
fn part_of(amount: i64, refunded: i64, whole: i64) -> i64 {
    let part = i128::from(amount) * i128::from(refunded.clamp(0, whole)) / i128::from(whole.max(1));
    i64::try_from(part).unwrap_or(amount)
}
