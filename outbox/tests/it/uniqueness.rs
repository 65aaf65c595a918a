//! One job for a key and a period, however many ask at once.

use crate::support::{Place, message, on_both_databases, queue};
use futures_util::future::join_all;
use outbox::{Enqueued, OutboxJob, Pool, queues::testing::TestQueue};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

on_both_databases! {
    of_many_transactions_at_once_one_adds_the_job
    a_key_is_free_again_after_a_rollback_and_after_its_period
}

/// In a transaction of its own, which is committed or rolled back.
async fn add(place: &Place, queue: &TestQueue, number: u32, period: Duration, commit: bool) -> Enqueued {
    let job = OutboxJob::new(message(queue, number)).unique("invoice-7", period);
    match &place.pool {
        Pool::Postgres(pool) => {
            let mut txn = pool.begin().await.unwrap();
            let enqueued = place.outbox.enqueue(&mut *txn, job).await.unwrap();
            if commit {
                txn.commit().await.unwrap()
            } else {
                txn.rollback().await.unwrap()
            }
            enqueued
        }
        Pool::Sqlite(pool) => {
            let mut txn = pool.begin().await.unwrap();
            let enqueued = place.outbox.enqueue(&mut *txn, job).await.unwrap();
            if commit {
                txn.commit().await.unwrap()
            } else {
                txn.rollback().await.unwrap()
            }
            enqueued
        }
        _ => unreachable!(),
    }
}

async fn of_many_transactions_at_once_one_adds_the_job(place: &Place) {
    let queue = queue().await;
    // Every third is rolled back, whoever is first.
    let queue_of = &queue;
    let all = join_all(
        (0..30)
            .map(|number| async move { (number % 3 != 0, add(place, queue_of, number, HOUR, number % 3 != 0).await) }),
    )
    .await;
    let kept = all.iter().filter(|(committed, enqueued)| *committed && *enqueued == Enqueued::Added).count();
    assert_eq!((kept, place.unpublished().await), (1, 1), "{all:?}");
    queue.delete().await.unwrap();
}

async fn a_key_is_free_again_after_a_rollback_and_after_its_period(place: &Place) {
    let queue = queue().await;
    assert_eq!(add(place, &queue, 1, HOUR, false).await, Enqueued::Added);
    assert_eq!(add(place, &queue, 2, Duration::from_millis(300), true).await, Enqueued::Added);
    assert_eq!(add(place, &queue, 3, HOUR, true).await, Enqueued::Duplicate);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(add(place, &queue, 4, HOUR, true).await, Enqueued::Added);
    assert_eq!(place.unpublished().await, 2);
    queue.delete().await.unwrap();
}
