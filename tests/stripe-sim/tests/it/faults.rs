//! Each fault does what it says, to the request it is for and no other, as often as it was asked for.

use serde_json::json;
use stripe_sim::{Fault, Target};

use crate::support::{Caller, TIMEOUT, got};

const REVERSALS: &str = "/v1/transfers/tr_1/reversals";

#[tokio::test]
async fn each_fault_answers_and_does_what_it_says() {
    // The status, or none for a cut connection; `error.code` or type; what is reversed.
    let rows = [
        (Fault::ServerError, Some(500), "api_error", 0),
        (Fault::ServerErrorAtTheEdge, Some(500), "api_error", 0),
        (Fault::ServerErrorApplied, Some(500), "api_error", 700),
        (Fault::Conflict409, Some(409), "idempotency_key_in_use", 0),
        (Fault::RateLimited { retry_after: Some(2) }, Some(429), "rate_limit", 0),
        (Fault::LockTimeout, Some(429), "lock_timeout", 0),
        (Fault::UnavailableHtml, Some(503), "", 0),
        (Fault::BadGateway, Some(502), "", 0),
        (Fault::BalanceInsufficient, Some(400), "balance_insufficient", 0),
        (Fault::Unauthorized, Some(401), "invalid_request_error", 0),
        (Fault::PermissionDenied, Some(403), "more_permissions_required", 0),
        (Fault::Pending, Some(200), "", 700),
        (Fault::Failed, Some(200), "", 0),
        (Fault::Garbage200 { applied: true }, Some(200), "", 700),
        (Fault::Garbage200 { applied: false }, Some(200), "", 0),
        (Fault::AlreadyReversedElsewhere { amount: None }, Some(400), "invalid_request_error", 9_000),
        (Fault::AlreadyReversedElsewhere { amount: Some(1) }, Some(200), "", 701),
        (Fault::Slow { delay_ms: 1 }, Some(200), "", 700),
        (Fault::SlowThenNothing { delay_ms: 1 }, None, "", 0),
        (Fault::DropBeforeApply, None, "", 0),
        (Fault::ApplyThenDropConnection, None, "", 700),
    ];
    for (fault, status, error, reversed) in rows {
        let caller = Caller::new();
        caller.sim.fault("tr_1", fault.clone(), 1);
        match (caller.try_post(REVERSALS, "k", &[("amount", "700")]).await, status) {
            (Ok(response), Some(status)) => {
                let got = got(response).await;
                assert_eq!((got.status, got.error()), (status, error), "{fault:?}: {}", got.body);
                assert!(got.header("request-id").unwrap().starts_with("req_"));
            }
            (Err(error), None) => assert!(error.is_request() && error.status().is_none(), "{fault:?}: {error:?}"),
            (other, _) => assert_eq!(format!("{other:?}"), "as expected", "{fault:?}"),
        }
        assert_eq!(caller.reversed(), reversed, "{fault:?}");
        let ledger = caller.sim.ledger();
        let request = &ledger.requests[0];
        assert_eq!((request.status, request.dropped), (status, status.is_none()), "{fault:?}");
        assert_eq!(request.fault, Some(fault));
    }
}

#[tokio::test]
async fn a_500_from_an_edge_is_not_saved() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::ServerErrorAtTheEdge, 1);
    assert_eq!(caller.reverse("k", "700").await.status, 500);
    assert_eq!((caller.reverse("k", "700").await.status, caller.reversed()), (200, 700));
}

#[tokio::test]
async fn who_comes_while_a_transfer_is_being_reversed_is_refused_and_not_saved() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::Slow { delay_ms: 300 }, 1);
    let meanwhile = async {
        caller.sim.wait_for(|ledger| ledger.requests.len() == 1, TIMEOUT).await.unwrap();
        caller.reverse("other", "1").await
    };
    let (slow, meanwhile) = tokio::join!(caller.reverse("slow", "700"), meanwhile);
    assert_eq!((slow.status, meanwhile.status, meanwhile.error()), (200, 429, "lock_timeout"));
    assert_eq!((caller.reverse("other", "1").await.status, caller.reversed()), (200, 701));
}

