//! The runbook's restore, step by step: a backup of a running Clawback, more refunds and creations, the database lost, the backup
//! restored, everything sent again. In the end nothing is doubled and nothing is lost.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use stripe_sim::{Fault, Target};

use crate::support::{
    Backend, NO_SWEEPER, Process, TestApp, eventually, free_address, refund_event, to_create, two_sellers,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_by_the_runbook_nothing_is_doubled_and_nothing_is_lost() {
    TestApp::run(Backend::Postgres, |app| by_the_runbook(app, TimeDelta::zero())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_a_day_later_when_stripe_has_forgotten_the_keys_neither() {
    TestApp::run(Backend::Postgres, |app| by_the_runbook(app, TimeDelta::hours(25))).await;
}

/// What Stripe has taken from and paid to whom: each reversal's amount by transfer, each transfer's by account.
type AtStripe = (BTreeMap<String, Vec<i64>>, BTreeMap<String, Vec<i64>>);

fn at_stripe(app: &TestApp) -> AtStripe {
    let ledger = app.sim.ledger();
    let (mut taken, mut paid) = (BTreeMap::new(), BTreeMap::new());
    for (id, transfer) in &ledger.transfers {
        let mut amounts: Vec<i64> = transfer.reversals.iter().map(|it| it.amount).collect();
        amounts.sort_unstable();
        taken.insert(id.clone(), amounts);
        let to: &mut Vec<i64> = paid.entry(transfer.destination.clone()).or_default();
        to.push(transfer.amount);
        to.sort_unstable();
    }
    (taken, paid)
}

/// `re_{n}` of `pi_1` and its like, made `age` ago.
fn refund(n: usize, payment: &str, amount: i64, age: TimeDelta) -> String {
    let mut event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), payment, amount);
    event["data"]["object"]["created"] = json!((Utc::now() - age).timestamp());
    event.to_string()
}

async fn told(app: &TestApp, events: &[String]) {
    for event in events {
        let answer = app.post_webhook(event).await;
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }
}

async fn none_is_open(app: &TestApp) {
    eventually("every call is done", || async {
        (app.db.count("calls WHERE state IN ('open', 'waiting')").await == 0).then_some(())
    })
    .await;
}

async fn by_the_runbook(mut app: TestApp, age: TimeDelta) {
    app.restart_with(&[NO_SWEEPER, ("TRANSFER_RETRY_CHECK_INTERVAL", "1h")]).await;
    let before = [refund(1, "pi_1", 333, age), refund(2, "pi_1", 334, age), refund(3, "pi_c", 1_000, age)];
    let on_its_way = [refund(4, "pi_1", 1_001, age)];
    let mut after: Vec<String> =
        [(5, 333), (6, 1), (7, 335), (8, 1)].map(|(n, amount)| refund(n, "pi_1", amount, age)).into();
    after.push(refund(9, "pi_c", 2_500, age));
    after.push(refund(10, "pi_d", 777, age));
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    let mut created = to_create("pi_c");
    assert_eq!(app.register(created.clone()).await.status(), 201);
    none_is_open(&app).await;
    told(&app, &before).await;
    none_is_open(&app).await;
    // One is on its way while the backup is made.
    app.sim.fault(Target::Any, Fault::UnavailableHtml, 1_000);
    told(&app, &on_its_way).await;
    let backup = app.db.back_up().await;
    app.sim.clear_faults();
    created["payment_ref"] = json!("pi_d");
    for transfer in created["transfers"].as_array_mut().unwrap() {
        transfer["destination"] = json!(transfer["destination"].as_str().unwrap().replace("acct_", "acct_d"));
    }
    assert_eq!(app.register(created.clone()).await.status(), 201);
    eventually("pi_d is created", || async {
        (app.db.count("seller_transfers WHERE stripe_transfer_id IS NULL").await == 0).then_some(())
    })
    .await;
    told(&app, &after).await;
    none_is_open(&app).await;
    let (taken, paid) = at_stripe(&app);
    let of = |taken: &BTreeMap<String, Vec<i64>>, id: &str| taken[id].iter().sum::<i64>();
    assert_eq!((of(&taken, "tr_1"), of(&taken, "tr_2")), (1_403, 701), "2338 of 10000, of 6000 and of 3000");

    // 1. and 2.: everything stops, and the backup is restored, `age` later.
    app.stop().await;
    app.db.restore(&backup).await;
    app.sim.advance(age.to_std().unwrap());
    let hours = age.num_hours();
    app.db
        .execute(&format!("UPDATE calls SET generation_started_at = generation_started_at - interval '{hours} hours'"))
        .await;
    // 3.: payments since the backup, straight into the database; and what Clawback creates is looked for at Stripe.
    let file = std::env::temp_dir().join(format!("{}.jsonl", uuid::Uuid::new_v4()));
    std::fs::write(&file, created.to_string()).unwrap();
    let run = app.cli(&["payments", "import", "--create-missing", file.to_str().unwrap()]).await;
    std::fs::remove_file(&file).unwrap();
    assert_eq!(run.code, 0, "{run:?}");
    // The relay is in `serve`; no provider reaches it yet.
    let relay = app.settings_with(&[("HTTP_ADDR", &free_address())]);
    let relay = Process::start("serve", &relay);
    let creations = Process::start("worker", &app.settings_with(&[("REVERSAL_WORKER_ENABLED", "false")]));
    eventually("no transfer is to be created", || async {
        (app.db.count("seller_transfers WHERE stripe_transfer_id IS NULL").await == 0).then_some(())
    })
    .await;
    assert_eq!((creations.terminate().await, relay.terminate().await), (Some(0), Some(0)));
    assert_eq!(at_stripe(&app), (taken.clone(), paid.clone()), "a seller was paid twice");

    // 4.: `serve` alone, and the providers send again, in whatever order.
    let address = free_address();
    let serve = app.settings_with(&[("HTTP_ADDR", &address)]);
    app.base_url = format!("http://{address}");
    let serve = Process::start("serve", &serve);
    app.is_up().await;
    after.reverse();
    told(&app, &[&after[..], &on_its_way, &before].concat()).await;
    // 5.: what Stripe has done is recorded, whatever the amounts are here.
    let adopted = app.cli(&["reconcile", "adopt", "--all", "--yes", "--reason", "restored", "--format", "json"]).await;
    assert_eq!((adopted.code, &adopted.json()["skipped"]), (0, &json!([])), "{adopted:?}");
    let run = app.cli(&["reconcile", "--format", "json"]).await;
    assert_eq!((run.code, &run.json()["summary"]["on_their_way"]), (0, &json!(0)), "{run:?}");
    assert_eq!(at_stripe(&app), (taken.clone(), paid.clone()), "adopting moves no money");

    // 6.: the workers start. What is refunded from now on is taken, and nothing else.
    let worker = Process::start("worker", &app.settings());
    none_is_open(&app).await;
    assert_eq!(at_stripe(&app), (taken, paid.clone()), "something was taken twice");
    told(&app, &[refund(11, "pi_1", 10_000 - 2_338, TimeDelta::zero())]).await;
    none_is_open(&app).await;
    let (now, paid_now) = at_stripe(&app);
    assert_eq!((of(&now, "tr_1"), of(&now, "tr_2"), paid_now), (6_000, 3_000, paid), "something is lost");
    let lost = "claims WHERE status <> 'matched' OR attention IS NOT NULL";
    assert_eq!(app.db.count(lost).await, 0, "{:?}", app.db.query(&format!("SELECT * FROM {lost}")).await);
    assert_eq!(app.db.count("claims").await, 11);
    let rows = "SELECT t.stripe_transfer_id AS id, CAST(sum(r.amount) AS bigint) AS amount FROM reversals r
        JOIN seller_transfers t ON t.id = r.transfer_id WHERE r.status = 'reversed' GROUP BY 1";
    for row in app.db.query(rows).await {
        let id = row["id"].as_str().unwrap();
        assert_eq!(row["amount"], Value::from(of(&now, id)), "{id}: the ledger and Stripe differ");
    }
    assert_eq!((worker.terminate().await, serve.terminate().await), (Some(0), Some(0)));
}
