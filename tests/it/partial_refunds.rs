//! Partial refunds through the database, the broker and Stripe: by ratio, by shares that are named in metadata or by the API,
//! and both mixed.

use futures_util::future::join_all;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{TestApp, both_databases, eventually, hyperswitch_event, refund_event, two_sellers};

both_databases! {
    partial_refunds_in_any_order_and_with_duplicates_add_up_to_the_whole_exactly,
    a_second_refund_while_the_first_is_pending_is_added_to_it,
    shares_named_in_metadata_replace_the_ratio,
    shares_survive_the_wait_for_the_payment,
    refunds_by_ratio_and_by_name_ask_the_same_in_total_in_any_order,
    a_share_that_does_not_fit_makes_a_conflict_that_loses_nothing,
    a_conflict_is_settled_by_a_report_that_fits,
    a_report_without_shares_keeps_those_that_a_webhook_named,
    shares_that_come_while_the_refund_waits_for_its_payment_count,
    a_matched_refund_is_shared_out_otherwise_until_stripe_is_asked,
    what_the_refunds_metadata_names_is_not_overruled_by_a_report,
    a_refund_that_the_platform_bears_takes_nothing_in_whatever_order_that_is_said,
    a_report_is_the_same_refund_as_its_webhook,
    a_report_that_contradicts_what_is_known_is_refused,
    a_report_that_does_not_fit_is_refused_by_its_field_and_not_recorded,
    one_report_eight_times_at_once_is_one_refund,
    a_report_asks_for_the_operating_token,
}

/// A payment of 100.00 EUR, of which sellers got 60.00 EUR, 30.00 EUR and 1,001 JPY.
fn three_sellers() -> Value {
    let mut payment = two_sellers("pi_1");
    payment["transfers"].as_array_mut().unwrap().push(json!({
        "seller_id": "s3", "stripe_transfer_id": "tr_3", "destination": "acct_3", "amount": 1_001, "currency": "jpy",
    }));
    payment
}

fn with_metadata(n: usize, amount: i64, metadata: Value) -> String {
    let mut event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), "pi_1", amount);
    event["data"]["object"]["metadata"] = metadata;
    event.to_string()
}

fn report(n: usize, amount: i64, transfers: Option<Value>) -> Value {
    let mut report = json!({"source": "stripe", "refund_ref": format!("re_{n}"), "payment_ref": "pi_1", "amount": amount, "currency": "EUR"});
    if let Some(transfers) = transfers {
        report["transfers"] = transfers;
    }
    report
}

