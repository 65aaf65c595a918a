//! The schema defends itself, also against hands and other programs.

use sea_orm::ConnectionTrait;

use crate::support::{TestApp, both_databases};

both_databases! {
    history_is_append_only,
    a_reversal_can_not_say_reversed_without_stripes_id,
    a_refund_and_a_transfer_have_one_reversal,
    a_status_or_an_amount_that_makes_no_sense_is_refused,
    migrations_go_down_and_up_again,
}

async fn history_is_append_only(app: TestApp) {
    app.refund(10_000).await;
    refused(&app, "UPDATE history SET reason = 'another'", "append-only").await;
    refused(&app, "DELETE FROM history", "append-only").await;
}

async fn a_reversal_can_not_say_reversed_without_stripes_id(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    refused(&app, "UPDATE reversals SET status = 'reversed'", "constraint").await;
}

async fn a_refund_and_a_transfer_have_one_reversal(app: TestApp) {
    app.refund(10_000).await;
    refused(&app, "UPDATE reversals SET transfer_id = (SELECT id FROM seller_transfers LIMIT 1)", "unique").await;
}

async fn a_status_or_an_amount_that_makes_no_sense_is_refused(app: TestApp) {
    app.refund(10_000).await;
    refused(&app, "UPDATE seller_transfers SET status = 'done'", "constraint").await;
    refused(&app, "UPDATE seller_transfers SET amount_reversed = amount + 1", "constraint").await;
    refused(&app, "UPDATE reversals SET amount = 0", "constraint").await;
    refused(&app, "UPDATE payments SET amount = -1", "constraint").await;
}

async fn migrations_go_down_and_up_again(mut app: TestApp) {
    app.stop().await;
    let all = u32::try_from(app.ledger().migrations().await.unwrap().len()).unwrap();
    app.ledger().migrate_down(all).await.unwrap();
    assert_eq!(app.ledger().pending_migrations().await.unwrap(), all as usize);
    let (first, second) = tokio::join!(app.ledger().migrate_up(), app.ledger().migrate_up());
    assert_eq!(first.unwrap() + second.unwrap(), all as usize, "two at once apply each migration once");
    app.start(&[]).await;
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
}

async fn refused(app: &TestApp, sql: &str, because: &str) {
    let connection = app.db.connect().await;
    let error = connection.execute_unprepared(sql).await.expect_err(sql).to_string();
    assert!(error.to_lowercase().contains(because), "{sql}: {error}");
}
