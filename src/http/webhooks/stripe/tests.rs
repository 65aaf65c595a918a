#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ledger::NamedShare;

fn event(event_type: &str, object: &Value) -> Value {
    json!({"id": "evt_1", "object": "event", "type": event_type, "livemode": false, "data": {"object": object}})
}

fn refund() -> Value {
    json!({
        "id": "re_1", "object": "refund", "amount": 9000, "currency": "eur", "status": "succeeded", "created": 1_795_514_400,
        "payment_intent": "pi_1", "charge": "ch_1", "transfer_reversal": null, "metadata": {}, "reason": null,
    })
}

/// The refund with one field replaced.
fn refund_with(field: &str, value: Value) -> Value {
    let mut refund = refund();
    refund[field] = value;
    refund
}

fn charge(refunds: Value) -> Value {
    json!({"id": "ch_1", "object": "charge", "amount": 9000, "payment_intent": "pi_1", "refunds": refunds})
}

fn parsed(event: &Value) -> WebhookEvent {
    parse(event.to_string().as_bytes(), None).unwrap()
}

fn only_refund(event: &Value) -> RefundEvent {
    match parsed(event).content {
        EventContent::Refunds(refunds) if refunds.len() == 1 => refunds[0].clone(),
        other => panic!("not one refund: {other:?}"),
    }
}

fn reason(event: &Value) -> String {
    match parsed(event).content {
        EventContent::Irrelevant { reason } => reason,
        other => panic!("not irrelevant: {other:?}"),
    }
}

fn refused_field(event: &Value) -> String {
    parse(event.to_string().as_bytes(), None).unwrap_err().field.unwrap()
}

#[test]
fn each_type_that_carries_a_refund_is_read() {
    for event_type in ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"] {
        let event = parsed(&event(event_type, &refund()));
        let expected = RefundEvent {
            refund_ref: "re_1".into(),
            payment_ref: "pi_1".into(),
            charge_ref: Some("ch_1".into()),
            amount: 9000,
            currency: "eur".into(),
            progress: RefundProgress::Succeeded,
            created: DateTime::from_timestamp(1_795_514_400, 0),
            updated: None,
            account: String::new(),
            charge: None,
            provider_reversal: None,
            shares: None,
        };
        assert_eq!(event.content, EventContent::Refunds(vec![expected]));
        assert_eq!(event.source, Source::Stripe);
        assert_eq!((event.event_id.as_str(), event.event_type.as_str()), ("evt_1", event_type));
        assert_eq!(event.object_id.as_deref(), Some("re_1"));
    }
}

#[test]
fn a_refund_without_a_payment_intent_belongs_to_its_charge() {
    let refund = only_refund(&event("refund.created", &refund_with("payment_intent", Value::Null)));
    assert_eq!(refund.payment_ref, "ch_1");
}

#[test]
fn an_object_is_named_by_its_id_or_given_in_full() {
    for (field, id) in [("payment_intent", "pi_1"), ("charge", "ch_1")] {
        let expanded = refund_with(field, json!({"id": id, "object": field, "amount": 9000}));
        let refund = only_refund(&event("refund.created", &expanded));
        assert_eq!((refund.payment_ref.as_str(), refund.charge_ref.as_deref()), ("pi_1", Some("ch_1")));
        for wrong in [json!({"object": field}), json!({"id": 7}), json!([]), json!(7)] {
            let error =
                parse(event("refund.created", &refund_with(field, wrong)).to_string().as_bytes(), None).unwrap_err();
            assert_eq!(error.to_string(), format!("data.object.{field} must be an id, or an object with an id"));
        }
    }
    let mut listed = refund_with("payment_intent", Value::Null);
    listed["charge"] = Value::Null;
    let mut charge = charge(json!({"data": [listed]}));
    charge["payment_intent"] = json!({"id": "pi_1", "object": "payment_intent"});
    assert_eq!(only_refund(&event("charge.refunded", &charge)).payment_ref, "pi_1");
}

#[test]
fn a_refund_without_payment_intent_and_charge_is_irrelevant() {
    let mut refund = refund_with("payment_intent", Value::Null);
    refund["charge"] = Value::Null;
    assert!(reason(&event("refund.created", &refund)).contains("neither"));
}

#[test]
fn only_the_word_succeeded_makes_a_refund_count() {
    for status in ["pending", "requires_action", "Succeeded", "Failed", "new_word"] {
        let refund = only_refund(&event("refund.updated", &refund_with("status", json!(status))));
        assert_eq!(refund.progress, RefundProgress::Other(status.into()));
    }
    for status in ["failed", "canceled"] {
        let refund = only_refund(&event("refund.failed", &refund_with("status", json!(status))));
        assert_eq!(refund.progress, RefundProgress::Failed(status.into()));
    }
    let refund = only_refund(&event("refund.updated", &refund_with("status", Value::Null)));
    assert_eq!(refund.progress, RefundProgress::Other("none".into()));
}