/// Posts a webhook, and again when it is not taken for now, as every provider does.
async fn post(app: &TestApp, body: &str) -> Value {
    let mut answer = app.post_webhook(body).await;
    while answer.status() == StatusCode::SERVICE_UNAVAILABLE {
        answer = app.post_webhook(body).await;
    }
    let (status, answer) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn refused(response: Response, status: StatusCode, field: Option<&str>, words: &[&str]) {
    let answered = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((answered, problem["field"].as_str()), (status, field), "{problem}");
    for words in words {
        assert!(problem["detail"].as_str().unwrap().contains(words), "{words:?} is not in: {problem}");
    }
}

/// What each transfer of pi_1 is asked for, refund by refund.
async fn asked(app: &TestApp) -> Vec<Vec<i64>> {
    let payment = app.ledger().payment("pi_1").await.unwrap().unwrap();
    let amounts = payment.transfers.iter().map(|it| it.reversals.iter().map(|reversal| reversal.amount).collect());
    amounts.collect()
}

async fn without_worker(mut app: TestApp) -> TestApp {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app
}

async fn partial_refunds_in_any_order_and_with_duplicates_add_up_to_the_whole_exactly(app: TestApp) {
    app.sim.add_transfer("tr_3", 1_001, "jpy", "acct_3");
    app.register(three_sellers()).await;
    // Odd amounts, posted twice each, in another order the second time, and all at once.
    let parts = [1, 3_333, 1_667, 4_998, 1];
    let first = (0..parts.len()).map(|n| (n, n + 100));
    let again = (0..parts.len()).rev().flat_map(|n| [(n, n + 100), (n, n + 200)]);
    join_all(first.chain(again).map(|(n, event)| {
        let event = refund_event(&format!("evt_{event}"), &format!("re_{n}"), "pi_1", parts[n]).to_string();
        let app = &app;
        async move { post(app, &event).await }
    }))
    .await;
    assert_eq!(app.db.count("claims WHERE status = 'matched'").await, 5);

    for (index, id, whole) in [(0, "tr_1", 6_000), (1, "tr_2", 3_000), (2, "tr_3", 1_001)] {
        let transfer = app.transfer_becomes(index, "reversed").await;
        assert_eq!((&transfer["amount_reversed"], app.reversed_at_stripe(id)), (&json!(whole), whole));
    }
}

async fn a_second_refund_while_the_first_is_pending_is_added_to_it(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(3_333).await;
    app.refund_of(3_334, 2).await;
    assert_eq!(asked(&app).await, [[1_999, 2_001], [1_000, 1_000]], "exactly two thirds in all");
    assert_eq!(app.transfer_becomes(0, "reversal_pending").await["amount_reversed"], 0);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    for (index, id, back) in [(0, "tr_1", 4_000), (1, "tr_2", 2_000)] {
        assert_eq!(app.transfer_becomes(index, "partially_reversed").await["amount_reversed"], back);
        assert_eq!(app.reversed_at_stripe(id), back);
    }
}

async fn shares_named_in_metadata_replace_the_ratio(app: TestApp) {
    app.sim.add_transfer("tr_3", 1_001, "jpy", "acct_3");
    app.register(three_sellers()).await;
    let metadata = json!({"order": "7", "clawback_tr_3": "1001", "clawback_tr_2": "2999"});
    assert_eq!(post(&app, &with_metadata(1, 4_000, metadata)).await["reversals"], 2);
    assert_eq!(app.transfer_becomes(2, "reversed").await["amount_reversed"], 1_001);
    assert_eq!(app.transfer_becomes(1, "partially_reversed").await["amount_reversed"], 2_999);
    assert_eq!(app.transfer_becomes(0, "completed").await["reversals"], json!([]));

    // The platform bears it alone.
    assert_eq!(post(&app, &with_metadata(2, 1_000, json!({"clawback_tr_1": "0"}))).await["reversals"], 0);
    assert_eq!(app.refund_view("re_2").await["status"], "matched");

    let mut event = hyperswitch_event("evt_1", "ref_1", "pi_1", 500);
    event["content"]["object"]["metadata"] = json!({"clawback[tr_1]": 500});
    assert_eq!(app.post_hyperswitch(&event.to_string()).await.status(), StatusCode::OK);
    assert_eq!(app.transfer_becomes(0, "partially_reversed").await["amount_reversed"], 500);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (500, 2_999));
}

async fn shares_survive_the_wait_for_the_payment(app: TestApp) {
    let app = without_worker(app).await;
    assert_eq!(post(&app, &with_metadata(1, 700, json!({"clawback_tr_2": "700"}))).await["outcome"], "unmatched");
    assert_eq!(post(&app, &with_metadata(2, 700, json!({"clawback_tr_9": "700"}))).await["outcome"], "unmatched");
    let reported = app.report(&report(3, 300, Some(json!([{"transfer_id": "tr_1", "amount": 250}])))).await;
    assert_eq!(reported.status(), StatusCode::CREATED);
    assert_eq!(reported.json::<Value>().await.unwrap()["status"], "unmatched");
    app.register(two_sellers("pi_1")).await;
    assert_eq!(asked(&app).await, [[250], [700]]);
    let conflicting = app.refund_view("re_2").await;
    assert_eq!(conflicting["status"], "conflicting");
    assert!(conflicting["status_reason"].as_str().unwrap().contains("tr_9"), "{conflicting}");
}

