//! The API without faults: objects, lists, parameters, authentication, limits. `check_with_stripe_sdk` checks the
//! shapes beyond this.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use stripe_sim::{Fault, PLATFORM};

use crate::support::{Caller, got};

const REVERSALS: &str = "/v1/transfers/tr_1/reversals";

#[tokio::test]
async fn a_reversal_has_the_shape_of_stripes() {
    let caller = Caller::new();
    let form = [("amount", "700"), ("metadata[reversal_id]", "r1"), ("metadata[note]", "a & b"), ("description", "d")];
    let got = caller.post(REVERSALS, "k", &form).await;
    assert_eq!(got.status, 200);
    let (id, created) = (got.body["id"].as_str().unwrap(), got.body["created"].as_i64().unwrap());
    assert!(id.starts_with("trr_") && created > 1_700_000_000, "{}", got.body);
    let rest = &id["trr_".len()..];
    let expected = json!({
        "id": id, "object": "transfer_reversal", "amount": 700, "balance_transaction": format!("txn_{rest}"),
        "created": created, "currency": "eur", "destination_payment_refund": format!("pyr_{rest}"),
        "metadata": {"reversal_id": "r1", "note": "a & b"}, "source_refund": null, "transfer": "tr_1",
    });
    assert_eq!(got.body, expected);
    assert_eq!(caller.get(&format!("{REVERSALS}/{id}")).await.body, expected);
}

#[tokio::test]
async fn a_reversal_without_an_amount_takes_all_that_is_left() {
    let caller = Caller::new();
    caller.reverse("k", "700").await;
    assert_eq!(caller.post(REVERSALS, "k2", &[]).await.body["amount"], 8_300);
    let transfer = caller.get("/v1/transfers/tr_1").await.body;
    assert_eq!((&transfer["amount_reversed"], &transfer["reversed"]), (&9_000.into(), &true.into()));
}

#[tokio::test]
async fn an_error_leaves_out_what_is_null() {
    let caller = Caller::new();
    caller.reverse("k", "9000").await;
    let got = caller.reverse("k2", "1").await;
    let error = got.body["error"].as_object().unwrap();
    let names: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!((got.status, names), (400, vec!["message", "request_log_url", "type"]));
    assert_eq!(error["message"], "The transfer tr_1 is already fully reversed.");
    assert_eq!(error["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_bad_request_is_refused_with_stripes_error() {
    let caller = Caller::new();
    let long = "1".repeat(30);
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], u16, &'a str, &'a str);
    let rows: [Row<'_>; 10] = [
        ("/v1/transfers/tr_2/reversals", &[("amount", "1")], 404, "resource_missing", "id"),
        (REVERSALS, &[("amount", "9001")], 400, "invalid_request_error", "amount"),
        (REVERSALS, &[("amount", "0")], 400, "parameter_invalid_integer", "amount"),
        (REVERSALS, &[("amount", "-1")], 400, "parameter_invalid_integer", "amount"),
        (REVERSALS, &[("amount", "1.5")], 400, "parameter_invalid_integer", "amount"),
        (REVERSALS, &[("amount", &long)], 400, "parameter_invalid_integer", "amount"),
        (REVERSALS, &[("amount", "1"), ("nonsense", "1")], 400, "parameter_unknown", "nonsense"),
        (REVERSALS, &[("amount", "1"), ("expand[]", "nonsense")], 400, "invalid_request_error", "expand[]"),
        ("/v1/transfers", &[("amount", "1"), ("currency", "eur")], 400, "parameter_missing", "destination"),
        ("/v1/nonsense", &[], 404, "invalid_request_error", ""),
    ];
    for (at, (path, form, status, error, param)) in rows.into_iter().enumerate() {
        let got = caller.post(path, &at.to_string(), form).await;
        let found = (got.status, got.error(), got.body["error"]["param"].as_str().unwrap_or_default());
        assert_eq!(found, (status, error, param), "{path} {form:?}: {}", got.body);
    }
    assert_eq!(caller.reversed(), 0);
}

