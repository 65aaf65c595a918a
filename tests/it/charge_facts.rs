//! What an event says of the charge: how much of it was captured, and which transfer Stripe has reversed with the refund.

use serde_json::{Value, json};

use crate::support::{NO_SWEEPER, TestApp, both_databases, refund_event, two_sellers};

both_databases! {
    more_than_the_payment_is_a_conflict_and_not_clamped,
    a_payment_that_was_captured_in_part_holds_its_refunds_until_its_registration_is_right,
    a_registration_can_be_corrected_once_all_that_was_asked_by_it_is_called_off,
    what_was_called_for_before_the_capture_is_known_needs_an_operator,
    a_refund_of_what_was_never_captured_takes_nothing,
    what_may_be_the_release_of_the_rest_takes_nothing_before_an_operator_says_so,
    larger_shares_than_what_was_asked_for_already_are_taken_in_and_need_an_operator,
    what_may_be_a_real_refund_of_just_what_was_not_captured_needs_an_operator,
    of_several_transfers_only_the_charges_own_is_settled_by_stripes_reversal,
    the_charges_own_transfer_may_be_known_later_than_the_reversal,
    a_payment_that_is_registered_later_owes_for_its_further_transfers,
    a_transfer_that_is_added_after_stripes_reversal_owes_its_part,
    the_charges_own_transfer_that_is_added_late_is_not_reversed_again,
    what_was_acknowledged_as_settled_is_not_taken_when_the_payment_is_corrected,
}

/// What `charge.refunded` says of `pi_1`, with the refunds (number and amount) that it lists.
fn charge(event_id: &str, amounts: [i64; 3], refunds: &[(usize, i64)]) -> Value {
    let refunds = refunds.iter().map(|(n, amount)| {
        let event = refund_event("", &format!("re_{n}"), "pi_1", *amount);
        event["data"]["object"].clone()
    });
    let [amount, captured, refunded] = amounts;
    json!({"id": event_id, "object": "event", "type": "charge.refunded", "data": {"object": {
        "id": "ch_of_pi_1", "object": "charge", "payment_intent": "pi_1", "currency": "eur", "amount": amount,
        "captured": captured > 0, "amount_captured": captured, "amount_refunded": refunded,
        "refunds": {"object": "list", "data": refunds.collect::<Vec<_>>()},
    }}})
}

