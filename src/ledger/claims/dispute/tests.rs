#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

use std::collections::BTreeSet;

use super::*;
use crate::ledger::claims::Received;
use crate::ledger::claims::accept::{Decision, What};
use crate::ledger::db::Change;
use crate::ledger::events::{EventContent, Receipt, RefundEvent, RefundProgress, WebhookEvent};
use crate::ledger::schema::{payment, transfer};
use crate::ledger::status::{CallState, ReversalEvent, ReversalStatus, TransferStatus};

const POLICIES: [DisputePolicy; 3] = [DisputePolicy::Off, DisputePolicy::Lost, DisputePolicy::Withdrawn];

/// A payment of 100.00 of which two sellers got 60.00 and 30.00.
fn paid() -> Book {
    paid_by(&[6_000, 3_000])
}

fn paid_by(amounts: &[i64]) -> Book {
    let mut book = Book::empty(&["pi_1", "ch_1"]);
    let (now, note, payment_id) = (book.now, Note::new("test", "registered"), Uuid::now_v7());
    let (payment_ref, currency) = ("pi_1".to_owned(), "eur".to_owned());
    let row = payment::Model {
        id: payment_id,
        payment_ref,
        amount: 10_000,
        currency,
        found_at_stripe: false,
        created_at: now,
    };
    book.add_payment(row, &note);
    for (position, &amount) in (0..).zip(amounts) {
        let row = transfer::Model {
            reversed_before: 0,
            adopted: None,
            withheld: 0,
            refund_application_fee: false,
            id: Uuid::now_v7(),
            payment_id,
            position,
            ordinal: 0,
            seller_id: format!("s{position}"),
            stripe_transfer_id: Some(format!("tr_{position}")),
            destination: "acct_1".to_owned(),
            amount,
            amount_reversed: 0,
            currency: "eur".to_owned(),
            status: TransferStatus::Completed,
            created_by_us: false,
            created_at: now,
            updated_at: now,
        };
        book.add_transfer(row, &note);
    }
    book
}

fn dispute(stage: DisputeStage, amount: i64) -> EventContent {
    EventContent::Dispute(DisputeEvent {
        dispute_ref: "du_1".into(),
        payment_ref: "pi_1".into(),
        charge_ref: Some("ch_1".into()),
        amount,
        currency: "eur".into(),
        stage,
        reinstated: 0,
        created: None,
    })
}

fn refund(n: usize, amount: i64) -> EventContent {
    EventContent::Refunds(vec![RefundEvent {
        refund_ref: format!("re_{n}"),
        payment_ref: "pi_1".into(),
        charge_ref: Some("ch_1".into()),
        amount,
        currency: "eur".into(),
        created: None,
        updated: None,
        account: String::new(),
        progress: RefundProgress::Succeeded,
        charge: None,
        provider_reversal: None,
        shares: None,
    }])
}

fn receive(book: &mut Book, policy: DisputePolicy, content: &EventContent) -> Receipt {
    let event = WebhookEvent {
        source: Source::Stripe,
        event_id: Uuid::now_v7().to_string(),
        event_type: "a test's".into(),
        object_id: None,
        content: content.clone(),
    };
    book.policy.disputes = policy;
    Received { event, traceparent: None }.apply(book).unwrap()
}

/// The dispute's status, stage and reason, and what each transfer is asked for in all.
type End = (String, [i64; 2]);

fn end(book: &Book) -> End {
    let claim = find(book, Source::Stripe, "du_1").unwrap();
    let reason = claim.status_reason.filter(|_| claim.status != ClaimStatus::Matched);
    let asked = |position| {
        let id = book.transfers.all().find(|row| row.position == position).unwrap().id;
        let rows = book.reversals_of(id).into_iter().filter(|row| row.status != ReversalStatus::CalledOff);
        rows.map(|row| row.amount).sum()
    };
    let text = format!("{} {:?} {reason:?} {:?}", claim.status, claim.stage, claim.attention);
    // How many were called off depends on whether any had been made.
    (
        text.replace("; 2 reversals were called off", "").replace("; 0 reversals were called off", ""),
        [asked(0), asked(1)],
    )
}