#[tokio::test]
async fn lists_are_paged_in_both_directions() {
    let caller = Caller::new();
    for key in 0..5 {
        caller.reverse(&key.to_string(), "1").await;
    }
    // Newest first.
    let ids: Vec<_> = caller.sim.ledger().reversals("tr_1").iter().rev().map(|reversal| reversal.id.clone()).collect();
    let page = async |query: &str| {
        let body = caller.get(&format!("{REVERSALS}?{query}")).await.body;
        let data = body["data"].as_array().unwrap();
        let ids: Vec<_> = data.iter().map(|reversal| reversal["id"].as_str().unwrap().to_owned()).collect();
        (ids, body["has_more"].as_bool().unwrap())
    };
    assert_eq!(page("").await, (ids.clone(), false));
    assert_eq!(page("limit=2").await, (ids[..2].to_vec(), true));
    assert_eq!(page(&format!("limit=2&starting_after={}", ids[1])).await, (ids[2..4].to_vec(), true));
    assert_eq!(page(&format!("limit=2&starting_after={}", ids[3])).await, (ids[4..].to_vec(), false));
    assert_eq!(page(&format!("limit=2&ending_before={}", ids[4])).await, (ids[2..4].to_vec(), true));
    assert_eq!(page(&format!("limit=2&ending_before={}", ids[2])).await, (ids[..2].to_vec(), false));
    assert_eq!(caller.get(&format!("{REVERSALS}?starting_after=trr_x")).await.error(), "resource_missing");
    assert_eq!(caller.get(&format!("{REVERSALS}?limit=101")).await.error(), "parameter_invalid_integer");
}

