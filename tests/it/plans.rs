//! PostgreSQL keeps the plan of a prepared statement. One made while a table is empty must still use its indexes once it is full.

use std::time::Duration;

use clawback::ledger::{
    CallKind, ClaimKind, ClaimPolicy, ExportFilter, HistoryFilter, Ledger, LedgerOptions, Note, OperationAction,
    OperationFilter, SellerDebt, TryOutcome,
};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{Backend, Db, eventually, refund_webhook, rows, two_sellers};

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
    no_scans_while(&db, async |ledger: &Ledger| {
        for debt in [None, Some(SellerDebt::Open), Some(SellerDebt::WaitingForBalance), Some(SellerDebt::Failed)] {
            ledger.find_sellers(debt, None, 50).await.unwrap();
        }
        ledger.reversals_of_seller("s1", None, 50).await.unwrap();
        ledger.summary().await.unwrap();
        for kind in [CallKind::Reverse, CallKind::Create] {
            ledger.failure_groups(kind).await.unwrap();
        }
        for actor in [None, Some("ada".to_owned()), Some("worker".to_owned())] {
            let filter = HistoryFilter { actor, ..HistoryFilter::default() };
            ledger.history(&filter, None, 50).await.unwrap();
        }
        for action in [OperationAction::ReplayReversals, OperationAction::RetryTransfers, OperationAction::AcceptClaims]
        {
            let about_claims = action == OperationAction::AcceptClaims;
            let filter = OperationFilter {
                seller: (!about_claims).then(|| "s1".to_owned()),
                kind: about_claims.then_some(ClaimKind::Refund),
                ..OperationFilter::default()
            };
            let preview = ledger.preview_operation(action, &filter).await.unwrap();
            ledger.operation_items(preview.id, None, None, 50).await.unwrap();
        }
        ledger.list_operations(None, 50).await.unwrap();
        let to = chrono::Utc::now();
        let period = ExportFilter { from: to - chrono::TimeDelta::hours(1), to, status: None };
        assert_eq!(ledger.export(&period, None, 50).await.unwrap().0.len(), 2);
    })
    .await;
    // On a connection that ends, so that its scan is counted before the next ones.
    let look = db.connect().await;
    let ids: Vec<Uuid> = rows(&look, "SELECT id FROM reversals").await.iter().map(id).collect();
    look.close().await.unwrap();
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
    db.give_back().await;
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
        "'payments', 'seller_transfers', 'claims', 'reversals', 'calls', 'webhook_events', 'outbox', 'history', 'operations',
            'operation_items'";
    let sql = format!("SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ({tables}) ORDER BY relname");
    db.query(&sql).await
}