async fn told(app: &TestApp, event: &Value) -> Value {
    let mut answer = app.post_webhook(&event.to_string()).await;
    // Not taken for now: the provider sends it again.
    while answer.status() == 503 {
        answer = app.post_webhook(&event.to_string()).await;
    }
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

async fn without_worker(mut app: TestApp) -> TestApp {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    app.register(two_sellers("pi_1")).await;
    app
}

/// What is owed or was taken, refund by refund, of each transfer of `pi_1`.
async fn asked(app: &TestApp) -> Vec<Vec<i64>> {
    let payment = app.ledger().payment("pi_1").await.unwrap().unwrap();
    let live = |it: &clawback::ledger::ReversalView| it.status != clawback::ledger::ReversalStatus::CalledOff;
    let amounts = |it: &clawback::ledger::TransferView| {
        it.reversals.iter().filter(|reversal| live(reversal)).map(|reversal| reversal.amount).collect()
    };
    payment.transfers.iter().map(amounts).collect()
}

async fn attention(app: &TestApp, id: &str) -> String {
    app.refund_view(id).await["attention"].as_str().unwrap_or_default().to_owned()
}

async fn more_than_the_payment_is_a_conflict_and_not_clamped(app: TestApp) {
    let app = without_worker(app).await;
    // In cents, where the payment was registered in euros.
    let answer = told(&app, &refund_event("evt_1", "re_1", "pi_1", 50_000)).await;
    assert_eq!(answer["outcome"], "conflicting");
    for words in ["50000 eur", "payment pi_1 of 10000 eur"] {
        assert!(attention(&app, "re_1").await.contains(words), "{answer}");
    }
    app.refund_of(6_000, 2).await;
    app.refund_of(4_001, 3).await;
    let reason = attention(&app, "re_3").await;
    assert!(reason.contains("4001 eur beside 6000 before"), "{reason}");
    app.refund_of(4_000, 4).await;
    assert_eq!(asked(&app).await, [[3_600, 2_400], [1_800, 1_200]]);
}

async fn a_payment_that_was_captured_in_part_holds_its_refunds_until_its_registration_is_right(app: TestApp) {
    let app = without_worker(app).await;
    let answer = told(&app, &charge("evt_1", [6_000, 6_000, 6_000], &[(1, 6_000)])).await;
    assert_eq!(answer["outcome"], "conflicting");
    for words in ["registered with 10000 eur", "captured 6000"] {
        assert!(attention(&app, "re_1").await.contains(words), "{answer}");
    }
    // The same refund without the charge does not make that forgotten.
    assert_eq!(told(&app, &refund_event("evt_again", "re_1", "pi_1", 6_000)).await["outcome"], "duplicate");
    assert_eq!(app.db.count("reversals").await, 0);
    // An event that comes after the matching calls off what Stripe was not asked for.
    app.refund_of(3_000, 2).await;
    assert_eq!(asked(&app).await, [[1_800], [900]]);
    let answer = told(&app, &charge("evt_3", [6_000, 6_000, 3_000], &[(2, 3_000)])).await;
    assert_eq!((&answer["outcome"], asked(&app).await), (&json!("conflicting"), vec![vec![], vec![]]));
    // The registered amount is the captured one: nothing to complain of.
    told(&app, &charge("evt_4", [10_000, 10_000, 500], &[(3, 500)])).await;
    assert_eq!(asked(&app).await, [[300], [150]]);
}

async fn a_registration_can_be_corrected_once_all_that_was_asked_by_it_is_called_off(app: TestApp) {
    let app = without_worker(app).await;
    app.refund_of(3_000, 1).await;
    assert_eq!(asked(&app).await, [[1_800], [900]]);
    assert_eq!(told(&app, &charge("evt_2", [9_000, 9_000, 3_000], &[(1, 3_000)])).await["outcome"], "conflicting");
    let correct = async |body: &Value| {
        let request = app.http.put(format!("{}/v1/payments/pi_1", app.base_url)).bearer_auth(&app.api_token);
        let answer = request.json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let mut payment = two_sellers("pi_1");
    payment["amount"] = json!(9_000);
    let mut without_one = payment.clone();
    without_one["transfers"].as_array_mut().unwrap().truncate(1);
    let (status, problem) = correct(&without_one).await;
    assert_eq!((status, problem["detail"].as_str().unwrap().contains("has to stay")), (409, true), "{problem}");
    assert_eq!(correct(&payment).await.0, 200);
    assert_eq!((asked(&app).await, attention(&app, "re_1").await.as_str()), (vec![vec![2_000], vec![1_000]], ""));
}

async fn what_was_called_for_before_the_capture_is_known_needs_an_operator(app: TestApp) {
    let app = without_worker(app).await;
    app.refund_of(3_000, 1).await;
    let id = app.refund_view("re_1").await["reversals"][0]["id"].as_str().unwrap().parse().unwrap();
    app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    let event = charge("evt_2", [6_000, 6_000, 3_000], &[(1, 3_000)]);
    assert_eq!(told(&app, &event).await["outcome"], "conflicting");
    assert!(attention(&app, "re_1").await.contains("captured 6000"));
    assert_eq!(
        (app.refund_view("re_1").await["status"].clone(), asked(&app).await),
        (json!("matched"), vec![vec![1_800], vec![900]])
    );
    assert_eq!(told(&app, &charge("evt_3", [6_000, 6_000, 3_000], &[(1, 3_000)])).await["outcome"], "duplicate");
}

async fn a_refund_of_what_was_never_captured_takes_nothing(app: TestApp) {
    let app = without_worker(app).await;
    // A voided authorization.
    let answer = told(&app, &charge("evt_1", [10_000, 0, 10_000], &[(1, 10_000)])).await;
    assert_eq!(answer["outcome"], "ignored");
    assert!(answer["reason"].as_str().unwrap().contains("of 10000 eur authorized 0 were captured"), "{answer}");
    // Its refund.updated does not say so.
    assert_eq!(told(&app, &refund_event("evt_again", "re_1", "pi_1", 10_000)).await["outcome"], "duplicate");
    assert_eq!(app.refund_view("re_1").await["status"], "nothing_to_reverse");
    // The other way round: what was planned is called off.
    app.refund_of(7_000, 2).await;
    told(&app, &charge("evt_3", [17_000, 10_000, 13_000], &[(2, 7_000)])).await;
    let refund = app.refund_view("re_2").await;
    assert_eq!((&refund["status"], &refund["attention"]), (&json!("nothing_to_reverse"), &Value::Null));
    assert_eq!(refund["reversals"][0]["failure_code"], "never_captured");
    assert_eq!(asked(&app).await, [[0; 0], []]);
}

async fn what_may_be_the_release_of_the_rest_takes_nothing_before_an_operator_says_so(app: TestApp) {
    let app = without_worker(app).await;
    let answer = told(&app, &charge("evt_1", [14_000, 10_000, 4_000], &[(1, 4_000)])).await;
    assert_eq!(answer["outcome"], "ignored");
    assert!(attention(&app, "re_1").await.contains("it seems"), "{answer}");
    let shares = json!([{"transfer_id": "tr_1", "amount": 400}]);
    let report = json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 4_000, "currency": "eur",
        "transfers": shares});
    assert_eq!(app.report(&report).await.status(), 200);
    assert_eq!(asked(&app).await, [vec![400], vec![]]);
    assert_eq!(attention(&app, "re_1").await, "");
}

