//! A broker that dies under load and comes back with its data; and one that comes back without a queue.

use crate::support::{Load, OwnBroker, Place, handled_everything, publish_until_confirmed};

/// RabbitMQ (up to 4.0.5 at least) writes down which quorum queues a node has when none was declared for half a second
/// (`ra_directory`, a DETS table with `auto_save` 500), although it has said that they are declared. Bindings, which Mnesia
/// keeps, were seen to be lost in the same way.
const WRITE_DOWN: &str = "_ = mnesia:sync_log(), ok = dets:sync(ra_directory_reverse).";

#[tokio::test]
async fn no_confirmed_job_is_lost_when_the_broker_is_killed_with_confirms_in_flight() {
    let broker = OwnBroker::start().await;
    Place::run(&broker.url, &broker.url, async |place| {
        broker.rabbitmqctl(&["eval", WRITE_DOWN]).await;
        handled_everything(&place, async |mut confirmed| {
            confirmed.wait_for(|confirmed| *confirmed >= 3000).await.unwrap();
            broker.kill().await;
            broker.start_again().await;
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_queue_that_the_broker_has_forgotten_is_found_and_works_once_it_is_declared_anew() {
    let broker = OwnBroker::start().await;
    Place::run(&broker.url, &broker.url, async |place| {
        let queue = place.topology.retry_queue(Place::policy().delays()[0]);
        // As if the broker had died right after the declaration.
        let forget = format!("ok = dets:delete(ra_directory_reverse, '%2F_{queue}'), {WRITE_DOWN}");
        broker.rabbitmqctl(&["eval", &forget]).await;
        broker.kill().await;
        broker.start_again().await;

        let by_amqp = place.broker.check(&place.topology).await.unwrap();
        let found: Vec<_> = by_amqp.differences.iter().map(ToString::to_string).collect();
        let expected = [format!("queue `{queue}`: leader is silent for 5s, wanted an answer")];
        // RabbitMQ 4.3 finds its member of the queue again by itself.
        let is_forgotten = version(&place.broker).await < [4, 3];
        assert_eq!(found, if is_forgotten { &expected[..] } else { &[] });
        let report = place.broker.check_with_management(&place.topology, &broker.management_url).await.unwrap();
        assert_eq!(report.differences, by_amqp.differences);

        place.delete_queue(&queue).await;
        place.broker.declare(&place.topology).await.unwrap();
        assert_eq!(place.broker.check(&place.topology).await.unwrap().differences, []);
        let mut load = Load::start(&place).await;
        publish_until_confirmed(&place, 0..100).await;
        load.handled_all_of(0..100).await;
        load.stop().await;
    })
    .await;
}

/// Major and minor.
async fn version(broker: &queues::Broker) -> [u32; 2] {
    let version = broker.version().await.unwrap().unwrap();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap());
    [numbers.next().unwrap(), numbers.next().unwrap()]
}
