//! Relays that share the work, die in it, and meet a broker that does not want it.

use crate::support::{Heard, Place, die_after, eventually, message, on_both_databases, queue};
use outbox::queues::Publisher;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

on_both_databases! {
    two_relays_publish_each_job_once
    a_relay_that_dies_anywhere_loses_nothing
    a_job_that_no_queue_takes_waits_with_the_reason_and_holds_nothing_up
    a_wiped_broker_gets_its_queues_again
    old_rows_are_deleted_and_the_sweep_is_called
}

async fn two_relays_publish_each_job_once(place: &Place) {
    let queue = queue().await;
    place.enqueue(&queue, 0..150).await;
    let heard = Heard::start(&queue);
    let more = place.enqueue(&queue, 150..300);
    let published = "SELECT count(*) FROM queue_outbox WHERE published_at IS NOT NULL";
    let done = || eventually("300 published", async || (place.number(published).await == 300).then_some(()));
    tokio::join!(more, place.relay(&queue).run(done()), place.relay(&queue).run(done()));
    assert_eq!(heard.all(&queue, 300).await.len(), 300);
    queue.delete().await.unwrap();
}

async fn a_relay_that_dies_anywhere_loses_nothing(place: &Place) {
    let queue = queue().await;
    let publisher = Publisher::start(queue.broker());
    publisher.state().wait_for(|state| state.is_connected()).await.unwrap();
    place.enqueue(&queue, 0..40).await;
    for polls in (1..40_u32).step_by(3) {
        let relay = outbox::Relay::new(&place.outbox, place.pool.clone(), publisher.clone());
        // One that has nothing left to do uses up its polls soon.
        let relay = relay.look_every(Duration::ZERO);
        Box::pin(die_after(polls as usize, relay.run(std::future::pending()))).await;
        // The lease of the dead relay ends.
        place.execute("UPDATE queue_outbox SET free_at = 0 WHERE published_at IS NULL").await;
        if place.unpublished().await == 0 {
            place.enqueue(&queue, polls * 40..polls * 40 + 40).await;
        }
    }
    let jobs = place.number("SELECT count(*) FROM queue_outbox").await;
    place.relay_all(place.relay(&queue)).await;
    let heard = Heard::start(&queue).all(&queue, jobs as usize).await;
    assert!(heard.len() > jobs as usize, "no relay died between publishing and marking");
    queue.delete().await.unwrap();
}

async fn a_job_that_no_queue_takes_waits_with_the_reason_and_holds_nothing_up(place: &Place) {
    let queue = queue().await;
    let heard = Heard::start(&queue);
    let mut lost = message(&queue, 99);
    lost.routing_key = "nowhere".to_owned();
    match &place.pool {
        outbox::Pool::Postgres(pool) => {
            place.outbox.enqueue(&mut *pool.acquire().await.unwrap(), lost).await.unwrap();
        }
        outbox::Pool::Sqlite(pool) => {
            place.outbox.enqueue(&mut *pool.acquire().await.unwrap(), lost).await.unwrap();
        }
        _ => unreachable!(),
    }
    place.enqueue(&queue, 0..5).await;
    let done = async {
        assert_eq!(heard.all(&queue, 5).await.len(), 5);
        let refused = "SELECT count(*) FROM queue_outbox WHERE published_at IS NULL AND attempts >= 2 AND last_error LIKE '%job-99%NO_ROUTE%'";
        // Its pause is 2 s after the first attempt.
        eventually("a second attempt", async || (place.number(refused).await == 1).then_some(())).await;
    };
    place.relay(&queue).run(done).await;
    assert_eq!(place.unpublished().await, 1);
    queue.delete().await.unwrap();
}

async fn a_wiped_broker_gets_its_queues_again(place: &Place) {
    let gone = queue().await;
    let again = gone.clone();
    let relay = place.relay(&gone);
    place.enqueue(&gone, 0..3).await;
    gone.delete().await.unwrap();
    place.relay_all(relay).await;
    let statuses = again.broker().verify(again.topology()).await.unwrap();
    assert_eq!(statuses.iter().map(|status| status.messages).sum::<u32>(), 3);
    again.delete().await.unwrap();
}

async fn old_rows_are_deleted_and_the_sweep_is_called(place: &Place) {
    let queue = queue().await;
    let heard = Heard::start(&queue);
    let swept = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&swept);
    place.enqueue(&queue, 0..3).await;
    place.execute("INSERT INTO queue_outbox_keys (key, message_id, expires_at) VALUES ('old', 'x', 1), ('new', 'x', 9000000000000)").await;
    let relay = place.relay(&queue).maintain_every(Duration::from_millis(50)).keep(Duration::ZERO).sweep(move || {
        count.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    });
    let rows = "SELECT (SELECT count(*) FROM queue_outbox) + (SELECT count(*) FROM queue_outbox_keys)";
    let done = eventually("empty tables", async || {
        (place.number(rows).await == 1 && swept.load(Ordering::Relaxed) > 1).then_some(())
    });
    relay.run(done).await;
    assert_eq!(heard.all(&queue, 3).await.len(), 3);
    queue.delete().await.unwrap();
}
