//! `expand[]`: the objects that ids stand for.

use serde_json::json;
use stripe_sim::{NewPayment, NewRefund};

use crate::support::Caller;

fn refunded() -> Caller {
    let caller = Caller::new();
    caller.sim.pay(NewPayment {
        charge: Some("ch_1".into()),
        payment_intent: Some("pi_1".into()),
        destination: Some("acct_2".into()),
        transfer: Some("tr_2".into()),
        application_fee_amount: Some(10),
        ..NewPayment::new(100, "eur")
    });
    let refund = NewRefund { id: Some("re_1".into()), reverse_transfer: true, ..NewRefund::of("ch_1") };
    caller.sim.refund(refund);
    caller
}

#[tokio::test]
async fn ids_are_replaced_by_their_objects_also_over_several_levels_and_in_lists() {
    let caller = refunded();
    for (path, at, id) in [
        ("/v1/payment_intents/pi_1?expand[]=latest_charge.transfer", "/latest_charge/transfer/id", "tr_2"),
        ("/v1/refunds/re_1?expand[]=charge&expand[]=transfer_reversal", "/charge/payment_intent", "pi_1"),
        ("/v1/refunds/re_1?expand[0]=transfer_reversal", "/transfer_reversal/source_refund", "re_1"),
        ("/v1/refunds?charge=ch_1&expand[]=data.payment_intent", "/data/0/payment_intent/id", "pi_1"),
        ("/v1/transfers/tr_2?expand[]=source_transaction", "/source_transaction/id", "ch_1"),
        ("/v1/transfers/tr_2?expand[]=reversals.data.source_refund", "/reversals/data/0/source_refund/id", "re_1"),
        ("/v1/transfers/tr_2?expand[]=destination", "/destination/object", "account"),
        ("/v1/charges/ch_1?expand[]=refunds", "/refunds/data/0/id", "re_1"),
        ("/v1/charges/ch_1?expand[]=application_fee", "/application_fee/account", "acct_2"),
    ] {
        let body = caller.get(path).await.body;
        assert_eq!(body.pointer(at), Some(&json!(id)), "{path}: {body}");
    }
    let plain = caller.get("/v1/charges/ch_1").await.body;
    assert_eq!(plain.get("refunds"), None, "since 2022-11-15 a charge lists its refunds only on demand");
}

#[tokio::test]
async fn what_can_not_be_expanded_is_refused() {
    let caller = refunded();
    for (path, says) in [
        ("/v1/refunds/re_1?expand[]=amount", "This property cannot be expanded (amount)."),
        ("/v1/refunds/re_1?expand[]=charge.amount", "This property cannot be expanded (charge.amount)."),
        ("/v1/refunds?expand[]=charge", "You may want to try expanding 'data.charge'."),
        (
            "/v1/transfers?expand[]=data.source_transaction.transfer.source_transaction.transfer",
            "You cannot expand more than 4 levels",
        ),
    ] {
        let got = caller.get(path).await;
        assert_eq!((got.status, &got.body["error"]["param"]), (400, &json!("expand[]")), "{path}");
        assert!(got.body["error"]["message"].as_str().unwrap().contains(says), "{path}: {}", got.body);
    }
}
