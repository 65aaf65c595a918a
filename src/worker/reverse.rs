//! Reversing a transfer: what is asked of Stripe, and what its list means.

use super::sight::{Seen, Sight};
use crate::ledger::{Call, ReversalTarget, claim_name};
use crate::stripe::{Client, Report, ReverseTransfer, Transfer, TransferReversal};

/// A function of what never changes in the row, and of the generation.
pub(crate) fn command(call: &Call, target: &ReversalTarget) -> ReverseTransfer {
    ReverseTransfer {
        transfer_id: target.stripe_transfer_id.clone().unwrap_or_default(),
        amount: target.amount,
        currency: target.currency.clone(),
        claim: claim_name(target.source, &target.claim_ref),
        refund_application_fee: target.refund_application_fee,
        generation: call.generation,
    }
}

/// Reads the transfer, then all its reversals: what the transfer says is reversed must be in a list that is read later.
pub(super) async fn look(stripe: &Client, call: &Call, target: &ReversalTarget) -> Result<Sight, Report> {
    let command = &command(call, target);
    let transfer = stripe.get_transfer(&command.transfer_id).await?;
    // With ours in it, the rest of the list changes nothing.
    let is_it = |reversal: &TransferReversal| reversal.claim() == Some(&command.claim) && reversal.counts();
    let list = stripe.list_reversals_until(&command.transfer_id, is_it).await?;
    let sight = sight(command, call, target, &transfer, &list.items);
    Ok(Sight { request_id: list.request_id, ..sight })
}

/// What `transfer` and `reversals`, read after it, mean for the call. Pure.
pub(crate) fn sight(
    command: &ReverseTransfer,
    call: &Call,
    target: &ReversalTarget,
    transfer: &Transfer,
    reversals: &[TransferReversal],
) -> Sight {
    let complete = transfer.is_explained_by(reversals);
    let counting = || reversals.iter().filter(|reversal| reversal.counts());
    let by_others = || counting().filter(|reversal| reversal.claim().is_none());
    let covers = by_others().map(|reversal| reversal.amount).sum::<i64>() >= command.amount;
    let foreign = by_others().next().filter(|_| covers).map(|newest| newest.id.clone());
    let nothing_left = counting().map(|reversal| reversal.amount).sum::<i64>() >= transfer.amount;
    let ours = reversals.iter().filter(|reversal| reversal.claim() == Some(&command.claim));
    // One that Stripe has ended only where there is no other.
    let ours = ours.max_by_key(|reversal| reversal.counts());
    let seen = ours.and_then(|ours| meaning(ours, call, command)).or_else(|| contradiction(transfer, call, target));
    Sight { seen, foreign, complete, nothing_left, request_id: None }
}

fn meaning(ours: &TransferReversal, call: &Call, command: &ReverseTransfer) -> Option<Seen> {
    if ours.amount != command.amount {
        let message = format!("{} at Stripe takes back {}, not {}", ours.id, ours.amount, command.amount);
        return Some(Seen::Mismatch { code: "amount_mismatch", message });
    }
    match ours.status.as_deref() {
        None | Some("succeeded") => {
            Some(Seen::Done { id: ours.id.clone(), balance_transaction: ours.balance_transaction.clone() })
        }
        // Only one that we had waited for. Any other that Stripe has ended was never done, and may be asked for anew.
        Some(ended @ ("failed" | "canceled")) => (call.accepted_id.as_ref() == Some(&ours.id))
            .then(|| Seen::Ended { message: format!("{} has {ended} at Stripe", ours.id) }),
        Some(status) => Some(Seen::Accepted { id: ours.id.clone(), status: format!("{status} at Stripe") }),
    }
}

/// What Stripe's transfer is otherwise than registered: then what each claim asks of it is not right either, and it takes
/// nothing. What is not owed any more is called off all the same.
fn contradiction(transfer: &Transfer, call: &Call, target: &ReversalTarget) -> Option<Seen> {
    let id = &transfer.id;
    let (theirs, ours) = ((transfer.amount, &transfer.currency), (target.transfer_amount, &target.currency));
    let message = if theirs.0 != ours.0 || !theirs.1.eq_ignore_ascii_case(ours.1) {
        format!("{id} is {} {} at Stripe, but registered with {} {}", theirs.0, theirs.1, ours.0, ours.1)
    } else {
        let destination = transfer.destination.as_ref().filter(|there| **there != target.destination)?;
        format!("{id} went to {destination} at Stripe, but is registered with {}", target.destination)
    };
    (target.claim_stands && call.accepted_id.is_none()).then_some(Seen::Mismatch { code: "transfer_mismatch", message })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::ledger::Source;

    fn target() -> ReversalTarget {
        ReversalTarget {
            source: Source::Stripe,
            claim_ref: "re_1".to_owned(),
            claim_created_at: Some(Utc::now()),
            payment_ref: "pi_1".to_owned(),
            transfer_id: Uuid::nil(),
            stripe_transfer_id: Some("tr_1".to_owned()),
            amount: 400,
            currency: "eur".to_owned(),
            refund_application_fee: false,
            claim_stands: true,
            transfer_amount: 1_000,
            destination: "acct_1".to_owned(),
        }
    }

    fn listed(amount: i64, claim: Option<&str>, status: Option<&str>) -> TransferReversal {
        let metadata = claim.map(|claim| ("clawback_claim".to_owned(), format!("stripe:{claim}")));
        TransferReversal {
            id: format!("trr_{amount}"),
            amount,
            currency: "eur".to_owned(),
            transfer: "tr_1".to_owned(),
            status: status.map(ToOwned::to_owned),
            balance_transaction: None,
            created: 0,
            source_refund: None,
            metadata: BTreeMap::from_iter(metadata),
        }
    }

    fn seen(reversals: &[TransferReversal]) -> Sight {
        let reversed: i64 = reversals.iter().filter(|it| it.counts()).map(|it| it.amount).sum();
        let transfer = Transfer {
            id: "tr_1".to_owned(),
            amount: 1_000,
            amount_reversed: reversed,
            reversed: reversed == 1_000,
            currency: "eur".to_owned(),
            destination: Some("acct_1".to_owned()),
            source_transaction: None,
            transfer_group: None,
            livemode: false,
            created: 0,
            metadata: BTreeMap::new(),
        };
        let call = Call::of_tests();
        sight(&command(&call, &target()), &call, &target(), &transfer, reversals)
    }

    #[test]
    fn others_have_done_our_work_only_where_they_have_taken_as_much() {
        let ours = |amount| listed(amount, Some("re_2"), None);
        let theirs = |amount, status| listed(amount, None, status);
        for (reversals, foreign, nothing_left) in [
            (vec![theirs(400, None), ours(600)], Some("trr_400"), true),
            (vec![theirs(399, None), ours(601)], None, true),
            (vec![theirs(100, None), theirs(300, Some("pending")), ours(599)], Some("trr_100"), false),
            (vec![theirs(400, Some("failed")), ours(600)], None, false),
            (vec![ours(1_000)], None, true),
            (vec![], None, false),
        ] {
            let sight = seen(&reversals);
            assert_eq!((sight.foreign.as_deref(), sight.nothing_left), (foreign, nothing_left), "{reversals:?}");
            assert!(sight.complete && sight.seen.is_none());
        }
    }
}
