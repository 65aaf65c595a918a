//! A queue that answers nothing, as a quorum queue without a leader does: its process is suspended.

use crate::support::{OwnBroker, PATIENCE};
use queues::{Broker, ConnectionState, Message, PublishError, Publisher, Topology};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// RabbitMQ stops reading a connection with some hundreds of messages for a silent queue.
const MANY: usize = 1000;
/// Much shorter than the 20 s after which a message to the silent queue is given up.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_queue_that_confirms_nothing_holds_up_no_message_to_another_queue_of_its_exchange() {
    let server = OwnBroker::start().await;
    let broker = Broker::new(&server.url, "test").unwrap();
    let topology = |queue| Topology::new("jobs", queue, [Duration::from_secs(1)]).unwrap();
    let (silent, lively) = (topology("silent"), topology("lively"));
    broker.declare(&silent).await.unwrap();
    broker.declare(&lively).await.unwrap();
    let message =
        |topology: &Topology, number: usize| Message::new(topology, "count", number.to_string(), b"1".to_vec());
    let many = |topology: &Topology| (0..MANY).map(|number| message(topology, number)).collect::<Vec<_>>();
    let timed_out = |result: &Result<(), PublishError>| matches!(result, Err(PublishError::TimedOut { .. }));
    let stuck = |publisher: &Publisher, count: usize| {
        let (publisher, mut messages) = (publisher.clone(), many(&silent));
        messages.truncate(count);
        tokio::spawn(async move { publisher.publish_all(messages).await })
    };
    let (new, used) = (Publisher::start(&broker), Publisher::start(&broker));
    for result in used.publish_all(many(&silent)).await {
        result.unwrap();
    }
    server.suspend("%2F", "silent").await;

    // A publisher that has trusted the silent queue with many messages loses its connection, once.
    let lost_once = async {
        let mut state = used.state();
        let stuck = stuck(&used, MANY);
        timeout(PATIENCE, state.wait_for(|state| !state.is_connected())).await.unwrap().unwrap();
        assert!(stuck.await.unwrap().iter().all(|result| result.is_err()));
        timeout(PATIENCE, state.wait_for(ConnectionState::is_connected)).await.unwrap().unwrap();
    };
    // One that has not yet loses nothing.
    let never_held_up = async {
        let stuck = stuck(&new, MANY / 2);
        // All that will be written is: nothing is confirmed.
        sleep(Duration::from_secs(1)).await;
        for result in timeout(SOON, new.publish_all(many(&lively))).await.expect("held up") {
            result.unwrap();
        }
        // Of a mixed batch those to the lively queue arrive, and each result stands at its own message.
        let mixed: Vec<Message> =
            (0..MANY).map(|number| message(if number % 2 == 0 { &silent } else { &lively }, number)).collect();
        let (stuck, mixed) = tokio::join!(stuck, new.publish_all(mixed));
        assert!(stuck.unwrap().iter().all(timed_out));
        for (number, result) in mixed.iter().enumerate() {
            assert!(if number % 2 == 0 { timed_out(result) } else { result.is_ok() }, "{number}: {result:?}");
        }
    };
    tokio::join!(lost_once, never_held_up);

    // Afterwards neither is held up: the silent queue's channel is replaced every 20 s, the connection is not.
    let since = Instant::now();
    let not_held_up = async |publisher: &Publisher| {
        while since.elapsed() < Duration::from_secs(25) {
            let stuck = publisher.publish(message(&silent, 0));
            let lively = async {
                timeout(SOON, publisher.publish(message(&lively, 1))).await.expect("held up").unwrap();
                sleep(Duration::from_millis(200)).await;
            };
            tokio::select! {
                result = stuck => assert!(result.is_err(), "the queue is not silent"),
                () = lively => {}
            }
            assert_eq!(*publisher.state().borrow(), ConnectionState::Connected);
        }
    };
    tokio::join!(not_held_up(&new), not_held_up(&used));

    server.resume("%2F", "silent").await;
    for publisher in [new, used] {
        timeout(PATIENCE, async { while publisher.publish(message(&silent, 0)).await.is_err() {} }).await.unwrap();
    }
}