async fn larger_shares_than_what_was_asked_for_already_are_taken_in_and_need_an_operator(app: TestApp) {
    let app = without_worker(app).await;
    app.refund_of(7_000, 1).await;
    let id = app.refund_view("re_1").await["reversals"][0]["id"].as_str().unwrap().parse().unwrap();
    app.ledger().authorize(app.ledger().task(id).await.unwrap().unwrap()).await.unwrap();
    told(&app, &charge("evt_2", [17_000, 10_000, 7_000], &[(1, 7_000)])).await;
    assert_eq!(asked(&app).await, [vec![4_200], vec![]]);
    let shares = json!([{"transfer_id": "tr_1", "amount": 5_000}, {"transfer_id": "tr_2", "amount": 100}]);
    let report = json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 7_000, "currency": "eur",
        "transfers": shares});
    assert_eq!(app.report(&report).await.status(), 200);
    assert_eq!(asked(&app).await, [[4_200], [100]], "one reversal for each refund and transfer");
    let attention = attention(&app, "re_1").await;
    for words in ["5000 eur of transfer tr_1", "4200", &id.to_string()] {
        assert!(attention.contains(words), "{words:?} is not in: {attention}");
    }
}

/// The release of what was not captured is shown as a refund, too, of the same amount.
async fn what_may_be_a_real_refund_of_just_what_was_not_captured_needs_an_operator(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    told(&app, &charge("evt_1", [10_000, 5_000, 10_000], &[(1, 5_000), (2, 5_000)])).await;
    for id in ["re_1", "re_2"] {
        assert_eq!(app.refund_view(id).await["status"], "nothing_to_reverse");
        assert!(attention(&app, id).await.contains("report the refund with its shares"), "{id}");
    }
    told(&app, &charge("evt_2", [9_000, 7_000, 4_000], &[(3, 2_000)])).await;
    assert!(!attention(&app, "re_3").await.is_empty(), "2,000 were refunded beside the release, and this may be them");
    // What was refunded beside the release is less than this.
    told(&app, &charge("evt_3", [12_000, 7_000, 8_000], &[(4, 5_000)])).await;
    assert_eq!(attention(&app, "re_4").await, "");
}

/// `re_1` of 5,000 of `pi_1`, with which Stripe has reversed a transfer.
fn with_reversal(event_id: &str, transfer: Option<&str>) -> Value {
    let mut event = refund_event(event_id, "re_1", "pi_1", 5_000);
    event["data"]["object"]["transfer_reversal"] = json!({"id": "trr_own", "transfer": transfer});
    event
}

async fn of_several_transfers_only_the_charges_own_is_settled_by_stripes_reversal(app: TestApp) {
    let mut app = without_worker(app).await;
    let answer = told(&app, &with_reversal("evt_1", Some("tr_1"))).await;
    assert_eq!(answer["outcome"], "accepted");
    let own = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!(own["amount_reversed"], 3_000);
    let done = &own["reversals"][0];
    assert_eq!((&done["stripe_reversal_id"], &done["externally_reversed"]), (&json!("trr_own"), &json!(true)));
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    assert_eq!(app.transfer_becomes(1, "partially_reversed").await["amount_reversed"], 1_500);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (0, 1_500));
    // The rest comes back by ratio, beside what Stripe has taken.
    app.refund_of(5_000, 2).await;
    assert_eq!(asked(&app).await, [[3_000, 3_000], [1_500, 1_500]]);
}

