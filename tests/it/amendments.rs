//! What a registration may say, and how it is amended: transfers that are to be created, made later, or reversed before;
//! corrections; and refunds that arrive at the same moment.

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use stripe_sim::NewPayment;

use crate::support::{TestApp, both_databases, eventually, refund_event, to_create, two_sellers};

both_databases! {
    a_transfer_without_a_stripe_id_is_created_only_for_who_says_so,
    transfers_of_more_than_their_payment_are_refused_unless_they_are_meant,
    an_id_that_is_none_of_stripes_is_refused_by_its_field_and_value,
    the_same_transfers_in_another_order_are_the_same_registration,
    what_was_taken_back_before_is_never_taken_again,
    what_was_taken_back_before_leaves_no_share_to_name,
    a_transfer_made_later_owes_its_part_of_earlier_refunds_and_changes_no_other,
    a_transfer_to_create_can_be_added_and_is_created_without_what_it_owes,
    a_transfer_that_contradicts_or_is_too_much_is_not_added,
    a_refund_that_named_a_transfer_made_later_is_matched_when_that_is_added,
    a_correction_replaces_what_was_registered_until_a_refund_is_matched,
    a_refund_in_the_corrected_currency_is_matched,
    a_transfer_that_clawback_creates_is_not_corrected_away,
    a_refund_at_the_moment_of_an_addition_is_shared_out_once,
    a_refund_at_the_moment_of_a_correction_is_shared_out_by_one_of_the_two,
    the_application_fee_is_refunded_with_the_reversal,
    a_fee_to_refund_where_there_is_none_fails_permanently_and_says_so,
}

async fn send(app: &TestApp, method: Method, path: &str, body: &Value) -> Response {
    let request = app.http.request(method, format!("{}{path}", app.base_url)).bearer_auth(&app.api_token);
    request.json(body).send().await.unwrap()
}

/// Sends until the database is not behind any more, as a client would.
async fn send_until_answered(app: &TestApp, method: Method, path: &str, body: &Value) -> StatusCode {
    loop {
        let status = send(app, method.clone(), path, body).await.status();
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return status;
        }
    }
}

async fn refund_until_accepted(app: &TestApp, n: i32) {
    let event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), &format!("pi_{n}"), 5_000).to_string();
    while app.post_webhook(&event).await.status() != StatusCode::OK {}
}

async fn add(app: &TestApp, transfers: Value) -> Response {
    send(app, Method::POST, "/v1/payments/pi_1/transfers", &json!({"transfers": transfers})).await
}

async fn correct(app: &TestApp, body: &Value) -> Response {
    send(app, Method::PUT, "/v1/payments/pi_1", body).await
}

/// The field and the words of the refusal.
async fn refused(response: Response, status: StatusCode) -> (Value, String) {
    let answered = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(answered, status, "{problem}");
    (problem["field"].clone(), problem["detail"].as_str().unwrap().to_owned())
}

fn of_seller_3(id: &str, amount: i64) -> Value {
    json!({"seller_id": "s3", "stripe_transfer_id": id, "destination": "acct_3", "amount": amount, "currency": "eur"})
}

/// What each transfer of the payment is asked for, refund by refund, by Stripe's id.
async fn asked(app: &TestApp, payment_ref: &str) -> Vec<(String, Vec<i64>)> {
    let payment = app.ledger().payment(payment_ref).await.unwrap().unwrap();
    let mut asked: Vec<_> = payment
        .transfers
        .into_iter()
        .map(|it| (it.stripe_transfer_id.unwrap_or_default(), it.reversals.iter().map(|row| row.amount).collect()))
        .collect();
    asked.sort();
    asked
}

fn of(id: &str, asked: &[i64]) -> (String, Vec<i64>) {
    (id.to_owned(), asked.to_vec())
}

async fn without_worker(mut app: TestApp) -> TestApp {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    app
}