fn permutations(events: &[EventContent]) -> Vec<Vec<EventContent>> {
    if events.is_empty() {
        return vec![Vec::new()];
    }
    let rest = |first: usize| [&events[..first], &events[first + 1..]].concat();
    let with_first = |first: usize| {
        permutations(&rest(first)).into_iter().map(move |rest| [vec![events[first].clone()], rest].concat())
    };
    (0..events.len()).flat_map(with_first).collect()
}

/// All ends of these events, in every order, each once and each also repeated behind all others.
fn ends(policy: DisputePolicy, events: &[EventContent]) -> BTreeSet<End> {
    let mut ends = BTreeSet::new();
    for order in permutations(events) {
        let mut book = paid();
        for event in &order {
            receive(&mut book, policy, event);
            for transfer in book.transfers.all() {
                let rows = book.reversals_of(transfer.id).into_iter();
                let asked: i64 = rows.filter(|row| row.status != ReversalStatus::CalledOff).map(|row| row.amount).sum();
                assert!(asked <= transfer.amount, "{asked} of {} in {order:?}", transfer.amount);
            }
        }
        ends.insert(end(&book));
        for event in &order {
            receive(&mut book, policy, event);
        }
        ends.insert(end(&book));
    }
    ends
}

#[test]
fn in_every_order_and_repeated_the_events_of_a_dispute_have_the_same_end() {
    use DisputeStage::{Inquiry, Lost, Open, Settled, Withdrawn, Won};
    let nothing = [0, 0];
    for (stages, amount, taken_if) in [
        (&[Open, Withdrawn, Open, Lost][..], 10_000, &[DisputePolicy::Lost, DisputePolicy::Withdrawn][..]),
        (&[Open, Withdrawn, Withdrawn, Lost], 5_000, &[DisputePolicy::Lost, DisputePolicy::Withdrawn]),
        (&[Open, Withdrawn, Withdrawn], 5_000, &[DisputePolicy::Withdrawn]),
        (&[Inquiry, Inquiry, Open, Withdrawn], 10_000, &[DisputePolicy::Withdrawn]),
        (&[Open, Withdrawn, Won, Won], 10_000, &[]),
        (&[Open, Withdrawn, Lost, Won], 10_000, &[]),
        (&[Inquiry, Open, Withdrawn, Settled], 10_000, &[]),
        (&[Inquiry, Inquiry, Inquiry], 10_000, &[]),
    ] {
        for policy in POLICIES {
            let events: Vec<EventContent> = stages.iter().map(|stage| dispute(*stage, amount)).collect();
            let ends = ends(policy, &events);
            assert_eq!(ends.len(), 1, "{policy} {stages:?}: {ends:?}");
            let (end, asked) = ends.into_iter().next().unwrap();
            let share = amount * 6 / 10;
            let expected = if taken_if.contains(&policy) { [share, share / 2] } else { nothing };
            assert_eq!(asked, expected, "{policy} {stages:?}: {end}");
            assert_eq!(end.starts_with("matched"), asked != nothing, "{policy} {stages:?}: {end}");
        }
    }
}

#[test]
fn refunds_and_a_dispute_of_one_payment_share_one_cap_in_every_order() {
    use DisputeStage::{Lost, Open, Withdrawn, Won};
    for (refunds, amount, total) in [
        (&[10_000][..], 10_000, [6_000, 3_000]),
        (&[4_000, 6_000], 10_000, [6_000, 3_000]),
        (&[5_000], 3_000, [4_800, 2_400]),
        (&[2_000, 5_000], 6_000, [6_000, 3_000]),
    ] {
        for policy in [DisputePolicy::Lost, DisputePolicy::Withdrawn] {
            let disputed = [dispute(Open, amount), dispute(Withdrawn, amount), dispute(Lost, amount)];
            let refunds = refunds.iter().enumerate().map(|(n, amount)| refund(n, *amount));
            let events: Vec<EventContent> = disputed.into_iter().chain(refunds).collect();
            let totals: BTreeSet<[i64; 2]> = ends(policy, &events).into_iter().map(|(_, asked)| asked).collect();
            assert_eq!(totals, BTreeSet::from([total]), "{policy}");
        }
    }
    // What a dispute that was won had left no room for is taken after all.
    for policy in POLICIES {
        let events = [dispute(Withdrawn, 10_000), dispute(Lost, 10_000), dispute(Won, 10_000), refund(1, 10_000)];
        let totals: BTreeSet<[i64; 2]> = ends(policy, &events).into_iter().map(|(_, asked)| asked).collect();
        assert_eq!(totals, BTreeSet::from([[6_000, 3_000]]), "{policy}");
    }
}

