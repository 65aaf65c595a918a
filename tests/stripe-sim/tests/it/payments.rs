//! Payments: destination charges, separate charges and transfers, captures, and what is read of them.

use std::time::Duration;

use serde_json::json;
use stripe_sim::{Capture, Fault, NewPayment, NewRefund, PLATFORM, PaymentTransfer};

use crate::support::Caller;

fn payment(amount: i64) -> NewPayment {
    NewPayment { charge: Some("ch_1".into()), payment_intent: Some("pi_1".into()), ..NewPayment::new(amount, "eur") }
}

fn to(destination: &str, amount: i64) -> PaymentTransfer {
    PaymentTransfer { id: None, amount, currency: None, destination: destination.into(), from_charge: false }
}

#[tokio::test]
async fn a_destination_charge_names_its_transfer_and_the_transfer_the_charge() {
    let caller = Caller::new();
    let of = NewPayment { destination: Some("acct_2".into()), transfer: Some("tr_2".into()), ..payment(10_000) };
    caller.sim.pay(NewPayment { application_fee_amount: Some(1_000), ..of });
    let intent = caller.get("/v1/payment_intents/pi_1").await.body;
    assert_eq!((&intent["latest_charge"], &intent["status"]), (&json!("ch_1"), &json!("succeeded")));
    let charge = caller.get("/v1/charges/ch_1").await.body;
    let amounts = [&charge["amount"], &charge["amount_captured"], &charge["amount_refunded"]];
    assert_eq!(amounts, [10_000, 10_000, 0]);
    assert_eq!((&charge["transfer"], &charge["application_fee_amount"]), (&json!("tr_2"), &json!(1_000)));
    let transfer = caller.get("/v1/transfers/tr_2").await.body;
    assert_eq!((&transfer["source_transaction"], &transfer["amount"]), (&json!("ch_1"), &json!(10_000)));
}

#[tokio::test]
async fn the_transfers_of_separate_charges_are_found_by_their_group() {
    let caller = Caller::new();
    let transfers = vec![to("acct_2", 6_000), PaymentTransfer { from_charge: true, ..to("acct_3", 3_000) }];
    caller.sim.pay(NewPayment { transfer_group: Some("order_1".into()), transfers, ..payment(10_000) });
    let listed = caller.get("/v1/transfers?transfer_group=order_1").await.body;
    let found: Vec<_> =
        listed["data"].as_array().unwrap().iter().map(|of| (&of["amount"], &of["source_transaction"])).collect();
    assert_eq!(found, [(&json!(3_000), &json!("ch_1")), (&json!(6_000), &json!(null))]);
    for path in ["/v1/charges/ch_1", "/v1/payment_intents/pi_1"] {
        let got = caller.get(path).await.body;
        assert_eq!((&got["transfer_group"], got.get("transfer")), (&json!("order_1"), None), "{path}");
    }
    assert_eq!(caller.get("/v1/charges?transfer_group=order_1").await.body["data"].as_array().unwrap().len(), 1);
    assert_eq!(caller.get("/v1/charges?transfer_group=order_2").await.body["data"], json!([]));
    let by_account = caller.get("/v1/transfers?transfer_group=order_1&destination=acct_2").await.body;
    assert_eq!(by_account["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_created_transfer_joins_its_charges_group_and_takes_no_more_than_was_captured() {
    let caller = Caller::new();
    caller.sim.pay(payment(1_000));
    let create = async |key: &str, amount: &str, currency: &str| {
        let form =
            [("amount", amount), ("currency", currency), ("destination", "acct_2"), ("source_transaction", "ch_1")];
        caller.post("/v1/transfers", key, &form).await
    };
    assert_eq!(create("k1", "700", "eur").await.body["transfer_group"], "group_pi_1");
    assert_eq!(caller.get("/v1/charges/ch_1").await.body["transfer_group"], "group_pi_1");
    let beyond = create("k2", "301", "eur").await;
    assert_eq!((beyond.status, &beyond.body["error"]["param"]), (400, &json!("amount")));
    assert_eq!(create("k3", "300", "usd").await.body["error"]["param"], "currency");
    assert_eq!(create("k4", "300", "eur").await.status, 200);
}

#[tokio::test]
async fn what_is_not_captured_is_released_as_a_refund() {
    let caller = Caller::new();
    let part = NewPayment { destination: Some("acct_2".into()), capture: Capture::Part(6_000), ..payment(10_000) };
    let charge = caller.sim.pay(part);
    assert_eq!((charge.captured, charge.amount_captured, charge.amount_refunded), (true, 6_000, 4_000));
    assert_eq!(caller.sim.ledger().transfers[&charge.transfer.unwrap()].amount, 6_000);
    let listed = caller.get("/v1/refunds?charge=ch_1").await.body;
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["amount"]), (1, &json!(4_000)));
    assert_eq!(caller.sim.refund(NewRefund::of("ch_1")).amount, 6_000, "only what was captured can be refunded");
}