async fn refunds_by_ratio_and_by_name_ask_the_same_in_total_in_any_order(app: TestApp) {
    let app = without_worker(app).await;
    let steps = [(1_111, None), (1_500, Some((0, 1_400))), (2_222, None), (1_500, Some((1, 1_001)))];
    let mut totals = Vec::new();
    for (round, order) in [[0, 1, 2, 3], [3, 1, 2, 0], [2, 0, 3, 1], [1, 3, 0, 2]].into_iter().enumerate() {
        let payment = format!("pi_{round}");
        let mut registered = two_sellers(&payment);
        for transfer in [0, 1] {
            registered["transfers"][transfer]["stripe_transfer_id"] = json!(format!("tr_{transfer}_{round}"));
        }
        assert_eq!(app.register(registered).await.status(), StatusCode::CREATED);
        for step in order {
            let (amount, named) = steps[step];
            let (event, refund) = (format!("evt_{round}_{step}"), format!("re_{round}_{step}"));
            let mut event = refund_event(&event, &refund, &payment, amount);
            if let Some((transfer, share)) = named {
                let key = format!("clawback_tr_{transfer}_{round}");
                event["data"]["object"]["metadata"] = json!({ key: i32::to_string(&share) });
            }
            assert_eq!(post(&app, &event.to_string()).await["outcome"], "accepted");
        }
        let payment = app.ledger().payment(&payment).await.unwrap().unwrap();
        let amounts = payment.transfers.iter().flat_map(|it| &it.reversals).map(|reversal| reversal.amount);
        totals.push(amounts.sum::<i64>());
    }
    // 2,999 of 9,000 by ratio (3,333 of 10,000), and what was named.
    assert_eq!(totals, [2_999 + 2_401; 4]);
}

async fn a_share_that_does_not_fit_makes_a_conflict_that_loses_nothing(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    app.refund_of(1_000, 100).await;
    for (n, metadata, words) in [
        (1, json!({"clawback_tr_9": "1"}), ["tr_9", "allowed: tr_1, tr_2"]),
        (2, json!({"clawback_tr_1": "5401"}), ["5401", "at most 5400"]),
        (3, json!({"clawback_tr_1": "45.00"}), ["45.00", "digits"]),
        (4, json!({"clawback_tr_1": ""}), ["share of \"tr_1\"", "digits"]),
        (5, json!({"clawback_tr_1": "-1"}), ["-1", "digits"]),
        (6, json!({"clawback_tr_1": "x\u{0}"}), ["x\\0", "digits"]),
        (7, json!({"clawback_\u{0}": "1"}), ["share of \"\\0\"", "allowed"]),
    ] {
        let answer = post(&app, &with_metadata(n, 1_000, metadata)).await;
        assert_eq!((&answer["received"], &answer["outcome"]), (&json!(true), &json!("conflicting")));
        let refund = app.refund_view(&format!("re_{n}")).await;
        assert_eq!((&refund["status"], &refund["amount"]), (&json!("conflicting"), &json!(1_000)));
        for words in words {
            let reason = refund["status_reason"].as_str().unwrap();
            assert!(reason.contains(words), "{words:?} is not in: {reason}");
        }
    }
    assert_eq!(asked(&app).await, [[600], [300]]);
}

async fn a_conflict_is_settled_by_a_report_that_fits(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    post(&app, &with_metadata(1, 1_000, json!({"clawback_tr_1": "45.00"}))).await;
    let too_much = app.report(&report(1, 1_000, Some(json!([{"transfer_id": "tr_1", "amount": 6_001}])))).await;
    refused(too_much, StatusCode::UNPROCESSABLE_ENTITY, Some("transfers[0].amount"), &["6001", "6000"]).await;
    assert_eq!(app.refund_view("re_1").await["status"], "conflicting");

    let fitting = report(1, 1_000, Some(json!([{"transfer_id": "tr_1", "amount": 4_500}])));
    let reported = app.report(&fitting).await;
    assert_eq!(reported.status(), StatusCode::OK);
    assert_eq!(reported.json::<Value>().await.unwrap()["status"], "matched");
    assert_eq!(app.report(&fitting).await.status(), StatusCode::OK);
    assert_eq!(asked(&app).await, [vec![4_500], vec![]]);
}

