//! Refunds: whole, in part, with a reversal, pending, and failed later.

use std::time::Duration;

use serde_json::json;
use stripe_sim::{NewPayment, NewRefund, RefundStatus};

use crate::support::Caller;

fn paid() -> Caller {
    let caller = Caller::new();
    caller.sim.pay(NewPayment {
        charge: Some("ch_1".into()),
        payment_intent: Some("pi_1".into()),
        destination: Some("acct_2".into()),
        transfer: Some("tr_2".into()),
        transfer_amount: Some(9_000),
        ..NewPayment::new(10_000, "eur")
    });
    caller
}

#[tokio::test]
async fn refunds_are_read_by_id_charge_and_payment_intent_over_pages() {
    let caller = paid();
    for n in 0..3 {
        caller.sim.refund(NewRefund { id: Some(format!("re_{n}")), ..NewRefund::part("ch_1", 1_000) });
    }
    let refund = caller.get("/v1/refunds/re_0").await.body;
    let found = (&refund["amount"], &refund["status"], &refund["charge"], &refund["payment_intent"]);
    assert_eq!(found, (&json!(1_000), &json!("succeeded"), &json!("ch_1"), &json!("pi_1")));
    assert_eq!((refund.get("pending_reason"), &refund["transfer_reversal"]), (None, &json!(null)));
    let page = async |path: &str| {
        let body = caller.get(path).await.body;
        let ids: Vec<_> =
            body["data"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap().to_owned()).collect();
        (ids.join(" "), body["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("/v1/refunds?charge=ch_1&limit=2").await, ("re_2 re_1".into(), true));
    assert_eq!(page("/v1/refunds?payment_intent=pi_1&limit=2&starting_after=re_1").await, ("re_0".into(), false));
    assert_eq!(page("/v1/refunds?payment_intent=pi_2").await, (String::new(), false));
    assert_eq!(page("/v1/charges/ch_1/refunds").await, ("re_2 re_1 re_0".into(), false));
    assert_eq!(caller.get("/v1/charges/ch_1").await.body["amount_refunded"], 3_000);
    caller.sim.set_list_lag(Duration::from_secs(60));
    assert_eq!(page("/v1/refunds?charge=ch_1").await, (String::new(), false));
}

#[tokio::test]
async fn a_refund_with_reverse_transfer_names_the_reversal_that_stripe_made() {
    let caller = paid();
    let refund = caller.sim.refund(NewRefund { reverse_transfer: true, ..NewRefund::part("ch_1", 5_000) });
    let reversal = caller.sim.ledger().reversals("tr_2")[0].clone();
    assert_eq!((reversal.amount, reversal.source_refund.as_deref()), (4_500, Some(refund.id.as_str())));
    let shown = caller.get(&format!("/v1/refunds/{}", refund.id)).await.body;
    assert_eq!(shown["transfer_reversal"], reversal.id);
}

#[tokio::test]
async fn a_pending_refund_says_why_and_what_failed_can_be_refunded_again() {
    let caller = paid();
    let pending = NewRefund {
        id: Some("re_1".into()),
        status: RefundStatus::Pending,
        pending_reason: Some("insufficient_funds".into()),
        ..NewRefund::of("ch_1")
    };
    caller.sim.refund(pending);
    let shown = caller.get("/v1/refunds/re_1").await.body;
    assert_eq!((&shown["status"], &shown["pending_reason"]), (&json!("pending"), &json!("insufficient_funds")));
    caller.sim.move_refund("re_1", RefundStatus::Succeeded);
    caller.sim.move_refund("re_1", RefundStatus::Failed);
    let shown = caller.get("/v1/refunds/re_1").await.body;
    assert_eq!((&shown["failure_reason"], shown.get("pending_reason")), (&json!("unknown"), None));
    assert_eq!(caller.get("/v1/charges/ch_1").await.body["amount_refunded"], 0);
    assert_eq!(caller.sim.refund(NewRefund::of("ch_1")).amount, 10_000);
}

#[tokio::test]
#[should_panic(expected = "must not go from failed to succeeded")]
async fn a_failed_refund_stays_failed() {
    let caller = paid();
    let refund = caller.sim.refund(NewRefund::of("ch_1"));
    caller.sim.move_refund(&refund.id, RefundStatus::Failed);
    caller.sim.move_refund(&refund.id, RefundStatus::Succeeded);
}

#[tokio::test]
#[should_panic(expected = "amount must be from 1 to 4000")]
async fn no_more_is_refunded_than_captured() {
    let caller = paid();
    caller.sim.refund(NewRefund::part("ch_1", 6_000));
    caller.sim.refund(NewRefund::part("ch_1", 4_001));
}
