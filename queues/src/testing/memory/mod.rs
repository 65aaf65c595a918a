//! A broker in this process, for tests: AMQP 0-9-1 over a loopback port, so the library runs as it is. `store` decides, `wire`
//! reads and writes.

mod exchanges;
mod methods;
mod queue;
mod store;
mod wire;

use chrono::{DateTime, Utc};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use store::Store;
use tokio::{
    net::TcpListener,
    select,
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep_until},
};

/// A broker in memory for tests, whose delayed messages need not be waited for: [`skip_delay`](Self::skip_delay) turns its
/// clock on. It does what this library asks of quorum queues on one node of RabbitMQ 3: confirms, returns, prefetch, redelivery in
/// order, delivery limits, dead letters, delays and single active consumers. The library's contract tests run on it and on
/// RabbitMQ.
///
/// It is no RabbitMQ: a retry that holds its key in a [partitioned](crate::Topology::partitioned) topology waits in the worker, and
/// can't be skipped; it keeps nothing, forgets messages whose dead-letter target is missing, ignores priorities, has no alarms, users or
/// virtual hosts, and refuses properties that are not UTF-8.
///
/// ```
/// use queues::{Delivery, Job, Outcome, RetryPolicy, Selection};
/// use queues::testing::{MemoryBroker, TestQueue};
/// use std::time::Duration;
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct SendReceipt {
///     order: u32,
/// }
///
/// impl Job for SendReceipt {
///     const KIND: &'static str = "send_receipt";
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// const HOUR: Duration = Duration::from_secs(3600);
/// let broker = MemoryBroker::start().await?;
/// let queue = TestQueue::declare(&broker.url(), RetryPolicy::new(HOUR, 2 * HOUR, 2)).await?;
/// queue.start(queue.worker().register(|job: SendReceipt, delivery: Delivery| async move {
///     Outcome::Retry { reason: format!("no paper for order {} at attempt {}", job.order, delivery.attempt) }
/// }));
/// queue.publish("receipt-1", &SendReceipt { order: 1 }).await?;
///
/// assert_eq!(broker.skip_delay().await, HOUR);
/// assert_eq!(broker.skip_delay().await, 2 * HOUR);
/// queue.drained(Duration::from_secs(20)).await?;
/// let parked = queue.parking().list(&Selection::all()).await?;
/// assert_eq!(parked[0].reason.as_deref(), Some("exhausted after 3 attempts: no paper for order 1 at attempt 3"));
/// queue.delete().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct MemoryBroker {
    port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Something was enqueued, or the clock was turned on.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    /// How far the clock was turned on.
    ahead: Duration,
}

impl State {
    fn now(&self) -> Instant {
        Instant::now() + self.ahead
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryBroker {
    /// Listens on a free port of 127.0.0.1, until it is dropped.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Notify::new() });
        let task = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { port, shared, task })
    }

    /// For [`Broker::new`](crate::Broker::new).
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port)
    }

    /// What time it is with all the delays that were skipped (UTC): for [`Worker::clock`](crate::Worker::clock), where a job
    /// waits for longer than the longest retry queue, or for a worker that knows its kind. By this machine's clock it would
    /// always come too early, and wait again.
    pub fn clock(&self) -> impl Fn() -> DateTime<Utc> + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move || Utc::now() + shared.state().ahead
    }

    /// Turns the clock on until the next delayed message is due, and returns how long its delay was. Waits until there is one: a
    /// job's retry, a snoozed job, or a message that was published with a delay.
    pub async fn skip_delay(&self) -> Duration {
        loop {
            // Registered before looking, or a message between the two would be missed.
            let changed = self.shared.changed.notified();
            {
                let mut state = self.shared.state();
                if let Some((due_at, delay)) = state.store.next_due() {
                    let left = due_at.saturating_duration_since(state.now());
                    state.ahead += left;
                    let now = state.now();
                    state.store.expire(now);
                    state.store.serve_all();
                    self.shared.changed.notify_waiters();
                    return delay;
                }
            }
            changed.await;
        }
    }
}

impl Drop for MemoryBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut opened = 0;
    loop {
        let changed = shared.changed.notified();
        let due_at = {
            let mut state = shared.state();
            let now = state.now();
            state.store.expire(now);
            state.store.serve_all();
            state.store.next_due().map(|(at, _)| Instant::now() + at.saturating_duration_since(now))
        };
        select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                opened += 1;
                connections.spawn(wire::serve(stream, opened, Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
            () = changed => {}
            () = sleep_until(due_at.unwrap_or_else(Instant::now)), if due_at.is_some() => {}
        }
    }
}