#[test]
fn a_transfer_reversal_by_id_or_in_full_says_that_stripe_has_reversed_already() {
    let found = |transfer: Option<&str>| {
        Some(ProviderReversal { id: Some("trr_1".into()), transfer_id: transfer.map(Into::into) })
    };
    let expanded = json!({"id": "trr_1", "object": "transfer_reversal", "transfer": "tr_1"});
    for (reversal, expected) in [(json!("trr_1"), found(None)), (expanded, found(Some("tr_1")))] {
        let refund = only_refund(&event("refund.created", &refund_with("transfer_reversal", reversal)));
        assert_eq!(refund.provider_reversal, expected);
    }
    // The charge, in full, knows its own transfer.
    let mut charge = charge(json!({"data": [refund_with("transfer_reversal", json!("trr_1"))]}));
    charge["transfer"] = json!("tr_1");
    assert_eq!(only_refund(&event("charge.refunded", &charge)).provider_reversal, found(Some("tr_1")));
    let mut without = refund();
    without.as_object_mut().unwrap().remove("transfer_reversal");
    assert_eq!(only_refund(&event("refund.created", &without)).provider_reversal, None);
}

#[test]
fn a_charge_says_how_much_of_it_was_captured() {
    let facts = |amount, captured, refunded| Some(ChargeFacts { amount, captured, refunded });
    for (captured, amount_captured, expected) in [
        (json!(true), json!(6000), facts(9000, 6000, 4000)),
        (json!(false), json!(0), facts(9000, 0, 4000)),
        (json!(false), json!(null), facts(9000, 0, 4000)),
        (json!(null), json!(6000), None),
        (json!(true), json!(null), None),
    ] {
        let mut charge = charge(json!({"data": [refund()]}));
        (charge["captured"], charge["amount_captured"]) = (captured, amount_captured);
        charge["amount_refunded"] = json!(4000);
        assert_eq!(only_refund(&event("charge.refunded", &charge)).charge, expected);
        let expanded = refund_with("charge", charge);
        assert_eq!(only_refund(&event("refund.created", &expanded)).charge, expected, "expanded");
    }
}

#[test]
fn a_refund_that_waits_for_the_platforms_balance_is_told_from_other_pending_ones() {
    for (reason, expected) in [
        (json!("insufficient_funds"), RefundProgress::AwaitingFunds("insufficient_funds".into())),
        (json!("charge_pending"), RefundProgress::Other("pending".into())),
        (json!(null), RefundProgress::Other("pending".into())),
    ] {
        let mut refund = refund_with("status", json!("pending"));
        refund["pending_reason"] = reason;
        assert_eq!(only_refund(&event("refund.created", &refund)).progress, expected);
    }
}

#[test]
fn metadata_names_shares_as_they_are_written() {
    let metadata = json!({"order": "7", "clawback_tr_1": "4500", "clawback[tr_2]": "", "clawback_": "x", "clawback": "1", "clawback_claim": "stripe:re_1"});
    let refund = only_refund(&event("refund.created", &refund_with("metadata", metadata)));
    let share = |transfer_id: &str, amount: &str| NamedShare { transfer_id: transfer_id.into(), amount: amount.into() };
    let mut shares = refund.shares.unwrap();
    shares.sort_unstable();
    assert_eq!(shares, [share("", "x"), share("tr_1", "4500"), share("tr_2", "")]);
    for metadata in [json!(null), json!({}), json!({"order": "7"}), json!("odd")] {
        assert_eq!(only_refund(&event("refund.created", &refund_with("metadata", metadata))).shares, None);
    }
}

#[test]
fn a_refunded_charge_gives_each_of_the_refunds_that_it_lists() {
    let mut second = refund_with("id", json!("re_2"));
    second["payment_intent"] = Value::Null;
    second.as_object_mut().unwrap().remove("charge");
    let event = parsed(&event("charge.refunded", &charge(json!({"data": [refund(), second]}))));
    assert_eq!(event.object_id.as_deref(), Some("ch_1"));
    let EventContent::Refunds(refunds) = event.content else { panic!("{:?}", event.content) };
    let refs: Vec<_> = refunds.iter().map(|refund| (refund.refund_ref.as_str(), refund.payment_ref.as_str())).collect();
    assert_eq!(refs, [("re_1", "pi_1"), ("re_2", "pi_1")]);
    assert_eq!(refunds[1].charge_ref.as_deref(), Some("ch_1"));
}

#[test]
fn a_refunded_charge_that_does_not_list_its_refunds_has_them_looked_up() {
    let mut absent = charge(Value::Null);
    absent.as_object_mut().unwrap().remove("refunds");
    for charge in [absent, charge(Value::Null), charge(json!({"data": []}))] {
        let content = parsed(&event("charge.refunded", &charge)).content;
        assert_eq!(content, looked_up(Subject::RefundsOfCharge, "ch_1"));
    }
}