/// Somebody else takes money back from a transfer.
async fn reverse_elsewhere(app: &TestApp, transfer: &str, amount: i64) {
    let url = format!("{}/v1/transfers/{transfer}/reversals", app.sim.base_url());
    let request = app.http.post(url).bearer_auth("sk_test_of_the_tests").form(&[("amount", amount.to_string())]);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

async fn a_transfer_without_a_stripe_id_is_created_only_for_who_says_so(app: TestApp) {
    for missing in [Value::Null, json!("left out")] {
        let mut payment = two_sellers("pi_1");
        payment["transfers"][1]["stripe_transfer_id"] = missing.clone();
        if !missing.is_null() {
            payment["transfers"][1].as_object_mut().unwrap().remove("stripe_transfer_id");
        }
        let (field, words) = refused(app.register(payment).await, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(field, "transfers[1].stripe_transfer_id");
        assert!(words.contains("name Stripe's transfer (tr_…), or say \"create\": true"), "{words}");
    }
    let mut both = two_sellers("pi_1");
    both["transfers"][0]["create"] = true.into();
    let (field, words) = refused(app.register(both).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(field == "transfers[0].create" && words.contains("\"tr_1\""), "{words}");
    let mut word = two_sellers("pi_1");
    word["transfers"][0]["create"] = "yes".into();
    let (field, words) = refused(app.register(word).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(field == "transfers[0].create" && words.contains("true or false (got \"yes\")"), "{words}");
    assert_eq!(app.db.count("payments").await, 0);
    assert_eq!(app.sim.ledger().requests.len(), 0, "somebody was paid");

    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    app.transfer_becomes(0, "completed").await;
}

async fn transfers_of_more_than_their_payment_are_refused_unless_they_are_meant(app: TestApp) {
    let mut payment = two_sellers("pi_1");
    // 100.00 EUR in major units.
    payment["amount"] = 100.into();
    let (field, words) = refused(app.register(payment.clone()).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(field, "transfers");
    assert!(words.contains("at most the payment's 100 eur (got 9000)") && words.contains("allow_excess"), "{words}");
    assert_eq!(app.db.count("payments").await, 0);
    payment["allow_excess"] = true.into();
    assert_eq!(app.register(payment.clone()).await.status(), 201);
    assert_eq!(app.register(payment).await.status(), 200);
}

async fn an_id_that_is_none_of_stripes_is_refused_by_its_field_and_value(app: TestApp) {
    for (name, value) in [
        ("stripe_transfer_id", "."),
        ("stripe_transfer_id", ".."),
        ("stripe_transfer_id", "tr_1/reversals"),
        ("stripe_transfer_id", "trr_1"),
        ("destination", ".."),
        ("destination", "s1"),
    ] {
        let mut payment = two_sellers("pi_1");
        payment["transfers"][1][name] = value.into();
        let (field, words) = refused(app.register(payment).await, StatusCode::UNPROCESSABLE_ENTITY).await;
        assert_eq!(field, format!("transfers[1].{name}"));
        assert!(words.contains(&format!("(got \"{value}\")")), "{words}");
    }
}

async fn the_same_transfers_in_another_order_are_the_same_registration(app: TestApp) {
    let app = without_worker(app).await;
    let mut payment = two_sellers("pi_1");
    let transfers = payment["transfers"].as_array_mut().unwrap();
    transfers.extend(to_create("pi_1")["transfers"].as_array().unwrap().clone());
    payment["amount"] = 18_000.into();
    let first = app.register(payment.clone()).await;
    assert_eq!(first.status(), 201);
    let first: Value = first.json().await.unwrap();
    for turned in 1..4 {
        let mut again = payment.clone();
        again["transfers"].as_array_mut().unwrap().rotate_left(turned);
        let again = app.register(again).await;
        assert_eq!((again.status(), again.json::<Value>().await.unwrap()), (StatusCode::OK, first.clone()));
    }
    // As often as it is registered, and not more often.
    let mut twice = payment;
    twice["allow_excess"] = true.into();
    twice["transfers"][3] = twice["transfers"][2].clone();
    assert_eq!(app.register(twice).await.status(), 409);
}

async fn what_was_taken_back_before_is_never_taken_again(app: TestApp) {
    reverse_elsewhere(&app, "tr_1", 2_000).await;
    reverse_elsewhere(&app, "tr_2", 3_000).await;
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["amount_reversed"] = 2_000.into();
    payment["transfers"][1]["amount_reversed"] = 3_000.into();
    let registered: Value = app.register(payment.clone()).await.json().await.unwrap();
    let [partly, whole] = [0, 1].map(|at| registered["transfers"][at].clone());
    assert_eq!((&partly["status"], &partly["amount_reversed"]), (&json!("partially_reversed"), &json!(2_000)));
    assert_eq!((&whole["status"], &whole["amount_reversed"]), (&json!("reversed"), &json!(3_000)));
    let said = app.db.query("SELECT reason FROM history WHERE entity = 'transfer' ORDER BY id").await;
    assert_eq!(said[0]["reason"], "registered; 2000 of its 6000 eur were taken back before");
    assert_eq!(app.register(payment.clone()).await.status(), 200);
    payment["transfers"][0]["amount_reversed"] = 0.into();
    let (_, words) = refused(app.register(payment).await, StatusCode::CONFLICT).await;
    assert!(words.contains("transfer tr_1 is registered with amount_reversed 2000"), "{words}");

    app.refund_of(10_000, 1).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    assert_eq!((&transfer["amount_reversed"], &transfer["reversals"][0]["amount"]), (&json!(6_000), &json!(4_000)));
    assert_eq!(asked(&app, "pi_1").await, [of("tr_1", &[4_000]), of("tr_2", &[])]);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
    let run = app.cli(&["reconcile"]).await;
    assert_eq!(run.code, 0, "the ledger and Stripe agree: {run:?}");
}

async fn what_was_taken_back_before_leaves_no_share_to_name(app: TestApp) {
    let app = without_worker(app).await;
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["amount_reversed"] = 2_000.into();
    assert_eq!(app.register(payment).await.status(), 201);
    let refund = |n: u32, amount: i64| {
        json!({"source": "stripe", "refund_ref": format!("re_{n}"), "payment_ref": "pi_1", "amount": 5_000, "currency": "eur",
            "transfers": [{"transfer_id": "tr_1", "amount": amount}]})
    };
    let (_, words) = refused(app.report(&refund(1, 4_001)).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(words.contains("at most 4000"), "{words}");
    assert_eq!(app.report(&refund(1, 4_000)).await.status(), 201);
}

async fn a_transfer_made_later_owes_its_part_of_earlier_refunds_and_changes_no_other(app: TestApp) {
    app.sim.add_transfer("tr_3", 999, "eur", "acct_3");
    app.sim.add_transfer("tr_4", 1_001, "jpy", "acct_3");
    app.refund(3_333).await;
    app.refund_of(1_667, 2).await;
    let before = asked(&app, "pi_1").await;
    assert_eq!(before, [of("tr_1", &[1_999, 1_001]), of("tr_2", &[1_000, 500])]);
    let yen = json!({"seller_id": "s3", "stripe_transfer_id": "tr_4", "destination": "acct_3", "amount": 1_001, "currency": "JPY"});
    let later = json!([of_seller_3("tr_3", 999), yen]);
    let added = add(&app, later.clone()).await;
    assert_eq!(added.status(), StatusCode::CREATED);
    assert_eq!(added.json::<Value>().await.unwrap()["transfers"].as_array().unwrap().len(), 4);
    let after = asked(&app, "pi_1").await;
    assert_eq!(after[..2], before);
    assert_eq!(after[2..], [of("tr_3", &[332, 167]), of("tr_4", &[333, 167])], "half in all");

    // The same again, also beside one that was there, and by Clawback's id of the payment.
    for again in [later.clone(), json!([later[1], two_sellers("pi_1")["transfers"][0]])] {
        assert_eq!(add(&app, again).await.status(), StatusCode::OK);
    }
    let history = app.db.query("SELECT entity_id FROM history WHERE entity = 'payment'").await;
    let path = format!("/v1/payments/{}/transfers", history[0]["entity_id"].as_str().unwrap());
    assert_eq!(send(&app, Method::POST, &path, &json!({"transfers": later})).await.status(), StatusCode::OK);
    assert_eq!(asked(&app, "pi_1").await, after);

    app.refund_of(5_000, 3).await;
    for (index, id, whole) in [(0, "tr_1", 6_000), (1, "tr_2", 3_000), (2, "tr_3", 999), (3, "tr_4", 1_001)] {
        app.transfer_becomes(index, "reversed").await;
        assert_eq!(app.reversed_at_stripe(id), whole, "{id}");
    }
}

async fn a_transfer_to_create_can_be_added_and_is_created_without_what_it_owes(app: TestApp) {
    app.refund(5_000).await;
    let to_create =
        json!([{"seller_id": "s3", "create": true, "destination": "acct_3", "amount": 800, "currency": "eur"}]);
    assert_eq!(add(&app, to_create.clone()).await.status(), StatusCode::CREATED);
    assert_eq!(add(&app, to_create).await.status(), StatusCode::OK, "it is not paid twice");
    let transfer = app.transfer_becomes(2, "partially_reversed").await;
    assert_eq!(transfer["amount_reversed"], 400);
    let ledger = app.sim.ledger();
    let [theirs] = ledger.transfers_to("acct_3")[..] else { panic!("not one transfer") };
    assert_eq!((theirs.metadata["clawback_transfer"].as_str(), theirs.amount), ("acct_3:800eur:0", 400));
}

async fn a_transfer_that_contradicts_or_is_too_much_is_not_added(app: TestApp) {
    let (_, words) = refused(add(&app, json!([of_seller_3("tr_3", 10)])).await, StatusCode::NOT_FOUND).await;
    assert!(words.contains("pi_1"), "{words}");
    app.register(two_sellers("pi_1")).await;
    let mut other = two_sellers("pi_2");
    other["transfers"] = json!([of_seller_3("tr_3", 10)]);
    app.register(other).await;
    let (_, words) = refused(add(&app, json!([of_seller_3("tr_3", 10)])).await, StatusCode::CONFLICT).await;
    assert!(words.contains("tr_3 is registered with another payment"), "{words}");
    let (_, words) = refused(add(&app, json!([of_seller_3("tr_2", 3_000)])).await, StatusCode::CONFLICT).await;
    assert!(words.contains("transfer tr_2 is registered with seller_id s2"), "{words}");
    let too_much = json!([of_seller_3("tr_4", 1_001)]);
    let (field, words) = refused(add(&app, too_much.clone()).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(field == "transfers" && words.contains("10000 eur (got 10001)"), "{words}");
    let (field, _) = refused(add(&app, json!([])).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(field, "transfers");
    assert_eq!(app.db.count("seller_transfers").await, 3);
    let meant = json!({"transfers": too_much, "allow_excess": true});
    assert_eq!(send(&app, Method::POST, "/v1/payments/pi_1/transfers", &meant).await.status(), StatusCode::CREATED);
}

async fn a_refund_that_named_a_transfer_made_later_is_matched_when_that_is_added(app: TestApp) {
    app.sim.add_transfer("tr_3", 900, "eur", "acct_3");
    app.register(two_sellers("pi_1")).await;
    let mut event = refund_event("evt_1", "re_1", "pi_1", 900);
    event["data"]["object"]["metadata"] = json!({"clawback_tr_3": "900"});
    app.post_webhook(&event.to_string()).await;
    if app.refund_view("re_1").await["status"] != "conflicting" {
        panic!("{}", app.refund_view("re_1").await);
    }
    assert_eq!(add(&app, json!([of_seller_3("tr_3", 900)])).await.status(), StatusCode::CREATED);
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
    app.transfer_becomes(2, "reversed").await;
    assert_eq!(asked(&app, "pi_1").await, [of("tr_1", &[]), of("tr_2", &[]), of("tr_3", &[900])]);
}

/// `two_sellers("pi_1")` with the right id, amount and seller, in the body of a correction.
fn corrected() -> Value {
    json!({"amount": 9_000, "currency": "EUR", "transfers": [
        {"seller_id": "s2", "stripe_transfer_id": "tr_2", "destination": "acct_2", "amount": 3_000, "currency": "eur"},
        {"seller_id": "s1", "stripe_transfer_id": "tr_right", "destination": "acct_1", "amount": 5_000, "currency": "eur"},
        {"seller_id": "s3", "stripe_transfer_id": "tr_3", "destination": "acct_3", "amount": 1_000, "currency": "eur",
            "amount_reversed": 1_000},
    ]})
}

async fn a_correction_replaces_what_was_registered_until_a_refund_is_matched(app: TestApp) {
    app.sim.add_transfer("tr_right", 5_000, "eur", "acct_1");
    assert_eq!(correct(&app, &corrected()).await.status(), StatusCode::NOT_FOUND);
    app.register(two_sellers("pi_1")).await;
    let kept = app.payment("pi_1").await["transfers"][1]["id"].clone();
    let mut bad = corrected();
    bad["transfers"][1]["amount"] = 5_001.into();
    let (field, words) = refused(correct(&app, &bad).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert!(field == "transfers" && words.contains("9000 eur (got 9001)"), "{words}");
    bad["payment_ref"] = "pi_2".into();
    bad["transfers"][1]["amount"] = 5_000.into();
    let (field, _) = refused(correct(&app, &bad).await, StatusCode::UNPROCESSABLE_ENTITY).await;
    assert_eq!(field, "payment_ref");
    bad["payment_ref"] = "pi_1".into();
    assert_eq!(correct(&app, &bad).await.status(), StatusCode::OK);

    let payment = app.payment("pi_1").await;
    assert_eq!((&payment["amount"], &payment["currency"]), (&json!(9_000), &json!("eur")));
    let mut ids: Vec<_> =
        payment["transfers"].as_array().unwrap().iter().map(|it| it["stripe_transfer_id"].clone()).collect();
    ids.sort_by_key(ToString::to_string);
    assert_eq!(ids, ["tr_2", "tr_3", "tr_right"]);
    let same = payment["transfers"].as_array().unwrap().iter().find(|it| it["stripe_transfer_id"] == "tr_2").unwrap();
    assert_eq!(same["id"], kept, "what was right stays");
    let said = app.db.query("SELECT reason FROM history WHERE entity = 'payment' ORDER BY id DESC").await;
    let said = said[0]["reason"].as_str().unwrap();
    assert!(said.starts_with("corrected; 9000 eur was 10000 eur; transfers removed: tr_1; "), "{said}");
    // The one that was removed is free for the payment that it belongs to.
    let mut other = two_sellers("pi_2");
    other["transfers"].as_array_mut().unwrap().pop();
    assert_eq!(app.register(other).await.status(), StatusCode::CREATED);

    app.refund_of(9_000, 1).await;
    app.until_none_is_open().await;
    assert_eq!((app.reversed_at_stripe("tr_right"), app.reversed_at_stripe("tr_2")), (5_000, 3_000));
    assert_eq!(correct(&app, &corrected()).await.status(), StatusCode::OK, "it says what is registered");
    let mut late = corrected();
    late["amount"] = 9_001.into();
    let (_, words) = refused(correct(&app, &late).await, StatusCode::CONFLICT).await;
    assert!(words.contains("refund re_1 was shared out over its transfers"), "{words}");
    assert_eq!(app.payment("pi_1").await["amount"], 9_000);
}

async fn a_refund_in_the_corrected_currency_is_matched(app: TestApp) {
    let mut payment = two_sellers("pi_1");
    payment["currency"] = "usd".into();
    app.register(payment).await;
    app.refund_of(10_000, 1).await;
    assert_eq!(app.refund_view("re_1").await["status"], "conflicting");
    let mut right = two_sellers("pi_1");
    right.as_object_mut().unwrap().remove("payment_ref");
    assert_eq!(correct(&app, &right).await.status(), StatusCode::OK);
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
}

async fn a_transfer_that_clawback_creates_is_not_corrected_away(app: TestApp) {
    app.register(to_create("pi_1")).await;
    app.transfer_becomes(0, "completed").await;
    app.transfer_becomes(1, "completed").await;
    let mut fewer = to_create("pi_1");
    fewer["transfers"].as_array_mut().unwrap().pop();
    let (_, words) = refused(correct(&app, &fewer).await, StatusCode::CONFLICT).await;
    assert!(words.contains("Clawback creates transfer tr_") && words.contains("seller s4"), "{words}");
    let mut other_currency = to_create("pi_1");
    other_currency["currency"] = "usd".into();
    assert_eq!(correct(&app, &other_currency).await.status(), StatusCode::CONFLICT);
    let mut amount = to_create("pi_1");
    amount["amount"] = 9_500.into();
    amount["transfers"].as_array_mut().unwrap().reverse();
    assert_eq!(correct(&app, &amount).await.status(), StatusCode::OK);
    assert_eq!(
        (app.db.count("seller_transfers").await, app.payment("pi_1").await["amount"].clone()),
        (2, json!(9_500))
    );
    let creations = app.sim.ledger().creation_posts("acct_3").count();
    assert_eq!(creations, 1);
}

async fn a_refund_at_the_moment_of_an_addition_is_shared_out_once(app: TestApp) {
    let app = without_worker(app).await;
    let rounds = 0..12;
    for n in rounds.clone() {
        let mut payment = two_sellers(&format!("pi_{n}"));
        for at in [0, 1] {
            payment["transfers"][at]["stripe_transfer_id"] = format!("tr_{n}_{at}").into();
        }
        assert_eq!(app.register(payment).await.status(), StatusCode::CREATED);
    }
    let both = rounds.clone().map(|n| {
        let app = &app;
        async move {
            let path = format!("/v1/payments/pi_{n}/transfers");
            let body = json!({"transfers": [of_seller_3(&format!("tr_{n}_9"), 1_000)]});
            let (added, ()) =
                tokio::join!(send_until_answered(app, Method::POST, &path, &body), refund_until_accepted(app, n));
            assert!(added.is_success(), "{added}");
        }
    });
    futures_util::future::join_all(both).await;
    for n in rounds {
        let asks =
            [of(&format!("tr_{n}_0"), &[3_000]), of(&format!("tr_{n}_1"), &[1_500]), of(&format!("tr_{n}_9"), &[500])];
        assert_eq!(asked(&app, &format!("pi_{n}")).await, asks);
    }
}

async fn a_refund_at_the_moment_of_a_correction_is_shared_out_by_one_of_the_two(app: TestApp) {
    let app = without_worker(app).await;
    let rounds = 0..12;
    let transfers = |n: i32, amount: i64| json!([of_seller_3(&format!("tr_{n}"), amount)]);
    for n in rounds.clone() {
        let payment = json!({"payment_ref": format!("pi_{n}"), "amount": 10_000, "currency": "eur", "transfers": transfers(n, 4_000)});
        assert_eq!(app.register(payment).await.status(), StatusCode::CREATED);
    }
    let both = rounds.clone().map(|n| {
        let app = &app;
        async move {
            let body = json!({"amount": 10_000, "currency": "eur", "transfers": transfers(n, 8_000)});
            let path = format!("/v1/payments/pi_{n}");
            tokio::join!(send_until_answered(app, Method::PUT, &path, &body), refund_until_accepted(app, n)).0
        }
    });
    let corrected = futures_util::future::join_all(both).await;
    for (n, status) in rounds.zip(corrected) {
        let ask = if status == StatusCode::OK { 4_000 } else { 2_000 };
        assert!(status == StatusCode::OK || status == StatusCode::CONFLICT, "{status}");
        assert_eq!(asked(&app, &format!("pi_{n}")).await, [of(&format!("tr_{n}"), &[ask])], "{status}");
    }
}

/// A destination charge of 100.00 EUR with a fee of 10.00, registered with `refund_application_fee`.
async fn with_a_fee(app: &TestApp) -> String {
    let charge = app.sim.pay(NewPayment {
        payment_intent: Some("pi_1".to_owned()),
        destination: Some("acct_1".to_owned()),
        application_fee_amount: Some(1_000),
        ..NewPayment::new(10_000, "eur")
    });
    let transfer = charge.transfer.unwrap();
    let payment = json!({"payment_ref": "pi_1", "amount": 10_000, "currency": "eur", "transfers": [{
        "seller_id": "s1", "stripe_transfer_id": transfer, "destination": "acct_1", "amount": 10_000, "currency": "eur",
        "refund_application_fee": true}]});
    assert_eq!(app.register(payment).await.status(), StatusCode::CREATED);
    charge.id
}

async fn the_application_fee_is_refunded_with_the_reversal(app: TestApp) {
    let charge = with_a_fee(&app).await;
    for (n, back) in [(1, 300), (2, 1_000)] {
        app.refund_of(if n == 1 { 3_000 } else { 7_000 }, n).await;
        eventually("the fee is refunded in proportion", || async {
            (app.sim.ledger().charges[&charge].application_fee_refunded == back).then_some(())
        })
        .await;
    }
    app.transfer_becomes(0, "reversed").await;
}

async fn a_fee_to_refund_where_there_is_none_fails_permanently_and_says_so(app: TestApp) {
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["refund_application_fee"] = true.into();
    app.register(payment).await;
    app.refund_of(10_000, 1).await;
    let failed = app.reversal_when(0, "it fails", |it| it["status"] == "permanently_failed").await;
    assert!(failed["failure_message"].as_str().unwrap().contains("has no application fee to refund"), "{failed}");
    app.transfer_becomes(1, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_1"), 0);
}
