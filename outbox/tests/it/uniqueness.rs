//! One job for a key and a period, however many ask at once.

use crate::support::{Place, die_after, message, on_both_databases, queue, with_pool};
use futures_util::future::join_all;
use outbox::{Enqueued, OutboxJob, queues::testing::TestQueue};
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

on_both_databases! {
    of_many_transactions_at_once_one_adds_the_job
    a_key_is_free_again_after_a_rollback_and_after_its_period
    whoever_dies_while_enqueueing_outside_of_a_transaction_leaves_no_key_without_its_job
}

/// In a transaction of its own, which is committed or rolled back.
async fn add(place: &Place, queue: &TestQueue, number: u32, period: Duration, commit: bool) -> Enqueued {
    let job = OutboxJob::new(message(queue, number)).unique("invoice-7", period);
    with_pool!(place, |pool| {
        let mut txn = pool.begin().await.unwrap();
        let enqueued = place.outbox.enqueue(&mut *txn, job).await.unwrap();
        if commit {
            txn.commit().await.unwrap()
        } else {
            txn.rollback().await.unwrap()
        }
        enqueued
    })
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

async fn whoever_dies_while_enqueueing_outside_of_a_transaction_leaves_no_key_without_its_job(place: &Place) {
    let queue = queue().await;
    let mut died = 0;
    for polls in 1..40_u32 {
        let job = OutboxJob::new(message(&queue, polls)).unique(format!("invoice-{polls}"), HOUR);
        let enqueued = with_pool!(place, |pool| {
            let mut connection = pool.acquire().await.unwrap().detach();
            die_after(polls as usize, place.outbox.enqueue(&mut connection, job)).await
        });
        died += usize::from(enqueued.is_none());
        let lost = "SELECT count(*) FROM queue_outbox_keys
            WHERE message_id NOT IN (SELECT message_id FROM queue_outbox)";
        assert_eq!(place.number(lost).await, 0, "after {polls} polls");
    }
    assert!(died > 0 && place.unpublished().await > 0);
    queue.delete().await.unwrap();
}