fn looked_up(subject: Subject, reference: &str) -> EventContent {
    EventContent::LookUp { subject, reference: reference.to_owned() }
}

fn thin(kind: &str, id: &str) -> Value {
    json!({
        "id": "evt_thin", "object": "v2.core.event", "type": kind, "livemode": false, "context": null,
        "related_object": {"id": id, "type": "any", "url": "/v1/any"}, "created": "2026-11-23T10:00:00.000Z",
    })
}

#[test]
fn a_thin_event_names_what_is_to_be_looked_up() {
    for (kind, id, subject) in [
        ("v1.refund.created", "re_9", Subject::Refund),
        ("v1.refund.updated", "re_9", Subject::Refund),
        ("v1.refund.failed", "re_9", Subject::Refund),
        ("v1.charge.refund.updated", "re_9", Subject::Refund),
        ("v1.charge.refunded", "ch_9", Subject::RefundsOfCharge),
        ("v1.charge.dispute.closed", "du_9", Subject::Dispute),
        ("v1.charge.dispute.funds_withdrawn", "du_9", Subject::Dispute),
        ("v1.transfer.created", "tr_9", Subject::Transfer),
    ] {
        let event = parsed(&thin(kind, id));
        assert_eq!((event.content, event.object_id.as_deref()), (looked_up(subject, id), Some(id)), "{kind}");
    }
    for kind in ["v1.customer.created", "refund.created", "v2.core.account.updated"] {
        assert!(reason(&thin(kind, "x_1")).contains("thin"), "{kind}");
    }
    let mut without = thin("v1.refund.created", "re_9");
    without["related_object"] = Value::Null;
    assert_eq!(refused_field(&without), "related_object");
}

#[test]
fn an_event_of_a_connected_account_or_of_the_other_mode_is_not_ours() {
    let content = |event: &Value, livemode| parse(event.to_string().as_bytes(), livemode).unwrap().content;
    let ignored = |event: &Value, livemode, why: &str| match content(event, livemode) {
        EventContent::Irrelevant { reason } => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?}"),
    };
    let mut connected = event("refund.created", &refund());
    connected["account"] = json!("acct_9");
    ignored(&connected, None, "acct_9");
    // Even what could not be read is no reason to have it sent again and again.
    connected["data"]["object"]["amount"] = json!("odd");
    ignored(&connected, None, "acct_9");
    let mut context = thin("v1.refund.created", "re_9");
    context["context"] = json!("acct_9");
    ignored(&context, None, "acct_9");

    let mut live = event("refund.created", &refund());
    for (of_event, of_key, is_ours) in
        [(false, false, true), (true, true, true), (true, false, false), (false, true, false)]
    {
        live["livemode"] = json!(of_event);
        match is_ours {
            true => assert!(matches!(content(&live, Some(of_key)), EventContent::Refunds(_))),
            false => ignored(&live, Some(of_key), " mode"),
        }
        assert!(matches!(content(&live, None), EventContent::Refunds(_)), "without a key it is not known");
    }
}

#[test]
fn a_transfer_is_looked_up_unless_clawback_has_created_it() {
    let mut transfer = json!({"id": "tr_9", "object": "transfer", "metadata": {}});
    assert_eq!(parsed(&event("transfer.created", &transfer)).content, looked_up(Subject::Transfer, "tr_9"));
    transfer["metadata"]["clawback_transfer"] = json!("acct_1:700eur:0");
    assert!(reason(&event("transfer.created", &transfer)).contains("Clawback"));
}

#[test]
fn each_type_is_handled_as_the_table_of_the_documentation_says() {
    let table = include_str!("../../../../docs/stripe.md").lines();
    let table = table.skip_while(|line| *line != "## Types").take_while(|line| *line != "## API versions");
    let mut told = std::collections::HashSet::new();
    for row in table.filter(|line| line.starts_with("| `")) {
        let (types, says) = row[1..].split_once('|').unwrap();
        for kind in types.split('`').filter(|name| name.contains('.')) {
            let object = match kind {
                "charge.refunded" if types.contains("without") => charge(Value::Null),
                "charge.refunded" => charge(json!({"data": [refund()]})),
                _ if kind.contains("dispute") => refund_with("status", json!("lost")),
                _ => refund(),
            };
            let event = if kind.starts_with("v1.") { thin(kind, "re_1") } else { event(kind, &object) };
            let content = parsed(&event).content;
            let does = match content {
                EventContent::Refunds(_) | EventContent::Dispute(_) => "takes",
                EventContent::LookUp { .. } => "looks up",
                EventContent::Irrelevant { .. } => "ignored",
            };
            assert!(says.trim_start().starts_with(does), "{kind}: {content:?}, but the table says {says}");
            told.insert(kind);
        }
    }
    let disputes = dispute::TYPES.map(ToOwned::to_owned);
    let thin = disputes.iter().map(|kind| format!("v1.{kind}"));
    let untold: Vec<_> = disputes.iter().cloned().chain(thin).filter(|kind| !told.contains(kind.as_str())).collect();
    assert!(untold.is_empty() && told.len() >= 29, "{untold:?} of {}", told.len());
}

