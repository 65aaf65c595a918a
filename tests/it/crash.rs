//! The program is killed where it hurts most. After a restart our ledger and Stripe's agree, and nothing was reversed
//! twice. Partial refunds, since a full reversal could not happen twice anyway.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend};
use stripe_sim::Fault;

use crate::support::{DEADLINE, NO_SWEEPER, Process, TestApp, both_databases, free_address, to_create};

/// Long enough for a test to take the ledger's lock before Stripe answers.
const SLOW: Fault = Fault::Slow { delay_ms: 3_000 };

both_databases! {
    killed_between_commit_and_publish,
    killed_between_stripes_answer_and_the_commit,
    killed_between_the_creation_of_a_transfer_and_the_commit,
    killed_again_and_again_in_the_middle_of_everything,
    told_to_stop_the_binary_ends_with_exit_code_0,
}

async fn killed_between_commit_and_publish(mut app: TestApp) {
    app.stop().await;
    // Nobody listens there: what is committed can't be published.
    let unreachable = ("AMQP_URL", "amqp://guest:guest@127.0.0.1:1/%2f");
    let http_addr = free_address();
    let settings = app.settings_with(&[unreachable, ("HTTP_ADDR", &http_addr)]);
    let process = Process::start("serve", &settings);
    app.base_url = format!("http://{http_addr}");
    app.is_up().await;
    app.refund(5_000).await;
    assert_eq!(app.db.count("outbox WHERE published_at IS NULL").await, 2);
    process.kill().await;
    assert!(app.sim.ledger().requests.is_empty());

    app.start(&[]).await;
    agree_on_half(&app).await;
}

