//! `clawback reconcile adopt`: what Stripe has reversed and the ledger forgot, or another program did.

use serde_json::{Value, json};
use stripe_sim::Fault;

use crate::reconcile::{reconcile, register, reverse_at_stripe};
use crate::support::{TestApp, both_databases, refund_event, two_sellers};

both_databases! {
    what_stripe_has_for_a_known_refund_counts_as_reversed_and_is_not_asked_for_again,
    what_belongs_to_no_refund_that_asks_for_it_is_said_and_counted,
    what_another_program_took_leaves_less_of_the_transfer,
}

const YES: [&str; 4] = ["--yes", "--reason", "restored", "--all"];

async fn what_stripe_has_for_a_known_refund_counts_as_reversed_and_is_not_asked_for_again(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(4_000).await;
    let whole = reverse_at_stripe(&app, "tr_1", 2_400, "stripe:re_1").await;
    let less = reverse_at_stripe(&app, "tr_2", 1_000, "stripe:re_1").await;

    let run = adopt(&app, &["--all", "--dry-run"]).await;
    let shown = run.table();
    assert!(shown.contains(&whole) && shown.contains(&less) && shown.contains("which asks for 1200 here"), "{shown}");
    assert!(shown.ends_with("Would adopt 2 (3400 eur); 0 skipped.\n"), "{shown}");
    let run = adopt(&app, &["--all", "--reason", "restored"]).await;
    assert_eq!(run.code, 1, "nobody is there to say yes: {run:?}");
    assert!(run.stderr.contains("Adopt 2 (3400 eur in minor units)? Add --yes"), "{run:?}");
    assert_eq!(app.db.count("reversals WHERE status = 'pending'").await, 2, "it changed something unasked");

    let run = adopt(&app, &[&YES[..], &["--format", "json"]].concat()).await;
    assert_eq!(run.code, 0, "{run:?}");
    let adopted = &run.json()["adopted"];
    assert_eq!((&adopted[0]["stripe_reversal_id"], &adopted[0]["claim"]), (&json!(whole), &json!("stripe:re_1")));
    assert_eq!((&adopted[1]["amount"], &adopted[1]["stripe_transfer_id"]), (&json!(1_000), &json!("tr_2")));
    for (at, id, amount) in [(0, &whole, 2_400), (1, &less, 1_000)] {
        let transfer = app.transfer_becomes(at, "partially_reversed").await;
        let row = &transfer["reversals"][0];
        assert_eq!((&row["status"], &row["stripe_reversal_id"]), (&json!("reversed"), &json!(id)));
        assert_eq!((&transfer["amount_reversed"], &row["amount"]), (&json!(amount), &json!(amount)));
        assert_eq!(row["id"], adopted[at]["reversal_id"]);
    }
    let attention = app.refund_view("re_1").await["attention"].clone();
    let says = attention.as_str().unwrap();
    assert!(says.contains("taken 1000 eur of transfer tr_2 for it, and it asks for 1200"), "{says}");
    assert!(!says.contains("tr_1"), "{says}");
    let rows = app.db.query("SELECT reason FROM history WHERE actor = 'ada' AND to_status = 'reversed'").await;
    let reason = |row: &Value| row["reason"].as_str().unwrap().to_owned();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert!(rows.iter().map(reason).all(|it| it.starts_with("adopted trr_") && it.ends_with(": restored")), "{rows:?}");

    // Again: nothing is left to do, by either name.
    let run = adopt(&app, &YES).await;
    assert_eq!((run.code, run.words().contains("The ledger has all")), (0, true), "{run:?}");
    let run = adopt(&app, &[&less, "--reason", "restored"]).await;
    assert_eq!((run.code, run.words().contains("recorded already, as reversal")), (0, true), "{run:?}");
    assert_eq!(reconcile(&app, &[]).await.code, 0);

    // The jobs are still there, and ask for nothing; the next refund counts with what was taken.
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.refund_of(6_000, 2).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
    assert_eq!(app.sim.ledger().reversals("tr_1").len(), 2);
}

