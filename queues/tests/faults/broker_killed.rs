//! A broker that dies under load and comes back with its data.

use crate::support::{OwnBroker, Place, handled_everything};

#[tokio::test]
async fn no_confirmed_job_is_lost_when_the_broker_is_killed_with_confirms_in_flight() {
    let broker = OwnBroker::start().await;
    Place::run(&broker.url, &broker.url, async |place| {
        handled_everything(&place, async |mut confirmed| {
            confirmed.wait_for(|confirmed| *confirmed >= 3000).await.unwrap();
            broker.kill().await;
            broker.start_again().await;
        })
        .await;
    })
    .await;
}