#[tokio::test]
async fn an_authorization_is_captured_in_parts_or_voided() {
    let caller = Caller::new();
    caller.sim.pay(NewPayment { capture: Capture::Later, ..payment(10_000) });
    assert_eq!(caller.get("/v1/payment_intents/pi_1").await.body["status"], "requires_capture");
    caller.sim.capture_some("ch_1", 2_000);
    caller.sim.capture("ch_1", Some(3_000));
    let charge = caller.get("/v1/charges/ch_1").await.body;
    assert_eq!([&charge["amount_captured"], &charge["amount_refunded"]], [5_000, 5_000]);

    caller.sim.pay(NewPayment { charge: Some("ch_2".into()), capture: Capture::Later, ..NewPayment::new(700, "eur") });
    caller.sim.void("ch_2");
    let charge = caller.get("/v1/charges/ch_2").await.body;
    assert_eq!(
        (&charge["captured"], &charge["refunded"], &charge["amount_captured"]),
        (&json!(false), &json!(true), &json!(0))
    );
    let intent = charge["payment_intent"].as_str().unwrap();
    assert_eq!(caller.get(&format!("/v1/payment_intents/{intent}")).await.body["status"], "canceled");
    assert_eq!(caller.get("/v1/refunds?charge=ch_2").await.body["data"][0]["amount"], 700);
}

#[tokio::test]
async fn the_fee_is_given_back_in_proportion_and_only_where_there_is_one() {
    let caller = Caller::new();
    for account in ["acct_2", PLATFORM] {
        caller.sim.set_balance(account, Some(0));
    }
    let of = NewPayment { destination: Some("acct_2".into()), transfer: Some("tr_2".into()), ..payment(1_000) };
    caller.sim.pay(NewPayment { application_fee_amount: Some(101), ..of });
    let reverse = async |key: &str, transfer: &str, amount: &str, fee: &str| {
        let form = [("amount", amount), ("refund_application_fee", fee)];
        caller.post(&format!("/v1/transfers/{transfer}/reversals"), key, &form).await
    };
    let none = reverse("k0", "tr_1", "1", "true").await;
    assert_eq!((none.status, &none.body["error"]["param"]), (400, &json!("refund_application_fee")));
    assert_eq!(reverse("k1", "tr_2", "300", "true").await.status, 200);
    assert_eq!(reverse("k2", "tr_2", "700", "true").await.status, 200);
    let ledger = caller.sim.ledger();
    let fees: Vec<_> = ledger.reversals("tr_2").iter().map(|reversal| reversal.application_fee_refunded).collect();
    assert_eq!(fees, [30, 71], "the last one gets what rounding left");
    assert_eq!((ledger.balances["acct_2"], ledger.balances[PLATFORM]), (0, 1_000));
    assert_eq!(ledger.charges["ch_1"].application_fee_refunded, 101);
}

