//! A worker that stops while its queue is slow to note what it is told: the queue's process is suspended.

use crate::support::{Job, OwnBroker, PATIENCE, Place, eventually};
use queues::{Broker, Delivery, Message, Outcome, Publisher, Topology, Worker};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

const JOBS: u32 = 100;
/// Until as many acknowledgements wait for the queue as a channel passes on before it keeps the others back.
const AWAIT_ACKNOWLEDGEMENTS: &str = r#"Wait = fun Wait() -> case process_info(whereis(list_to_atom("%2F_slow")), message_queue_len)
    of {_, Count} when Count >= 32 -> ok; _ -> timer:sleep(20), Wait() end end, Wait()."#;

#[tokio::test]
async fn what_was_done_before_a_worker_stopped_is_not_delivered_again_although_the_queue_is_slow_to_note_it() {
    let server = OwnBroker::start().await;
    let broker = Broker::new(&server.url, "test").unwrap();
    let topology = Topology::new("jobs", "slow", Place::policy().delays()).unwrap();
    broker.declare(&topology).await.unwrap();
    let message = |number: u32| Message::job(&topology, format!("job-{number}"), &Job { number }).unwrap();
    let publisher = Publisher::start(&broker);
    for result in publisher.publish_all((0..JOBS).map(message).collect()).await {
        result.unwrap();
    }
    // The first job ends last, so those behind it are acknowledged one by one.
    let (first, others) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (started, mut starts) = mpsc::unbounded_channel();
    let gates = (Arc::clone(&first), Arc::clone(&others));
    let handler = move |job: Job, _: Delivery| {
        started.send(()).unwrap();
        let gate = Arc::clone(if job.number == 0 { &gates.0 } else { &gates.1 });
        async move {
            gate.acquire().await.unwrap().forget();
            Outcome::Done
        }
    };
    let many = u16::try_from(JOBS).unwrap();
    let worker = Worker::new(&broker, topology.clone(), Place::policy()).drain_timeout(PATIENCE);
    let worker = worker.prefetch(2 * many).concurrency(usize::from(2 * many));
    let (stop, stopped) = oneshot::channel::<()>();
    let mut worker = tokio::spawn(worker.register(handler).run(async { stopped.await.unwrap_or_default() }));
    for _ in 0..JOBS {
        timeout(PATIENCE, starts.recv()).await.unwrap().unwrap();
    }
    stop.send(()).unwrap();
    let waiting = async || {
        let statuses = broker.queue_statuses(&topology).await.unwrap();
        statuses.into_iter().find(|status| status.name == "slow").unwrap().messages
    };
    // It takes no more: what comes now stays in the queue.
    let left = eventually("a message that stays", async || {
        publisher.publish(message(JOBS)).await.unwrap();
        Some(waiting().await).filter(|count| *count > 0)
    })
    .await;

    server.suspend("%2F", "slow").await;
    others.add_permits(usize::from(2 * many));
    server.rabbitmqctl(&["eval", AWAIT_ACKNOWLEDGEMENTS]).await;
    first.add_permits(1);
    // It waits for the queue, or else it has left by then.
    let ended = timeout(Duration::from_secs(1), &mut worker).await;
    server.resume("%2F", "slow").await;
    match ended {
        Ok(ended) => ended.unwrap().unwrap(),
        Err(_) => timeout(PATIENCE, worker).await.unwrap().unwrap().unwrap(),
    }
    assert_eq!(waiting().await, left, "what is done came back");
}
