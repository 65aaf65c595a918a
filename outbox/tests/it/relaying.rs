//! Relays that share the work, die in it, and meet a broker that does not want it.

use crate::support::{Heard, Place, die_after, eventually, message, on_both_databases, queue};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use outbox::{
    Outbox, OutboxError, Relay,
    queues::{Broker, Publisher},
};
use std::{
    collections::HashMap,
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, time::Instant};

on_both_databases! {
    two_relays_publish_each_job_once
    a_relay_that_dies_anywhere_loses_nothing
    a_job_that_no_queue_takes_waits_with_the_reason_and_holds_nothing_up
    a_wiped_broker_gets_its_queues_again
    old_rows_are_deleted_and_the_sweep_is_called
    a_relay_whose_publisher_has_ended_ends_with_an_error
    a_relay_that_is_to_stop_does_not_wait_for_a_broker_that_is_silent
    what_is_enqueued_published_refused_and_waiting_is_counted
}

/// Of another process, as far as the relay is concerned: only the database tells it of commits.
#[tokio::test]
async fn a_commit_of_another_process_wakes_the_relay_on_postgres() {
    crate::support::run(Place::postgres().await, async |place: &Place| {
        let queue = queue().await;
        let relay = Relay::new(&Outbox::new(), place.pool.clone(), Publisher::start(queue.broker()));
        let done = async {
            // The look after the first connection, and that after the LISTEN, find at most the first two.
            for number in 0..5 {
                place.enqueue(&queue, number..number + 1).await;
                eventually("the job published", async || (place.unpublished().await == 0).then_some(())).await;
            }
        };
        Box::pin(relay.look_every(Duration::from_secs(3600)).run(done)).await.unwrap();
        queue.delete().await.unwrap();
    })
    .await;
}

async fn two_relays_publish_each_job_once(place: &Place) {
    let queue = queue().await;
    place.enqueue(&queue, 0..150).await;
    let heard = Heard::start(&queue);
    let more = place.enqueue(&queue, 150..300);
    let published = "SELECT count(*) FROM queue_outbox WHERE published_at IS NOT NULL";
    let done = || eventually("300 published", async || (place.number(published).await == 300).then_some(()));
    let ((), first, second) = tokio::join!(more, place.relay(&queue).run(done()), place.relay(&queue).run(done()));
    first.and(second).unwrap();
    assert_eq!(heard.all(&queue, 300).await.len(), 300);
    queue.delete().await.unwrap();
}

async fn a_relay_that_dies_anywhere_loses_nothing(place: &Place) {
    let queue = queue().await;
    let publisher = Publisher::start(queue.broker());
    publisher.state().wait_for(|state| state.is_connected()).await.unwrap();
    place.enqueue(&queue, 0..40).await;
    // Everything is published some time; what is in the queue beyond what is marked was left by a relay that died in between.
    let died_in_between = async || {
        let statuses = queue.broker().queue_statuses(queue.topology()).await.unwrap();
        let messages: u32 = statuses.iter().map(|status| status.messages).sum();
        let marked = place.number("SELECT count(*) FROM queue_outbox WHERE published_at IS NOT NULL").await;
        i64::from(messages) > marked
    };
    for polls in 1.. {
        assert!(polls < 1000, "no relay died between publishing and marking");
        if polls > 40 && died_in_between().await {
            break;
        }
        let relay = Relay::new(&place.outbox, place.pool.clone(), publisher.clone());
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
    assert!(heard.len() > jobs as usize, "what was published twice came once");
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
    place.relay(&queue).run(done).await.unwrap();
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
    let statuses = again.broker().queue_statuses(again.topology()).await.unwrap();
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
    relay.run(done).await.unwrap();
    assert_eq!(heard.all(&queue, 3).await.len(), 3);
    queue.delete().await.unwrap();
}

async fn a_relay_whose_publisher_has_ended_ends_with_an_error(place: &Place) {
    let queue = queue().await;
    let publisher = Publisher::start(queue.broker());
    let relay = Relay::new(&place.outbox, place.pool.clone(), publisher.clone());
    let (ended, ()) = tokio::join!(relay.run(pending()), publisher.close());
    assert!(matches!(ended, Err(OutboxError::PublisherEnded { .. })), "{ended:?}");
    queue.delete().await.unwrap();
}

async fn a_relay_that_is_to_stop_does_not_wait_for_a_broker_that_is_silent(place: &Place) {
    let queue = queue().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = Broker::new(&format!("amqp://{}", listener.local_addr().unwrap()), "test").unwrap();
    let publisher = Publisher::start(queue.broker());
    let relay = Relay::new(&place.outbox, place.pool.clone(), publisher);
    let relay = relay.declare(&silent, [queue.topology().clone()]);
    let mut asked_at = Instant::now();
    let declaring = async {
        let _connection = listener.accept().await.unwrap();
        asked_at = Instant::now();
    };
    relay.run(declaring).await.unwrap();
    assert!(asked_at.elapsed() < Duration::from_secs(3), "{:?}", asked_at.elapsed());
    queue.delete().await.unwrap();
}

async fn what_is_enqueued_published_refused_and_waiting_is_counted(place: &Place) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let queue = queue().await;
    place.enqueue(&queue, 0..3).await;
    place.execute("UPDATE queue_outbox SET created_at = created_at - 60000").await;
    place.execute("UPDATE queue_outbox SET message = 'unreadable' WHERE message_id = 'job-2'").await;
    let swept = Arc::new(AtomicUsize::new(0));
    let maintained = Arc::clone(&swept);
    let relay = place.relay(&queue).maintain_every(Duration::from_millis(50)).sweep(move || {
        maintained.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    });
    let refused = "SELECT count(*) FROM queue_outbox WHERE published_at IS NULL AND last_error IS NOT NULL";
    let done = async {
        eventually("two published, one refused", async || {
            (place.unpublished().await == 1 && place.number(refused).await == 1).then_some(())
        })
        .await;
        let before = swept.load(Ordering::Relaxed);
        eventually("a maintenance", async || (swept.load(Ordering::Relaxed) > before + 1).then_some(())).await;
    };
    relay.run(done).await.unwrap();
    let figures: HashMap<String, f64> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .filter_map(|(key, _, _, value)| match value {
            DebugValue::Counter(count) => Some((key.key().name().to_owned(), count as f64)),
            DebugValue::Gauge(value) => Some((key.key().name().to_owned(), value.0)),
            DebugValue::Histogram(_) => None,
        })
        .collect();
    assert_eq!((figures["outbox_jobs_enqueued_total"], figures["outbox_jobs_published_total"]), (3.0, 2.0));
    assert_eq!((figures["outbox_jobs_refused_total"], figures["outbox_jobs_waiting"]), (1.0, 1.0));
    assert!((60.0..120.0).contains(&figures["outbox_oldest_seconds"]), "{figures:?}");
    queue.delete().await.unwrap();
}
