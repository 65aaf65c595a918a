//! Jobs that a commit hands to the relay of its own process.

use crate::support::{Heard, Place, eventually, message, on_both_databases, queue};
use outbox::{Outbox, OutboxJob, Relay, queues::Publisher, queues::testing::TestQueue};
use std::{future::pending, time::Duration};

on_both_databases! {
    a_handed_job_is_published_without_a_claim_and_one_that_is_rolled_back_is_not
    a_job_handed_to_a_relay_that_dies_is_published_by_another_once_its_lease_has_ended
    beyond_the_bound_jobs_go_through_the_table
    a_handed_job_that_no_queue_takes_is_tried_again
    a_batch_without_a_relay_or_with_a_delay_goes_through_the_table
}

/// As long as no test lasts: nothing but a wake-up, or a lease that ends, has it look.
fn relay(place: &Place, queue: &TestQueue) -> Relay {
    place.relay(queue).look_every(Duration::from_secs(3600))
}

/// Once this job is published the relay is connected, and takes jobs.
async fn relay_takes_jobs(place: &Place, queue: &TestQueue) {
    place.enqueue(queue, 0..1).await;
    eventually("the first job published", async || (place.unpublished().await == 0).then_some(())).await;
    place.execute("DELETE FROM queue_outbox").await;
}

/// Published under the lease of their commit. A claim has another lease, and counts.
const WITHOUT_A_CLAIM: &str = "SELECT count(*) FROM queue_outbox
    WHERE published_at IS NOT NULL AND attempts = 1 AND free_at - created_at BETWEEN 14000 AND 16000";

async fn a_handed_job_is_published_without_a_claim_and_one_that_is_rolled_back_is_not(place: &Place) {
    let queue = queue().await;
    let heard = Heard::start(&queue);
    let done = async {
        relay_takes_jobs(place, &queue).await;
        let mut lost = place.outbox.batch();
        place.write(&mut lost, [message(&queue, 1)], false).await;
        drop(lost);
        let mut batch = place.outbox.batch();
        place.write(&mut batch, [message(&queue, 2), message(&queue, 3)], true).await;
        assert_eq!(place.unpublished().await, 2, "they are nobody's before they are handed over");
        batch.committed();
        eventually("both published", async || (place.unpublished().await == 0).then_some(())).await;
    };
    Box::pin(relay(place, &queue).run(done)).await.unwrap();
    assert_eq!(place.number(WITHOUT_A_CLAIM).await, 2);
    let mut numbers: Vec<u32> = heard.all(&queue, 3).await.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 2, 3]);
    queue.delete().await.unwrap();
}

async fn a_job_handed_to_a_relay_that_dies_is_published_by_another_once_its_lease_has_ended(place: &Place) {
    let queue = queue().await;
    let dying = async {
        relay_takes_jobs(place, &queue).await;
        let mut batch = place.outbox.batch();
        place.write(&mut batch, [message(&queue, 1)], true).await;
        // No await follows: the relay is dropped before it is polled again.
        batch.committed();
    };
    tokio::select! {
        _ = relay(place, &queue).run(pending()) => unreachable!(),
        () = dying => {}
    }
    let leased = "SELECT count(*) FROM queue_outbox WHERE published_at IS NULL AND attempts = 1";
    assert_eq!(place.number(leased).await, 1);
    place.execute("UPDATE queue_outbox SET free_at = free_at - 13000").await;
    let other = Relay::new(&Outbox::new(), place.pool.clone(), Publisher::start(queue.broker()));
    place.relay_all(other.look_every(Duration::from_secs(3600))).await;
    let late = "SELECT count(*) FROM queue_outbox WHERE attempts = 2 AND published_at - created_at >= 1900";
    assert_eq!(place.number(late).await, 1, "it was published before its lease had ended, or not claimed");
    Heard::start(&queue).all(&queue, 2).await;
    queue.delete().await.unwrap();
}

async fn beyond_the_bound_jobs_go_through_the_table(place: &Place) {
    let queue = queue().await;
    let heard = Heard::start(&queue);
    let done = async {
        relay_takes_jobs(place, &queue).await;
        let mut batch = place.outbox.batch();
        place.write(&mut batch, (1..=1_003).map(|number| message(&queue, number)), true).await;
        batch.committed();
        eventually("all published", async || (place.unpublished().await == 0).then_some(())).await;
    };
    Box::pin(relay(place, &queue).run(done)).await.unwrap();
    assert_eq!(place.number(WITHOUT_A_CLAIM).await, 1_000);
    assert_eq!(heard.all(&queue, 1_004).await.len(), 1_004);
    queue.delete().await.unwrap();
}

async fn a_handed_job_that_no_queue_takes_is_tried_again(place: &Place) {
    let queue = queue().await;
    let done = async {
        relay_takes_jobs(place, &queue).await;
        let mut lost = message(&queue, 99);
        lost.routing_key = "nowhere".to_owned();
        let mut batch = place.outbox.batch();
        place.write(&mut batch, [lost], true).await;
        batch.committed();
        let refused = "SELECT count(*) FROM queue_outbox WHERE published_at IS NULL AND attempts = 2 AND last_error LIKE '%job-99%NO_ROUTE%'";
        eventually("a second attempt", async || (place.number(refused).await == 1).then_some(())).await;
    };
    Box::pin(relay(place, &queue).run(done)).await.unwrap();
    queue.delete().await.unwrap();
}

async fn a_batch_without_a_relay_or_with_a_delay_goes_through_the_table(place: &Place) {
    let queue = queue().await;
    let through_the_table = "SELECT count(*) FROM queue_outbox WHERE attempts = 0";
    let mut batch = place.outbox.batch();
    place.write(&mut batch, [message(&queue, 1)], true).await;
    batch.committed();
    assert_eq!(place.number(through_the_table).await, 1, "no relay takes jobs");
    let done = async {
        relay_takes_jobs(place, &queue).await;
        let mut batch = place.outbox.batch();
        let delayed = OutboxJob::new(message(&queue, 2)).after(Duration::from_millis(500));
        place.write(&mut batch, [delayed], true).await;
        assert_eq!(place.number(through_the_table).await, 1, "it must wait");
        batch.committed();
        eventually("the delay over", async || (place.unpublished().await == 0).then_some(())).await;
    };
    Box::pin(relay(place, &queue).run(done)).await.unwrap();
    // The relay is gone again, whose future may have been dropped.
    let mut batch = place.outbox.batch();
    place.write(&mut batch, [message(&queue, 3)], true).await;
    assert_eq!(place.number(through_the_table).await, 1, "leased to a relay that is gone");
    Heard::start(&queue).all(&queue, 3).await;
    queue.delete().await.unwrap();
}
