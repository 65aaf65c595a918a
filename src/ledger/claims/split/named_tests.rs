#![expect(clippy::expect_used, reason = "tests fail loudly")]

use chrono::Utc;
use uuid::Uuid;

use super::*;
use crate::ledger::TransferStatus;

fn transfer(stripe_transfer_id: &str, amount: i64) -> transfer::Model {
    let at = Utc::now();
    transfer::Model {
        id: Uuid::now_v7(),
        payment_id: Uuid::nil(),
        position: 0,
        ordinal: 0,
        seller_id: "s".into(),
        stripe_transfer_id: Some(stripe_transfer_id.into()),
        destination: "acct_1".into(),
        amount,
        amount_reversed: 0,
        reversed_before: 0,
        adopted: None,
        withheld: 0,
        currency: "eur".into(),
        status: TransferStatus::Completed,
        created_by_us: false,
        refund_application_fee: false,
        created_at: at,
        updated_at: at,
    }
}

/// Of `tr_1` 1,000 of 6,000 have been asked by ratio and 500 by name; `tr_2` has all its 3,000.
fn resolved(named: &[(&str, &str)]) -> Result<Vec<i64>, Conflict> {
    let transfers = [transfer("tr_1", 6_000), transfer("tr_2", 3_000)];
    let share = |amount, by_ratio, by_name| Share { amount, by_ratio, of_failed: 0, by_name, currency: "eur".into() };
    let named: Vec<NamedShare> = named
        .iter()
        .map(|(id, amount)| {
            let transfer_id = if *id == "own id" { transfers[1].id.to_string() } else { (*id).to_owned() };
            NamedShare { transfer_id, amount: (*amount).to_owned() }
        })
        .collect();
    resolve(&named, &transfers, &[share(6_000, 1_000, 500), share(3_000, 0, 0)])
}

#[test]
fn each_transfer_is_asked_for_what_is_named_and_the_others_for_nothing() {
    assert_eq!(resolved(&[("tr_1", "4500"), ("tr_2", "1")]), Ok(vec![4_500, 1]));
    assert_eq!(resolved(&[("tr_2", "3000")]), Ok(vec![0, 3_000]));
    assert_eq!(resolved(&[("own id", "7")]), Ok(vec![0, 7]), "Clawback's own id is as good");
    assert_eq!(resolved(&[("tr_1", "0")]), Ok(vec![0, 0]), "the platform bears it alone");
}

#[test]
fn what_does_not_fit_is_a_conflict_that_names_transfer_value_and_what_is_allowed() {
    for (named, field, words) in [
        (
            vec![("tr_2", "1"), ("tr_9", "1")],
            "transfers[1].transfer_id",
            vec!["share of \"tr_9\"", "allowed: tr_1, tr_2"],
        ),
        (vec![("", "1")], "transfers[0].transfer_id", vec!["share of \"\""]),
        (vec![("tr_2", "1"), ("own id", "1")], "transfers[1].transfer_id", vec!["a second time"]),
        (vec![("tr_1", "4501")], "transfers[0].amount", vec!["share of \"tr_1\"", "4501", "at most 4500"]),
        (vec![("tr_1", "")], "transfers[0].amount", vec!["share of \"tr_1\"", "\"\"", "digits"]),
        (vec![("tr_1", "-5")], "transfers[0].amount", vec!["\"-5\""]),
        (vec![("tr_1", "+5")], "transfers[0].amount", vec!["\"+5\""]),
        (vec![("tr_1", "45.00")], "transfers[0].amount", vec!["\"45.00\""]),
        (vec![("tr_1", "9223372036854775808")], "transfers[0].amount", vec!["9223372036854775808"]),
    ] {
        let conflict = resolved(&named).expect_err("it must not fit");
        assert_eq!(conflict.field, field, "{named:?}");
        for word in words {
            assert!(conflict.problem.contains(word), "{word} is not in: {}", conflict.problem);
        }
    }
}

#[test]
fn what_a_stranger_wrote_is_cut_and_cleaned_before_it_is_shown() {
    let long = format!("tr_\u{0}\u{1b}[31m{}", "x".repeat(5_000));
    let problem = resolved(&[(&long, "1")]).expect_err("it must not fit").problem;
    assert!(problem.len() < 300 && !problem.contains(['\u{0}', '\u{1b}']), "{problem}");
}