#[tokio::test]
async fn a_fault_is_met_as_often_as_it_was_asked_for_and_only_by_its_transfer() {
    let caller = Caller::new();
    caller.sim.add_transfer("tr_2", 9_000, "eur", "acct_1");
    caller.sim.fault("tr_1", Fault::LockTimeout, 2);
    let other = caller.post("/v1/transfers/tr_2/reversals", "other", &[("amount", "1")]).await;
    assert_eq!(other.status, 200);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(caller.reverse("k", "700").await.status);
    }
    assert_eq!(statuses, [429, 429, 200]);
}

#[tokio::test]
async fn faults_are_met_in_the_order_in_which_they_were_set() {
    let caller = Caller::new();
    caller.sim.fault(Target::Any, Fault::UnavailableHtml, 1);
    caller.sim.fault("tr_1", Fault::BadGateway, 1);
    assert_eq!(caller.reverse("k", "1").await.status, 503);
    assert_eq!(caller.reverse("k", "1").await.status, 502);
    assert_eq!(caller.reverse("k", "1").await.status, 200);
}

#[tokio::test]
async fn a_fault_for_writes_lets_reads_pass_and_the_other_way_round() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::ServerError, 1);
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 200);
    assert_eq!(caller.reverse("k", "1").await.status, 500);
    caller.sim.fault_reads("tr_1", Fault::ServerError, 1);
    assert_eq!(caller.reverse("k2", "1").await.status, 200);
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 500);
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 200, "a read has no key, so nothing is saved");
}

#[tokio::test]
async fn a_replay_does_not_use_up_a_fault_that_only_an_execution_meets() {
    let caller = Caller::new();
    caller.reverse("first", "1").await;
    caller.sim.fault("tr_1", Fault::BalanceInsufficient, 1);
    assert_eq!(caller.reverse("first", "1").await.status, 200);
    assert_eq!(caller.reverse("second", "1").await.error(), "balance_insufficient");
}

#[tokio::test]
async fn a_lost_answer_can_be_lost_again_before_the_replay_arrives() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::ApplyThenDropConnection, 2);
    for _ in 0..2 {
        assert!(caller.try_post(REVERSALS, "k", &[("amount", "700")]).await.is_err());
    }
    assert_eq!(caller.reverse("k", "700").await.header("idempotent-replayed"), Some("true"));
    assert_eq!(caller.reversed(), 700);
}

#[tokio::test]
async fn an_execution_goes_on_when_its_client_has_gone() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::Slow { delay_ms: 200 }, 1);
    tokio::select! {
        _ = caller.try_post(REVERSALS, "k", &[("amount", "700")]) => {}
        arrived = caller.sim.wait_for(|ledger| ledger.requests.len() == 1, TIMEOUT) => assert!(arrived.is_ok()),
    }
    assert_eq!(caller.reversed(), 0, "the client is gone before it is done");
    caller.sim.wait_for(|ledger| ledger.reversals("tr_1").len() == 1, TIMEOUT).await.unwrap();
}

#[tokio::test]
async fn garbage_hides_an_answer_that_a_replay_shows() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::Garbage200 { applied: true }, 1);
    assert!(caller.reverse("k", "700").await.body.is_string());
    let replay = caller.reverse("k", "700").await;
    assert_eq!((replay.header("idempotent-replayed"), &replay.body["amount"]), (Some("true"), &700.into()));
}

