//! How a refund is shared out over a payment's transfers. Pure; called by the matching.
//!
//! Each transfer owes its share by ratio: after refunds of `refunded` out of `payment`, a transfer of `amount` should
//! have given back `amount · refunded / payment`. A refund asks each transfer for what is missing to that target, which
//! makes a series of partial refunds add up to the whole exactly, in any order. Fractions of a minor unit go to the
//! largest remainders, transfers of one currency among themselves.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What a transfer owes in all, and what has been asked of it already. Minor units of `currency`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) amount: i64,
    pub(crate) already_asked: i64,
    pub(crate) currency: String,
}

/// What to ask of each transfer now, in the order of `shares`, when `refunded` of `payment` (both in the payment's
/// currency, this refund included) has gone back to the buyer. Never more than the transfer has left.
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
        allocate_group(payment, refunded, shares, group, &mut asks);
    }
    asks
}

fn allocate_group(payment: i64, refunded: i64, shares: &[Share], group: &[usize], asks: &mut [i64]) {
    // Products of two i64 need 128 bits.
    let exact = |amount: i64| i128::from(amount) * i128::from(refunded);
    let floor_div = |value: i128| i64::try_from(value / i128::from(payment)).unwrap_or(i64::MAX);

    let total: i128 = group.iter().map(|&i| exact(shares[i].amount)).sum();
    let asked: i64 = group.iter().map(|&i| shares[i].already_asked).sum();
    let mut left = (floor_div(total) - asked).max(0);

    for &i in group {
        let target = floor_div(exact(shares[i].amount));
        asks[i] = (target - shares[i].already_asked).clamp(0, left);
        left -= asks[i];
    }
    // The remainders' units: at most one a transfer, the largest fraction first, then the order of registration.
    let mut by_remainder = group.to_vec();
    by_remainder.sort_by_key(|&i| (Reverse(exact(shares[i].amount) % i128::from(payment)), i));
    for &i in by_remainder.iter().cycle().take(group.len() * 2) {
        let share = &shares[i];
        let target = floor_div(exact(share.amount));
        let room = share.amount - share.already_asked - asks[i];
        if left > 0 && room > 0 && share.already_asked + asks[i] <= target {
            asks[i] += 1;
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(amount: i64) -> Share {
        Share { amount, already_asked: 0, currency: "eur".into() }
    }

    /// Applies one refund to `shares` and returns what it asked.
    fn refund(payment: i64, refunded_in_all: i64, shares: &mut [Share]) -> Vec<i64> {
        let asks = allocate(payment, refunded_in_all, shares);
        for (share, ask) in shares.iter_mut().zip(&asks) {
            share.already_asked += ask;
        }
        asks
    }

    #[test]
    fn a_full_refund_asks_for_every_transfer_in_full() {
        assert_eq!(allocate(10_000, 10_000, &[share(6_000), share(3_000)]), [6_000, 3_000]);
    }

    #[test]
    fn a_unit_that_is_left_over_goes_to_the_largest_remainder() {
        // 1,999.8 and 999.9: together 2,999.
        assert_eq!(allocate(10_000, 3_333, &[share(6_000), share(3_000)]), [1_999, 1_000]);
    }

    #[test]
    fn a_refund_beyond_the_payment_asks_for_no_more_than_the_transfers() {
        assert_eq!(allocate(10_000, 12_000, &[share(9_000)]), [9_000]);
    }

    #[test]
    fn transfers_of_different_currencies_are_shared_out_apart() {
        let yen = Share { amount: 1_001, already_asked: 0, currency: "jpy".into() };
        assert_eq!(allocate(10_000, 5_000, &[share(9_000), yen]), [4_500, 500]);
    }

    #[test]
    fn the_largest_amounts_do_not_overflow() {
        assert_eq!(allocate(i64::MAX, i64::MAX, &[share(i64::MAX)]), [i64::MAX]);
    }

    proptest! {
        #[test]
        fn partial_refunds_add_up_to_the_whole_exactly(
            amounts in prop::collection::vec((1_i64..100_000, prop::sample::select(vec!["eur", "jpy", "usd"])), 1..8),
            fee in 0_i64..10_000,
            cuts in prop::collection::vec(1_i64..1_000, 0..12),
        ) {
            let payment = amounts.iter().map(|(amount, _)| amount).sum::<i64>() + fee;
            let mut shares: Vec<Share> = amounts
                .iter()
                .map(|&(amount, currency)| Share { amount, already_asked: 0, currency: currency.into() })
                .collect();
            let weight: i64 = cuts.iter().sum::<i64>().max(1);
            let mut refunded = 0;
            for cut in &cuts {
                refunded += payment * cut / (weight + 1);
                let asks = refund(payment, refunded, &mut shares);
                prop_assert!(asks.iter().all(|&ask| ask >= 0));
                for share in &shares {
                    prop_assert!(share.already_asked <= share.amount);
                    // Never more than a unit away from the exact ratio.
                    let exact = i128::from(share.amount) * i128::from(refunded) / i128::from(payment);
                    prop_assert!((i128::from(share.already_asked) - exact).abs() <= 1);
                }
            }
            refund(payment, payment, &mut shares);
            for share in &shares {
                prop_assert_eq!(share.already_asked, share.amount);
            }
        }
    }
}
