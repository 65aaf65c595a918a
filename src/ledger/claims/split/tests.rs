use proptest::prelude::*;

use super::*;

fn share(amount: i64) -> Share {
    Share { amount, by_ratio: 0, of_failed: 0, by_name: 0, currency: "eur".into() }
}

/// Applies one refund by ratio to `shares` and returns what it asked.
fn refund(payment: i64, refunded_in_all: i64, shares: &mut [Share]) -> Vec<i64> {
    let asks = allocate(payment, refunded_in_all, shares);
    for (share, ask) in shares.iter_mut().zip(&asks) {
        share.by_ratio += ask;
    }
    asks
}

#[test]
fn a_full_refund_asks_for_every_transfer_in_full() {
    assert_eq!(allocate(10_000, 10_000, &[share(6_000), share(3_000)]), [6_000, 3_000]);
}

#[test]
fn a_unit_that_is_left_over_goes_to_the_largest_remainder() {
    // 1,999.3 and 999.7: together 2,999.
    assert_eq!(allocate(10_000, 3_333, &[share(6_000), share(3_000)]), [1_999, 1_000]);
}

#[test]
fn a_refund_beyond_the_payment_asks_for_no_more_than_the_transfers() {
    assert_eq!(allocate(10_000, 12_000, &[share(9_000)]), [9_000]);
}

#[test]
fn transfers_of_different_currencies_are_shared_out_apart() {
    let yen = Share { currency: "jpy".into(), ..share(1_001) };
    assert_eq!(allocate(10_000, 5_000, &[share(9_000), yen]), [4_500, 500]);
}

#[test]
fn the_largest_amounts_do_not_overflow() {
    assert_eq!(allocate(i64::MAX, i64::MAX, &[share(i64::MAX)]), [i64::MAX]);
    let asks = allocate(i64::MAX, i64::MAX - 1, &[share(i64::MAX), share(i64::MAX), share(1)]);
    assert!(asks.iter().all(|&ask| ask >= 0), "{asks:?}");
}

#[test]
fn what_a_named_share_has_used_up_the_other_transfers_give() {
    let used_up = Share { by_name: 6_000, ..share(6_000) };
    assert_eq!(allocate(10_000, 1_000, &[used_up.clone(), share(3_000)]), [0, 900]);
    // The others' part is not asked for again by the next refund.
    let others = Share { by_ratio: 900, ..share(3_000) };
    assert_eq!(allocate(10_000, 2_000, &[used_up, others]), [0, 900]);
}

#[test]
fn what_a_failed_refund_took_from_one_seller_does_not_pay_for_another() {
    // 2,700 stayed with the first one; a refund of 1,000 asks 600 and 300.
    let ahead = Share { by_ratio: 2_700, of_failed: 2_700, ..share(6_000) };
    assert_eq!(allocate(10_000, 1_000, &[ahead.clone(), share(3_000)]), [0, 300]);
    assert_eq!(allocate(10_000, 5_000, &[ahead.clone(), share(3_000)]), [300, 1_500]);
    assert_eq!(allocate(10_000, 10_000, &[ahead, share(3_000)]), [3_300, 3_000]);
}

#[test]
fn what_a_refund_that_stands_took_from_one_seller_pays_for_another() {
    // A named share had used the first one up, and failed: the other gave all of 1,000, and 1,200 are refunded by now.
    let ahead = Share { by_ratio: 1_000, ..share(1_000) };
    assert_eq!(allocate(2_000, 1_200, &[share(1_000), ahead]), [200, 0]);
}

#[test]
fn what_others_took_beyond_a_transfer_is_asked_of_no_other() {
    // 800 of it are on their way by name, and another program took all 1,000.
    let beyond = Share { by_name: 1_800, ..share(1_000) };
    assert_eq!(allocate(2_000, 500, &[beyond, share(1_000)]), [0, 500]);
}

/// Up to seven transfers in up to three currencies.
fn transfers() -> impl Strategy<Value = Vec<Share>> {
    let transfer = (1_i64..100_000, prop::sample::select(vec!["eur", "jpy", "usd"]))
        .prop_map(|(amount, currency)| Share { currency: currency.into(), ..share(amount) });
    prop::collection::vec(transfer, 1..8)
}

/// What has been asked in each currency, by ratio and by name.
fn totals(shares: &[Share]) -> BTreeMap<&str, i64> {
    let mut totals = BTreeMap::new();
    for share in shares {
        *totals.entry(share.currency.as_str()).or_default() += share.by_ratio + share.by_name;
    }
    totals
}

#[derive(Clone, Debug)]
enum Step {
    ByRatio(i64),
    Named(Vec<i64>),
}

/// Refunds that all fit, whatever their order: each transfer is asked by name for at most what the refunds by ratio leave
/// of it.
fn steps(payment: i64, shares: &[Share]) -> impl Strategy<Value = Vec<Step>> + use<> {
    let ratio = prop::collection::vec(1..=payment.max(5) / 5, 0..5)
        .prop_map(move |cuts| cuts.into_iter().map(|cut| cut.min(payment / 5)).collect::<Vec<_>>());
    let amounts: Vec<i64> = shares.iter().map(|share| share.amount).collect();
    (ratio, prop::collection::vec(prop::collection::vec(0_i64..=100, amounts.len()), 0..4)).prop_map(
        move |(ratio, named)| {
            let by_ratio: i64 = ratio.iter().sum();
            let spare: Vec<i64> = amounts
                .iter()
                .map(|&amount| {
                    let owed = i128::from(amount) * i128::from(by_ratio) / i128::from(payment.max(1));
                    (amount - i64::try_from(owed).unwrap_or(amount) - 2).max(0)
                })
                .collect();
            let named = named.into_iter().map(|percents| {
                Step::Named(percents.iter().zip(&spare).map(|(percent, spare)| spare * percent / 400).collect())
            });
            ratio.into_iter().map(Step::ByRatio).chain(named).collect()
        },
    )
}

