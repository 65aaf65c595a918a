//! Whether a claim fits its payment, and what it asks of each transfer: by ratio, or as it names its shares. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::ledger::LedgerError;
use crate::ledger::book::Book;
use crate::ledger::events::{ClaimKind, NamedShare};
use crate::ledger::input::FieldProblem;
use crate::ledger::schema::{claim, payment, transfer};
use crate::ledger::status::ClaimStatus;

/// How much of a foreign text an error shows.
const SHOWN_CHARS: usize = 60;

/// Why a refund does not fit its payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    /// Where that is in the body of `POST /v1/refunds`.
    pub(super) field: String,
    /// With the value and what is allowed.
    pub(super) problem: String,
}

impl From<Conflict> for LedgerError {
    fn from(Conflict { field, problem }: Conflict) -> Self {
        Self::Invalid(vec![FieldProblem::new(field, problem)])
    }
}

/// Why `claim` can't be shared out over `payment`, with both numbers. No refund is ever clamped.
pub(super) fn check(book: &Book, payment: &payment::Model, claim: &claim::Model) -> Result<(), Conflict> {
    let conflict = |field: &str, problem| Err(Conflict { field: field.to_owned(), problem });
    let payment::Model { amount, currency, .. } = payment;
    if *currency != claim.currency {
        let problem = format!("the {} is in {}, the payment in {currency}", claim.kind, claim.currency);
        return conflict("currency", problem);
    }
    if let Some(captured) = claim.captured.filter(|captured| captured != amount) {
        let problem = format!(
            "payment {} is registered with {amount} {currency}, but its provider captured {captured}; correct the \
             registration",
            payment.payment_ref
        );
        return conflict("amount", problem);
    }
    if claim.kind == ClaimKind::Dispute {
        return Ok(()); // Exchange rates may make one larger than the payment. Its claims take no more than that together.
    }
    let before = so_far(book, payment, claim);
    if before.saturating_add(claim.amount) > *amount {
        let more = if before > 0 { format!(" beside {before} before") } else { String::new() };
        let problem = format!(
            "the {} of {} {currency}{more} is more than payment {} of {amount} {currency}",
            claim.kind, claim.amount, payment.payment_ref
        );
        return conflict("amount", problem);
    }
    Ok(())
}

/// What other claims of its kind have given back of the payment. Refunds and disputes share each transfer's cap, but one
/// payment may have both in full.
fn so_far(book: &Book, payment: &payment::Model, claim: &claim::Model) -> i64 {
    let counts = |row: &&claim::Model| match row.status {
        ClaimStatus::Matched => row.payment_id == Some(payment.id),
        ClaimStatus::NothingToReverse => {
            row.provider_reversal.is_some() && row.names().any(|name| name == payment.payment_ref)
        }
        _ => false,
    };
    let others = book.claims.all().filter(|row| row.id != claim.id && row.kind == claim.kind).filter(counts);
    let others = others.filter(|row| row.currency == claim.currency);
    others.fold(0, |sum, row| sum.saturating_add(row.amount))
}

/// What a transfer owes in all, and what has been asked of it already. Minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) amount: i64,
    /// By refunds that were shared out by ratio, also by those that failed since.
    pub(crate) by_ratio: i64,
    /// What of `by_ratio` was asked for refunds that failed since.
    pub(crate) of_failed: i64,
    /// By refunds that named their shares, and what was taken back before the registration: no longer there to be asked.
    /// Together with `by_ratio` at most `amount`.
    pub(crate) by_name: i64,
    pub(crate) currency: String,
}

impl Share {
    /// The most that refunds by ratio may ask of it in all.
    fn cap(&self) -> i64 {
        // More than is there can be adopted from another program beside what is still on its way.
        (self.amount - self.by_name).max(0)
    }
}

/// What a transfer should have given back in all: `whole`, or one more where there is a remainder.
#[derive(Clone, Copy, Default)]
struct Target {
    whole: i64,
    /// Over a denominator that all transfers with a remainder have in common.
    remainder: i128,
}

impl Target {
    fn at_most(self) -> i64 {
        self.whole + i64::from(self.remainder > 0)
    }
}

/// What to ask of each transfer now, in the order of `shares`, when `refunded` of `payment` (both in the payment's
/// currency, this refund included) has gone back to the buyer by ratio. Never more than the transfer has left.
///
/// After refunds of `refunded` out of `payment`, the transfers of one currency together should have given back their sum
/// times `refunded / payment`, each in proportion to its amount. A refund asks each transfer for what is missing to that
/// target, which makes a series of partial refunds add up to the whole exactly, in any order. Fractions of a minor unit
/// go to the largest remainders.
///
/// Refunds that named their shares themselves stand apart: they neither count in `refunded` nor towards the targets, but
/// what they ask is no longer there to be asked. What a transfer lacks for that reason, the others of its currency give.
///
/// More than the payment counts as all of it.
pub(crate) fn allocate(payment: i64, refunded: i64, shares: &[Share]) -> Vec<i64> {
    let refunded = refunded.clamp(0, payment.max(0));
    let mut asks = vec![0; shares.len()];
    if payment <= 0 {
        return asks;
    }
    let mut by_currency: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, share) in shares.iter().enumerate() {
        by_currency.entry(&share.currency).or_default().push(index);
    }
    for group in by_currency.values() {
        let members: Vec<&Share> = group.iter().map(|&index| &shares[index]).collect();
        for (&index, ask) in group.iter().zip(allocate_group(payment, refunded, &members)) {
            asks[index] = ask;
        }
    }
    asks
}