async fn a_report_without_shares_keeps_those_that_a_webhook_named(app: TestApp) {
    let app = without_worker(app).await;
    post(&app, &with_metadata(1, 1_000, json!({"clawback_tr_1": "70"}))).await;
    assert_eq!(app.report(&report(1, 1_000, None)).await.status(), StatusCode::OK);
    app.register(two_sellers("pi_1")).await;
    assert_eq!(asked(&app).await, [vec![70], vec![]]);
}

async fn shares_that_come_while_the_refund_waits_for_its_payment_count(app: TestApp) {
    let app = without_worker(app).await;
    app.refund_of(1_000, 1).await;
    let mut later = refund_event("evt_later", "re_1", "pi_1", 1_000);
    (later["type"], later["data"]["object"]["metadata"]) = (json!("refund.updated"), json!({"clawback_tr_2": "80"}));
    assert_eq!(post(&app, &later.to_string()).await["outcome"], "duplicate");
    app.register(two_sellers("pi_1")).await;
    assert_eq!(asked(&app).await, [vec![], vec![80]]);
}

async fn a_matched_refund_is_shared_out_otherwise_until_stripe_is_asked(app: TestApp) {
    let mut app = without_worker(app).await;
    app.refund(5_000).await;
    // The platform bears it alone, says a shop whose report comes after the webhook.
    let share = |id: &str, amount: i64| json!([{"transfer_id": id, "amount": amount}]);
    assert_eq!(app.report(&report(1, 5_000, Some(share("tr_1", 0)))).await.status(), StatusCode::OK);
    assert_eq!(app.transfer_becomes(0, "completed").await["reversals"][0]["status"], "called_off");
    assert_eq!(app.transfer_becomes(1, "completed").await["reversals"][0]["failure_code"], "superseded");
    // Nothing of a report that does not fit is done.
    let history = app.db.count("history").await;
    let too_much = app.report(&report(1, 5_000, Some(share("tr_2", 3_001)))).await;
    refused(too_much, StatusCode::UNPROCESSABLE_ENTITY, Some("transfers[0].amount"), &["at most 3000"]).await;
    assert_eq!(app.db.count("history").await, history);

    assert_eq!(app.report(&report(1, 5_000, Some(share("tr_1", 2_000)))).await.status(), StatusCode::OK);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    assert_eq!(app.transfer_becomes(0, "partially_reversed").await["amount_reversed"], 2_000);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (2_000, 0));
    let too_late = app.report(&report(1, 5_000, Some(share("tr_1", 0)))).await;
    refused(too_late, StatusCode::CONFLICT, None, &["re_1", "Stripe has been asked"]).await;
    // What is called off was never asked for, also when its jobs are worked on.
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (2_000, 0));
}

async fn what_the_refunds_metadata_names_is_not_overruled_by_a_report(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let share = |amount: i64| Some(json!([{"transfer_id": "tr_1", "amount": amount}]));
    post(&app, &with_metadata(1, 1_000, json!({"clawback_tr_1": "70"}))).await;
    refused(app.report(&report(1, 1_000, share(60))).await, StatusCode::CONFLICT, None, &["metadata"]).await;
    // The other way round, the webhook comes second and wins all the same.
    assert_eq!(app.report(&report(2, 1_000, share(60))).await.status(), StatusCode::CREATED);
    assert_eq!(post(&app, &with_metadata(2, 1_000, json!({"clawback_tr_1": "70"}))).await["outcome"], "accepted");
    let live = "reversals WHERE status = 'pending' AND amount = 70";
    assert_eq!(app.db.count(live).await, 2);
    assert_eq!(app.db.count("reversals WHERE status = 'called_off' AND amount = 60").await, 1);
}

