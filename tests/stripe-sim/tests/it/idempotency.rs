//! Idempotency keys: what is saved, what is not, for how long, and for which request.

use std::sync::Arc;
use std::time::Duration;

use stripe_sim::Fault;
use tokio::task::JoinSet;

use crate::support::{Caller, TIMEOUT, got};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn a_repeated_key_gets_the_saved_answer_and_does_nothing() {
    let caller = Caller::new();
    let first = caller.reverse("k", "700").await;
    let second = caller.reverse("k", "700").await;
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(first.body, second.body);
    assert_eq!((first.header("idempotent-replayed"), second.header("idempotent-replayed")), (None, Some("true")));
    assert_ne!(first.header("request-id"), second.header("request-id"));
    assert_eq!(second.header("original-request"), first.header("request-id"));
    assert_eq!(second.header("idempotency-key"), Some("k"));
    assert_eq!(caller.reversed(), 700);
    let replayed: Vec<_> = caller.sim.ledger().requests.iter().map(|request| request.replayed).collect();
    assert_eq!(replayed, [false, true]);
}

#[tokio::test]
async fn a_refusal_of_an_execution_is_saved_even_when_its_reason_is_gone() {
    let caller = Caller::new();
    caller.sim.set_balance("acct_1", Some(0));
    let short = caller.reverse("k", "700").await;
    assert_eq!((short.status, short.error()), (400, "balance_insufficient"));
    caller.sim.set_balance("acct_1", None);
    let again = caller.reverse("k", "700").await;
    assert_eq!((again.error(), again.header("idempotent-replayed")), ("balance_insufficient", Some("true")));
    assert_eq!(caller.reverse("another", "700").await.status, 200);
}

#[tokio::test]
async fn a_500_is_saved_whether_or_not_it_was_done() {
    for (fault, reversed) in [(Fault::ServerError, 0), (Fault::ServerErrorApplied, 700)] {
        let caller = Caller::new();
        caller.sim.fault("tr_1", fault, 1);
        assert_eq!(caller.reverse("k", "700").await.status, 500);
        let again = caller.reverse("k", "700").await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (500, Some("true")));
        assert_eq!(caller.reversed(), reversed);
    }
}

#[tokio::test]
async fn what_is_answered_before_the_execution_is_not_saved() {
    for fault in [
        Fault::RateLimited { retry_after: None },
        Fault::LockTimeout,
        Fault::Unauthorized,
        Fault::PermissionDenied,
        Fault::Conflict409,
        Fault::UnavailableHtml,
        Fault::BadGateway,
    ] {
        let caller = Caller::new();
        caller.sim.fault("tr_1", fault.clone(), 1);
        assert!(caller.reverse("k", "700").await.status >= 400, "{fault:?}");
        let again = caller.reverse("k", "700").await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, None), "{fault:?}");
    }
}

#[tokio::test]
async fn a_parameter_error_is_not_saved_and_leaves_the_key_free() {
    let caller = Caller::new();
    assert_eq!(caller.reverse("k", "0").await.error(), "parameter_invalid_integer");
    assert_eq!(caller.reverse("k", "700").await.status, 200);
}

#[tokio::test]
async fn a_key_with_other_parameters_or_for_another_transfer_is_an_error_of_its_own() {
    let caller = Caller::new();
    caller.sim.add_transfer("tr_2", 9_000, "eur", "acct_1");
    caller.reverse("k", "700").await;
    let other = caller.reverse("k", "800").await;
    assert_eq!((other.status, &other.body["error"]["type"]), (400, &"idempotency_error".into()));
    let elsewhere = caller.post("/v1/transfers/tr_2/reversals", "k", &[("amount", "700")]).await;
    assert_eq!(elsewhere.body["error"]["type"], "idempotency_error");
    assert_eq!(caller.reverse("k", "700").await.status, 200, "the first answer is still there");
    assert_eq!(caller.reversed(), 700);
}

#[tokio::test]
async fn the_order_of_the_parameters_does_not_matter() {
    let caller = Caller::new();
    let path = "/v1/transfers/tr_1/reversals";
    let first = caller.post(path, "k", &[("amount", "700"), ("metadata[a]", "1")]).await;
    let second = caller.post(path, "k", &[("metadata[a]", "1"), ("amount", "700")]).await;
    assert_eq!(first.body, second.body);
}

#[tokio::test]
async fn a_key_in_flight_is_a_conflict_and_then_replays() {
    let caller = Caller::new();
    caller.sim.fault("tr_1", Fault::Slow { delay_ms: 1_000 }, 1);
    let slow = caller.try_post("/v1/transfers/tr_1/reversals", "k", &[("amount", "700")]);
    let meanwhile = async {
        caller.sim.wait_for(|ledger| ledger.requests.len() == 1, TIMEOUT).await.unwrap();
        caller.reverse("k", "700").await
    };
    let (slow, meanwhile) = tokio::join!(slow, meanwhile);
    assert_eq!((meanwhile.status, meanwhile.error()), (409, "idempotency_key_in_use"));
    assert_eq!(got(slow.unwrap()).await.status, 200);
    assert_eq!(caller.reverse("k", "700").await.header("idempotent-replayed"), Some("true"));
    assert_eq!(caller.reversed(), 700);
}

#[tokio::test]
async fn a_key_is_kept_for_24_hours_and_then_runs_again() {
    let caller = Caller::new();
    caller.reverse("k", "700").await;
    caller.sim.advance(24 * HOUR - Duration::from_secs(60));
    assert_eq!(caller.reverse("k", "700").await.header("idempotent-replayed"), Some("true"));
    caller.sim.advance(Duration::from_secs(60));
    assert_eq!(caller.reverse("k", "700").await.header("idempotent-replayed"), None);
    assert_eq!(caller.reversed(), 1_400);
}

#[tokio::test]
async fn a_key_of_more_than_255_characters_is_refused() {
    let caller = Caller::new();
    assert_eq!(caller.reverse(&"k".repeat(255), "1").await.status, 200);
    assert_eq!(caller.reverse(&"k".repeat(256), "1").await.status, 400);
}

#[tokio::test]
async fn of_two_equal_requests_at_once_one_reverses() {
    let caller = Caller::new();
    let caller = Arc::new(caller);
    let mut requests = JoinSet::new();
    for _ in 0..20 {
        let caller = Arc::clone(&caller);
        requests.spawn(async move { caller.reverse("k", "700").await.status });
    }
    let statuses = requests.join_all().await;
    assert!(statuses.iter().all(|status| matches!(status, 200 | 409)), "{statuses:?}");
    assert_eq!(caller.reversed(), 700);
}
