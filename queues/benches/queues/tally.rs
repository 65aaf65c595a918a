//! What handlers have done, and when.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Notify, mpsc::UnboundedReceiver};

/// Counts jobs up to a number, from the first one's beginning.
pub(crate) struct Tally {
    count: usize,
    handled: AtomicUsize,
    first: OnceLock<Instant>,
    all: Notify,
}

impl Tally {
    pub(crate) fn of(count: usize) -> Self {
        Self { count, handled: AtomicUsize::new(0), first: OnceLock::new(), all: Notify::new() }
    }

    /// A job has begun.
    pub(crate) fn add(&self) {
        self.first.get_or_init(Instant::now);
        if self.handled.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            self.all.notify_one();
        }
    }

    pub(crate) async fn all(&self) {
        self.all.notified().await;
    }

    /// Jobs a second, from the first one's beginning until now.
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.first.get().unwrap().elapsed().as_secs_f64()
    }
}

/// From publishing to the handler, which tells the time, one job at a time; ascending.
pub(crate) async fn latencies(
    count: usize,
    heard: &mut UnboundedReceiver<Instant>,
    mut publish: impl AsyncFnMut(),
) -> Vec<Duration> {
    let mut delays = Vec::with_capacity(count);
    for _ in 0..count {
        let published = Instant::now();
        publish().await;
        delays.push(heard.recv().await.unwrap() - published);
    }
    delays.sort_unstable();
    delays
}

pub(crate) fn milliseconds(latencies: &[Duration], percent: usize) -> f64 {
    latencies[latencies.len() * percent / 100].as_secs_f64() * 1000.0
}

pub(crate) fn median(rates: &mut [f64]) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
