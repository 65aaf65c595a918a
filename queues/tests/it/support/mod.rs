//! What every test needs: queues of its own, a worker that can be stopped, and RabbitMQ's management API.

#[path = "../../support/eventually.rs"]
mod eventually;
mod management;
#[path = "../../support/program.rs"]
mod program;
#[path = "../../support/run_all.rs"]
mod run_all;

pub(crate) use {eventually::eventually, management::Management, program::program, run_all::run_all};

use futures_util::{FutureExt, future::BoxFuture};
use queues::{
    Broker, ConnectionState, Delivery, Job, Message, Outcome, Parking, Publisher, RetryPolicy, Topology, Worker,
    WorkerError,
};
use std::{collections::BTreeSet, env, fmt::Debug, future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use uuid::Uuid;

/// Longer than anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A job that carries a number.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Count {
    pub(crate) number: u32,
}

impl Job for Count {
    const KIND: &'static str = "count";
}

/// A test's own exchange and queues.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) name: String,
    pub(crate) broker: Broker,
    pub(crate) topology: Topology,
    pub(crate) management: Management,
}

/// Runs a test on queues of its own, with these delays, and deletes them, whether it succeeds or fails.
pub(crate) async fn bench<F: Future<Output = ()>>(delays_ms: &[u64], test: impl FnOnce(Bench) -> F) {
    bench_with(delays_ms, |topology| topology, test).await;
}

