//! PostgreSQL keeps the plan of a prepared statement. One made while a table is empty must still use its indexes once it is full.

use std::time::Duration;

use clawback::ledger::{ClaimPolicy, Ledger, LedgerOptions, Note, TryOutcome};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Backend, Db, eventually, refund_webhook, two_sellers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_the_ledger_reads_a_whole_table_not_even_on_an_empty_database() {
    let db = Db::create(Backend::Postgres).await;
    let ledger = connect(&db).await;
    ledger.migrate_up().await.unwrap();
    ledger.close().await.unwrap();

    no_scans_while(&db, async |ledger: &Ledger| {
        let new = serde_json::from_value(two_sellers("pi_1")).unwrap();
        assert!(ledger.import_payments(vec![new], false).await.unwrap().remove(0).unwrap());
        ledger.receive(refund_webhook("evt_1", "re_1", "pi_1", 10_000)).await.unwrap();
    })
    .await;
    let ids: Vec<Uuid> = db.query("SELECT id FROM reversals").await.iter().map(id).collect();
    assert_eq!(ids.len(), 2);
    no_scans_while(&db, async |ledger: &Ledger| {
        for id in ids {
            let task = ledger.task(id).await.unwrap().unwrap();
            let task = ledger.authorize(task).await.unwrap();
            let done = TryOutcome::Done { stripe_id: format!("trr_{id}"), externally: false };
            ledger.report(&task, done, Note::new("test", "done")).await.unwrap();
        }
    })
    .await;
    db.drop_it().await;
}

fn id(row: &Value) -> Uuid {
    row["id"].as_str().unwrap().parse().unwrap()
}

async fn connect(db: &Db) -> Ledger {
    let grace = Duration::from_secs(60);
    let claims = ClaimPolicy::default();
    let options =
        LedgerOptions { reversal_grace: grace, creation_grace: grace, max_connections: 2, claims, notifies: false };
    Ledger::connect(&db.url, options).await.unwrap()
}

/// Runs `work` on connections of its own, and fails if one of them read a whole table.
async fn no_scans_while(db: &Db, work: impl AsyncFnOnce(&Ledger)) {
    let before = scans(db).await;
    let ledger = connect(db).await;
    work(&ledger).await;
    ledger.close().await.unwrap();
    assert_eq!(scans(db).await, before);
}

/// How often each table was read as a whole.
async fn scans(db: &Db) -> Vec<Value> {
    // A connection reports what it did when it ends, at the latest.
    eventually("all other connections have ended", || async {
        let clients = "pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'";
        (db.count(clients).await == 1).then_some(())
    })
    .await;
    let tables =
        "'payments', 'seller_transfers', 'claims', 'reversals', 'calls', 'webhook_events', 'outbox', 'history'";
    let sql = format!("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ({tables}) ORDER BY relname");
    db.query(&sql).await
}
