#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ledger::NamedShare;

fn event(event_type: &str, refund: &Value) -> Value {
    json!({
        "merchant_id": "m", "event_id": "evt_1", "event_type": event_type,
        "content": {"type": "refund_details", "object": refund}, "timestamp": "2026-11-23T10:00:02.123Z",
    })
}

fn refund() -> Value {
    json!({
        "refund_id": "ref_1", "payment_id": "pay_1", "amount": 9000, "currency": "EUR", "status": "succeeded",
        "metadata": null, "split_refunds": null, "connector": "stripe", "a_new_field": [1],
        "created_at": "2026-11-24T10:00:00.000Z",
    })
}

fn refund_with(field: &str, value: Value) -> Value {
    let mut refund = refund();
    refund[field] = value;
    refund
}

fn parsed(event: &Value) -> WebhookEvent {
    parse(event.to_string().as_bytes()).unwrap()
}

fn only_refund(refund: &Value) -> RefundEvent {
    match parsed(&event("refund_succeeded", refund)).content {
        EventContent::Refunds(refunds) if refunds.len() == 1 => refunds[0].clone(),
        other => panic!("not one refund: {other:?}"),
    }
}

#[test]
fn a_refund_is_read_with_its_currency_in_lower_case() {
    let event = parsed(&event("refund_succeeded", &refund()));
    let expected = RefundEvent {
        refund_ref: "ref_1".into(),
        payment_ref: "pay_1".into(),
        charge_ref: None,
        amount: 9000,
        currency: "eur".into(),
        progress: RefundProgress::Succeeded,
        created: DateTime::from_timestamp(1_795_514_400, 0),
        updated: None,
        account: "m".into(),
        charge: None,
        provider_reversal: None,
        shares: None,
    };
    assert_eq!(event.content, EventContent::Refunds(vec![expected]));
    assert_eq!((event.source, event.event_id.as_str()), (Source::Hyperswitch, "evt_1"));
    assert_eq!((event.event_type.as_str(), event.object_id.as_deref()), ("refund_succeeded", Some("ref_1")));
}

#[test]
fn a_time_is_utc_with_or_without_its_mark() {
    let expected = DateTime::from_timestamp(1_795_514_400, 0);
    for text in ["2026-11-24T10:00:00Z", "2026-11-24T10:00:00.000", "2026-11-24T12:00:00+02:00"] {
        assert_eq!(only_refund(&refund_with("created_at", json!(text))).created, expected, "{text}");
    }
    assert_eq!(only_refund(&refund_with("created_at", json!("yesterday"))).created, None);
}

#[test]
fn the_status_of_the_refund_counts() {
    for (status, expected) in [
        ("succeeded", RefundProgress::Succeeded),
        ("failed", RefundProgress::Failed("failed".into())),
        ("pending", RefundProgress::Other("pending".into())),
        ("review", RefundProgress::Other("review".into())),
    ] {
        assert_eq!(only_refund(&refund_with("status", json!(status))).progress, expected);
    }
}

#[test]
fn only_a_transfer_that_was_reverted_by_stripe_is_reversed_already() {
    for (field, value, expected) in [
        ("split_refunds", json!({"stripe_split_refund": {"revert_platform_fee": true, "revert_transfer": true}}), true),
        (
            "split_refunds",
            json!({"stripe_split_refund": {"revert_platform_fee": true, "revert_transfer": null}}),
            false,
        ),
        ("split_refunds", json!({"stripe_split_refund": {"revert_transfer": false}}), false),
        ("split_refunds", json!({"xendit_split_refund": {"for_user_id": "u"}}), false),
        ("split_refunds", json!("odd"), false),
        ("charges", json!({"charge_id": "ch_1", "revert_transfer": true}), true),
        ("charges", json!(null), false),
    ] {
        let refund = only_refund(&refund_with(field, value.clone()));
        assert_eq!(refund.provider_reversal.is_some(), expected, "{value}");
    }
}

#[test]
fn metadata_names_shares_also_as_numbers() {
    let refund = only_refund(&refund_with("metadata", json!({"clawback[tr_1]": 4500, "clawback[tr_2]": "3", "k": {}})));
    let share = |id: &str, amount: &str| NamedShare { transfer_id: id.into(), amount: amount.into() };
    assert_eq!(refund.shares, Some(vec![share("tr_1", "4500"), share("tr_2", "3")]));
}

#[test]
fn any_connectors_refund_counts() {
    assert_eq!(only_refund(&refund_with("connector", json!("adyen"))).progress, RefundProgress::Succeeded);
}

#[test]
fn other_events_are_irrelevant_and_keep_their_ids() {
    let event = parsed(&json!({
        "event_id": "evt_2", "event_type": "payment_succeeded", "content": {"object": {"payment_id": "pay_1"}},
    }));
    assert_eq!(event.object_id.as_deref(), Some("pay_1"));
    match event.content {
        EventContent::Irrelevant { reason } => assert!(reason.contains("payment_succeeded"), "{reason}"),
        other => panic!("not irrelevant: {other:?}"),
    }
    assert_eq!(parsed(&json!({"event_id": "e", "event_type": "odd", "content": "odd"})).object_id, None);
}

#[test]
fn a_refund_that_cannot_be_used_is_refused_by_the_name_of_its_field() {
    for (field, value) in [
        ("refund_id", json!(null)),
        ("refund_id", json!("")),
        ("payment_id", json!("pay\u{0}1")),
        ("payment_id", json!("x".repeat(256))),
        ("amount", json!(0)),
        ("amount", json!(-1)),
        ("amount", json!(90.5)),
        ("amount", json!("9000")),
        ("currency", json!("euro")),
        ("status", json!(null)),
    ] {
        let error = parse(event("refund_succeeded", &refund_with(field, value.clone())).to_string().as_bytes());
        assert_eq!(error.unwrap_err().field, Some(format!("content.object.{field}")), "{value}");
    }
    for field in ["refund_id", "payment_id", "amount", "currency", "status"] {
        let mut refund = refund();
        refund.as_object_mut().unwrap().remove(field);
        let error = parse(event("refund_failed", &refund).to_string().as_bytes()).unwrap_err();
        assert_eq!(error.field, Some(format!("content.object.{field}")));
    }
    assert_eq!(parse(b"{\"event_type\":\"x\"}").unwrap_err().field.as_deref(), Some("event_id"));
    assert_eq!(parse(b"{\"event_id\":\"x\"}").unwrap_err().field.as_deref(), Some("event_type"));
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(body: Vec<u8>) {
        prop_assert!(parse(&body).is_err());
    }
}