async fn a_refund_that_the_platform_bears_takes_nothing_in_whatever_order_that_is_said(app: TestApp) {
    let mut app = without_worker(app).await;
    let nothing = || Some(json!([{"transfer_id": "tr_1", "amount": 0}]));
    let webhook = |n: usize| with_metadata(n, 1_000, json!({}));
    let in_metadata = |n: usize| with_metadata(n, 1_000, json!({"clawback_tr_1": "0"}));
    // Before the payment is registered: announced, and known from the webhook first.
    assert_eq!(app.report(&report(1, 1_000, nothing())).await.status(), StatusCode::CREATED);
    post(&app, &webhook(1)).await;
    post(&app, &webhook(2)).await;
    assert_eq!(app.report(&report(2, 1_000, nothing())).await.status(), StatusCode::OK);
    post(&app, &in_metadata(3)).await;
    app.register(two_sellers("pi_1")).await;
    // And after.
    assert_eq!(app.report(&report(4, 1_000, nothing())).await.status(), StatusCode::CREATED);
    assert_eq!(post(&app, &webhook(4)).await["outcome"], "duplicate");
    assert_eq!(post(&app, &webhook(5)).await["reversals"], 2);
    assert_eq!(app.report(&report(5, 1_000, nothing())).await.status(), StatusCode::OK);
    assert_eq!(post(&app, &in_metadata(6)).await["reversals"], 0);
    for n in 1..=6 {
        let refund = app.refund_view(&format!("re_{n}")).await;
        assert_eq!((&refund["status"], &refund["attention"]), (&json!("matched"), &Value::Null), "{refund}");
    }
    assert_eq!(app.db.count("reversals WHERE status <> 'called_off'").await, 0);
    // What is said later, by the provider's own list, takes nothing either.
    let mut later = refund_event("evt_later", "re_4", "pi_1", 1_000);
    later["type"] = json!("refund.updated");
    post(&app, &later.to_string()).await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.refund_of(3_000, 8).await;
    app.transfer_becomes(0, "partially_reversed").await;
    app.transfer_becomes(1, "partially_reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (1_800, 900), "that of re_8 alone");
}

async fn a_report_is_the_same_refund_as_its_webhook(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    // Reported, then told of by webhook.
    let reported = app.report(&report(1, 1_000, None)).await;
    assert_eq!(reported.status(), StatusCode::CREATED);
    let reported: Value = reported.json().await.unwrap();
    assert_eq!(
        (&reported["source"], &reported["status"], &reported["currency"]),
        (&json!("stripe"), &json!("matched"), &json!("eur"))
    );
    assert_eq!(post(&app, &with_metadata(1, 1_000, json!({}))).await["outcome"], "duplicate");
    assert_eq!(app.report(&report(1, 1_000, None)).await.status(), StatusCode::OK);
    // Told of by webhook, then reported.
    post(&app, &with_metadata(2, 1_000, json!({"clawback_tr_1": "7", "clawback_tr_2": "8"}))).await;
    let same = json!([{"transfer_id": "tr_2", "amount": 8}, {"transfer_id": "tr_1", "amount": 7}]);
    assert_eq!(app.report(&report(2, 1_000, Some(same))).await.status(), StatusCode::OK);
    assert_eq!(asked(&app).await, [[600, 7], [300, 8]]);
    // Another source's refund of the same id is another refund.
    let mut other = report(1, 100, None);
    other["source"] = json!("hyperswitch");
    assert_eq!(app.report(&other).await.status(), StatusCode::CREATED);
}

async fn a_report_that_contradicts_what_is_known_is_refused(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    app.refund_of(1_000, 1).await;
    let known = report(1, 1_000, None);
    for (field, value, words) in [
        ("payment_ref", json!("pi_2"), "pi_1"),
        ("amount", json!(1_001), "1000 eur"),
        ("currency", json!("usd"), "1000 eur"),
    ] {
        let mut other = known.clone();
        other[field] = value;
        refused(app.report(&other).await, StatusCode::CONFLICT, None, &["re_1", words]).await;
    }
    // The charge is another name of the same payment.
    let mut charge = known;
    charge["payment_ref"] = json!("ch_of_pi_1");
    assert_eq!(app.report(&charge).await.status(), StatusCode::OK);
    assert_eq!(asked(&app).await, [[600], [300]]);
}

async fn a_report_that_does_not_fit_is_refused_by_its_field_and_not_recorded(app: TestApp) {
    let app = without_worker(app).await;
    app.register(two_sellers("pi_1")).await;
    let share = |id: &str, amount: i64| json!({"transfer_id": id, "amount": amount});
    for (pointer, value, field, words) in [
        ("refund_ref", json!(""), "refund_ref", "1 to 255"),
        ("payment_ref", json!("pi\u{0}1"), "payment_ref", "without spaces"),
        ("amount", json!(0), "amount", "amount must be a positive integer in minor units (got 0)"),
        ("amount", json!("1"), "amount", "amount must be an integer (got \"1\")"),
        ("currency", json!("euro"), "currency", "a three-letter ISO 4217 code (got \"euro\")"),
        ("currency", json!("usd"), "currency", "the payment in eur"),
        ("amount", json!(10_001), "amount", "10001 eur is more than payment pi_1 of 10000 eur"),
        ("transfer_already_reversed", json!("yes"), "transfer_already_reversed", "must be true or false (got \"yes\")"),
        ("source", Value::Null, "source", "source must be one of stripe, hyperswitch (got null)"),
        ("source", json!("paypal"), "source", "source must be one of stripe, hyperswitch (got \"paypal\")"),
        ("extra", json!(1), "extra", "unknown field \"extra\""),
        ("transfers", json!([]), "transfers", "be left out"),
        ("transfers", json!([share("tr_9", 1)]), "transfers[0].transfer_id", "tr_1, tr_2"),
        ("transfers", json!([share("tr_1", 1), share("tr_1", 1)]), "transfers[1].transfer_id", "second time"),
        ("transfers", json!([share("tr_1", 1), share("tr_2", -1)]), "transfers[1].amount", "-1"),
        ("transfers", json!([share("tr_1", 1), share("tr_2", 3_001)]), "transfers[1].amount", "at most 3000"),
        ("transfers", json!([{"transfer_id": "tr_1"}]), "transfers[0].amount", "transfers[0].amount is required"),
    ] {
        let mut report = report(1, 1_000, None);
        report[pointer] = value;
        refused(app.report(&report).await, StatusCode::UNPROCESSABLE_ENTITY, Some(field), &[words]).await;
    }
    let mut without_source = report(1, 1_000, None);
    without_source.as_object_mut().unwrap().remove("source");
    let answer = app.report(&without_source).await;
    refused(answer, StatusCode::UNPROCESSABLE_ENTITY, Some("source"), &["source is required"]).await;
    assert_eq!(app.db.count("claims").await + app.db.count("reversals").await, 0);
}

async fn one_report_eight_times_at_once_is_one_refund(app: TestApp) {
    app.register(two_sellers("pi_1")).await;
    let body = report(1, 5_000, Some(json!([{"transfer_id": "tr_2", "amount": 1_500}])));
    let statuses = join_all((0..8).map(|_| async { app.report(&body).await.status() })).await;
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CREATED).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| status.is_success()), "{statuses:?}");
    eventually("the job is done", || async { (app.reversed_at_stripe("tr_2") == 1_500).then_some(()) }).await;
    assert_eq!(asked(&app).await, [vec![], vec![1_500]]);
}

async fn a_report_asks_for_the_operating_token(app: TestApp) {
    let post = |token: &str| {
        let request = app.http.post(format!("{}/v1/refunds", app.base_url)).bearer_auth(token);
        request.json(&report(1, 1_000, None)).send()
    };
    assert_eq!(post(&app.read_token).await.unwrap().status(), StatusCode::FORBIDDEN);
    assert_eq!(post("another").await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(app.db.count("claims").await, 0);
}
