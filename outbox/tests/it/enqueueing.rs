//! Jobs go with the transaction that makes them necessary, or not at all.

use crate::support::{Heard, Place, eventually, message, on_both_databases, queue};
use outbox::{Enqueued, OutboxError, OutboxJob, Pool};
use sea_orm::{DatabaseConnection, SqlxPostgresConnector, SqlxSqliteConnector, TransactionTrait};
use std::time::Duration;

on_both_databases! {
    a_committed_job_is_published_as_it_was_and_one_that_is_rolled_back_is_not
    a_delayed_job_waits_in_the_database_and_can_be_cancelled_until_a_relay_takes_it
    what_no_broker_could_take_is_refused_in_the_transaction
}

fn sea_orm_of(place: &Place) -> DatabaseConnection {
    match &place.pool {
        Pool::Postgres(pool) => SqlxPostgresConnector::from_sqlx_postgres_pool(pool.clone()),
        Pool::Sqlite(pool) => SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.clone()),
        _ => unreachable!(),
    }
}

#[expect(clippy::disallowed_methods, reason = "a user's transaction, as sea-orm begins it")]
async fn a_committed_job_is_published_as_it_was_and_one_that_is_rolled_back_is_not(place: &Place) {
    let queue = queue().await;
    let db = sea_orm_of(place);
    assert_eq!(std::mem::discriminant(&Pool::try_from(&db).unwrap()), std::mem::discriminant(&place.pool));
    let heard = Heard::start(&queue);
    // By sea-orm, kept and rolled back; then by sqlx.
    let txn = db.begin().await.unwrap();
    let job = message(&queue, 0).with_header("tenant", "blue").with_correlation_id("order-7").with_high_priority();
    assert_eq!(place.outbox.enqueue(&txn, job).await.unwrap(), Enqueued::Added);
    txn.commit().await.unwrap();
    let txn = db.begin().await.unwrap();
    place.outbox.enqueue(&txn, message(&queue, 1)).await.unwrap();
    txn.rollback().await.unwrap();
    place.enqueue(&queue, 2..3).await;
    place.relay_all(place.relay(&queue)).await;
    let jobs = heard.all(&queue, 2).await;
    let numbers: Vec<u32> = jobs.iter().map(|(number, _)| *number).collect();
    assert!(numbers == [0, 2] || numbers == [2, 0], "{numbers:?}");
    let (_, delivery) = jobs.iter().find(|(number, _)| *number == 0).unwrap();
    assert_eq!((delivery.message_id.as_str(), delivery.kind.as_str()), ("job-0", "count"));
    assert_eq!(delivery.correlation_id.as_deref(), Some("order-7"));
    assert_eq!(delivery.headers["tenant"], "blue");
    queue.delete().await.unwrap();
}

async fn a_delayed_job_waits_in_the_database_and_can_be_cancelled_until_a_relay_takes_it(place: &Place) {
    let queue = queue().await;
    let db = sea_orm_of(place);
    let heard = Heard::start(&queue);
    for (number, delay) in [(0, 600), (1, 3_600_000), (2, 3_600_000)] {
        let job = OutboxJob::new(message(&queue, number)).after(Duration::from_millis(delay));
        place.outbox.enqueue(&db, job).await.unwrap();
    }
    place.enqueue(&queue, 3..4).await;
    let relay = place.relay(&queue).look_every(Duration::from_secs(60));
    let cancel = async |id: &'static str| place.outbox.cancel(&db, id).await.unwrap();
    let done = async {
        eventually("the job without a delay", async || (place.unpublished().await == 3).then_some(())).await;
        eventually("the short delay", async || (place.unpublished().await == 2).then_some(())).await;
        assert!(cancel("job-1").await && !cancel("job-1").await, "it is cancelled once");
        assert!(!cancel("job-0").await, "it is published");
        // A relay that took it and died may have published it.
        place.execute("UPDATE queue_outbox SET attempts = 1 WHERE message_id = 'job-2'").await;
        assert!(!cancel("job-2").await);
    };
    relay.run(done).await.unwrap();
    assert_eq!(place.unpublished().await, 1);
    assert_eq!(heard.all(&queue, 2).await.len(), 2);
    let early = "SELECT count(*) FROM queue_outbox WHERE message_id = 'job-0' AND published_at - created_at < 600";
    assert_eq!(place.number(early).await, 0);
    queue.delete().await.unwrap();
}

async fn what_no_broker_could_take_is_refused_in_the_transaction(place: &Place) {
    let queue = queue().await;
    let db = sea_orm_of(place);
    let mut long_kind = message(&queue, 1);
    long_kind.kind = "k".repeat(256);
    let mut large = message(&queue, 1);
    large.payload = vec![b' '; 17 << 20];
    for job in [long_kind, large, message(&queue, 1).with_header("x-death", "now")] {
        let error = place.outbox.enqueue(&db, job).await.unwrap_err();
        assert!(matches!(error, OutboxError::Invalid(_)), "{error}");
    }
    assert_eq!(place.unpublished().await, 0);
    queue.delete().await.unwrap();
}