async fn what_belongs_to_no_refund_that_asks_for_it_is_said_and_counted(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let share = json!([{"transfer_id": "tr_1", "amount": 300}]);
    let report = json!({"source": "stripe", "refund_ref": "re_1", "payment_ref": "pi_1", "amount": 500, "currency": "eur",
        "transfers": share});
    assert_eq!(app.report(&report).await.status(), 201);
    let failed = |event: &str, kind: &str, status: &str| {
        let mut event = refund_event(event, "re_2", "pi_1", 1_000);
        (event["type"], event["data"]["object"]["status"]) = (kind.into(), status.into());
        event.to_string()
    };
    for event in [failed("evt_2", "refund.created", "succeeded"), failed("evt_3", "refund.failed", "failed")] {
        assert_eq!(app.post_webhook(&event).await.status(), 200);
    }
    let unasked = reverse_at_stripe(&app, "tr_2", 200, "stripe:re_1").await;
    let needless = reverse_at_stripe(&app, "tr_2", 300, "stripe:re_2").await;
    let nobody = reverse_at_stripe(&app, "tr_1", 100, "stripe:re_9").await;
    app.sim.fault("tr_1", Fault::Pending, 1);
    let pending = reverse_at_stripe(&app, "tr_1", 300, "stripe:re_1").await;

    let run = adopt(&app, &[&YES[..], &["--format", "json"]].concat()).await;
    assert_eq!(run.code, 3, "some were skipped: {run:?}");
    let json = run.json();
    let ids =
        |of: &str| json[of].as_array().unwrap().iter().map(|it| it["stripe_reversal_id"].clone()).collect::<Vec<_>>();
    assert_eq!(ids("adopted"), [json!(needless), json!(unasked)], "{run:?}");
    assert_eq!(ids("skipped"), [json!(nobody)], "what Stripe is not done with is on its way: {run:?} {pending}");
    let problem = json["skipped"][0]["problem"].as_str().unwrap();
    assert!(problem.contains("stripe:re_9 is not known") && problem.contains("report it again"), "{problem}");
    let transfer = app.transfer_becomes(1, "partially_reversed").await;
    assert_eq!(transfer["amount_reversed"], 500, "{transfer}");
    let attention = async |id: &str| app.refund_view(id).await["attention"].as_str().unwrap_or_default().to_owned();
    assert!(attention("re_1").await.contains("taken 200 eur of transfer tr_2 for it, and it asks for 0"));
    assert!(attention("re_2").await.contains("nothing is owed for it, and 300 eur were taken back from transfer tr_2"));

    // Its provider reports it again: it is known, and what Stripe did for it is its.
    app.refund_of(1_000, 9).await;
    app.sim.settle(&pending, "succeeded");
    assert_eq!(adopt(&app, &YES).await.code, 0);
    let transfer = app.payment("pi_1").await["transfers"][0].clone();
    assert_eq!(
        (&transfer["status"], &transfer["amount_reversed"]),
        (&json!("partially_reversed"), &json!(400)),
        "{transfer}"
    );
    assert_eq!(
        app.db.count("reversals WHERE status = 'pending'").await,
        0,
        "tr_2 has given more than its part of re_9 already"
    );

    // A second one for the same refund: the seller paid twice, which no record mends.
    let again = reverse_at_stripe(&app, "tr_2", 10, "stripe:re_1").await;
    let run = adopt(&app, &[&again, "--transfer", "tr_2", "--yes", "--reason", "restored"]).await;
    assert_eq!((run.code, run.words().contains("the seller paid twice")), (3, true), "{run:?}");
}

async fn what_another_program_took_leaves_less_of_the_transfer(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    register(&app, "pi_1", &["tr_1"], 6_000).await;
    app.sim.reverse_from_elsewhere("tr_1", Some(1_000));
    app.sim.reverse_for_refund("tr_1", 500, "re_of_stripe");
    let ids: Vec<String> = app.sim.ledger().reversals("tr_1").iter().map(|it| it.id.clone()).collect();
    assert_eq!(adopt(&app, &YES).await.code, 0, "only when named");
    assert_eq!(app.payment("pi_1").await["transfers"][0]["amount_reversed"], 0);
    let run = adopt(&app, &["trr_none", "--yes", "--reason", "by hand"]).await;
    assert_eq!((run.code, run.stderr.contains("no reversal \"trr_none\" of the 1 transfers")), (1, true), "{run:?}");
    let run = adopt(&app, &[&ids[1], "--yes", "--reason", "by hand"]).await;
    assert_eq!((run.code, run.words().contains("together with refund re_of_stripe")), (3, true), "{run:?}");

    let run = adopt(&app, &[&ids[0], "--transfer", "tr_1", "--yes", "--reason", "by hand"]).await;
    assert!(run.table().contains("that much less is left of the transfer"), "{run:?}");
    let transfer = app.transfer_becomes(0, "partially_reversed").await;
    assert_eq!((&transfer["amount_reversed"], &transfer["reversed_before"]), (&json!(1_000), &json!(1_000)));
    assert_eq!(transfer["adopted_reversals"], json!([ids[0]]));
    let run = adopt(&app, &[&ids[0], "--yes", "--reason", "by hand"]).await;
    assert_eq!((run.code, run.words().contains("recorded already, as taken back from tr_1")), (0, true), "{run:?}");
    let found = reconcile(&app, &["--format", "json"]).await.json()["differences"].clone();
    assert_eq!((found.as_array().unwrap().len(), &found[0]["stripe_reversal_id"]), (1, &json!(ids[1])), "{found}");

    // It is registered as before, and a refund of everything takes what is left.
    let body = json!({"payment_ref": "pi_1", "amount": 6_000, "currency": "eur", "transfers": [{"seller_id": "s1",
        "stripe_transfer_id": "tr_1", "destination": "acct_1", "amount": 6_000, "currency": "eur"}]});
    assert_eq!(app.register(body).await.status(), 200);
    let mut event = refund_event("evt_1", "re_of_stripe", "pi_1", 500);
    event["data"]["object"]["transfer_reversal"] = json!(ids[1]);
    assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.refund_of(4_500, 2).await;
    app.transfer_becomes(0, "partially_reversed").await;
    let taken = || async { (app.reversed_at_stripe("tr_1") == 6_000).then_some(()) };
    crate::support::eventually("what is left is taken", taken).await;
    app.db.no_table_was_read_as_a_whole().await;
}

async fn adopt(app: &TestApp, arguments: &[&str]) -> crate::support::Finished {
    reconcile(app, &[&["adopt"], arguments].concat()).await
}