#[tokio::test]
async fn a_pending_reversal_reserves_its_amount_until_it_ends() {
    for (status, reversed) in [("succeeded", 8_500), ("failed", 0), ("canceled", 0)] {
        let caller = Caller::new();
        caller.sim.set_balance("acct_1", Some(9_000));
        caller.sim.fault("tr_1", Fault::Pending, 1);
        let pending = caller.reverse("k", "8500").await.body;
        assert_eq!(pending["status"], "pending");
        assert_eq!(caller.reverse("k2", "600").await.status, 400, "too little is left");
        let id = pending["id"].as_str().unwrap();
        caller.sim.settle(id, status);
        let shown = caller.get(&format!("{REVERSALS}/{id}")).await.body;
        assert_eq!(shown["status"], status);
        assert_eq!(caller.reversed(), reversed, "{status}");
        assert_eq!(caller.sim.ledger().balances["acct_1"], 9_000 - reversed, "{status}");
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_in_the_header() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::RateLimited { retry_after: Some(2) }, 1);
    let limited = caller.reverse("k", "1").await;
    assert_eq!(limited.header("retry-after"), Some("2"));
    assert_eq!(limited.header("stripe-rate-limited-reason"), Some("global-rate"));
}

#[tokio::test]
async fn a_refusal_comes_in_the_words_that_were_asked_for_and_is_saved_as_stripe_would() {
    for (status, code, is_saved) in [(400, None, true), (403, Some("account_invalid"), false)] {
        let caller = Caller::new();
        let (code, message) = (code.map(str::to_owned), "Insufficient funds, says the test".to_owned());
        caller.sim.fault("tr_1", Fault::Refused { status, code: code.clone(), message: message.clone() }, 1);
        let got = caller.reverse("k", "1").await;
        let error = &got.body["error"];
        assert_eq!((got.status, error["code"].as_str(), &error["message"]), (status, code.as_deref(), &json!(message)));
        let again = caller.reverse("k", "1").await;
        assert_eq!(
            (again.status, again.header("idempotent-replayed").is_some()),
            (if is_saved { 400 } else { 200 }, is_saved)
        );
    }
}

#[tokio::test]
#[should_panic(expected = "it has no meaning for reads")]
async fn a_fault_that_has_no_meaning_for_reads_is_refused() {
    Caller::new().sim.fault_reads("tr_1", Fault::Pending, 1);
}

#[tokio::test]
async fn every_fault_can_be_written_in_json() {
    for (json, fault) in [
        (json!({"kind": "apply_then_drop_connection"}), Fault::ApplyThenDropConnection),
        (json!({"kind": "conflict_409"}), Fault::Conflict409),
        (json!({"kind": "rate_limited"}), Fault::RateLimited { retry_after: None }),
        (json!({"kind": "rate_limited", "retry_after": 3}), Fault::RateLimited { retry_after: Some(3) }),
        (json!({"kind": "slow", "delay_ms": 5}), Fault::Slow { delay_ms: 5 }),
        (json!({"kind": "garbage_200"}), Fault::Garbage200 { applied: true }),
        (json!({"kind": "already_reversed_elsewhere"}), Fault::AlreadyReversedElsewhere { amount: None }),
    ] {
        assert_eq!(serde_json::from_value::<Fault>(json.clone()).unwrap(), fault, "{json}");
    }
    assert!(serde_json::from_value::<Fault>(json!({"kind": "slow", "delay": 5})).is_err());
}

#[tokio::test]
async fn random_faults_are_the_same_for_the_same_seed_and_as_many_as_asked_for() {
    let met = async |seed| {
        let caller = Caller::new();
        caller.sim.random_faults(seed, 0.5);
        for n in 0..60 {
            let _ = caller.try_post(REVERSALS, &format!("k{n}"), &[("amount", "1")]).await;
        }
        let ledger = caller.sim.ledger();
        ledger.requests.iter().map(|request| request.fault.clone()).collect::<Vec<_>>()
    };
    let faults = met(7).await;
    assert_eq!(faults, met(7).await);
    assert_ne!(faults, met(8).await);
    let share = faults.iter().flatten().count();
    assert!((15..=45).contains(&share), "{share} of 60");
}
