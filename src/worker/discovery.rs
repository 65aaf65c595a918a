//! Which transfers belong to a charge, as far as Stripe shows it without any doubt. Pure.

use std::collections::BTreeMap;

use crate::ledger::{Earlier, FoundPayment, NewPayment, NewTransfer};
use crate::stripe::{Charge, Transfer};

/// What `charge` and its transfers are as a payment. `charges` and `transfers` are those of its group, in any order, with
/// the charge's own ones; some may be there twice.
pub(super) fn transfers_of(charge: &Charge, charges: &[Charge], transfers: Vec<Transfer>) -> FoundPayment {
    let transfers: BTreeMap<String, Transfer> = transfers.into_iter().map(|found| (found.id.clone(), found)).collect();
    let mut transfers: Vec<Transfer> = transfers.into_values().collect();
    // Oldest first, as they would have been registered.
    transfers.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    if transfers.is_empty() {
        let group =
            charge.transfer_group.as_ref().map_or("no transfer group".to_owned(), |group| format!("group {group}"));
        return FoundPayment::None(format!("charge {} has no transfers at Stripe ({group})", charge.id));
    }
    match doubt(charge, charges, &transfers) {
        Some(why) => FoundPayment::Unclear(why),
        None => {
            let reversed = transfers.iter().filter(|found| found.amount_reversed > 0).map(|found| found.id.clone());
            FoundPayment::Transfers {
                reversed: reversed.collect(),
                new: registration(charge, transfers),
                earlier: Earlier::default(),
            }
        }
    }
}

fn doubt(charge: &Charge, charges: &[Charge], transfers: &[Transfer]) -> Option<String> {
    let listed = transfers.iter().map(|found| found.id.as_str()).collect::<Vec<_>>().join(", ");
    let about = format!("charge {} with the transfers {listed}", charge.id);
    if charge.amount_captured < 1 {
        return Some(format!("{about}: nothing of it is captured"));
    }
    // A failed attempt to pay is a charge of the same group.
    let others: Vec<&str> =
        charges.iter().filter(|of| of.id != charge.id && of.may_pay()).map(|of| of.id.as_str()).collect();
    if !others.is_empty() {
        return Some(format!("{about}: its transfer group has other charges, too ({})", others.join(", ")));
    }
    let of_another = |found: &&Transfer| found.source_transaction.as_ref().is_some_and(|source| *source != charge.id);
    if let Some(found) = transfers.iter().find(of_another) {
        return Some(format!("{about}: {} is from another charge", found.id));
    }
    if let Some(found) = transfers.iter().find(|found| found.destination.is_none()) {
        return Some(format!("{about}: {} names no destination", found.id));
    }
    let is_ours = |payment: &str| charge.id == payment || charge.payment_intent.as_deref() == Some(payment);
    let of_another = |found: &&Transfer| found.name().is_some_and(|(payment, _)| !is_ours(payment));
    if let Some(found) = transfers.iter().find(of_another) {
        return Some(format!("{about}: Clawback has created {} for another payment", found.id));
    }
    if let Some(found) = transfers.iter().find(|found| found.is_less_than_named()) {
        return Some(format!("{about}: of {} Clawback had withheld a part for refunds that are lost", found.id));
    }
    let same = transfers.iter().filter(|found| found.currency.eq_ignore_ascii_case(&charge.currency));
    let sum = same.fold(0_i64, |sum, found| sum.saturating_add(found.amount));
    (sum > charge.amount_captured).then(|| {
        let (captured, currency) = (charge.amount_captured, &charge.currency);
        format!("{about}: they are {sum} {currency}, more than the {captured} that was captured")
    })
}