#[test]
fn what_was_taken_for_a_dispute_that_is_won_is_to_be_paid_back_as_far_as_no_refund_needs_it() {
    let reverse_all = |book: &mut Book| {
        let ids: Vec<Uuid> = book.reversals.all().map(|row| row.id).collect();
        for id in ids {
            let call = book.call(id).unwrap();
            book.put_call(crate::ledger::Call { requested_at: Some(book.now), ..call });
            let event = ReversalEvent::Succeeded;
            book.move_reversal(id, event, &Note::new("test", "done"), |row| {
                row.stripe_reversal_id = Some(format!("trr_{}", row.amount));
            })
            .unwrap();
        }
    };
    let won = dispute(DisputeStage::Won, 10_000);
    let mut book = paid();
    receive(&mut book, DisputePolicy::Lost, &dispute(DisputeStage::Lost, 10_000));
    reverse_all(&mut book);
    let Receipt::Failed { called_off: 0, attention: Some(attention) } = receive(&mut book, DisputePolicy::Lost, &won)
    else {
        unreachable!("it is over")
    };
    for words in ["6000 eur for transfer tr_0 (seller s0)", "3000 eur for transfer tr_1 (seller s1)", "trr_6000"] {
        assert!(attention.contains(words), "{words}: {attention}");
    }

    // A refund of half the payment keeps half of it; one of all keeps everything.
    for (amount, expected) in [(5_000, Some("3000 eur for transfer tr_0 (seller s0)")), (10_000, None)] {
        let mut book = paid();
        receive(&mut book, DisputePolicy::Lost, &dispute(DisputeStage::Lost, 10_000));
        receive(&mut book, DisputePolicy::Lost, &refund(1, amount));
        reverse_all(&mut book);
        receive(&mut book, DisputePolicy::Lost, &won);
        let attention = find(&book, Source::Stripe, "du_1").unwrap().attention;
        assert_eq!(attention.is_some(), expected.is_some(), "{attention:?}");
        assert!(attention.unwrap_or_default().contains(expected.unwrap_or_default()));
    }
}

#[test]
fn a_dispute_from_before_the_ledger_was_in_use_is_held_whatever_the_policy() {
    let mut book = paid();
    book.policy.refunds_since = Some(book.now);
    let before = Some(book.now - chrono::TimeDelta::seconds(1));
    for (stage, status) in [
        (DisputeStage::Withdrawn, ClaimStatus::Held),
        (DisputeStage::Lost, ClaimStatus::Held),
        (DisputeStage::Won, ClaimStatus::Failed),
    ] {
        let EventContent::Dispute(event) = dispute(stage, 10_000) else { unreachable!("it is a dispute") };
        let old = EventContent::Dispute(DisputeEvent { created: before, ..event });
        receive(&mut book, DisputePolicy::Withdrawn, &old);
        let claim = find(&book, Source::Stripe, "du_1").unwrap();
        assert_eq!((claim.status, claim.stage), (status, Some(stage)));
        if status == ClaimStatus::Held {
            assert!(claim.status_reason.unwrap().contains("REFUNDS_SINCE"));
        }
    }
    assert_eq!(book.reversals.all().count(), 0);
}

