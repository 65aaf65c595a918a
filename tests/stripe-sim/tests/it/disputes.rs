//! Disputes: what is shown, what moves, and how each ends.

use serde_json::{Value, json};
use stripe_sim::{DisputeStatus, Endpoint, NewDispute, NewPayment, PLATFORM};

use crate::support::Caller;

fn paid() -> Caller {
    let caller = Caller::new();
    caller.sim.pay(NewPayment { charge: Some("ch_1".into()), ..NewPayment::new(10_000, "eur") });
    caller.sim.set_balance(PLATFORM, Some(0));
    caller
}

fn told(caller: &Caller) -> Vec<String> {
    let webhooks = caller.sim.webhooks(&Endpoint::new("", "whsec_1"));
    webhooks.into_iter().filter_map(|of| of.kind.strip_prefix("charge.dispute.").map(str::to_owned)).collect()
}

#[tokio::test]
async fn each_ending_moves_and_tells_what_belongs_to_it() {
    use DisputeStatus::{ChargeRefunded, Lost, UnderReview, Won};
    for (ending, balance, events) in [
        (Won, -15, "created funds_withdrawn updated funds_reinstated closed"),
        (Lost, -4_015, "created funds_withdrawn updated closed"),
        (ChargeRefunded, -4_015, "created funds_withdrawn updated closed"),
    ] {
        let caller = paid();
        let new = NewDispute { id: Some("du_1".into()), amount: Some(4_000), fee: 15, ..NewDispute::of("ch_1") };
        caller.sim.dispute(new);
        let shown = caller.get("/v1/disputes/du_1").await.body;
        assert_eq!((&shown["status"], &shown["amount"]), (&json!("needs_response"), &json!(4_000)));
        assert_eq!(shown["balance_transactions"][0]["net"], -4_015);
        caller.sim.move_dispute("du_1", UnderReview);
        caller.sim.move_dispute("du_1", ending);
        assert_eq!(caller.sim.ledger().balances[PLATFORM], balance, "{ending:?}");
        assert_eq!(told(&caller).join(" "), events, "{ending:?}");
        assert_eq!(caller.get("/v1/disputes/du_1").await.body["status"], ending.as_str());
        assert_eq!(caller.get("/v1/charges/ch_1").await.body["disputed"], true);
    }
}

#[tokio::test]
async fn a_part_is_reinstated_before_the_end_and_the_rest_only_of_a_won_dispute() {
    use DisputeStatus::{Lost, Won};
    for (ending, balance, moved) in [(Won, 0, vec![-4_000, 1_000, 3_000]), (Lost, -3_000, vec![-4_000, 1_000])] {
        let caller = paid();
        let id = caller.sim.dispute(NewDispute { amount: Some(4_000), ..NewDispute::of("ch_1") }).id;
        caller.sim.reinstate(&id, 1_000);
        caller.sim.move_dispute(&id, ending);
        assert_eq!(caller.sim.ledger().balances[PLATFORM], balance, "{ending:?}");
        let shown = caller.get(&format!("/v1/disputes/{id}")).await.body;
        let amounts = shown["balance_transactions"].as_array().unwrap().iter().map(|of| of["amount"].as_i64().unwrap());
        assert_eq!(amounts.collect::<Vec<_>>(), moved);
        assert!(told(&caller).join(" ").starts_with("created funds_withdrawn funds_reinstated"), "{:?}", told(&caller));
    }
}

#[tokio::test]
async fn an_inquiry_moves_nothing_until_it_becomes_a_dispute() {
    for (next, balance, events) in [
        (DisputeStatus::WarningClosed, 0, "created updated closed"),
        (DisputeStatus::NeedsResponse, -10_000, "created updated funds_withdrawn updated"),
    ] {
        let caller = paid();
        let id = caller.sim.dispute(NewDispute::inquiry("ch_1")).id;
        let shown = caller.get(&format!("/v1/disputes/{id}")).await.body;
        assert_eq!((&shown["status"], &shown["balance_transactions"]), (&json!("warning_needs_response"), &json!([])));
        caller.sim.move_dispute(&id, DisputeStatus::WarningUnderReview);
        caller.sim.move_dispute(&id, next);
        assert_eq!(caller.sim.ledger().balances[PLATFORM], balance, "{next:?}");
        assert_eq!(told(&caller).join(" "), events, "{next:?}");
    }
}

#[tokio::test]
async fn disputes_are_listed_by_charge() {
    let caller = paid();
    caller.sim.pay(NewPayment { charge: Some("ch_2".into()), ..NewPayment::new(10_000, "eur") });
    let ids = ["ch_1", "ch_2"].map(|charge| caller.sim.dispute(NewDispute::of(charge)).id);
    let listed = caller.get("/v1/disputes?charge=ch_2").await.body;
    let data: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|of| &of["id"]).collect();
    assert_eq!(data, [&json!(ids[1])]);
    assert_eq!(caller.get("/v1/disputes").await.body["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
#[should_panic(expected = "must not go from lost to won")]
async fn a_lost_dispute_stays_lost() {
    let caller = paid();
    let id = caller.sim.dispute(NewDispute::of("ch_1")).id;
    caller.sim.move_dispute(&id, DisputeStatus::Lost);
    caller.sim.move_dispute(&id, DisputeStatus::Won);
}