fn registration(charge: &Charge, transfers: Vec<Transfer>) -> NewPayment {
    let transfer = |found: Transfer| {
        let made_by_clawback = found.name().is_some();
        let destination = found.destination.unwrap_or_default();
        let has_fee = charge.application_fee_amount.is_some_and(|fee| fee > 0);
        NewTransfer {
            refund_application_fee: has_fee && charge.transfer.as_ref() == Some(&found.id),
            seller_id: destination.clone(),
            stripe_transfer_id: Some(found.id),
            destination,
            amount: found.amount,
            currency: found.currency,
            made_by_clawback,
            ..NewTransfer::default()
        }
    };
    NewPayment {
        payment_ref: charge.payment_intent.clone().unwrap_or_else(|| charge.id.clone()),
        amount: charge.amount_captured,
        currency: charge.currency.clone(),
        transfers: transfers.into_iter().map(transfer).collect(),
        allow_excess: false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

    use serde_json::{Value, json};

    use super::*;

    fn charge(id: &str, captured: i64) -> Charge {
        let charge = json!({"id": id, "payment_intent": "pi_1", "amount_captured": captured, "amount_refunded": 0,
            "currency": "eur", "transfer_group": "order_1"});
        serde_json::from_value(charge).unwrap()
    }

    fn transfer(id: &str, amount: i64, more: Value) -> Transfer {
        let mut transfer = json!({"id": id, "amount": amount, "amount_reversed": 0, "reversed": false, "currency": "eur",
            "destination": "acct_1", "created": 5});
        transfer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(transfer).unwrap()
    }

    #[test]
    fn the_captured_amount_and_every_transfer_once_and_oldest_first_make_the_payment() {
        let transfers = vec![
            transfer("tr_a", 300, json!({"created": 9, "amount_reversed": 1})),
            transfer("tr_b", 500, json!({"created": 3})),
            transfer("tr_b", 500, json!({"created": 3})),
        ];
        let found = transfers_of(&charge("ch_1", 1_000), &[charge("ch_1", 1_000), charge("ch_0", 0)], transfers);
        let FoundPayment::Transfers { new: payment, reversed, .. } = found else { panic!("{found:?}") };
        assert_eq!(reversed, ["tr_a"]);
        assert_eq!((payment.payment_ref.as_str(), payment.amount), ("pi_1", 1_000));
        let ids: Vec<_> = payment.transfers.iter().map(|of| of.stripe_transfer_id.clone().unwrap()).collect();
        assert_eq!(ids, ["tr_b", "tr_a"]);
        assert_eq!(payment.transfers[0].seller_id, "acct_1");
    }

    #[test]
    fn what_clawback_had_created_before_its_ledger_was_lost_is_its_own_again() {
        let name = json!({"metadata": {"payment_ref": "pi_1", "clawback_transfer": "acct_1:500eur:0"}});
        let found = transfers_of(
            &charge("ch_1", 1_000),
            &[],
            vec![transfer("tr_a", 500, name), transfer("tr_b", 300, json!({}))],
        );
        let FoundPayment::Transfers { new: payment, .. } = found else { panic!("{found:?}") };
        let ours: Vec<bool> = payment.transfers.iter().map(|of| of.made_by_clawback).collect();
        assert_eq!(ours, [true, false]);
    }

    #[test]
    fn whatever_is_not_clear_is_told_with_what_was_found() {
        let all = |captured, charges: &[Charge], transfers| {
            let found = transfers_of(&charge("ch_1", captured), charges, transfers);
            let FoundPayment::Unclear(why) = found else { panic!("{found:?}") };
            assert!(why.contains("ch_1") && why.contains("tr_1"), "{why}");
            why
        };
        let one = |more| vec![transfer("tr_1", 600, more)];
        assert!(all(1_000, &[charge("ch_2", 1)], one(json!({}))).contains("ch_2"));
        let named =
            |payment: &str, name: &str| one(json!({"metadata": {"payment_ref": payment, "clawback_transfer": name}}));
        assert!(all(1_000, &[], named("pi_2", "acct_1:600eur:0")).contains("for another payment"));
        assert!(all(1_000, &[], named("pi_1", "acct_1:900eur:0")).contains("had withheld a part"));
        let authorized = Charge { paid: true, ..charge("ch_2", 0) };
        assert!(all(1_000, &[authorized], one(json!({}))).contains("ch_2"));
        assert!(all(500, &[], one(json!({}))).contains("600 eur, more than the 500"));
        assert!(all(1_000, &[], one(json!({"source_transaction": "ch_9"}))).contains("another charge"));
        assert!(all(1_000, &[], one(json!({"destination": null}))).contains("no destination"));
        assert!(all(0, &[], one(json!({}))).contains("captured"));
    }

    #[test]
    fn transfers_in_another_currency_are_not_added_up() {
        let transfers = vec![transfer("tr_1", 900, json!({"currency": "jpy"})), transfer("tr_2", 90, json!({}))];
        assert!(matches!(transfers_of(&charge("ch_1", 100), &[], transfers), FoundPayment::Transfers { .. }));
    }

    #[test]
    fn without_a_transfer_there_is_nothing() {
        assert!(matches!(transfers_of(&charge("ch_1", 100), &[], Vec::new()), FoundPayment::None(_)));
    }
}
