//! A memory alarm: the broker reads nothing from those who publish.

use crate::support::{Load, OwnBroker, PATIENCE, Place, handled_everything};
use queues::{ConnectionState, PublishError, Publisher};
use tokio::time::timeout;

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
        // More than can wait for their turn: the rest does not wait for 20 seconds each.
        let many = publisher.publish_all((0..3000).map(|_| place.job(1)).collect());
        let results = timeout(PATIENCE, many).await.expect("publishing is not bounded");
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
