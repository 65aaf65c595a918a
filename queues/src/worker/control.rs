//! Pausing a worker from outside, or from within a handler. Obtained before the worker runs. It never touches a message.

use std::sync::Arc;
use tokio::sync::watch;

/// Pauses and resumes one worker. Cheap to clone; harmless when the worker has ended.
///
/// While a worker is paused it stays connected and takes nothing: what it has begun goes on and is settled, and what
/// waits in it is given back at once, for other workers. A message that is given back counts as delivered (before
/// RabbitMQ 4.3): one that meets [`DELIVERY_LIMIT`](crate::Topology::DELIVERY_LIMIT) pauses without ever being handled
/// is parked by the broker. So pause for minutes, not by the second.
///
/// ```no_run
/// # async fn example(worker: queues::Worker) -> Result<(), queues::WorkerError> {
/// let control = worker.control();
/// tokio::spawn(worker.run(std::future::pending()));
/// control.pause();
/// // …until what the jobs need is back:
/// control.resume();
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct WorkerControl {
    paused: Arc<watch::Sender<bool>>,
}

impl WorkerControl {
    pub(super) fn new() -> Self {
        Self { paused: Arc::new(watch::Sender::new(false)) }
    }

    /// Takes no more messages until [`resume`](Self::resume), through every reconnect. Returns at once; a message that
    /// is being taken in this moment may still be handled.
    pub fn pause(&self) {
        self.paused.send_replace(true);
    }

    /// Takes messages again.
    pub fn resume(&self) {
        self.paused.send_replace(false);
    }

    /// Whether it is paused.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self.paused.borrow()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.paused.subscribe()
    }
}