#[tokio::test]
async fn a_list_lags_but_the_transfer_does_not() {
    let caller = Caller::new();
    caller.sim.set_list_lag(Duration::from_secs(3_600));
    caller.reverse("k", "700").await;
    assert_eq!(caller.get(REVERSALS).await.body["data"], json!([]));
    assert_eq!(caller.get("/v1/transfers/tr_1").await.body["amount_reversed"], 700);
    caller.sim.advance(Duration::from_secs(3_600));
    assert_eq!(caller.get(REVERSALS).await.body["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_created_transfer_can_be_read_listed_and_reversed() {
    let caller = Caller::new();
    let form = [("amount", "500"), ("currency", "EUR"), ("destination", "acct_2"), ("transfer_group", "g")];
    let created = caller.post("/v1/transfers", "k", &form).await.body;
    let id = created["id"].as_str().unwrap();
    assert_eq!((&created["currency"], &created["object"]), (&"eur".into(), &"transfer".into()));
    assert_eq!(caller.get(&format!("/v1/transfers/{id}")).await.body, created);
    assert_eq!(caller.get("/v1/transfers?transfer_group=g").await.body["data"], json!([created]));
    assert_eq!(caller.get("/v1/transfers?destination=acct_1").await.body["data"][0]["id"], "tr_1");
    assert_eq!(caller.post(&format!("/v1/transfers/{id}/reversals"), "k2", &[("amount", "1")]).await.status, 200);
}

#[tokio::test]
async fn a_creation_is_replayed_under_its_key_and_refused_with_other_parameters() {
    let caller = Caller::new();
    let form = [("amount", "500"), ("currency", "eur"), ("destination", "acct_2"), ("metadata[id]", "1")];
    let first = caller.post("/v1/transfers", "k", &form).await;
    let again = caller.post("/v1/transfers", "k", &form).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
    assert_eq!(first.body["metadata"], json!({"id": "1"}));
    let other = [("amount", "501"), ("currency", "eur"), ("destination", "acct_2")];
    assert_eq!(caller.post("/v1/transfers", "k", &other).await.error(), "idempotency_error");
    assert_eq!(caller.sim.ledger().transfers_to("acct_2").len(), 1);
    assert_eq!(caller.sim.ledger().creation_posts("acct_2").count(), 3);
}

#[tokio::test]
async fn a_creation_needs_an_account_and_the_platforms_balance_or_a_charge() {
    let caller = Caller::new();
    let create = async |key: &str, destination: &str, more: &[(&str, &str)]| {
        let form = [&[("amount", "500"), ("currency", "eur"), ("destination", destination)], more].concat();
        caller.post("/v1/transfers", key, &form).await
    };
    let unknown = create("k1", "somebody", &[]).await;
    assert_eq!((unknown.status, unknown.error()), (400, "resource_missing"));
    caller.sim.set_balance(PLATFORM, Some(700));
    assert_eq!(create("k2", "acct_2", &[]).await.status, 200);
    let short = create("k3", "acct_2", &[]).await;
    assert_eq!((short.status, short.error()), (400, "balance_insufficient"));
    let from_charge = create("k4", "acct_2", &[("source_transaction", "ch_1"), ("transfer_group", "g")]).await;
    assert_eq!(from_charge.body["transfer_group"], "group_ch_1", "Stripe chooses the charge's group");
    assert_eq!(caller.sim.ledger().balances[PLATFORM], 200);
}

#[tokio::test]
async fn transfers_are_listed_by_group_and_age_over_pages() {
    let caller = Caller::new();
    for key in ["k1", "k2", "k3"] {
        let form = [("amount", "1"), ("currency", "eur"), ("destination", "acct_2"), ("transfer_group", "g")];
        assert_eq!(caller.post("/v1/transfers", key, &form).await.status, 200);
    }
    let page = async |query: String| caller.get(&format!("/v1/transfers?transfer_group=g&{query}")).await.body;
    let first = page("limit=2".to_owned()).await;
    assert_eq!((first["data"].as_array().unwrap().len(), &first["has_more"]), (2, &true.into()));
    let last = first["data"][1]["id"].as_str().unwrap();
    assert_eq!(page(format!("starting_after={last}")).await["data"].as_array().unwrap().len(), 1);
    let created = first["data"][1]["created"].as_i64().unwrap();
    assert_eq!(page(format!("created[gte]={}", created - 60)).await["data"].as_array().unwrap().len(), 3);
    assert_eq!(page(format!("created[gte]={}", created + 60)).await["data"], json!([]));
    caller.sim.set_list_lag(Duration::from_secs(3_600));
    assert_eq!(page(String::new()).await["data"], json!([]));
}

#[tokio::test]
async fn a_fault_meets_the_creations_for_its_account() {
    let caller = Caller::new();
    caller.sim.fault("acct_2", Fault::BalanceInsufficient, 1);
    let create = async |key: &str, destination: &str| {
        caller.post("/v1/transfers", key, &[("amount", "1"), ("currency", "eur"), ("destination", destination)]).await
    };
    assert_eq!(create("k1", "acct_3").await.status, 200);
    assert_eq!(create("k2", "acct_2").await.error(), "balance_insufficient");
    assert_eq!(create("k3", "acct_2").await.status, 200);
}

#[tokio::test]
async fn a_key_comes_as_bearer_or_basic_and_any_other_is_401() {
    let caller = Caller::new();
    let get = || caller.request(Method::GET, "/v1/account");
    assert_eq!(got(get().bearer_auth("sk_test_1").send().await.unwrap()).await.status, 200);
    assert_eq!(got(get().basic_auth("sk_test_1", Some("")).send().await.unwrap()).await.status, 200);
    for request in [get(), get().bearer_auth("sk_live_abcdef"), get().bearer_auth(""), get().basic_auth("", Some("x"))]
    {
        let got = got(request.send().await.unwrap()).await;
        assert_eq!((got.status, got.error()), (401, "invalid_request_error"), "{}", got.body);
        assert!(!got.body.to_string().contains("abcdef"), "{}", got.body);
    }
    caller.sim.allow_keys(["sk_live_abcdef"]);
    assert_eq!(got(get().bearer_auth("sk_live_abcdef").send().await.unwrap()).await.status, 200);
    assert_eq!(got(get().bearer_auth("sk_test_1").send().await.unwrap()).await.status, 401);
}

#[tokio::test]
async fn a_balance_bounds_what_can_be_reversed() {
    let caller = Caller::new();
    caller.sim.set_balance("acct_1", Some(1_000));
    assert_eq!(caller.reverse("k", "700").await.status, 200);
    assert_eq!(caller.reverse("k2", "700").await.error(), "balance_insufficient");
    assert_eq!(caller.reverse("k3", "300").await.status, 200);
    assert_eq!(caller.sim.ledger().balances["acct_1"], 0);
}

#[tokio::test]
async fn beyond_the_rate_limit_is_429_until_time_has_passed() {
    let caller = Caller::new();
    caller.sim.set_rate_limit(Some(1));
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 200);
    let limited = caller.get("/v1/transfers/tr_1").await;
    assert_eq!((limited.status, limited.error()), (429, "rate_limit"));
    caller.sim.advance(Duration::from_secs(1));
    assert_eq!(caller.get("/v1/transfers/tr_1").await.status, 200);
}

#[tokio::test]
async fn the_version_that_is_asked_for_is_answered() {
    let caller = Caller::new();
    let request = caller.request(Method::GET, "/v1/balance").bearer_auth("sk_test_1");
    let got = got(request.header("stripe-version", "2020-08-27").send().await.unwrap()).await;
    assert_eq!(got.header("stripe-version"), Some("2020-08-27"));
    assert_eq!(caller.get("/v1/balance").await.header("stripe-version"), Some(stripe_sim::API_VERSION));
}