async fn the_charges_own_transfer_may_be_known_later_than_the_reversal(app: TestApp) {
    let app = without_worker(app).await;
    assert_eq!(told(&app, &with_reversal("evt_1", None)).await["outcome"], "ignored");
    assert!(attention(&app, "re_1").await.contains("one of the 2 transfers of payment pi_1"));
    let mut event = charge("evt_2", [10_000, 10_000, 5_000], &[(1, 5_000)]);
    event["data"]["object"]["transfer"] = json!("tr_1");
    event["data"]["object"]["refunds"]["data"][0]["transfer_reversal"] = json!("trr_own");
    assert_eq!(told(&app, &event).await["outcome"], "accepted");
    assert_eq!((asked(&app).await, attention(&app, "re_1").await), (vec![vec![3_000], vec![1_500]], String::new()));
    assert_eq!(app.db.count("outbox").await, 1, "a job for the further transfer alone");

    // What was planned by ratio before is done by Stripe for its own transfer.
    app.refund_of(2_000, 2).await;
    let mut late = refund_event("evt_3", "re_2", "pi_1", 2_000);
    late["data"]["object"]["transfer_reversal"] = json!({"id": "trr_2", "transfer": "tr_1"});
    told(&app, &late).await;
    assert_eq!(app.payment("pi_1").await["transfers"][0]["amount_reversed"], 3_000 + 1_200);
    assert_eq!(app.payment("pi_1").await["transfers"][1]["status"], "reversal_pending");
}

async fn a_payment_that_is_registered_later_owes_for_its_further_transfers(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    assert_eq!(told(&app, &with_reversal("evt_1", Some("tr_1"))).await["outcome"], "ignored");
    assert_eq!(app.refund_view("re_1").await["status"], "nothing_to_reverse");
    app.register(two_sellers("pi_1")).await;
    assert_eq!(app.refund_view("re_1").await["status"], "matched");
    assert_eq!(app.payment("pi_1").await["transfers"][0]["amount_reversed"], 3_000);
    assert_eq!(asked(&app).await, [[3_000], [1_500]]);
}

/// `pi_1` with only this one of the two sellers' transfers.
async fn with_one(mut app: TestApp, index: usize) -> (TestApp, Value) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    let mut payment = two_sellers("pi_1");
    let other = payment["transfers"].as_array_mut().unwrap().remove(1 - index);
    assert_eq!(app.register(payment).await.status(), 201);
    (app, other)
}

async fn add(app: &TestApp, transfer: Value) {
    let request = app.http.post(format!("{}/v1/payments/pi_1/transfers", app.base_url)).bearer_auth(&app.api_token);
    let answer = request.json(&json!({"transfers": [transfer]})).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

async fn a_transfer_that_is_added_after_stripes_reversal_owes_its_part(app: TestApp) {
    let (app, further) = with_one(app, 0).await;
    assert_eq!(told(&app, &with_reversal("evt_1", Some("tr_1"))).await["outcome"], "ignored");
    assert_eq!(app.refund_view("re_1").await["status"], "nothing_to_reverse");
    add(&app, further).await;
    assert_eq!(
        (app.refund_view("re_1").await["status"].clone(), asked(&app).await),
        (json!("matched"), vec![vec![3_000], vec![1_500]])
    );
    app.refund_of(5_000, 2).await;
    assert_eq!(asked(&app).await, [[3_000, 3_000], [1_500, 1_500]]);
}

async fn the_charges_own_transfer_that_is_added_late_is_not_reversed_again(app: TestApp) {
    let (mut app, own) = with_one(app, 1).await;
    assert_eq!(told(&app, &with_reversal("evt_1", Some("tr_1"))).await["outcome"], "accepted");
    add(&app, own).await;
    let own = app.payment("pi_1").await["transfers"][1].clone();
    assert_eq!((&own["status"], &own["amount_reversed"]), (&json!("partially_reversed"), &json!(3_000)), "{own}");
    assert_eq!(own["reversals"][0]["stripe_reversal_id"], "trr_own");
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (0, 1_500));
}

async fn what_was_acknowledged_as_settled_is_not_taken_when_the_payment_is_corrected(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    let (right, mut wrong) = (two_sellers("pi_1"), two_sellers("pi_1"));
    wrong["amount"] = json!(9_500);
    assert_eq!(app.register(wrong).await.status(), 201);
    let conflicting = told(&app, &charge("evt_1", [10_000, 10_000, 5_000], &[(1, 5_000)])).await;
    assert_eq!(conflicting["outcome"], "conflicting");
    let note = clawback::ledger::Note::new("ada", "reversed in the dashboard");
    app.ledger().acknowledge_claim("re_1", note).await.unwrap();
    let request = app.http.put(format!("{}/v1/payments/pi_1", app.base_url)).bearer_auth(&app.api_token);
    let corrected = request.json(&right).send().await.unwrap();
    assert_eq!(corrected.status(), 200, "{}", corrected.text().await.unwrap());
    assert_eq!(
        (app.refund_view("re_1").await["status"].clone(), app.db.count("reversals").await),
        (json!("conflicting"), 0)
    );
    // Whoever wants it taken says so.
    let note = clawback::ledger::Note::new("ada", "not settled after all");
    app.ledger().accept_claim("re_1", note).await.unwrap();
    assert_eq!(asked(&app).await, [[3_000], [1_500]]);
}
