//! A memory alarm: the broker reads nothing from those who publish.

use crate::support::{Job, Load, OwnBroker, PATIENCE, Place, handled_everything, publish_until_confirmed};
use queues::{ConnectionState, Delivery, Outcome, PublishError, Publisher};
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

/// Below what any broker uses.
const NO_MEMORY: [&str; 3] = ["set_vm_memory_high_watermark", "absolute", "1MB"];
const ENOUGH_MEMORY: [&str; 3] = ["set_vm_memory_high_watermark", "absolute", "1GB"];

#[tokio::test]
async fn a_memory_alarm_delays_publishing_is_visible_and_loses_nothing() {
    let broker = OwnBroker::start().await;
    Place::run(&broker.url, &broker.url, async |place| {
        handled_everything(&place, async |mut confirmed| {
            confirmed.wait_for(|confirmed| *confirmed >= 1000).await.unwrap();
            broker.rabbitmqctl(&NO_MEMORY).await;
            let watched = Publisher::start(&place.broker);
            let mut state = watched.state();
            let publishing = watched.publish(place.job(0));
            let blocked = async {
                timeout(PATIENCE, state.wait_for(|state| *state == ConnectionState::Blocked)).await.unwrap().unwrap();
                broker.rabbitmqctl(&ENOUGH_MEMORY).await;
            };
            let (published, ()) = tokio::join!(publishing, blocked);
            // It was lifted in time, or the message's timeout was bounded: both are allowed, hanging is not.
            assert!(matches!(published, Ok(()) | Err(PublishError::TimedOut { .. })), "{published:?}");
            timeout(PATIENCE, state.wait_for(ConnectionState::is_connected)).await.unwrap().unwrap();
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn during_an_alarm_jobs_are_still_handled_and_acknowledged_and_publishing_fails_in_time() {
    let broker = OwnBroker::start().await;
    Place::run(&broker.url, &broker.url, async |place| {
        let publisher = Publisher::start(&place.broker);
        // None of these is retried or parked, which would be publishing.
        let numbers: Vec<u32> = (0..10_000).filter(|number| number % 10 == 5).collect();
        for result in publisher.publish_all(numbers.iter().map(|number| place.job(*number)).collect()).await {
            result.unwrap();
        }
        broker.rabbitmqctl(&NO_MEMORY).await;
        let mut load = Load::start(&place).await;
        let (error, ()) = tokio::join!(publisher.publish(place.job(1)), load.handled_all_of(numbers));
        assert!(matches!(error, Err(PublishError::TimedOut { .. })), "{error:?}");
        let mut state = publisher.state();
        assert_eq!(*state.borrow(), ConnectionState::Blocked);
        assert_eq!(load.stop().await.len(), 1000);
        // One that connects during the alarm, and has messages for two queues.
        let latecomer = Publisher::start(&place.broker);
        let at_once = Box::pin(latecomer.publish(place.job(2)));
        let delayed = Box::pin(latecomer.publish(place.job(2).with_delay(&place.topology, Duration::from_millis(200))));
        // More than can wait for their turn: the rest does not wait for 20 seconds each.
        let many = publisher.publish_all((0..3000).map(|_| place.job(1)).collect());
        let all = async { tokio::join!(many, at_once, delayed) };
        let (results, ..) = timeout(PATIENCE, all).await.expect("publishing is not bounded");
        assert_eq!(*latecomer.state().borrow(), ConnectionState::Blocked);
        let timed_out = |result: &Result<(), PublishError>| matches!(result, Err(PublishError::TimedOut { .. }));
        assert!(results.iter().all(timed_out), "{:?}", results.iter().find(|result| !timed_out(result)));
        broker.rabbitmqctl(&ENOUGH_MEMORY).await;
        // The alarm has lasted longer than a broker may take to confirm, and that is not held against the connection.
        let after = timeout(PATIENCE, state.wait_for(|state| *state != ConnectionState::Blocked)).await.unwrap();
        assert_eq!(*after.unwrap(), ConnectionState::Connected);
        // The message that timed out may have arrived: that is what its error says.
        let mut load = Load::start(&place).await;
        publisher.publish(place.job(2)).await.unwrap();
        load.handled_all_of([2]).await;
        place.drained().await;
        assert!(load.stop().await.is_subset(&[1, 2].into()), "acknowledgements did not get through during the alarm");
    })
    .await;
}

#[tokio::test]
async fn jobs_that_cannot_be_put_off_during_an_alarm_wait_for_its_end_and_do_not_run_again() {
    const JOBS: u32 = 10;
    /// A copy is tried anew after 20 seconds without a confirm.
    const MORE_THAN_ONE_TRY: Duration = Duration::from_secs(25);
    let broker = OwnBroker::start().await;
    Place::run(&broker.url, &broker.url, async |place| {
        publish_until_confirmed(&place, 0..JOBS).await;
        broker.rabbitmqctl(&NO_MEMORY).await;
        let (tell, mut heard) = mpsc::unbounded_channel();
        let worker = place.worker().register(move |job: Job, delivery: Delivery| {
            let _ = tell.send((job.number, delivery.attempt));
            std::future::ready(match delivery.attempt {
                1 => Outcome::Retry { reason: "once".to_owned() },
                _ => Outcome::Done,
            })
        });
        let mut state = worker.state();
        let (stop, stopped) = oneshot::channel();
        let worker = tokio::spawn(worker.run(async { stopped.await.unwrap_or_default() }));
        timeout(PATIENCE, state.wait_for(|state| *state == ConnectionState::Blocked)).await.unwrap().unwrap();
        sleep(MORE_THAN_ONE_TRY).await;
        assert_eq!(*state.borrow(), ConnectionState::Blocked);
        broker.rabbitmqctl(&ENOUGH_MEMORY).await;
        timeout(PATIENCE, state.wait_for(ConnectionState::is_connected)).await.unwrap().unwrap();
        let (mut first, mut second) = (Vec::new(), BTreeSet::new());
        while second.len() < JOBS as usize {
            let heard = timeout(PATIENCE, heard.recv()).await;
            let heard = heard.unwrap_or_else(|_| panic!("only {second:?} came again")).expect("the worker ended");
            // A copy that was written and not confirmed in time may come beside its successor.
            match heard {
                (number, 1) => first.push(number),
                (number, _) => _ = second.insert(number),
            }
        }
        first.sort_unstable();
        assert_eq!(first, (0..JOBS).collect::<Vec<_>>(), "a first attempt was repeated");
        place.drained().await;
        stop.send(()).unwrap();
        worker.await.unwrap().unwrap();
    })
    .await;
}