#[tokio::test]
async fn a_reversal_gives_back_its_own_part_of_the_fee_and_takes_it_again_when_it_fails() {
    let caller = Caller::new();
    caller.sim.set_balance("acct_2", Some(0));
    let of = NewPayment { destination: Some("acct_2".into()), transfer: Some("tr_2".into()), ..payment(1_000) };
    caller.sim.pay(NewPayment { application_fee_amount: Some(100), ..of });
    let path = "/v1/transfers/tr_2/reversals";
    assert_eq!(caller.post(path, "k1", &[("amount", "500")]).await.status, 200);
    caller.sim.fault("tr_2", Fault::Pending, 1);
    let form = [("amount", "300"), ("refund_application_fee", "true")];
    let pending = caller.post(path, "k2", &form).await.body;
    let state = || {
        let ledger = caller.sim.ledger();
        (ledger.charges["ch_1"].application_fee_refunded, ledger.balances["acct_2"])
    };
    assert_eq!(state(), (30, 900 - 500 - 300 + 30));
    caller.sim.settle(pending["id"].as_str().unwrap(), "failed");
    assert_eq!(state(), (0, 900 - 500));
}

#[tokio::test]
async fn the_fee_stays_with_the_platform_unless_it_is_asked_for() {
    let caller = Caller::new();
    caller.sim.set_balance("acct_2", Some(0));
    let of = NewPayment { destination: Some("acct_2".into()), transfer: Some("tr_2".into()), ..payment(1_000) };
    caller.sim.pay(NewPayment { application_fee_amount: Some(100), ..of });
    assert_eq!(caller.post("/v1/transfers/tr_2/reversals", "k", &[]).await.status, 200);
    assert_eq!(caller.sim.ledger().balances["acct_2"], -100, "the seller pays the fee twice");
}

#[tokio::test]
async fn a_destination_charges_transfer_is_reversed_whatever_the_balance() {
    let caller = Caller::new();
    let of = NewPayment { destination: Some("acct_2".into()), transfer: Some("tr_2".into()), ..payment(1_000) };
    caller
        .sim
        .pay(NewPayment { transfers: vec![PaymentTransfer { id: Some("tr_3".into()), ..to("acct_2", 10) }], ..of });
    caller.sim.set_balance("acct_2", Some(0));
    assert_eq!(caller.post("/v1/transfers/tr_2/reversals", "k", &[]).await.status, 200);
    assert_eq!(caller.post("/v1/transfers/tr_3/reversals", "k2", &[]).await.error(), "balance_insufficient");
}

#[tokio::test]
async fn lists_are_bounded_by_the_time_of_creation() {
    let caller = Caller::new();
    caller.sim.pay(NewPayment { seconds_ago: 3_600, transfer_group: Some("g".into()), ..payment(10) });
    caller.sim.advance(Duration::from_secs(10));
    caller.sim.pay(NewPayment {
        charge: Some("ch_2".into()),
        transfer_group: Some("g".into()),
        ..NewPayment::new(10, "eur")
    });
    let [old, new] = ["ch_1", "ch_2"].map(|id| caller.sim.ledger().charges[id].created.timestamp());
    for (range, found) in [
        (format!("created[gte]={new}"), vec!["ch_2"]),
        (format!("created[gt]={old}"), vec!["ch_2"]),
        (format!("created[lt]={new}"), vec!["ch_1"]),
        (format!("created[lte]={new}&created[gte]={old}"), vec!["ch_2", "ch_1"]),
        (format!("created={old}"), vec!["ch_1"]),
    ] {
        let body = caller.get(&format!("/v1/charges?{range}")).await.body;
        let ids: Vec<_> = body["data"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap()).collect();
        assert_eq!(ids, found, "{range}");
    }
}

#[tokio::test]
async fn an_unknown_object_is_a_404() {
    let caller = Caller::new();
    for path in [
        "/v1/payment_intents/pi_9",
        "/v1/charges/ch_9",
        "/v1/refunds/re_9",
        "/v1/disputes/du_9",
        "/v1/refunds?charge=ch_9",
    ] {
        let got = caller.get(path).await;
        assert_eq!((got.status, got.error()), (404, "resource_missing"), "{path}");
    }
}

#[tokio::test]
#[should_panic(expected = "amount must be from 1 to 100")]
async fn no_more_is_captured_than_authorized() {
    Caller::new().sim.pay(NewPayment { capture: Capture::Part(101), ..payment(100) });
}
