//! What benchmarks need: many transfers, a bounded log, cheap counts.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use stripe_sim::{Counts, Sim};

use crate::support::{Caller, got};

#[tokio::test]
async fn many_transfers_are_there_at_once() {
    let caller = Caller::new();
    let seed = json!({"count": 200_000, "amount": 70});
    let answer = caller.request(Method::POST, "/_sim/transfers/seed").json(&seed).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for id in ["tr_bench_1", "tr_bench_200000"] {
        assert_eq!(caller.get(&format!("/v1/transfers/{id}")).await.body["amount"], 70, "{id}");
    }
    assert_eq!(caller.get("/v1/transfers/tr_bench_200001").await.status, 404);
    assert_eq!(caller.get("/v1/transfers?limit=1").await.body["data"][0]["id"], "tr_bench_200000");
}

#[tokio::test]
async fn a_bounded_log_keeps_the_newest_requests_and_counts_all() {
    for (sim, least, most) in [
        (Sim::builder().log_limit(10).start(), 10, 20),
        (Sim::builder().no_log().start(), 0, 0),
        (Sim::builder().start(), 45, 45),
    ] {
        sim.add_transfer("tr_1", 9_000, "eur", "acct_1");
        let caller = Caller::of(sim);
        for n in 0..45 {
            caller.reverse(&format!("k{}", n / 2), "2").await;
        }
        let ledger = caller.sim.ledger();
        assert!((least..=most).contains(&ledger.requests.len()), "{}", ledger.requests.len());
        if let Some(last) = ledger.requests.last() {
            assert_eq!((last.idempotency_key.as_deref(), last.status), (Some("k22"), Some(200)));
        }
        let expected = Counts { requests: 45, replays: 22, reversals: 23, amount_reversed: 46 };
        assert_eq!(caller.sim.counts(), expected);
        let shown = got(caller.request(Method::GET, "/_sim/counts").send().await.unwrap()).await.body;
        assert_eq!(shown, json!({"requests": 45, "replays": 22, "reversals": 23, "amount_reversed": 46}));
    }
}

#[tokio::test]
async fn a_condition_is_met_also_without_a_log() {
    let sim = Sim::builder().no_log().seed_transfers(3, 10).start();
    let caller = Caller::of(sim);
    assert_eq!(caller.post("/v1/transfers/tr_bench_3/reversals", "k", &[]).await.status, 200);
    caller.sim.wait_for(|ledger| ledger.counts.reversals == 1, Duration::from_secs(10)).await.unwrap();
}
