//! Pauses and resumes a worker, and says what it does.

use crate::ConnectionState;
use chrono::{DateTime, Utc};
use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicUsize, Ordering},
};
use tokio::sync::watch;

/// Pauses and resumes one worker. Cheap to clone; harmless once the worker has ended.
///
/// A paused worker stays connected and takes nothing: running jobs continue and are settled, waiting messages are given
/// back at once for other workers. Before RabbitMQ 4.3 that counts as a delivery: a message that meets
/// [`DELIVERY_LIMIT`](crate::Topology::DELIVERY_LIMIT) pauses without being handled is parked by the broker. So pause for
/// minutes, not by the second.
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
    state: watch::Receiver<ConnectionState>,
    pub(super) activity: Arc<Activity>,
}

/// What a worker does, for [`WorkerControl::health`].
#[derive(Debug, Default)]
pub(super) struct Activity {
    running: AtomicUsize,
    /// Milliseconds since 1970; 0 before the first delivery.
    last_delivery_ms: AtomicI64,
}

/// A worker at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerHealth {
    /// As from [`Worker::state`](super::Worker::state).
    pub connection: ConnectionState,
    /// Whether it is paused.
    pub paused: bool,
    /// Jobs that run or are being settled.
    pub running: usize,
    /// When it last took a message (UTC).
    pub last_delivery_at: Option<DateTime<Utc>>,
}

impl WorkerControl {
    pub(super) fn new(state: watch::Receiver<ConnectionState>) -> Self {
        Self { paused: Arc::new(watch::Sender::new(false)), state, activity: Arc::default() }
    }

    /// What a health check should know.
    #[must_use]
    pub fn health(&self) -> WorkerHealth {
        let last = self.activity.last_delivery_ms.load(Ordering::Relaxed);
        WorkerHealth {
            connection: self.state.borrow().clone(),
            paused: self.is_paused(),
            running: self.activity.running.load(Ordering::Relaxed),
            last_delivery_at: (last > 0).then(|| DateTime::from_timestamp_millis(last)).flatten(),
        }
    }

    /// Takes no more messages until [`resume`](Self::resume), even after reconnecting. Returns at once; a message that is just
    /// being taken may still be handled.
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

/// Counts a job as running until it is dropped, even when its task is cut off.
pub(super) struct Running<'a>(&'a Activity);

impl Activity {
    pub(super) fn start(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.last_delivery_ms.store(Utc::now().timestamp_millis(), Ordering::Relaxed);
        Running(self)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