/// [`bench`] with another topology, which `shape` makes of the plain one.
pub(crate) async fn bench_with<F: Future<Output = ()>>(
    delays_ms: &[u64],
    shape: impl FnOnce(Topology) -> Topology,
    test: impl FnOnce(Bench) -> F,
) {
    let name = format!("test-{}", Uuid::now_v7());
    let delays = delays_ms.iter().copied().map(Duration::from_millis);
    let topology = shape(Topology::new(format!("{name}.jobs"), &name, delays).unwrap());
    let url = amqp_url();
    let broker = Broker::new(&url, &name).unwrap();
    let management = Management::from_environment(&url);
    broker.declare(&topology).await.unwrap();
    let bench = Bench { name, broker, topology, management };
    let result = AssertUnwindSafe(test(bench.clone())).catch_unwind().await;
    bench.delete().await;
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn amqp_url() -> String {
    required("AMQP_URL")
}

fn required(name: &str) -> String {
    env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: run the tests with `./dev test`, which sets up RabbitMQ"))
}

impl Bench {
    pub(crate) fn job(&self, number: u32) -> Message {
        Message::job(&self.topology, format!("{}-{number}", self.name), &Count { number }).unwrap()
    }

    pub(crate) fn jobs(&self, numbers: impl IntoIterator<Item = u32>) -> Vec<Message> {
        numbers.into_iter().map(|number| self.job(number)).collect()
    }

    /// Two retries after the topology's first delay; the second after its double, if the topology declares that.
    pub(crate) fn policy(&self) -> RetryPolicy {
        let first = self.topology.delays()[0];
        let max = if self.topology.delays().contains(&(first * 2)) { first * 2 } else { first };
        RetryPolicy::new(first, max, 2)
    }

    pub(crate) fn worker(&self) -> Worker {
        Worker::new(&self.broker, self.topology.clone(), self.policy())
    }

    pub(crate) fn parking(&self) -> Parking {
        Parking::new(&self.broker, self.topology.clone())
    }

    /// Publishes jobs with these numbers, and has each parked with the reason `reason NUMBER`.
    pub(crate) async fn park(&self, numbers: std::ops::Range<u32>) {
        let (handler, mut heard) = scripted::<Count>(|delivery| {
            let number = delivery.message_id.rsplit('-').next().unwrap_or_default();
            Outcome::Park { reason: format!("reason {number}") }
        });
        // One at a time, so that they are parked in order.
        let worker = Running::start(self.worker().concurrency(1).register(handler)).await;
        let (before, count) = (self.ready(&self.topology.parked_queue()).await, numbers.len());
        for result in Publisher::start(&self.broker).publish_all(self.jobs(numbers)).await {
            result.unwrap();
        }
        for _ in 0..count {
            heard.next().await;
        }
        worker.stop().await;
        assert_eq!(self.ready(&self.topology.parked_queue()).await, before + count as u32);
    }

    /// Puts jobs with these numbers straight into the parking queue, without reasons.
    pub(crate) async fn put_into_parking(&self, numbers: std::ops::Range<u32>) {
        let mut messages = self.jobs(numbers);
        for message in &mut messages {
            (message.exchange, message.routing_key) = (String::new(), self.topology.parked_queue());
        }
        for result in Publisher::start(&self.broker).publish_all(messages).await {
            result.unwrap();
        }
    }

    pub(crate) async fn ready(&self, queue: &str) -> u32 {
        let statuses = self.broker.queue_statuses(&self.topology).await.unwrap();
        statuses.iter().find(|status| status.name == queue).unwrap().messages
    }

    /// The messages in the parking queue, oldest first, when there are `count` of them. They stay.
    pub(crate) async fn parked(&self, count: u32) -> Vec<serde_json::Value> {
        let queue = self.topology.parked_queue();
        eventually("a parked message", async || (self.ready(&queue).await == count).then_some(())).await;
        self.management.get_messages(&queue, count).await
    }

    /// Waits until this many messages are ready in the work queues.
    pub(crate) async fn given_back(&self, count: u32) {
        eventually("messages that are given back", async || {
            let mut ready = 0;
            for queue in self.topology.work_queues() {
                ready += self.ready(&queue).await;
            }
            (ready == count).then_some(())
        })
        .await;
    }

    /// Waits until the work queue is empty, and no worker holds anything of it.
    pub(crate) async fn drained(&self) {
        eventually("an empty queue", async || (self.ready(self.topology.queue()).await == 0).then_some(())).await;
    }

    async fn delete(&self) {
        for queue in self.topology.queues() {
            self.management.delete("queues", &queue.name).await;
        }
        for exchange in self.topology.exchanges() {
            self.management.delete("exchanges", &exchange.name).await;
        }
    }
}

/// Publishes one message over a connection of its own.
pub(crate) async fn publish(bench: &Bench, message: Message) {
    Publisher::start(&bench.broker).publish(message).await.unwrap();
}

/// A handler that tells the test of every job, and answers as `script` says.
pub(crate) fn scripted<J: Job>(
    script: impl Fn(&Delivery) -> Outcome + Send + Sync + 'static,
) -> (impl Fn(J, Delivery) -> std::future::Ready<Outcome> + Send + Sync, Heard<J>) {
    let (tell, hear) = mpsc::unbounded_channel();
    let handler = move |job: J, delivery: Delivery| {
        let outcome = script(&delivery);
        let _ = tell.send((job, delivery, Instant::now()));
        std::future::ready(outcome)
    };
    (handler, Heard(hear))
}

/// A handler that tells the test of every job it begins, and ends one for each permit of the gate.
pub(crate) fn gated()
-> (impl Fn(Count, Delivery) -> BoxFuture<'static, Outcome> + Send + Sync, mpsc::UnboundedReceiver<u32>, Arc<Semaphore>)
{
    let (starts, started) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let open = Arc::clone(&gate);
    let handler = move |job: Count, _: Delivery| {
        let (gate, starts) = (Arc::clone(&gate), starts.clone());
        async move {
            let _ = starts.send(job.number);
            gate.acquire().await.unwrap().forget();
            Outcome::Done
        }
        .boxed()
    };
    (handler, started, open)
}

/// What a scripted handler was given.
pub(crate) struct Heard<J>(mpsc::UnboundedReceiver<(J, Delivery, Instant)>);

impl<J: Debug> Heard<J> {
    pub(crate) async fn next(&mut self) -> (J, Delivery, Instant) {
        timeout(PATIENCE, self.0.recv()).await.expect("no job came").expect("the worker ended")
    }

    pub(crate) fn nothing_more(&mut self) {
        assert!(self.0.is_empty(), "unexpected: {:?}", self.0.try_recv());
    }
}

impl Heard<Count> {
    /// The distinct numbers of the next jobs, until there are `count`: duplicates are allowed.
    pub(crate) async fn numbers(&mut self, count: usize) -> BTreeSet<u32> {
        let mut numbers = BTreeSet::new();
        while numbers.len() < count {
            numbers.insert(self.next().await.0.number);
        }
        numbers
    }
}

/// A worker that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) state: watch::Receiver<ConnectionState>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), WorkerError>>,
}

impl Running {
    /// Starts the worker and waits until it consumes.
    pub(crate) async fn start(worker: Worker) -> Self {
        let mut state = worker.state();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(worker.run(async { stopped.await.unwrap_or_default() }));
        wait_for(&mut state, "a connection", ConnectionState::is_connected).await;
        Self { state, stop: Some(stop), task }
    }

    /// Asks the worker to stop.
    pub(crate) fn ask_to_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has stopped.
    pub(crate) async fn stopped(self) {
        timeout(PATIENCE, self.task).await.expect("the worker did not stop").unwrap().unwrap();
        assert_eq!(*self.state.borrow(), ConnectionState::Closed);
    }

    pub(crate) async fn stop(mut self) {
        self.ask_to_stop();
        self.stopped().await;
    }
}

pub(crate) async fn wait_for(
    state: &mut watch::Receiver<ConnectionState>,
    what: &str,
    condition: impl Fn(&ConnectionState) -> bool,
) {
    let seen = timeout(PATIENCE, state.wait_for(|state| condition(state))).await;
    drop(seen.unwrap_or_else(|_| panic!("{what} did not come")).expect("the task ended"));
}