#[test]
fn an_object_that_was_read_is_what_an_event_with_it_would_be() {
    let EventContent::Refunds(read) = content_of(&refund()).unwrap() else { panic!("no refund") };
    assert_eq!(read, [only_refund(&event("refund.created", &refund()))]);
    assert!(matches!(content_of(&json!({"object": "customer"})), Ok(EventContent::Irrelevant { .. })));
    let dispute = json!({
        "id": "du_1", "object": "dispute", "amount": 4000, "currency": "eur", "status": "lost", "charge": "ch_1",
    });
    let EventContent::Dispute(read) = content_of(&dispute).unwrap() else { panic!("no dispute") };
    assert_eq!(parsed(&event("charge.dispute.closed", &dispute)).content, EventContent::Dispute(read));
    assert!(content_of(&json!({"object": "dispute", "id": "du_1"})).is_err());
    assert_eq!(
        content_of(&refund_with("amount", json!(0))).unwrap_err(),
        "refund.amount must be a positive integer in minor units (got 0)"
    );
    assert!(content_of(&json!({})).is_err());
}

#[test]
fn other_types_are_irrelevant_and_keep_their_ids() {
    let other = event("customer.created", &json!({"id": "cus_1"}));
    assert!(reason(&other).contains("customer.created"));
    assert_eq!(parsed(&other).object_id.as_deref(), Some("cus_1"));
    assert_eq!(parsed(&event("balance.available", &json!({"id": 7}))).object_id, None);
    assert_eq!(parsed(&json!({"id": "evt_1", "type": "odd", "data": "odd"})).object_id, None);
}

#[test]
fn a_refund_that_cannot_be_used_is_refused_by_the_name_of_its_field() {
    for (field, value) in [
        ("id", json!(null)),
        ("id", json!("")),
        ("id", json!("re 1")),
        ("id", json!("re\u{0}1")),
        ("id", json!("x".repeat(256))),
        ("amount", json!(0)),
        ("amount", json!(-1)),
        ("amount", json!("9000")),
        ("amount", json!(90.5)),
        ("amount", json!(9_223_372_036_854_775_808_u64)),
        ("currency", json!("euro")),
        ("currency", json!("e€")),
        ("currency", json!(null)),
        ("payment_intent", json!(7)),
        ("charge", json!("ch\n1")),
        ("status", json!("")),
    ] {
        assert_eq!(
            refused_field(&event("refund.created", &refund_with(field, value.clone()))),
            format!("data.object.{field}"),
            "{value}"
        );
        let listed = charge(json!({"data": [refund(), refund_with(field, value.clone())]}));
        assert_eq!(
            refused_field(&event("charge.refunded", &listed)),
            format!("data.object.refunds.data[1].{field}"),
            "{value}"
        );
    }
}

#[test]
fn a_missing_field_is_refused_by_its_name() {
    for field in ["id", "amount", "currency"] {
        let mut refund = refund();
        refund.as_object_mut().unwrap().remove(field);
        assert_eq!(refused_field(&event("refund.created", &refund)), format!("data.object.{field}"));
    }
    assert_eq!(refused_field(&json!({"id": "evt_1"})), "type");
    assert_eq!(refused_field(&json!({"type": "refund.created"})), "id");
    assert_eq!(refused_field(&json!({"id": "evt\u{0}", "type": "x"})), "id");
    assert_eq!(refused_field(&json!({"id": "evt_1", "type": "refund.created"})), "data.object");
}

#[test]
fn what_is_no_json_object_is_refused_with_its_place() {
    for body in ["", "{", "[]", "null", "\"x\"", "{\"id\":\"evt_1\",\"type\":\"x\"} trailing"] {
        let error = parse(body.as_bytes(), None).unwrap_err();
        assert_eq!(error.field, None, "{body}");
        assert!(error.problem.contains("line 1"), "{body}: {error}");
    }
}

proptest! {
    #[test]
    fn no_body_makes_it_panic(body: Vec<u8>) {
        prop_assert!(parse(&body, None).is_err());
    }

    #[test]
    fn every_positive_amount_is_taken_as_it_is(amount in 1..=i64::MAX) {
        prop_assert_eq!(only_refund(&event("refund.created", &refund_with("amount", json!(amount)))).amount, amount);
    }
}
