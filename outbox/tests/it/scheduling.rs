//! Every tick fires once, over all schedulers.

use crate::support::{Place, die_after, message, on_both_databases, queue};
use outbox::{
    Missed, OutboxError, Scheduler,
    chrono::{DateTime, TimeDelta, Utc},
    queues::testing::TestQueue,
};

on_both_databases! {
    two_schedulers_of_which_one_is_killed_now_and_then_fire_each_of_1000_ticks_once
    missed_ticks_are_fired_as_their_policy_says
    a_periodic_job_that_cannot_be_enqueued_keeps_no_other_from_its_tick
    a_name_that_two_periodic_jobs_would_share_is_refused
}

fn scheduler(place: &Place, queue: &TestQueue, missed: Missed) -> Scheduler {
    let queue = queue.clone();
    Scheduler::new(&place.outbox, place.pool.clone())
        .every("tick", "* * * * * *", missed, move |_| message(&queue, 0))
        .unwrap()
}

/// A whole hour.
fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

async fn two_schedulers_of_which_one_is_killed_now_and_then_fire_each_of_1000_ticks_once(place: &Place) {
    let queue = queue().await;
    let (steady, mortal) = (scheduler(place, &queue, Missed::All), scheduler(place, &queue, Missed::All));
    assert_eq!(steady.fire_due(start()).await.unwrap(), 0, "the first look begins the count");
    let (mut killed, mut now) = (0, start());
    // The clock runs fast: 4 ticks a round.
    for round in 0..250 {
        now += TimeDelta::seconds(4);
        // The steady one is asleep in every other round.
        let steady = async {
            if round % 2 == 0 {
                drop(steady.fire_due(now).await)
            }
        };
        let (survived, ()) = tokio::join!(die_after(1 + round % 23, mortal.fire_due(now)), steady);
        killed += usize::from(survived.is_none());
    }
    steady.fire_due(now).await.unwrap();
    let distinct = place.number("SELECT count(DISTINCT message_id) FROM queue_outbox").await;
    assert_eq!((distinct, place.number("SELECT count(*) FROM queue_outbox").await), (1000, 1000));
    assert!(killed > 20, "only {killed} were killed");
    queue.delete().await.unwrap();
}

async fn missed_ticks_are_fired_as_their_policy_says(place: &Place) {
    let queue = queue().await;
    for (missed, late_ms, expected) in [
        (Missed::All, 5500, 5),
        (Missed::Latest, 5500, 1),
        (Missed::Skip, 5500, 5),
        (Missed::Skip, 205_000, 61),
        (Missed::All, 205_000, 205),
        (Missed::Latest, 999, 0),
    ] {
        place.execute("DELETE FROM queue_outbox_schedules").await;
        place.execute("DELETE FROM queue_outbox").await;
        let scheduler = scheduler(place, &queue, missed);
        scheduler.fire_due(start()).await.unwrap();
        let now = start() + TimeDelta::milliseconds(late_ms);
        assert_eq!(scheduler.fire_due(now).await.unwrap(), expected, "{missed:?} after {late_ms} ms");
        assert_eq!(scheduler.fire_due(now).await.unwrap(), 0, "{missed:?} fired twice");
        assert_eq!(place.unpublished().await, expected as i64);
    }
    // A tick of the hour that is two minutes old was missed.
    let hourly = |missed| {
        let queue = queue.clone();
        Scheduler::new(&place.outbox, place.pool.clone())
            .every(format!("{missed:?}"), "0 * * * *", missed, move |_| message(&queue, 0))
            .unwrap()
    };
    let hour = start() + TimeDelta::hours(1);
    for (missed, expected) in [(Missed::Skip, 0), (Missed::Latest, 1)] {
        let scheduler = hourly(missed);
        scheduler.fire_due(hour - TimeDelta::minutes(10)).await.unwrap();
        assert_eq!(scheduler.fire_due(hour + TimeDelta::minutes(2)).await.unwrap(), expected, "{missed:?}");
    }
    let error = Scheduler::new(&place.outbox, place.pool.clone())
        .every("bad", "every day", Missed::Skip, |_| unreachable!())
        .unwrap_err();
    assert!(matches!(&error, OutboxError::Schedule { name, .. } if name == "bad"), "{error}");
    queue.delete().await.unwrap();
}

async fn a_periodic_job_that_cannot_be_enqueued_keeps_no_other_from_its_tick(place: &Place) {
    let queue = queue().await;
    let (first, last) = (queue.clone(), queue.clone());
    let invalid = move |_| {
        let mut message = message(&first, 0);
        message.kind = "k".repeat(256);
        message
    };
    let scheduler = Scheduler::new(&place.outbox, place.pool.clone())
        .every("panics", "* * * * * *", Missed::All, |_| panic!("no message today"))
        .and_then(|scheduler| scheduler.every("invalid", "* * * * * *", Missed::All, invalid))
        .and_then(|scheduler| scheduler.every("good", "* * * * * *", Missed::All, move |_| message(&last, 0)))
        .unwrap();
    scheduler.fire_due(start()).await.unwrap();
    let error = scheduler.fire_due(start() + TimeDelta::seconds(2)).await.unwrap_err();
    assert!(matches!(&error, OutboxError::PeriodicMessage { name, .. } if name == "panics"), "{error}");
    let good = "SELECT count(*) FROM queue_outbox WHERE message_id LIKE 'good@%'";
    assert_eq!((place.number(good).await, place.unpublished().await), (2, 2));
    queue.delete().await.unwrap();
}

async fn a_name_that_two_periodic_jobs_would_share_is_refused(place: &Place) {
    let error = Scheduler::new(&place.outbox, place.pool.clone())
        .every("report", "0 3 * * *", Missed::Skip, |_| unreachable!())
        .and_then(|scheduler| scheduler.every("report", "0 4 * * *", Missed::Skip, |_| unreachable!()))
        .unwrap_err();
    assert!(matches!(&error, OutboxError::DuplicateSchedule { name, .. } if name == "report"), "{error}");
}
