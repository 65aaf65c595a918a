//! `/v1/reversals` over real HTTP: lists by pages, one, and replays by an operator who is remembered.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{TestApp, both_databases, eventually, refund_event, two_sellers};

both_databases! {
    pages_of_reversals_join_up_and_each_is_there_once,
    reversals_are_listed_by_status,
    what_is_no_parameter_is_refused_by_its_name_its_value_and_what_is_allowed,
    a_reversal_is_shown_by_both_of_its_ids,
    a_replay_takes_either_id_of_the_reversal,
    a_replay_goes_well_and_the_history_names_the_operator_and_the_reason,
    what_can_not_be_replayed_is_refused_and_changes_nothing,
    a_replay_without_operator_or_reason_is_refused_by_its_field,
}

async fn get(app: &TestApp, path: &str) -> Response {
    app.http.get(format!("{}{path}", app.base_url)).bearer_auth(&app.read_token).send().await.unwrap()
}

async fn list(app: &TestApp, query: &str) -> Value {
    let response = get(app, &format!("/v1/reversals{query}")).await;
    assert_eq!(response.status(), StatusCode::OK, "{query}");
    response.json().await.unwrap()
}

async fn replay(app: &TestApp, id: &str, body: &Value) -> (StatusCode, Value) {
    let request = app.http.post(format!("{}/v1/reversals/{id}/replay", app.base_url)).bearer_auth(&app.api_token);
    let response = request.json(body).send().await.unwrap();
    (response.status(), response.json().await.unwrap())
}