#[test]
fn a_contradictory_amount_needs_attention_once() {
    let mut book = paid();
    receive(&mut book, DisputePolicy::Lost, &dispute(DisputeStage::Open, 10_000));
    for _ in 0..2 {
        receive(&mut book, DisputePolicy::Lost, &dispute(DisputeStage::Lost, 9_000));
    }
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    let attention = claim.attention.unwrap();
    assert_eq!((claim.amount, attention.matches("9000 eur").count()), (10_000, 1), "{attention}");
}

#[test]
fn a_held_dispute_that_is_accepted_still_says_which_part_came_back() {
    let mut book = paid();
    let EventContent::Dispute(event) = dispute(DisputeStage::Withdrawn, 10_000) else {
        unreachable!("it is a dispute")
    };
    receive(&mut book, DisputePolicy::Off, &EventContent::Dispute(DisputeEvent { reinstated: 4_000, ..event }));
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    assert_eq!(claim.status, ClaimStatus::Held);
    Decision::of(&claim, What::Accept, &Note::new("ada", "the bank keeps the rest")).apply(&mut book).unwrap();
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    let attention = claim.attention.unwrap_or_default();
    assert_eq!(
        (claim.status, attention.contains("4000 eur of the 10000 eur")),
        (ClaimStatus::Matched, true),
        "{attention}"
    );
}

/// Stripe was asked and did nothing. Before, the refund counted on what the dispute might take.
#[test]
fn what_a_refund_left_to_a_dispute_that_was_won_is_asked_for_once_stripe_has_not_done_it() {
    let mut book = paid();
    receive(&mut book, DisputePolicy::Withdrawn, &dispute(DisputeStage::Withdrawn, 10_000));
    let of_dispute: Vec<Uuid> = book.reversals.all().map(|row| row.id).collect();
    for id in &of_dispute {
        let call = book.call(*id).unwrap();
        book.put_call(crate::ledger::Call { requested_at: Some(book.now), ..call });
    }
    receive(&mut book, DisputePolicy::Withdrawn, &dispute(DisputeStage::Won, 10_000));
    receive(&mut book, DisputePolicy::Withdrawn, &refund(1, 10_000));
    assert_eq!(book.reversals.all().count(), 2, "the refund finds all of it asked for");
    for id in of_dispute {
        let call = book.call(id).unwrap();
        book.put_call(call.moved_to(CallState::CalledOff, book.now));
        book.move_reversal(id, ReversalEvent::CalledOff, &Note::new("test", "not there"), |_| {}).unwrap();
        crate::ledger::claims::review(&mut book, (id, true), "test", None).unwrap();
    }
    let mut pending: Vec<i64> =
        book.reversals.all().filter(|row| row.status == ReversalStatus::Pending).map(|row| row.amount).collect();
    pending.sort_unstable();
    assert_eq!(pending, [3_000, 6_000], "by the refund");
}

fn reinstated(stage: DisputeStage, reinstated: i64) -> EventContent {
    let EventContent::Dispute(event) = dispute(stage, 10_000) else { unreachable!("it is a dispute") };
    EventContent::Dispute(DisputeEvent { reinstated, ..event })
}

/// Stripe gives back what was refunded already of a charge that is disputed in full: the platform has lost as much as was paid.
#[test]
fn of_what_is_reinstated_as_much_is_to_be_paid_back_as_no_refund_beside_the_dispute_takes() {
    for (refunded, expected) in [(4_000, 0), (1_000, 3_000), (0, 4_000)] {
        let mut book = paid();
        if refunded > 0 {
            receive(&mut book, DisputePolicy::Lost, &refund(1, refunded));
        }
        receive(&mut book, DisputePolicy::Lost, &reinstated(DisputeStage::Lost, 4_000));
        let attention = find(&book, Source::Stripe, "du_1").unwrap().attention.unwrap();
        assert!(attention.contains(&format!("({expected} eur when this was told)")), "{refunded}: {attention}");
    }
}

