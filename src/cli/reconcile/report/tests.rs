use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::ledger::{RunState, now};

const ALL: [Kind; 9] = [
    Kind::Unrecorded,
    Kind::Missing,
    Kind::Duplicate,
    Kind::WrongAmount,
    Kind::ExternallyReversed,
    Kind::Orphan,
    Kind::UnknownTransfer,
    Kind::UnrecordedTransfer,
    Kind::Incomplete,
];

/// With ids and amounts as long as Stripe's get.
fn difference(kind: Kind, repair: Repair) -> Difference {
    Difference {
        kind,
        transfer_id: Uuid::from_u128(1),
        stripe_transfer_id: "tr_1MiN3gLkdIwHu7ixNCZvFdgA".to_owned(),
        reversal_id: Some(Uuid::from_u128(2)),
        refund_id: Some(Uuid::from_u128(3)),
        stripe_reversal_id: Some("trr_1MiN3gLkdIwHu7ixNCZvFdgA".to_owned()),
        claim: Some("stripe:re_1MiN3gLkdIwHu7ixNCZvFdgA".to_owned()),
        currency: "eur".to_owned(),
        amount_in_ledger: Some(99_999_999_999),
        amount_at_stripe: None,
        detail: "the ledger says one thing and Stripe says quite another, which takes more than a line of words".into(),
        repair,
        at_stripe: None,
    }
}

fn run() -> RunView {
    RunView {
        id: Uuid::from_u128(7),
        state: RunState::Running,
        since: None,
        fix: false,
        counts: Counts::default(),
        differences: 0,
        repaired: 0,
        problem: None,
        operator: "ada".to_owned(),
        started_at: now(),
        updated_at: now(),
        finished_at: None,
        after: None,
    }
}

fn shown(format: Format, differences: &[Difference], complete: bool) -> (String, u64) {
    let mut out = Vec::new();
    let mut report = Report::begin(&mut out, format, run()).unwrap();
    report.add(differences).unwrap();
    let counts = Counts { transfers: 1_000, transfers_without_stripe_id: 3, agreed: 7, on_their_way: 2, given_up: 1 };
    let remaining = report.end(&counts, complete).unwrap();
    (String::from_utf8(out).unwrap(), remaining)
}

#[test]
fn the_table_fits_80_columns_and_says_what_to_do_once_for_each_kind() {
    let all: Vec<_> = ALL.into_iter().chain(ALL).map(|kind| difference(kind, Repair::ByHand)).collect();
    let (table, remaining) = shown(Format::Table, &all, true);
    assert_eq!(remaining, 18);
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for kind in ALL {
        assert_eq!(table.matches(&format!("\n{kind}: ")).count(), 1, "{kind} in\n{table}");
        assert_eq!(table.matches(&format!("\n{kind:<19} tr_1MiN3gLkdIwHu7ixNCZvFdgA ")).count(), 2, "{table}");
    }
}

#[test]
fn what_was_repaired_is_shown_and_does_not_remain() {
    let both = [difference(Kind::Unrecorded, Repair::Done), difference(Kind::Unrecorded, Repair::Refused)];
    let (table, remaining) = shown(Format::Table, &both, true);
    assert_eq!(remaining, 1);
    assert!(table.ends_with("Differences: 1 unrecorded (1 repaired).\n"), "{table}");
    let (table, remaining) = shown(Format::Table, &both[..1], true);
    assert_eq!(remaining, 0);
    assert!(table.ends_with("Differences: none left (1 repaired).\n"), "{table}");
}

#[test]
fn the_json_has_a_stable_shape_also_after_a_failure() {
    let (json, remaining) = shown(Format::Json, &[difference(Kind::WrongAmount, Repair::Possible)], false);
    assert_eq!(remaining, 1);
    let expected = serde_json::json!({
        "differences": [{
            "kind": "wrong_amount",
            "transfer_id": "00000000-0000-0000-0000-000000000001",
            "stripe_transfer_id": "tr_1MiN3gLkdIwHu7ixNCZvFdgA",
            "reversal_id": "00000000-0000-0000-0000-000000000002",
            "refund_id": "00000000-0000-0000-0000-000000000003",
            "stripe_reversal_id": "trr_1MiN3gLkdIwHu7ixNCZvFdgA",
            "claim": "stripe:re_1MiN3gLkdIwHu7ixNCZvFdgA",
            "currency": "eur",
            "amount_in_ledger": 99_999_999_999_i64,
            "amount_at_stripe": null,
            "detail": "the ledger says one thing and Stripe says quite another, which takes more than a line of words",
            "repair": "possible",
        }],
        "summary": {
            "complete": false,
            "run": Uuid::from_u128(7),
            "since": null,
            "transfers": 1_000,
            "transfers_without_stripe_id": 3,
            "agreed": 7,
            "on_their_way": 2,
            "given_up": 1,
            "differences": 1,
            "repaired": 0,
        },
    });
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), expected);
}

#[test]
fn no_difference_is_valid_json_and_a_clear_word() {
    let (json, remaining) = shown(Format::Json, &[], true);
    assert_eq!(remaining, 0);
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["differences"], serde_json::json!([]));
    assert!(shown(Format::Table, &[], true).0.ends_with("The ledger and Stripe agree.\n"));
    assert!(!shown(Format::Table, &[], false).0.contains("agree.\n"), "half a walk proves nothing");
}
