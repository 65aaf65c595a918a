//! Webhooks: which events each API version gets, in which shape, signed and sent.

use serde_json::{Value, json};
use stripe_sim::{Endpoint, NewPayment, NewRefund, RefundStatus, Webhook, sign};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::Caller;

fn endpoint() -> Endpoint {
    Endpoint::new("", "whsec_1")
}

fn paid_by(payment_method: &str) -> Caller {
    let caller = Caller::new();
    caller.sim.pay(NewPayment {
        charge: Some("ch_1".into()),
        payment_intent: Some("pi_1".into()),
        destination: Some("acct_2".into()),
        transfer: Some("tr_2".into()),
        payment_method: Some(payment_method.into()),
        ..NewPayment::new(10_000, "eur")
    });
    caller
}

fn body(webhook: &Webhook) -> Value {
    serde_json::from_str(&webhook.body).unwrap()
}

/// The types of what such an endpoint is told of refunds.
fn told(caller: &Caller, endpoint: &Endpoint) -> String {
    let webhooks = caller.sim.webhooks(endpoint).into_iter().map(|webhook| webhook.kind);
    webhooks.filter(|kind| kind.contains("refund")).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn each_api_version_is_told_of_a_refund_in_its_own_way() {
    let by_charge = "charge.refunded charge.refund.updated";
    let by_refund = "refund.created charge.refunded refund.failed refund.updated charge.refund.updated";
    for (version, method, events, lists_refunds) in [
        ("2020-08-27", "card", by_charge, true),
        ("2020-08-27", "sepa_debit", by_charge, true),
        ("2022-11-15", "card", by_charge, false),
        ("2024-06-20", "card", by_charge, false),
        ("2024-06-20", "sepa_debit", by_refund, false),
        ("2024-10-28.acacia", "card", by_refund, false),
        (stripe_sim::API_VERSION, "card", by_refund, false),
    ] {
        let caller = paid_by(method);
        let refund = caller.sim.refund(NewRefund::part("ch_1", 500));
        caller.sim.move_refund(&refund.id, RefundStatus::Failed);
        let endpoint = endpoint().version(version);
        assert_eq!(told(&caller, &endpoint), events, "{version} {method}");
        let webhooks = caller.sim.webhooks(&endpoint);
        let refunded = body(webhooks.iter().find(|webhook| webhook.kind == "charge.refunded").unwrap());
        let charge = &refunded["data"]["object"];
        assert_eq!((&refunded["api_version"], &charge["amount_refunded"]), (&json!(version), &json!(500)));
        let listed = charge.pointer("/refunds/data/0/id").is_some_and(|id| *id == json!(refund.id));
        assert_eq!((listed, charge.get("refunds").is_some()), (lists_refunds, lists_refunds), "{version}");
    }
}

#[tokio::test]
async fn a_charge_lists_its_newest_ten_refunds() {
    let caller = paid_by("card");
    for _ in 0..11 {
        caller.sim.refund(NewRefund::part("ch_1", 1));
    }
    let last = body(caller.sim.webhooks(&endpoint().version("2020-08-27")).last().unwrap());
    let refunds = &last["data"]["object"]["refunds"];
    assert_eq!((refunds["data"].as_array().unwrap().len(), &refunds["has_more"]), (10, &json!(true)));
}

#[tokio::test]
async fn a_thin_event_names_its_object_and_its_snapshot() {
    let caller = paid_by("card");
    caller.sim.refund(NewRefund { id: Some("re_1".into()), ..NewRefund::of("ch_1") });
    let thin = Endpoint { thin: true, ..endpoint() };
    let find = |endpoint: &Endpoint, kind: &str| {
        body(caller.sim.webhooks(endpoint).iter().find(|webhook| webhook.kind == kind).unwrap())
    };
    let (snapshot, got) = (find(&endpoint(), "refund.created"), find(&thin, "v1.refund.created"));
    assert_eq!(
        got,
        json!({
            "id": got["id"], "object": "v2.core.event", "type": "v1.refund.created", "livemode": false, "context": null,
            "created": got["created"], "snapshot_event": snapshot["id"],
            "related_object": {"id": "re_1", "type": "refund", "url": "/v1/refunds/re_1"},
        })
    );
    assert_ne!(got["id"], snapshot["id"]);
    assert!(got["created"].as_str().unwrap().ends_with('Z'), "{got}");
}

#[tokio::test]
async fn account_mode_and_expanded_ids_are_as_the_endpoint_wants_them() {
    let caller = paid_by("card");
    caller.sim.refund(NewRefund::of("ch_1"));
    let special = Endpoint { account: Some("acct_9".into()), livemode: true, expanded: true, ..endpoint() };
    let created = |endpoint: &Endpoint| {
        body(caller.sim.webhooks(endpoint).iter().find(|webhook| webhook.kind == "refund.created").unwrap())
    };
    let (plain, got) = (created(&endpoint()), created(&special));
    assert_eq!(
        (plain.get("account"), &plain["livemode"], &plain["data"]["object"]["charge"]),
        (None, &json!(false), &json!("ch_1"))
    );
    assert_eq!((&got["account"], &got["livemode"]), (&json!("acct_9"), &json!(true)));
    let object = &got["data"]["object"];
    assert_eq!((&object["charge"]["id"], &object["payment_intent"]["id"]), (&json!("ch_1"), &json!("pi_1")));
    let thin = body(&caller.sim.webhooks(&Endpoint { thin: true, ..special })[0]);
    assert_eq!((&thin["context"], &thin["livemode"]), (&json!("acct_9"), &json!(true)));
}

#[tokio::test]
async fn a_reversal_is_told_to_the_platform_and_as_a_refund_to_the_connected_account() {
    let caller = paid_by("card");
    caller.sim.add_endpoint(endpoint());
    let reversal = caller.post("/v1/transfers/tr_2/reversals", "k", &[("amount", "700")]).await.body;
    let connect = Endpoint { connect: true, ..endpoint() };
    let got: Vec<_> = caller.sim.webhooks(&connect).iter().map(body).collect();
    assert_eq!(got.len(), 2, "{got:?}");
    assert_eq!((&got[0]["type"], &got[0]["account"]), (&json!("refund.created"), &json!("acct_2")));
    let refund = &got[0]["data"]["object"];
    assert_eq!((&refund["id"], &refund["amount"]), (&reversal["destination_payment_refund"], &json!(700)));
    assert!(refund["charge"].as_str().unwrap().starts_with("py_"), "{refund}");
    let platform = caller.sim.webhooks(&endpoint());
    assert_eq!(platform.iter().filter(|webhook| webhook.kind == "transfer.reversed").count(), 1);
    assert!(platform.iter().all(|webhook| body(webhook).get("account").is_none()));
}

#[tokio::test]
async fn a_created_transfer_is_told_and_only_enabled_events_come() {
    let caller = paid_by("card");
    let only = Endpoint { enabled_events: vec!["transfer.created".into()], ..endpoint() };
    let before = caller.sim.webhooks(&only).len();
    caller.sim.add_endpoint(only.clone());
    let form = [("amount", "5"), ("currency", "eur"), ("destination", "acct_3"), ("transfer_group", "g")];
    let id = caller.post("/v1/transfers", "k", &form).await.body["id"].clone();
    let webhooks = caller.sim.webhooks(&only);
    assert_eq!(webhooks.len(), before + 1);
    assert_eq!(body(webhooks.last().unwrap())["data"]["object"]["id"], id);
}

#[tokio::test]
async fn a_late_reference_number_is_a_refund_updated() {
    let caller = paid_by("card");
    let refund = caller.sim.refund(NewRefund::of("ch_1"));
    caller.sim.set_reference(&refund.id, "74121");
    let webhooks = caller.sim.webhooks(&endpoint());
    let updated = body(webhooks.iter().find(|webhook| webhook.kind == "refund.updated").unwrap());
    let object = &updated["data"]["object"];
    assert_eq!(
        (&object["status"], &object["destination_details"]["card"]["reference"]),
        (&json!("succeeded"), &json!("74121"))
    );
    let again = caller.sim.add_event("refund.updated", &refund.id);
    assert_eq!(caller.sim.webhook(&endpoint(), &again).kind, "refund.updated");
}

#[test]
fn a_signature_is_the_hmac_of_timestamp_and_body() {
    // Computed with: printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec_test
    let expected = "t=1700000000,v1=35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91";
    assert_eq!(sign("whsec_test", 1_700_000_000, "{}"), expected);
}

/// Answers one request with each status, and returns the requests.
async fn receiver(listener: TcpListener, statuses: &[u16]) -> Vec<String> {
    let mut requests = Vec::new();
    for status in statuses {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = String::new();
        let mut chunk = [0; 4_096];
        while !request.ends_with("}\n") {
            let read = stream.read(&mut chunk).await.unwrap();
            request.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
        }
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        requests.push(request);
    }
    requests
}

#[tokio::test]
async fn what_is_not_taken_is_delivered_again_and_what_is_taken_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/stripe?x=1", listener.local_addr().unwrap());
    let caller = paid_by("card");
    let id = caller.sim.add_endpoint(Endpoint::new(&url, "whsec_1"));
    assert_eq!(caller.sim.deliver(&id).await.len(), 0, "only what happens from now on");
    caller.sim.refund(NewRefund { id: Some("re_1".into()), ..NewRefund::of("ch_1") });
    let deliver = async {
        let first = caller.sim.deliver(&id).await;
        let second = caller.sim.deliver(&id).await;
        (first, second, caller.sim.deliver(&id).await.len())
    };
    let (requests, (first, second, rest)) = tokio::join!(receiver(listener, &[500, 200, 204]), deliver);
    let statuses = |deliveries: &[stripe_sim::Delivery]| {
        deliveries.iter().map(|of| (of.webhook.kind.clone(), of.status)).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&first), [("refund.created".into(), Some(500)), ("charge.refunded".into(), Some(200))]);
    assert_eq!((statuses(&second), rest), (vec![("refund.created".into(), Some(204))], 0));
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /hooks/stripe?x=1 HTTP/1.1\r\n"), "{head}");
    assert_eq!(body, first[0].webhook.body);
    let signature = &first[0].webhook.signature;
    let timestamp: i64 = signature[2..12].parse().unwrap();
    assert!(head.contains(&format!("stripe-signature: {signature}")), "{head}");
    assert_eq!(sign("whsec_1", timestamp, body), *signature);
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_reported() {
    let caller = paid_by("card");
    let id = caller.sim.add_endpoint(Endpoint::new("http://127.0.0.1:1/", "whsec_1"));
    caller.sim.refund(NewRefund::of("ch_1"));
    let deliveries = caller.sim.deliver(&id).await;
    assert_eq!(deliveries.len(), 2);
    assert!(deliveries.iter().all(|of| of.status.is_none() && of.error.is_some()), "{deliveries:?}");
}

#[tokio::test]
async fn endpoints_are_listed_without_their_secrets() {
    let caller = Caller::new();
    let id = caller.sim.add_endpoint(Endpoint::new("http://example.test/", "whsec_hidden").version("2020-08-27"));
    let listed = caller.get("/v1/webhook_endpoints").await.body;
    let found = (&listed["data"][0]["id"], &listed["data"][0]["api_version"], &listed["data"][0]["enabled_events"]);
    assert_eq!(found, (&json!(id), &json!("2020-08-27"), &json!(["*"])));
    assert!(!listed.to_string().contains("hidden"), "{listed}");
}
