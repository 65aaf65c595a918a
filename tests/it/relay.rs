//! The relay: woken, not waiting; and it marks only what the broker has really taken.

use chrono::{SubsecRound, TimeDelta, Utc};
use clawback::ledger::OUTBOX_CHANNEL;
use futures_util::{StreamExt, stream};
use sea_orm::sqlx::postgres::{PgListener, PgNotification};

use crate::support::{Backend, TestApp, both_databases, eventually, refund_webhook, two_sellers};

/// So long that a test which needs it to pass would fail.
const NEVER: (&str, &str) = ("REVERSAL_CHECK_INTERVAL", "1h");

both_databases! {
    a_commit_wakes_the_relay_of_its_own_process,
    what_the_broker_returned_is_not_marked_and_published_again,
    what_a_relay_claimed_before_it_died_is_published_as_soon_as_its_lease_ends,
    a_job_of_an_unknown_kind_is_given_back_for_another_version_and_holds_nothing_up,
}

async fn a_commit_wakes_the_relay_of_its_own_process(mut app: TestApp) {
    app.restart_with(&[NEVER]).await;
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_a_commit_wakes_the_relay_of_another_process() {
    TestApp::run(Backend::Postgres, |mut app: TestApp| async move {
        app.restart_with(&[NEVER]).await;
        assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
        // Once the relay is idle, only the database's announcement can wake it.
        app.refund_of(1_000, 1).await;
        app.transfer_becomes(0, "partially_reversed").await;
        app.ledger().receive(refund_webhook("evt_2", "re_2", "pi_1", 9_000)).await.unwrap();
        app.transfer_becomes(0, "reversed").await;
        app.transfer_becomes(1, "reversed").await;
    })
    .await;
}

/// An announcement takes a lock of the whole database server when it is committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_jobs_of_a_process_with_a_relay_are_announced_to_nobody_and_those_of_others_once_a_commit() {
    TestApp::run(Backend::Postgres, |mut app: TestApp| async move {
        app.restart_with(&[NEVER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
        let amount = app.many_sellers("pi_many", 10).await;
        // From then on its relay takes jobs.
        app.refund(100).await;
        app.published(2).await;
        let mut listener = PgListener::connect(&app.db.url).await.unwrap();
        listener.listen(OUTBOX_CHANNEL).await.unwrap();
        for n in 2..7 {
            app.refund_of(100, n).await;
        }
        app.ledger().receive(refund_webhook("evt_many", "re_many", "pi_many", amount)).await.unwrap();
        app.published(22).await;
        app.db.execute(&format!("NOTIFY {OUTBOX_CHANNEL}, 'the end'")).await;
        let announced = [listener.recv().await.unwrap(), listener.recv().await.unwrap()];
        assert_eq!(announced.each_ref().map(PgNotification::payload), ["", "the end"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql_two_relays_share_the_outbox_and_publish_each_job_once() {
    TestApp::run(Backend::Postgres, |mut app: TestApp| async move {
        app.restart_with(&[NEVER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
        assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
        let other = app.another().await;
        stream::iter(0..50).for_each_concurrent(8, |n| app.refund_of(100, n)).await;
        app.published(100).await;
        assert_eq!(app.db.count("outbox WHERE attempts <> 1").await, 0, "a row was claimed twice");
        eventually("the queue has each job once", || async {
            let queues = app.vhost.queues().await;
            queues.iter().any(|queue| queue["name"] == "reversals" && queue["messages"] == 100).then_some(())
        })
        .await;
        other.stop().await;
    })
    .await;
}

async fn what_the_broker_returned_is_not_marked_and_published_again(mut app: TestApp) {
    app.restart_with(&[NEVER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(1_000).await;
    app.published(2).await;
    app.vhost.delete_queue("reversals").await;
    app.refund_of(1_000, 2).await;
    app.published(4).await;
    assert_eq!(app.db.count("outbox WHERE attempts > 1").await, 2, "the returned ones were tried again");
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    // The first refund's jobs went with the queue, and are the sweeper's.
    eventually("the second refund is reversed", || async {
        (app.db.count("reversals WHERE status = 'reversed'").await == 2).then_some(())
    })
    .await;
}

async fn what_a_relay_claimed_before_it_died_is_published_as_soon_as_its_lease_ends(mut app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.stop().await;
    app.ledger().receive(refund_webhook("evt_1", "re_1", "pi_1", 1_000)).await.unwrap();
    let ends = (Utc::now() + TimeDelta::seconds(3)).trunc_subsecs(6);
    app.db.execute(&format!("UPDATE outbox SET attempts = 1, claimed_until = '{}'", ends.to_rfc3339())).await;
    app.start(&[NEVER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.published(2).await;
    assert!(Utc::now() > ends, "published although another relay had a claim");
    assert_eq!(app.db.count("outbox WHERE attempts = 2").await, 2);
}

async fn a_job_of_an_unknown_kind_is_given_back_for_another_version_and_holds_nothing_up(mut app: TestApp) {
    assert_eq!(app.register(two_sellers("pi_1")).await.status(), 201);
    app.stop().await;
    app.ledger().receive(refund_webhook("evt_1", "re_1", "pi_1", 1_000)).await.unwrap();
    app.db.execute("UPDATE outbox SET kind = 'later' WHERE id = (SELECT id FROM outbox ORDER BY id LIMIT 1)").await;
    app.start(&[NEVER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.published(1).await;
    let (soonest, latest) = (Utc::now() + TimeDelta::minutes(50), Utc::now() + TimeDelta::minutes(70));
    let given_back = format!(
        "outbox WHERE kind = 'later' AND published_at IS NULL AND attempts = 1 AND last_error LIKE '%knows no such kind%'
         AND claimed_until BETWEEN '{}' AND '{}'",
        soonest.to_rfc3339(),
        latest.to_rfc3339()
    );
    eventually("it is given back", || async { (app.db.count(&given_back).await == 1).then_some(()) }).await;
}