async fn killed_between_stripes_answer_and_the_commit(mut app: TestApp) {
    // A sweeper would wait for this test's lock, and hold the rows meanwhile.
    app.restart_with(&[NO_SWEEPER, ("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(5_000).await;
    app.published(2).await;
    let transfers = ["tr_1", "tr_2"];
    transfers.iter().for_each(|id| app.sim.fault(*id, SLOW, 1));
    let settings = app.settings_with(&[("REVERSAL_WORKER_ENABLED", "true")]);
    let process = Process::start("worker", &settings);
    let called = |ledger: &stripe_sim::Ledger| transfers.iter().all(|id| ledger.reversal_posts(id).count() > 0);
    app.sim.wait_for(called, DEADLINE).await.expect("Stripe is called for both");
    // While this is held the worker can't commit what Stripe answers.
    let lock = app.db.connect().await;
    hold_the_ledger(&lock).await;
    let answered = |ledger: &stripe_sim::Ledger| {
        transfers.iter().all(|id| ledger.reversal_posts(id).any(|post| post.status == Some(200)))
    };
    app.sim.wait_for(answered, DEADLINE).await.expect("Stripe answers both calls");
    process.kill().await;
    lock.execute_unprepared("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    assert_eq!(app.db.count("reversals WHERE status = 'pending'").await, 2);

    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    agree_on_half(&app).await;
    let ledger = app.sim.ledger();
    assert!(ledger.reversal_posts("tr_1").count() >= 2, "the answer was lost, so Stripe was asked again");
}

async fn killed_between_the_creation_of_a_transfer_and_the_commit(mut app: TestApp) {
    app.restart_with(&[NO_SWEEPER, ("TRANSFER_RETRY_CHECK_INTERVAL", "1h"), ("TRANSFER_RETRY_ENABLED", "false")]).await;
    assert_eq!(app.register(to_create("pi_1")).await.status(), 201);
    app.published(2).await;
    let accounts = ["acct_3", "acct_4"];
    accounts.iter().for_each(|account| app.sim.fault(*account, SLOW, 1));
    let process = Process::start("worker", &app.settings_with(&[("TRANSFER_RETRY_ENABLED", "true")]));
    let called = |ledger: &stripe_sim::Ledger| accounts.iter().all(|id| ledger.creation_posts(id).count() > 0);
    app.sim.wait_for(called, DEADLINE).await.expect("Stripe is called for both");
    let lock = app.db.connect().await;
    hold_the_ledger(&lock).await;
    let answered = |ledger: &stripe_sim::Ledger| {
        accounts.iter().all(|account| ledger.creation_posts(account).any(|post| post.status == Some(200)))
    };
    app.sim.wait_for(answered, DEADLINE).await.expect("Stripe answers both calls");
    process.kill().await;
    lock.execute_unprepared("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    assert_eq!(app.db.count("seller_transfers WHERE status = 'pending'").await, 2);

    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "true")]).await;
    for (index, account) in accounts.iter().enumerate() {
        let transfer = app.transfer_becomes(index, "completed").await;
        let ledger = app.sim.ledger();
        let [theirs] = ledger.transfers_to(account)[..] else { panic!("{account} was not paid once") };
        assert_eq!(transfer["stripe_transfer_id"], theirs.id.as_str());
        assert!(ledger.creation_posts(account).count() >= 2, "the answer was lost, so Stripe was asked again");
    }
}

async fn killed_again_and_again_in_the_middle_of_everything(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(5_000).await;
    let settings = app.settings_with(&[("REVERSAL_WORKER_ENABLED", "true")]);
    for fault in [Fault::Slow { delay_ms: 300 }, Fault::ServerErrorApplied, Fault::SlowThenNothing { delay_ms: 200 }] {
        let seen = app.sim.ledger().requests.len();
        app.sim.fault("tr_1", fault, 1);
        let process = Process::start("worker", &settings);
        let called = |ledger: &stripe_sim::Ledger| ledger.requests.len() > seen;
        app.sim.wait_for(called, DEADLINE).await.expect("Stripe is called");
        process.kill().await;
    }
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    agree_on_half(&app).await;
}

async fn told_to_stop_the_binary_ends_with_exit_code_0(mut app: TestApp) {
    app.stop().await;
    let http_addr = free_address();
    let process = Process::start("run", &app.settings_with(&[("HTTP_ADDR", &http_addr)]));
    app.base_url = format!("http://{http_addr}");
    app.is_up().await;
    app.sim.fault("tr_1", Fault::Slow { delay_ms: 500 }, 1);
    app.refund(5_000).await;
    let called = |ledger: &stripe_sim::Ledger| {
        ["tr_1", "tr_2"].iter().all(|transfer| ledger.reversal_posts(transfer).count() == 1)
    };
    app.sim.wait_for(called, DEADLINE).await.expect("Stripe is called for both");
    assert_eq!(process.terminate().await, Some(0));
    assert_eq!(app.db.count("reversals WHERE status = 'reversed'").await, 2, "what was in flight was not finished");
}

/// Both transfers are reversed by half, here and at Stripe, each with a single reversal.
async fn agree_on_half(app: &TestApp) {
    for (index, id, half) in [(0, "tr_1", 3_000), (1, "tr_2", 1_500)] {
        let transfer = app.transfer_becomes(index, "partially_reversed").await;
        assert_eq!(transfer["amount_reversed"], half);
        let ledger = app.sim.ledger();
        let theirs: Vec<_> =
            ledger.reversals(id).iter().map(|reversal| (reversal.id.clone(), reversal.amount)).collect();
        let ours = transfer["reversals"][0]["stripe_reversal_id"].as_str().unwrap().to_owned();
        assert_eq!(theirs, [(ours, half)]);
    }
}

/// Keeps every other connection from writing to the transfers, until rolled back.
async fn hold_the_ledger(connection: &DatabaseConnection) {
    // One connection in the pool, so that the transaction stays on it.
    let begin = match connection.get_database_backend() {
        DbBackend::Sqlite => "BEGIN IMMEDIATE",
        _ => "BEGIN; LOCK TABLE seller_transfers, reversals IN SHARE MODE",
    };
    connection.execute_unprepared(begin).await.unwrap();
}
