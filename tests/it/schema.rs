//! The schema defends itself, also against hands and other programs.

use clawback::ledger::Note;
use sea_orm::ConnectionTrait;

use crate::support::{TestApp, both_databases, eventually, to_create};

both_databases! {
    history_is_append_only,
    a_reversal_can_not_say_reversed_without_stripes_id,
    a_refund_and_a_transfer_have_one_reversal,
    a_status_or_an_amount_that_makes_no_sense_is_refused,
    two_transfers_to_create_have_two_names,
    a_claim_that_contradicts_itself_is_refused,
    a_call_that_contradicts_itself_is_refused,
    a_process_or_a_pause_that_contradicts_itself_is_refused,
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
    refused(&app, "UPDATE seller_transfers SET reversed_before = amount_reversed + 1", "constraint").await;
    refused(&app, "UPDATE reversals SET amount = 0", "constraint").await;
    refused(&app, "UPDATE reversals SET amount_closed = -1", "constraint").await;
    refused(&app, "UPDATE payments SET amount = -1", "constraint").await;
    refused(&app, "UPDATE seller_transfers SET ordinal = -1", "constraint").await;
}

async fn two_transfers_to_create_have_two_names(mut app: TestApp) {
    app.restart_with(&[("TRANSFER_RETRY_ENABLED", "false")]).await;
    let mut twice = to_create("pi_1");
    twice["transfers"][1] = twice["transfers"][0].clone();
    twice["amount"] = 12_000.into();
    assert_eq!(app.register(twice).await.status(), 201);
    refused(&app, "UPDATE seller_transfers SET ordinal = 0", "unique").await;
}

async fn a_claim_that_contradicts_itself_is_refused(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(4_000).await;
    app.refund_of(5_000, 2).await;
    refused(&app, "UPDATE claims SET kind = 'gift'", "constraint").await;
    refused(&app, "UPDATE claims SET source = 'nobody'", "constraint").await;
    refused(&app, "UPDATE claims SET status = 'done'", "constraint").await;
    refused(&app, "UPDATE claims SET amount = 0", "constraint").await;
    refused(&app, "UPDATE claims SET currency = 'euro'", "constraint").await;
    refused(&app, "UPDATE claims SET payment_id = NULL", "constraint").await;
    refused(&app, "UPDATE claims SET matched_at = NULL", "constraint").await;
    // One provider's id is one claim of its kind; of another kind it is another claim.
    refused(&app, "UPDATE claims SET reference = 're_1'", "unique").await;
    app.db
        .execute("UPDATE claims SET reference = 're_1', kind = 'dispute', stage = 'open' WHERE reference = 're_2'")
        .await;
}

async fn a_call_that_contradicts_itself_is_refused(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    refused(&app, "UPDATE calls SET kind = 'refund'", "constraint").await;
    refused(&app, "UPDATE calls SET state = 'pending'", "constraint").await;
    refused(&app, "UPDATE calls SET version = 0", "constraint").await;
    refused(&app, "UPDATE calls SET attempts = -1", "constraint").await;
    refused(&app, "UPDATE calls SET generation = -1", "constraint").await;
    refused(&app, "UPDATE calls SET sweep_after = NULL", "null").await;
    refused(&app, "UPDATE calls SET generation_started_at = NULL", "null").await;
    refused(&app, "UPDATE calls SET id = (SELECT id FROM calls LIMIT 1)", "unique").await;
    // What is not open is not tried again.
    app.db.execute("UPDATE calls SET next_attempt_at = updated_at").await;
    for state in ["waiting", "done", "failed", "called_off"] {
        refused(&app, &format!("UPDATE calls SET state = '{state}'"), "constraint").await;
    }
}

async fn a_process_or_a_pause_that_contradicts_itself_is_refused(app: TestApp) {
    eventually("the process has its row", || async { (app.db.count("processes").await == 1).then_some(()) }).await;
    refused(&app, "UPDATE processes SET role = 'nobody'", "constraint").await;
    refused(&app, "UPDATE processes SET breaker = 'off'", "constraint").await;
    refused(&app, "UPDATE processes SET breaker = 'open'", "constraint").await;
    refused(&app, "UPDATE processes SET connected = consumers + 1", "constraint").await;
    let note = Note::new("ada", "to try it out");
    app.ledger().pause(Some("acct_1"), true, &note).await.unwrap();
    app.ledger().pause(None, false, &note).await.unwrap();
    refused(&app, "UPDATE pauses SET destination = 'acct_1'", "unique").await;
    refused(&app, "UPDATE pauses SET reason = NULL", "null").await;
}

async fn migrations_go_down_and_up_again(mut app: TestApp) {
    app.stop().await;
    let all = u32::try_from(app.ledger().migrations().await.unwrap().known.len()).unwrap();
    app.ledger().migrate_down(all).await.unwrap();
    assert_eq!(app.ledger().pending_migrations().await.unwrap(), all as usize);
    let (first, second) = tokio::join!(app.ledger().migrate_up(), app.ledger().migrate_up());
    assert_eq!(first.unwrap() + second.unwrap(), all as usize, "two at once apply each migration once");
    app.db.forget_what_was_read().await;
    app.start(&[]).await;
    app.refund(10_000).await;
    app.transfer_becomes(0, "reversed").await;
}

async fn refused(app: &TestApp, sql: &str, because: &str) {
    let connection = app.db.connect().await;
    let error = connection.execute_unprepared(sql).await.expect_err(sql).to_string();
    assert!(error.to_lowercase().contains(because), "{sql}: {error}");
}