fn ids(page: &Value) -> Vec<String> {
    page["reversals"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// `pi_1` with a transfer that Stripe does not know, refunded: one reversal given up, one reversed.
async fn one_is_given_up(app: &TestApp) -> String {
    let mut payment = two_sellers("pi_1");
    payment["transfers"][0]["stripe_transfer_id"] = "tr_late".into();
    assert_eq!(app.register(payment).await.status(), 201);
    app.post_webhook(&refund_event("evt_1", "re_1", "pi_1", 10_000).to_string()).await;
    app.transfer_becomes(1, "reversed").await;
    let given_up = app.transfer_becomes(0, "permanently_failed").await;
    given_up["reversals"][0]["id"].as_str().unwrap().to_owned()
}

async fn pages_of_reversals_join_up_and_each_is_there_once(app: TestApp) {
    let amount = app.many_sellers("pi_1", 7).await;
    app.refund_of(amount, 1).await;
    let whole = list(&app, "").await;
    assert_eq!((whole["reversals"].as_array().unwrap().len(), &whole["next_cursor"]), (7, &Value::Null));
    let newest_first = ids(&whole);
    assert!(newest_first.is_sorted_by(|one, next| one > next), "{newest_first:?}");

    let (mut pages, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = list(&app, &query).await;
        pages.push(ids(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=3&cursor={cursor}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    assert_eq!(pages.concat(), newest_first);
    // A last page that is full is known to be the last one.
    assert_eq!(list(&app, "?limit=7").await["next_cursor"], Value::Null);
}

async fn reversals_are_listed_by_status(app: TestApp) {
    let id = one_is_given_up(&app).await;
    assert_eq!(ids(&list(&app, "?status=permanently_failed").await), [id]);
    let reversed = list(&app, "?status=reversed").await;
    assert_eq!(reversed["reversals"][0]["status"], "reversed");
    assert_eq!(ids(&reversed).len(), 1);
    assert!(ids(&list(&app, "?status=pending&limit=200").await).is_empty());
}

async fn what_is_no_parameter_is_refused_by_its_name_its_value_and_what_is_allowed(app: TestApp) {
    for (query, field, detail) in [
        (
            "status=open",
            "status",
            "status must be one of pending, reversed, permanently_failed, called_off, closed (got \"open\")",
        ),
        ("status=", "status", "must be one of pending, reversed"),
        ("cursor=", "cursor", "must be the next_cursor"),
        ("status=Pending", "status", "must be one of pending, reversed"),
        ("limit=0", "limit", "limit must be an integer from 1 to 200 (got \"0\")"),
        ("limit=201", "limit", "from 1 to 200"),
        ("limit=-1", "limit", "from 1 to 200"),
        ("limit=ten", "limit", "from 1 to 200"),
        ("cursor=1", "cursor", "cursor must be the next_cursor of the previous page (got \"1\")"),
        ("cursor=%00", "cursor", "must be the next_cursor"),
        ("state=pending", "state", "unknown parameter \"state\"; did you mean \"status\"?"),
        (
            "offset=7",
            "offset",
            "unknown parameter \"offset\"; known: status, currency, waits, seller, failure_code, group, owed, since, until, changed_since, order, format, limit, cursor",
        ),
        ("limit=1&limit=2", "limit", "limit is given twice"),
        ("owed=no", "owed", "owed must be yes, or be left out (got \"no\")"),
        ("since=-262143-01-01", "since", "from 1970 to 9999 (got \"-262143-01-01\")"),
        ("changed_since=7000y", "changed_since", "from 1970 to 9999"),
        ("until=10000-01-01T00:00:00Z", "until", "from 1970 to 9999"),
    ] {
        let response = get(&app, &format!("/v1/reversals?{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["type"], "/problems/invalid-parameter", "{problem}");
        assert_eq!(problem["field"], field, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
    }
}

async fn a_reversal_is_shown_by_both_of_its_ids(app: TestApp) {
    app.refund(10_000).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    let expected = &transfer["reversals"][0];
    for id in [&expected["id"], &expected["stripe_reversal_id"]] {
        let shown: Value = get(&app, &format!("/v1/reversals/{}", id.as_str().unwrap())).await.json().await.unwrap();
        assert_eq!(&shown, expected);
    }
}

async fn a_replay_takes_either_id_of_the_reversal(app: TestApp) {
    app.refund(10_000).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    let body = json!({"operator": "ada", "reason": "why not"});
    for id in [&transfer["reversals"][0]["id"], &transfer["reversals"][0]["stripe_reversal_id"]] {
        let (status, problem) = replay(&app, id.as_str().unwrap(), &body).await;
        assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("/problems/conflict")), "{problem}");
    }
}

async fn a_replay_goes_well_and_the_history_names_the_operator_and_the_reason(app: TestApp) {
    let id = one_is_given_up(&app).await;
    app.sim.add_transfer("tr_late", 6_000, "eur", "acct_1");
    let (status, answer) = replay(&app, &id, &json!({"operator": " ada ", "reason": "it was registered late"})).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{answer}");
    assert_eq!((&answer["id"], &answer["retry_count"]), (&json!(id), &json!(0)));
    assert_ne!(answer["status"], "permanently_failed");
    app.transfer_becomes(0, "reversed").await;
    assert_eq!(app.reversed_at_stripe("tr_late"), 6_000);
    let replayed = "SELECT actor, reason FROM history WHERE entity = 'reversal' \
                    AND from_status = 'permanently_failed' AND to_status = 'pending'";
    let history = app.db.query(replayed).await;
    assert_eq!(history, [json!({"actor": "ada", "reason": "it was registered late"})]);
}

async fn what_can_not_be_replayed_is_refused_and_changes_nothing(app: TestApp) {
    app.refund(10_000).await;
    let transfer = app.transfer_becomes(0, "reversed").await;
    let done = transfer["reversals"][0]["id"].as_str().unwrap();
    let rows = app.db.count("history").await;
    let body = json!({"operator": "ada", "reason": "why not"});
    let (status, problem) = replay(&app, done, &body).await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &json!("/problems/conflict")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("is reversed"), "{problem}");
    for unknown in ["00000000-0000-7000-8000-000000000000", "trr_1", "%00"] {
        let (status, problem) = replay(&app, unknown, &body).await;
        assert_eq!((status, &problem["type"]), (StatusCode::NOT_FOUND, &json!("/problems/not-found")), "{problem}");
    }
    let response = app.http.post(format!("{}/v1/reversals/{done}/replay", app.base_url)).bearer_auth(&app.read_token);
    assert_eq!(response.json(&body).send().await.unwrap().status(), StatusCode::FORBIDDEN);
    eventually("the other transfer is done, too", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
    assert_eq!(app.db.count("history WHERE actor = 'ada'").await, 0);
    assert!(app.db.count("history").await >= rows);
}

async fn a_replay_without_operator_or_reason_is_refused_by_its_field(app: TestApp) {
    let id = one_is_given_up(&app).await;
    let long = "x".repeat(501);
    for (body, field) in [
        (json!({"reason": "r"}), "operator"),
        (json!({"operator": "ada"}), "reason"),
        (json!({"operator": "", "reason": "r"}), "operator"),
        (json!({"operator": "  ", "reason": "r"}), "operator"),
        (json!({"operator": "a\nb", "reason": "r"}), "operator"),
        (json!({"operator": "a\u{0}", "reason": "r"}), "operator"),
        (json!({"operator": "x".repeat(101), "reason": "r"}), "operator"),
        (json!({"operator": "ada", "reason": long}), "reason"),
        (json!({"operator": "ada", "reason": null}), "reason"),
        (json!({"operator": "ada", "reason": "r", "force": true}), "force"),
    ] {
        let (status, problem) = replay(&app, &id, &body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!((&problem["type"], &problem["field"]), (&json!("/problems/invalid-field"), &json!(field)), "{body}");
    }
    assert_eq!(ids(&list(&app, "?status=permanently_failed").await), [id]);
}