fn apply(payment: i64, steps: &[Step], mut shares: Vec<Share>) -> Vec<Share> {
    let mut refunded = 0;
    for step in steps {
        match step {
            Step::ByRatio(amount) => {
                refunded += amount;
                refund(payment, refunded, &mut shares);
            }
            Step::Named(amounts) => {
                for (share, amount) in shares.iter_mut().zip(amounts) {
                    share.by_name += amount;
                }
            }
        }
        for share in &shares {
            assert!(share.by_ratio + share.by_name <= share.amount, "{share:?} after {step:?}");
        }
    }
    shares
}

proptest! {
    #[test]
    fn partial_refunds_add_up_to_the_whole_exactly(
        mut shares in transfers(),
        fee in 0_i64..10_000,
        cuts in prop::collection::vec(1_i64..1_000, 0..12),
    ) {
        let payment = shares.iter().map(|share| share.amount).sum::<i64>() + fee;
        let weight: i64 = cuts.iter().sum::<i64>().max(1);
        let mut refunded = 0;
        for cut in &cuts {
            refunded += payment * cut / (weight + 1);
            let asks = refund(payment, refunded, &mut shares);
            prop_assert!(asks.iter().all(|&ask| ask >= 0));
            for share in &shares {
                prop_assert!(share.by_ratio <= share.amount);
                // Never more than a unit away from the exact ratio.
                let exact = i128::from(share.amount) * i128::from(refunded) / i128::from(payment);
                prop_assert!((i128::from(share.by_ratio) - exact).abs() <= 1);
            }
        }
        refund(payment, payment, &mut shares);
        for share in &shares {
            prop_assert_eq!(share.by_ratio, share.amount);
        }
    }

    #[test]
    fn what_is_asked_by_ratio_is_the_exact_sum_of_each_currency_after_every_refund(
        mut shares in transfers(),
        fee in 0_i64..10_000,
        cuts in prop::collection::vec(0_i64..20_000, 1..10),
    ) {
        let payment = shares.iter().map(|share| share.amount).sum::<i64>() + fee;
        let mut refunded = 0;
        for cut in cuts {
            refunded = (refunded + cut).min(payment);
            refund(payment, refunded, &mut shares);
            for (currency, asked) in totals(&shares) {
                let all: i128 = shares.iter().filter(|it| it.currency == currency).map(|it| i128::from(it.amount)).sum();
                prop_assert_eq!(i128::from(asked), all * i128::from(refunded) / i128::from(payment));
            }
        }
    }

    #[test]
    fn refunds_by_ratio_and_by_name_in_any_order_ask_the_same_in_total(
        (payment, shares, steps, shuffled) in (transfers(), 0_i64..10_000).prop_flat_map(|(shares, fee)| {
            let payment = shares.iter().map(|share| share.amount).sum::<i64>() + fee;
            steps(payment, &shares).prop_flat_map(move |steps| {
                (Just(payment), Just(shares.clone()), Just(steps.clone()), Just(steps).prop_shuffle())
            })
        }),
    ) {
        let one = apply(payment, &steps, shares.clone());
        let other = apply(payment, &shuffled, shares);
        prop_assert_eq!(totals(&one), totals(&other));
    }

    #[test]
    fn whatever_was_asked_before_no_transfer_is_asked_for_more_than_it_has(
        transfers in transfers(),
        parts in prop::collection::vec((0_i64..=100, 0_i64..=100), 8),
        payment in 1_i64..500_000,
        refunded in 0_i64..600_000,
    ) {
        let shares: Vec<Share> = transfers
            .into_iter()
            .zip(parts)
            .map(|(share, (asked, named))| {
                let by_ratio = share.amount * asked / 100;
                let by_name = (share.amount - by_ratio) * named / 100;
                Share { by_ratio, by_name, ..share }
            })
            .collect();
        for (share, ask) in shares.iter().zip(allocate(payment, refunded, &shares)) {
            prop_assert!(ask >= 0 && share.by_ratio + share.by_name + ask <= share.amount, "{:?} {}", share, ask);
        }
    }
}

#[test]
fn what_a_short_transfer_lacks_the_others_share_alike() {
    let short = Share { by_name: 5_900, ..share(6_000) };
    assert_eq!(allocate(18_000, 9_000, &[short, share(6_000), share(6_000)]), [100, 4_450, 4_450]);
}

#[test]
fn a_unit_goes_to_no_transfer_that_has_given_its_own_already() {
    let mut shares = [share(100), share(100), share(100)];
    assert_eq!(refund(300, 1, &mut shares), [1, 0, 0]);
    assert_eq!(refund(300, 2, &mut shares), [0, 1, 0]);
    assert_eq!(refund(300, 3, &mut shares), [0, 0, 1]);
}
