//! How a refund is shared out over a payment's transfers by ratio. Pure; called by the matching.
//!
//! After refunds of `refunded` out of `payment`, the transfers of one currency together should have given back their sum
//! times `refunded / payment`, each in proportion to its amount. A refund asks each transfer for what is missing to that
//! target, which makes a series of partial refunds add up to the whole exactly, in any order. Fractions of a minor unit
//! go to the largest remainders.
//!
//! Refunds that named their shares themselves stand apart: they neither count in `refunded` nor towards the targets, but
//! what they ask is no longer there to be asked. What a transfer lacks for that reason, the others of its currency give.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What a transfer owes in all, and what has been asked of it already. Minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) amount: i64,
    /// By refunds that were shared out by ratio.
    pub(crate) by_ratio: i64,
    /// By refunds that named their shares, and what was taken back before the registration: no longer there to be asked.
    /// Together with `by_ratio` at most `amount`.
    pub(crate) by_name: i64,
    pub(crate) currency: String,
}

impl Share {
    /// The most that refunds by ratio may ask of it in all.
    fn cap(&self) -> i64 {
        self.amount - self.by_name
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

    // What a refund that failed has taken beyond the target is this seller's, and pays for no other.
    let counted = |(share, target): (&&Share, &Target)| i128::from(share.by_ratio.min(target.at_most()));
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

#[cfg(test)]
mod tests;
