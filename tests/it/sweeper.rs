//! The broker may lose everything: what is owed comes back by itself.

use clawback::ledger::CallKind;
use serde_json::json;
use stripe_sim::Fault;

use crate::support::{NO_SWEEPER, TestApp, both_databases, refund_event};

both_databases! {
    jobs_that_were_purged_from_the_work_queue_come_back,
    jobs_that_were_purged_from_a_retry_queue_come_back,
    queues_that_were_deleted_come_back_with_their_jobs,
    a_job_that_is_still_in_the_outbox_gets_no_second_one,
    a_backlog_gets_no_second_jobs_and_what_was_lost_from_it_comes_back,
    a_claim_that_the_database_refuses_to_match_keeps_no_later_one_from_it,
}

async fn a_claim_that_the_database_refuses_to_match_keeps_no_later_one_from_it(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false"), NO_SWEEPER]).await;
    for (n, amount) in [(0, 77), (1, 77), (2, 78)] {
        let event = refund_event(&format!("evt_{n}"), &format!("re_{n}"), &format!("pi_{n}"), amount);
        assert_eq!(app.post_webhook(&event.to_string()).await.status(), 200);
        // Registered under another name, so that nothing is matched before the sweeper does it.
        let transfer = json!({"seller_id": "s", "stripe_transfer_id": format!("tr_of_{n}"), "destination": "acct_1",
            "amount": amount, "currency": "eur"});
        let payment =
            json!({"payment_ref": format!("x_{n}"), "amount": amount, "currency": "eur", "transfers": [transfer]});
        assert_eq!(app.register(payment).await.status(), 201);
    }
    app.db.execute("UPDATE payments SET payment_ref = 'pi_0' WHERE payment_ref = 'x_0'").await;
    assert_eq!(app.ledger().rematch(None, 100).await.unwrap().0, 1);
    app.db.execute("CREATE UNIQUE INDEX one_of_77 ON reversals (amount) WHERE amount = 77").await;
    app.db.execute("UPDATE payments SET payment_ref = replace(payment_ref, 'x_', 'pi_')").await;
    assert_eq!(app.ledger().rematch(None, 100).await.unwrap().0, 1);
    assert_eq!(app.refund_view("re_1").await["status"], "unmatched");
    assert_eq!(app.refund_view("re_2").await["status"], "matched");
}

async fn jobs_that_were_purged_from_the_work_queue_come_back(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    app.published(2).await;
    app.vhost.purge("reversals").await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
    assert!(app.db.count("history WHERE actor = 'sweeper'").await >= 2);
    assert_eq!((app.reversed_at_stripe("tr_1"), app.reversed_at_stripe("tr_2")), (6_000, 3_000));
}

async fn jobs_that_were_purged_from_a_retry_queue_come_back(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_BACKOFF_BASE", "3s"), ("REVERSAL_BACKOFF_MAX", "3s")]).await;
    app.sim.fault("tr_1", Fault::UnavailableHtml, 1);
    app.refund(10_000).await;
    app.reversal_when(0, "the first retry", |reversal| reversal["retry_count"] == 1).await;
    // Stopped in order: the copy is in its retry queue, and nobody takes it when its time is over.
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.vhost.purge("reversals.retry.3s").await;
    app.vhost.purge("reversals").await;
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "reversed").await;
    assert!(app.db.count("history WHERE actor = 'sweeper'").await >= 1);
}

async fn queues_that_were_deleted_come_back_with_their_jobs(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    app.published(2).await;
    for queue in app.vhost.queues().await {
        app.vhost.delete_queue(queue["name"].as_str().unwrap()).await;
    }
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.transfer_becomes(0, "reversed").await;
    app.transfer_becomes(1, "reversed").await;
}

async fn a_job_that_is_still_in_the_outbox_gets_no_second_one(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    app.refund(10_000).await;
    app.published(2).await;
    app.stop().await;
    app.db.execute("UPDATE outbox SET published_at = NULL").await;
    app.db.execute("UPDATE calls SET sweep_after = created_at").await;
    assert_eq!(app.ledger().sweep(CallKind::Reverse, 100).await.unwrap().jobs, 0);
    app.db.execute("UPDATE outbox SET published_at = created_at").await;
    assert_eq!(app.ledger().sweep(CallKind::Reverse, 100).await.unwrap().jobs, 2);
    assert_eq!(app.db.count("outbox").await, 4);
}

async fn a_backlog_gets_no_second_jobs_and_what_was_lost_from_it_comes_back(mut app: TestApp) {
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "false")]).await;
    let amount = app.many_sellers("pi_many", 10).await;
    let event = refund_event("evt_many", "re_many", "pi_many", amount).to_string();
    assert_eq!(app.post_webhook(&event).await.status(), 200);
    app.published(10).await;
    // All are overdue at once, and the queue has the jobs of all but one.
    app.vhost.take("reversals").await;
    app.db.execute("UPDATE calls SET sweep_after = created_at").await;
    app.published(11).await;
    app.vhost.take("reversals").await;
    app.published(12).await;
    assert_eq!(app.db.count("history WHERE actor = 'sweeper'").await, 2);
    app.restart_with(&[("REVERSAL_WORKER_ENABLED", "true")]).await;
    app.until_none_is_open().await;
    assert_eq!(app.sim.ledger().reversals("tr_of_9").len(), 1);
    app.db.no_table_was_read_as_a_whole().await;
}