/// The policy takes lost ones by now, and its events come again.
#[test]
fn what_an_operator_has_acknowledged_stays_held_until_there_is_news() {
    let mut book = paid();
    receive(&mut book, DisputePolicy::Off, &dispute(DisputeStage::Withdrawn, 10_000));
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    Decision::of(&claim, What::Acknowledge, &Note::new("ada", "the platform bears it")).apply(&mut book).unwrap();
    receive(&mut book, DisputePolicy::Withdrawn, &dispute(DisputeStage::Withdrawn, 10_000));
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    assert_eq!((claim.status, claim.acknowledged_at.is_some()), (ClaimStatus::Held, true));
    receive(&mut book, DisputePolicy::Withdrawn, &dispute(DisputeStage::Lost, 10_000));
    assert_eq!(find(&book, Source::Stripe, "du_1").unwrap().status, ClaimStatus::Matched);
}

#[test]
fn what_is_not_clear_about_a_payment_is_said_beside_what_is_to_be_done_already() {
    let mut book = paid();
    receive(&mut book, DisputePolicy::Lost, &reinstated(DisputeStage::Lost, 4_000));
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    crate::ledger::claims::unclear(&mut book, claim, "the group has other charges, too");
    let attention = find(&book, Source::Stripe, "du_1").unwrap().attention.unwrap();
    assert!(attention.contains("were reinstated") && attention.contains("other charges, too"), "{attention}");
}

#[test]
fn a_dispute_of_more_than_was_paid_takes_all_and_says_so() {
    let mut book = paid();
    receive(&mut book, DisputePolicy::Lost, &dispute(DisputeStage::Lost, 10_050));
    let claim = find(&book, Source::Stripe, "du_1").unwrap();
    let mut asked: Vec<i64> = book.reversals.all().map(|row| row.amount).collect();
    asked.sort_unstable();
    assert_eq!((claim.status, asked), (ClaimStatus::Matched, vec![3_000, 6_000]));
    let attention = claim.attention.unwrap();
    assert!(attention.contains("10050 eur") && attention.contains("of 10000 eur"), "{attention}");
}

/// A destination charge, whose only transfer Stripe reverses together with its refund: it owes the rest for the dispute.
#[test]
fn what_the_provider_took_for_a_refund_is_not_asked_for_a_dispute_again() {
    let EventContent::Refunds(mut refunds) = refund(1, 5_000) else { unreachable!("it is a refund") };
    refunds[0].provider_reversal = Some(crate::ledger::ProviderReversal::default());
    let by_provider = EventContent::Refunds(refunds.clone());
    let asked = |book: &Book| book.reversals.all().map(|row| row.amount).collect::<Vec<_>>();

    let mut book = paid_by(&[9_000]);
    receive(&mut book, DisputePolicy::Lost, &by_provider);
    receive(&mut book, DisputePolicy::Lost, &dispute(DisputeStage::Lost, 10_000));
    assert_eq!(asked(&book), [4_500]);
    // The money is with the seller again, and nothing else could take it.
    refunds[0].progress = RefundProgress::Failed("failed".to_owned());
    receive(&mut book, DisputePolicy::Lost, &EventContent::Refunds(refunds.clone()));
    let failed = book.claims.all().find(|row| row.reference == "re_1").unwrap();
    let attention = failed.attention.clone().unwrap_or_default();
    assert!(attention.contains("4500 eur more of transfer tr_0 are owed"), "{attention}");

    // What is older than the ledger was registered as taken back before.
    let mut book = paid_by(&[9_000]);
    book.policy.refunds_since = Some(book.now);
    let row = book.transfers_of(book.payment_by_ref("pi_1").unwrap().id).pop().unwrap();
    let reversed_before = 4_500;
    book.keep_transfer(row, |row| (row.reversed_before, row.amount_reversed) = (reversed_before, reversed_before));
    refunds[0].progress = RefundProgress::Succeeded;
    refunds[0].created = Some(book.now - chrono::TimeDelta::days(1));
    receive(&mut book, DisputePolicy::Lost, &EventContent::Refunds(refunds));
    receive(&mut book, DisputePolicy::Lost, &refund(2, 5_000));
    assert_eq!(asked(&book), [4_500]);
}
