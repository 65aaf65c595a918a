//! One row for each situation: what the ledger has, what Stripe has, what comes of it.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::*;
use crate::ledger::{Source, TransferStatus};

const TRANSFER: &str = "tr_1";

/// A transfer of 1,000 eur on both sides, with these reversals; `ours` oldest first, `theirs` newest first.
struct Case {
    name: &'static str,
    ours: Vec<ReversalView>,
    theirs: Vec<TransferReversal>,
    /// Kind, which reversal of ours, which of Stripe's, amount here, amount there.
    differences: Vec<Found>,
    /// Agreed, on their way, given up.
    counts: (u64, u64, u64),
}

type Found = (Kind, Option<u128>, Option<&'static str>, Option<i64>, Option<i64>);

#[test]
fn each_situation_is_called_by_its_name() {
    use Kind::*;
    let cases = vec![
        case("nothing on either side", vec![], vec![], vec![], (0, 0, 0)),
        case("done on both sides", vec![done(1, 400, "a")], vec![at("a", Some(1), 400)], vec![], (1, 0, 0)),
        case(
            "done at Stripe without our metadata, under the id that the ledger names",
            vec![done(1, 400, "a")],
            vec![at("a", None, 400)],
            vec![],
            (1, 0, 0),
        ),
        case("pending and not at Stripe", vec![pending(1, 400)], vec![], vec![], (0, 1, 0)),
        case("pending on both sides", vec![pending(1, 400)], vec![status("a", 1, "pending")], vec![], (0, 1, 0)),
        case("pending, and failed at Stripe", vec![pending(1, 400)], vec![status("a", 1, "failed")], vec![], (0, 1, 0)),
        case("given up and not at Stripe", vec![given_up(1, 400)], vec![], vec![], (0, 0, 1)),
        case(
            "pending, and done at Stripe",
            vec![pending(1, 400)],
            vec![at("a", Some(1), 400)],
            vec![(Unrecorded, Some(1), Some("a"), Some(400), Some(400))],
            (0, 0, 0),
        ),
        case(
            "given up, and done at Stripe",
            vec![given_up(1, 400)],
            vec![at("a", Some(1), 400)],
            vec![(Unrecorded, Some(1), Some("a"), Some(400), Some(400))],
            (0, 0, 0),
        ),
        case("called off and not at Stripe", vec![called_off(1, 400)], vec![], vec![], (0, 0, 0)),
        case(
            "called off, and done at Stripe",
            vec![called_off(1, 400)],
            vec![at("a", Some(1), 400)],
            vec![(Unrecorded, Some(1), Some("a"), Some(400), Some(400))],
            (0, 0, 0),
        ),
        case(
            "called off, reported otherwise, and done at Stripe",
            vec![called_off(1, 300), done(1, 400, "a")],
            vec![at("a", Some(1), 400)],
            vec![],
            (1, 0, 0),
        ),
        case(
            "given up, and pending at Stripe",
            vec![given_up(1, 400)],
            vec![status("a", 1, "pending")],
            vec![(Unrecorded, Some(1), Some("a"), Some(400), Some(400))],
            (0, 0, 0),
        ),
        case(
            "recorded and not at Stripe",
            vec![done(1, 400, "a")],
            vec![],
            vec![(Missing, Some(1), Some("a"), Some(400), None)],
            (0, 0, 0),
        ),
        case(
            "recorded, and canceled at Stripe",
            vec![done(1, 400, "a")],
            vec![status("a", 1, "canceled")],
            vec![(Missing, Some(1), Some("a"), Some(400), None)],
            (0, 0, 0),
        ),
        case(
            "recorded, and not yet done at Stripe",
            vec![done(1, 400, "a")],
            vec![status("a", 1, "pending")],
            vec![(Missing, Some(1), Some("a"), Some(400), None)],
            (0, 0, 0),
        ),
        case(
            "recorded under an id that is another reversal's",
            vec![done(1, 400, "b"), pending(2, 400)],
            vec![at("b", Some(2), 400)],
            vec![
                (Missing, Some(1), Some("b"), Some(400), None),
                (Unrecorded, Some(2), Some("b"), Some(400), Some(400)),
            ],
            (0, 0, 0),
        ),
        case(
            "done twice at Stripe",
            vec![done(1, 400, "b")],
            vec![at("b", Some(1), 400), at("a", Some(1), 400)],
            vec![(Duplicate, Some(1), Some("a"), Some(400), Some(400))],
            (1, 0, 0),
        ),
        case(
            "done twice at Stripe, and pending here",
            vec![pending(1, 400)],
            vec![at("b", Some(1), 400), at("a", Some(1), 400)],
            vec![
                (Unrecorded, Some(1), Some("a"), Some(400), Some(400)),
                (Duplicate, Some(1), Some("b"), Some(400), Some(400)),
            ],
            (0, 0, 0),
        ),
        case(
            "a failed try before the one that was done",
            vec![done(1, 400, "b")],
            vec![at("b", Some(1), 400), status("a", 1, "failed")],
            vec![],
            (1, 0, 0),
        ),
        case(
            "another amount at Stripe",
            vec![done(1, 400, "a")],
            vec![at("a", Some(1), 401)],
            vec![(WrongAmount, Some(1), Some("a"), Some(400), Some(401))],
            (0, 0, 0),
        ),
        case(
            "another amount at Stripe, and pending here",
            vec![pending(1, 400)],
            vec![at("a", Some(1), 399)],
            vec![(WrongAmount, Some(1), Some("a"), Some(400), Some(399))],
            (0, 0, 0),
        ),
        case(
            "a claim like ours that no row has",
            vec![],
            vec![at("a", Some(9), 400)],
            vec![(Orphan, None, Some("a"), None, Some(400))],
            (0, 0, 0),
        ),
        case(
            "taken back by somebody else, unknown here",
            vec![pending(1, 400)],
            vec![at("a", None, 600)],
            vec![(ExternallyReversed, None, Some("a"), None, Some(600))],
            (0, 1, 0),
        ),
        case(
            "taken back by somebody else for ours",
            vec![external(1, 400, "a")],
            vec![at("a", None, 400)],
            vec![],
            (1, 0, 0),
        ),
        case(
            "two of ours count on one that somebody else made",
            vec![external(1, 400, "a"), external(2, 600, "a")],
            vec![at("a", None, 1_000)],
            vec![],
            (2, 0, 0),
        ),
        case(
            "one of ours counts on two that somebody else made, and names the newest",
            vec![external(1, 1_000, "b")],
            vec![at("b", None, 300), at("a", None, 700)],
            vec![],
            (1, 0, 0),
        ),
        case(
            "somebody else took back more than ours count on",
            vec![external(1, 400, "a")],
            vec![at("a", None, 1_000)],
            vec![(ExternallyReversed, None, Some("a"), Some(400), Some(1_000))],
            (1, 0, 0),
        ),
        case(
            "somebody else took back less than ours count on",
            vec![external(1, 400, "a")],
            vec![at("a", None, 300)],
            vec![(WrongAmount, None, None, Some(400), Some(300))],
            (1, 0, 0),
        ),
        case(
            "what ours count on is not there",
            vec![external(1, 400, "a")],
            vec![],
            vec![(Missing, Some(1), Some("a"), Some(400), None)],
            (0, 0, 0),
        ),
        case(
            "recorded as somebody else's, and done by us as well",
            vec![external(1, 400, "a")],
            vec![at("b", Some(1), 400), at("a", None, 400)],
            vec![(Duplicate, Some(1), Some("b"), Some(400), Some(400))],
            (1, 0, 0),
        ),
    ];
    for Case { name, ours, theirs, differences, counts } in cases {
        let (ours, theirs) = (transfer(ours), at_stripe(theirs));
        let found = compare(&ours, Some(&theirs), &HashSet::new());
        assert_eq!(in_short(&found), differences, "{name}");
        assert_eq!((found.agreed, found.on_their_way, found.given_up), counts, "{name}");
    }
}

#[test]
fn only_what_stripe_has_done_for_our_claim_and_amount_can_be_repaired() {
    let repair = |row: ReversalView, theirs: TransferReversal| {
        let found = compare(&transfer(vec![row]), Some(&at_stripe(vec![theirs])), &HashSet::new());
        found.differences.into_iter().map(|difference| difference.repair).collect::<Vec<_>>()
    };
    assert_eq!(repair(pending(1, 400), at("a", Some(1), 400)), [Repair::Possible]);
    assert_eq!(repair(given_up(1, 400), at("a", Some(1), 400)), [Repair::Possible]);
    assert_eq!(repair(pending(1, 400), status("a", 1, "succeeded")), [Repair::Possible]);
    assert_eq!(repair(given_up(1, 400), status("a", 1, "pending")), [Repair::ByHand]);
    assert_eq!(repair(given_up(1, 400), at("a", Some(1), 399)), [Repair::ByHand]);
    assert_eq!(repair(called_off(1, 400), at("a", Some(1), 400)), [Repair::ByHand], "the seller is owed it");
    assert_eq!(repair(given_up(1, 400), at("a", None, 400)), [Repair::ByHand]);
    assert_eq!(repair(given_up(1, 400), at("a", Some(2), 400)), [Repair::ByHand]);
    let of_another = TransferReversal { transfer: "tr_2".to_owned(), ..at("a", Some(1), 400) };
    assert_eq!(repair(given_up(1, 400), of_another), [Repair::ByHand]);
    let in_dollars = TransferReversal { currency: "usd".to_owned(), ..at("a", Some(1), 400) };
    assert_eq!(repair(given_up(1, 400), in_dollars), [Repair::ByHand]);
}

#[test]
fn a_reversal_that_settles_another_row_settles_no_second_one() {
    let rows = vec![done(1, 400, "a"), pending(2, 400)];
    let found = compare(&transfer(rows), Some(&at_stripe(vec![at("a", Some(2), 400)])), &HashSet::new());
    assert!(found.differences.iter().all(|difference| difference.repair == Repair::ByHand), "{found:?}");
}

#[test]
fn a_list_that_lags_makes_nothing_missing() {
    let mut theirs = at_stripe(vec![at("b", Some(9), 100)]);
    theirs.transfer.amount_reversed = 900;
    for row in [done(1, 400, "a"), external(1, 400, "a")] {
        let found = compare(&transfer(vec![row]), Some(&theirs), &HashSet::new());
        let orphan = (Kind::Orphan, None, Some("b"), None, Some(100));
        assert_eq!(in_short(&found), [(Kind::Incomplete, None, None, None, Some(900)), orphan]);
        assert!(found.differences[1].detail.contains("stripe:re_9"), "an orphan names its claim: {found:?}");
    }
}

#[test]
fn a_transfer_that_stripe_does_not_know_is_one_difference() {
    let found = compare(&transfer(vec![done(1, 400, "a"), pending(2, 100)]), None, &HashSet::new());
    assert_eq!(in_short(&found), [(Kind::UnknownTransfer, None, None, Some(1_000), None)]);
}

#[test]
fn a_transfer_in_another_currency_can_not_be_compared_further() {
    let mut theirs = at_stripe(vec![at("a", Some(1), 400)]);
    theirs.transfer.currency = "usd".to_owned();
    let found = compare(&transfer(vec![pending(1, 400)]), Some(&theirs), &HashSet::new());
    assert_eq!(in_short(&found), [(Kind::WrongAmount, None, None, Some(1_000), Some(1_000))]);
    theirs.transfer.currency = "EUR".to_owned();
    let found = compare(&transfer(vec![pending(1, 400)]), Some(&theirs), &HashSet::new());
    assert_eq!(found.differences[0].kind, Kind::Unrecorded, "letters' case is no difference");
}

#[test]
fn a_transfer_of_another_amount_is_a_difference_and_so_is_a_wrong_sum() {
    let mut theirs = at_stripe(vec![]);
    theirs.transfer.amount = 999;
    let found = compare(&transfer(vec![]), Some(&theirs), &HashSet::new());
    assert_eq!(in_short(&found), [(Kind::WrongAmount, None, None, Some(1_000), Some(999))]);

    let mut ours = transfer(vec![done(1, 400, "a")]);
    ours.amount_reversed = 500;
    let found = compare(&ours, Some(&at_stripe(vec![at("a", Some(1), 400)])), &HashSet::new());
    assert_eq!(in_short(&found), [(Kind::WrongAmount, None, None, Some(500), None)]);
}

#[test]
fn what_stripe_took_back_for_a_refund_is_expected_if_the_ledger_knows_that_refund() {
    let by_refund = TransferReversal { source_refund: Some("re_1".to_owned()), ..at("a", None, 400) };
    let theirs = at_stripe(vec![by_refund]);
    let known = HashSet::from(["re_1".to_owned()]);
    assert_eq!(in_short(&compare(&transfer(vec![]), Some(&theirs), &known)), []);
    let found = compare(&transfer(vec![]), Some(&theirs), &HashSet::new());
    assert_eq!(in_short(&found), [(Kind::ExternallyReversed, None, Some("a"), None, Some(400))]);
    assert!(found.differences[0].detail.contains("re_1"));
}

fn case(
    name: &'static str,
    ours: Vec<ReversalView>,
    theirs: Vec<TransferReversal>,
    differences: Vec<Found>,
    counts: (u64, u64, u64),
) -> Case {
    Case { name, ours, theirs, differences, counts }
}

fn in_short(found: &Comparison) -> Vec<Found> {
    let short = |difference: &Difference| {
        let name = difference.stripe_reversal_id.as_deref().map(|id| match id {
            "a" => "a",
            "b" => "b",
            _ => "another",
        });
        let id = difference.reversal_id.map(|id| id.as_u128());
        (difference.kind, id, name, difference.amount_in_ledger, difference.amount_at_stripe)
    };
    found.differences.iter().map(short).collect()
}

fn transfer(reversals: Vec<ReversalView>) -> TransferView {
    let reversed = reversals.iter().filter(|row| row.status == ReversalStatus::Reversed);
    TransferView {
        id: Uuid::from_u128(100),
        seller_id: "s1".to_owned(),
        stripe_transfer_id: Some(TRANSFER.to_owned()),
        destination: "acct_1".to_owned(),
        amount: 1_000,
        currency: "eur".to_owned(),
        status: TransferStatus::Completed,
        amount_reversed: reversed.map(|row| row.amount).sum(),
        reversed_before: 0,
        refund_application_fee: false,
        adopted_reversals: Vec::new(),
        withheld: 0,
        retry_count: 0,
        next_retry_at: None,
        failure_code: None,
        failure_message: None,
        reversals,
    }
}

fn at_stripe(reversals: Vec<TransferReversal>) -> AtStripe {
    let transfer = Transfer {
        id: TRANSFER.to_owned(),
        amount: 1_000,
        amount_reversed: reversals.iter().filter(|it| it.counts()).map(|it| it.amount).sum(),
        reversed: false,
        currency: "eur".to_owned(),
        source_transaction: None,
        transfer_group: None,
        destination: None,
        livemode: false,
        created: 0,
        metadata: BTreeMap::new(),
    };
    AtStripe { transfer, reversals }
}

fn pending(id: u128, amount: i64) -> ReversalView {
    ReversalView {
        id: Uuid::from_u128(id),
        refund_id: Uuid::from_u128(200),
        source: Source::Stripe,
        refund_ref: format!("re_{id}"),
        transfer_id: Uuid::from_u128(100),
        amount,
        amount_closed: 0,
        currency: "eur".to_owned(),
        status: ReversalStatus::Pending,
        retry_count: 0,
        next_retry_at: None,
        stripe_reversal_id: None,
        externally_reversed: false,
        failure_code: None,
        failure_message: None,
        created_at: chrono::DateTime::UNIX_EPOCH,
    }
}

fn given_up(id: u128, amount: i64) -> ReversalView {
    ReversalView { status: ReversalStatus::PermanentlyFailed, ..pending(id, amount) }
}

fn called_off(id: u128, amount: i64) -> ReversalView {
    ReversalView { status: ReversalStatus::CalledOff, ..pending(id, amount) }
}

fn done(id: u128, amount: i64, named: &str) -> ReversalView {
    let status = ReversalStatus::Reversed;
    ReversalView { status, stripe_reversal_id: Some(named.to_owned()), ..pending(id, amount) }
}

fn external(id: u128, amount: i64, named: &str) -> ReversalView {
    ReversalView { externally_reversed: true, ..done(id, amount, named) }
}

/// One at Stripe, done; `ours` is the number of the claim in its metadata.
fn at(id: &str, ours: Option<u128>, amount: i64) -> TransferReversal {
    let metadata = ours.map(|ours| ("clawback_claim".to_owned(), format!("stripe:re_{ours}")));
    TransferReversal {
        id: id.to_owned(),
        amount,
        currency: "eur".to_owned(),
        transfer: TRANSFER.to_owned(),
        status: None,
        balance_transaction: None,
        created: 0,
        source_refund: None,
        metadata: metadata.into_iter().collect(),
    }
}

/// One of 400 at Stripe for our claim, in this status.
fn status(id: &str, ours: u128, status: &str) -> TransferReversal {
    TransferReversal { status: Some(status.to_owned()), ..at(id, Some(ours), 400) }
}
