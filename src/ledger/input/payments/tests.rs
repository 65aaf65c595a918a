#![expect(clippy::unwrap_used, reason = "tests fail loudly")]

use serde_json::{Value, json};

use super::*;

#[test]
fn every_bad_field_of_a_payment_is_named_at_once() {
    let transfer = |id: &str, amount: i64| json!({"seller_id": "s 1", "stripe_transfer_id": id, "destination": "acct_1", "amount": amount, "currency": "eur"});
    let payment: NewPayment = serde_json::from_value(json!({
        "payment_ref": "", "amount": 0, "currency": "euro", "transfers": [transfer("tr_1", -1), transfer("tr_1", 1)],
    }))
    .unwrap();
    assert_eq!(
        payment.check().unwrap_err().to_string(),
        "payment_ref must be 1 to 255 bytes without spaces (got \"\"); \
         amount must be a positive integer in minor units (got 0); \
         currency must be a three-letter ISO 4217 code (got \"euro\"); \
         transfers[0].seller_id must be 1 to 255 bytes without spaces (got \"s 1\"); \
         transfers[0].amount must be a positive integer in minor units (got -1); \
         transfers[1].seller_id must be 1 to 255 bytes without spaces (got \"s 1\"); \
         transfers[1].stripe_transfer_id must be different in each transfer (got \"tr_1\")"
    );
}

#[test]
fn a_checked_payment_has_its_currencies_in_lower_case() {
    let payment: NewPayment = serde_json::from_value(json!({
        "payment_ref": "pi_1", "amount": 1, "currency": "EUR",
        "transfers": [{"seller_id": "s1", "create": true, "destination": "acct_1", "amount": 1, "currency": "uSd"}],
    }))
    .unwrap();
    let checked = payment.checked().unwrap();
    assert_eq!((checked.currency.as_str(), checked.transfers[0].currency.as_str()), ("eur", "usd"));
}

fn transfer(change: &Value) -> Value {
    let mut transfer = json!({
        "seller_id": "s1", "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 9_000, "currency": "eur",
    });
    for (name, value) in change.as_object().unwrap() {
        transfer[name] = value.clone();
    }
    transfer
}

/// What is wrong with a payment of 10,000 of these transfers.
fn told(transfers: Vec<Value>) -> Vec<String> {
    let payment = json!({"payment_ref": "pi_1", "amount": 10_000, "currency": "eur", "transfers": transfers});
    serde_json::from_value::<NewPayment>(payment).unwrap().problems().iter().map(ToString::to_string).collect()
}

fn told_of_one(change: Value) -> String {
    told(vec![transfer(&change)]).join("; ")
}

#[test]
fn a_transfer_without_a_stripe_id_must_say_that_it_is_to_be_created() {
    let both_ways_out = "transfers[0].stripe_transfer_id is required: name Stripe's transfer (tr_…), or say \"create\": true \
                         to have Clawback CREATE it and pay the seller";
    assert_eq!(told_of_one(json!({"stripe_transfer_id": null})), both_ways_out);
    assert_eq!(told_of_one(json!({"stripe_transfer_id": null, "create": false})), both_ways_out);
    assert_eq!(told_of_one(json!({"stripe_transfer_id": null, "create": true})), "");
    assert_eq!(
        told_of_one(json!({"create": true})),
        "transfers[0].create must be false or absent beside stripe_transfer_id \"tr_1\", which exists (got true)"
    );
}

#[test]
fn transfers_of_the_payments_currency_are_together_at_most_the_payment() {
    let of = |id: &str, currency: &str| transfer(&json!({"stripe_transfer_id": id, "currency": currency}));
    let problems = told(vec![of("tr_1", "eur"), of("tr_2", "EUR")]);
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].starts_with("transfers must add up to at most the payment's 10000 eur (got 18000)"),
        "{problems:?}"
    );
    assert!(told(vec![of("tr_1", "eur"), of("tr_2", "usd")]).is_empty(), "another currency has no sum with it");
    let most = json!({"amount": i64::MAX});
    assert!(told(vec![transfer(&most)])[0].contains("got 9223372036854775807"));
    let mut payment: NewPayment = serde_json::from_value(json!({
        "payment_ref": "pi_1", "amount": 10_000, "currency": "eur", "transfers": [of("tr_1", "eur"), of("tr_2", "eur")],
        "allow_excess": true,
    }))
    .unwrap();
    assert!(payment.problems().is_empty());
    payment.amount = 0;
    assert_eq!(payment.problems().len(), 1, "a sum is not compared with an amount that is none");
}

#[test]
fn what_was_reversed_before_is_a_part_of_the_transfer() {
    for good in [0, 1, 9_000] {
        assert_eq!(told_of_one(json!({"amount_reversed": good})), "");
    }
    for bad in [-1, 9_001] {
        let problem = format!("transfers[0].amount_reversed must be from 0 to 9000, the transfer's amount (got {bad})");
        assert_eq!(told_of_one(json!({"amount_reversed": bad})), problem);
    }
    let to_create = told_of_one(json!({"stripe_transfer_id": null, "create": true, "amount_reversed": 1}));
    assert_eq!(to_create, "transfers[0].amount_reversed must be from 0 to 0, for a transfer to create (got 1)");
}

#[test]
fn ids_must_look_like_stripes() {
    let longest = format!("tr_{}", "x".repeat(252));
    for good in ["tr_1", "tr_1Qx4", "tr_of_pi_1_0", &longest] {
        assert_eq!(told_of_one(json!({"stripe_transfer_id": good})), "");
    }
    let too_long = format!("{longest}x");
    for bad in [
        ".",
        "..",
        "tr_",
        "tr_..",
        "tr_1/reversals",
        "tr_1?x",
        "tr_%2e",
        "tr-1",
        "TR_1",
        "py_1",
        "tr_ä",
        "tr_1\n",
        &too_long,
    ] {
        let told = told_of_one(json!({"stripe_transfer_id": bad}));
        assert!(
            told.starts_with("transfers[0].stripe_transfer_id must be a Stripe id: tr_ and then letters"),
            "{told}"
        );
    }
    let told = told_of_one(json!({"destination": "../acct_1"}));
    assert!(
        told.starts_with("transfers[0].destination must be a Stripe id: acct_ ") && told.contains("../acct_1"),
        "{told}"
    );
}

#[test]
fn a_correction_keeps_the_reference() {
    let correction = |named: Value| {
        let body =
            json!({"payment_ref": named, "amount": 9_000, "currency": "EUR", "transfers": [transfer(&json!({}))]});
        serde_json::from_value::<CorrectedPayment>(body).unwrap().of("pi_1")
    };
    assert_eq!(correction(Value::Null).unwrap().payment_ref, "pi_1");
    assert_eq!(correction("pi_1".into()).unwrap().currency, "eur");
    let refused = correction("pi_2".into()).unwrap_err().to_string();
    assert_eq!(refused, "payment_ref must be \"pi_1\", as in the path; a payment keeps its reference (got \"pi_2\")");
}
