//! A queue that is deleted under its consumer, and a consumer that the broker cancels.

use crate::support::{JOBS, Load, PATIENCE, Place, handled_everything, publish_until_confirmed, shared_broker};
use queues::ConnectionState;
use tokio::time::timeout;

#[tokio::test]
async fn a_consumer_that_the_broker_cancels_comes_back_and_nothing_is_lost() {
    let url = shared_broker();
    Place::run(&url, &url, async |place| {
        let mut load = Load::start(&place).await;
        publish_until_confirmed(&place, 0..100).await;
        load.handled_all_of(0..100).await;
        place.drained().await;
        // Of an empty queue there is nothing to lose; the broker cancels its consumer all the same.
        place.delete_queue(place.topology.queue()).await;
        let lost = |state: &ConnectionState| matches!(state, ConnectionState::Reconnecting { last_error: Some(_), .. });
        let reason = timeout(PATIENCE, load.state.wait_for(lost)).await.unwrap().unwrap().clone();
        assert!(format!("{reason:?}").contains("cancelled"), "{reason:?}");
        load.stop().await;
        handled_everything(&place, async |_| ()).await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_is_deleted_under_load_costs_what_was_in_it_and_nothing_that_comes_later() {
    let url = shared_broker();
    Place::run(&url, &url, async |place| {
        let mut load = Load::start(&place).await;
        // None of these is retried: a retry whose delay ends while there is no work queue waits in RabbitMQ for three
        // minutes, and the others of its retry queue with it.
        publish_until_confirmed(&place, (0..JOBS).filter(|number| number % 10 == 5)).await;
        place.delete_queue(place.topology.queue()).await;
        publish_until_confirmed(&place, JOBS..2 * JOBS).await;
        load.handled_all_of(JOBS..2 * JOBS).await;
        place.drained().await;
        load.stop().await;
        place.drained().await;
    })
    .await;
}