fn allocate_group(payment: i64, refunded: i64, shares: &[&Share]) -> Vec<i64> {
    // Products of two i64 need 128 bits.
    let sum = |of: fn(&Share) -> i64| shares.iter().map(|share| i128::from(of(share))).sum::<i128>();
    let total = sum(|share| share.amount).saturating_mul(i128::from(refunded)) / i128::from(payment);
    let total = total.min(sum(Share::cap));
    let targets = targets(total, shares);

    // What a refund that failed has taken beyond the target is this seller's, and pays for no other. What one that stands has
    // taken beyond it, while another seller had nothing left, does.
    let counted = |(share, target): (&&Share, &Target)| {
        let standing = share.by_ratio - share.of_failed;
        i128::from(share.by_ratio.min(target.at_most().max(standing)))
    };
    let mut left = total - shares.iter().zip(&targets).map(counted).sum::<i128>();
    let mut asks = Vec::with_capacity(shares.len());
    for (share, target) in shares.iter().zip(&targets) {
        let missing = i128::from(target.whole - share.by_ratio).clamp(0, left.max(0));
        asks.push(i64::try_from(missing).unwrap_or(0));
        left -= missing;
    }
    // The remainders' units: at most one a transfer, the largest remainder first, then the order of registration.
    let mut by_remainder: Vec<usize> = (0..shares.len()).collect();
    by_remainder.sort_by_key(|&i| Reverse(targets[i].remainder));
    for i in by_remainder {
        if left > 0 && shares[i].by_ratio + asks[i] < targets[i].at_most() {
            asks[i] += 1;
            left -= 1;
        }
    }
    asks
}

/// `total` shared out in proportion to the amounts. A transfer that has less than its part gives all it has, and the
/// others share the rest.
fn targets(mut total: i128, shares: &[&Share]) -> Vec<Target> {
    let mut targets = vec![Target::default(); shares.len()];
    let mut open: Vec<usize> = (0..shares.len()).collect();
    loop {
        let weight: i128 = open.iter().map(|&i| i128::from(shares[i].amount)).sum();
        let part = |i: usize| i128::from(shares[i].amount).saturating_mul(total);
        let (short, enough): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&i| i128::from(shares[i].cap()).saturating_mul(weight) <= part(i));
        if short.is_empty() {
            for i in enough {
                let whole = i64::try_from(part(i) / weight).unwrap_or(i64::MAX);
                targets[i] = Target { whole, remainder: part(i) % weight };
            }
            return targets;
        }
        for i in short {
            targets[i].whole = shares[i].cap();
            total -= i128::from(shares[i].cap());
        }
        open = enough;
    }
}

/// What a refund that names its shares asks of each of `transfers`, in their order. `shares` says what has been asked of them
/// already. It replaces the ratio for the whole refund: of a transfer that is not named, or named with 0, nothing is taken. An
/// amount never shrinks silently; a share that does not fit makes the refund a conflict.
pub(super) fn resolve(
    named: &[NamedShare],
    transfers: &[transfer::Model],
    shares: &[Share],
) -> Result<Vec<i64>, Conflict> {
    let mut asks = vec![None; transfers.len()];
    for (index, share) in named.iter().enumerate() {
        let conflict = |field: &str, problem: String| Conflict {
            field: format!("transfers[{index}].{field}"),
            problem: format!("the share of \"{}\" {problem}", shown(&share.transfer_id)),
        };
        let is_it = |transfer: &transfer::Model| {
            transfer.stripe_transfer_id.as_ref() == Some(&share.transfer_id)
                || share.transfer_id.parse().is_ok_and(|id: uuid::Uuid| id == transfer.id)
        };
        let Some(at) = transfers.iter().position(is_it) else {
            let ids: Vec<String> = transfers.iter().take(10).map(transfer::Model::name).collect();
            let problem = format!("is no transfer of this payment; allowed: {}", ids.join(", "));
            return Err(conflict("transfer_id", problem));
        };
        if asks[at].is_some() {
            return Err(conflict("transfer_id", format!("names transfer {} a second time", transfers[at].name())));
        }
        let Some(amount) = amount(&share.amount) else {
            let problem = format!("is \"{}\"; allowed: minor units in digits, from 0", shown(&share.amount));
            return Err(conflict("amount", problem));
        };
        let Share { amount: whole, by_ratio, by_name, currency, .. } = &shares[at];
        let left = whole - by_ratio - by_name;
        if amount > left {
            let problem = format!(
                "is {amount}; allowed: at most {left}, which is what transfer {} of {whole} {currency} has left",
                transfers[at].name()
            );
            return Err(conflict("amount", problem));
        }
        asks[at] = Some(amount);
    }
    Ok(asks.into_iter().map(Option::unwrap_or_default).collect())
}

/// Digits alone: no sign, no point, no space.
fn amount(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Cut, and without characters that PostgreSQL refuses or that a terminal obeys.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod named_tests;
#[cfg(test)]
mod tests;
