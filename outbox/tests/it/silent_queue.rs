//! A queue that answers nothing, as a quorum queue without a leader does: its process is suspended.

use crate::support::{OwnBroker, Place, eventually, message};
use futures_util::FutureExt;
use outbox::{
    Relay,
    queues::{Publisher, RetryPolicy, testing::TestQueue},
};
use std::time::Duration;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

/// Much shorter than the 20 s after which a message to the silent queue is given up.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_queue_that_confirms_nothing_holds_up_no_job_for_another_one() {
    let broker = OwnBroker::start().await;
    let (on_sqlite, on_postgres) = (Place::sqlite().await, Place::postgres().await);
    tokio::join!(held_up_by_none(&on_sqlite, &broker), held_up_by_none(&on_postgres, &broker));
    crate::support::run(on_postgres, async |_: &Place| {}).await;
}

async fn held_up_by_none(place: &Place, broker: &OwnBroker) {
    let queue = async || {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 1);
        TestQueue::declare(&broker.url, policy).await.unwrap()
    };
    let (silent, lively) = (queue().await, queue().await);
    broker.suspend("%2F", silent.topology().queue()).await;
    let published_soon = async |what: &str| {
        let of_lively = format!("published_at IS NULL AND queue = '{}'", lively.topology().queue());
        let published = async || (place.count_where(&of_lively).await == 0).then_some(());
        timeout(SOON, eventually("published", published)).await.unwrap_or_else(|_| panic!("{what} was held up"));
    };

    // More than are claimed at once wait for the silent queue before the others.
    place.enqueue(&silent, 0..700).await;
    place.enqueue(&lively, 0..100).await;
    let relay = Relay::new(&place.outbox, place.pool.clone(), Publisher::start(silent.broker()));
    let (stop, stopped) = oneshot::channel();
    let relay = tokio::spawn(relay.run(stopped.map(drop)));
    published_soon("a job behind claimed ones").await;
    let since = Instant::now();
    let mut number = 700;
    // Long enough for the first ones to be given up, and to be tried again.
    while since.elapsed() < Duration::from_secs(25) {
        let mut batch = place.outbox.batch();
        let jobs = (number..number + 50).map(|number| message(&silent, number));
        place.write(&mut batch, jobs.chain([message(&lively, number)]), true).await;
        batch.committed();
        published_soon("a handed job").await;
        place.enqueue(&lively, number + 1..number + 2).await;
        published_soon("a job from the table").await;
        number += 50;
        sleep(Duration::from_millis(500)).await;
    }
    assert!(place.unpublished().await >= 700, "the queue is not silent");
    broker.resume("%2F", silent.topology().queue()).await;
    eventually("everything published", async || (place.unpublished().await == 0).then_some(())).await;
    stop.send(()).unwrap();
    relay.await.unwrap().unwrap();
}
