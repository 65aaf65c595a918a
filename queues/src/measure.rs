//! The metrics, through the `metrics` facade. Handles are made once per publisher and worker: counting costs an atomic
//! addition, and nothing without a recorder.

use chrono::{DateTime, Utc};
use metrics::{Counter, Gauge, Histogram, Label, Unit};
use std::{collections::HashMap, sync::OnceLock};

/// One publisher's.
#[derive(Clone)]
pub(crate) struct PublisherMetrics {
    pub(crate) published: Counter,
    pub(crate) confirmed: Counter,
    pub(crate) returned: Counter,
}

impl PublisherMetrics {
    pub(crate) fn new() -> Self {
        let counter = |name: &'static str, description: &'static str| {
            metrics::describe_counter!(name, Unit::Count, description);
            metrics::counter!(name)
        };
        Self {
            published: counter(
                "queues_messages_published_total",
                "Messages written to the broker, a worker's copies included.",
            ),
            confirmed: counter("queues_messages_confirmed_total", "Messages confirmed by a queue."),
            returned: counter(
                "queues_messages_returned_total",
                "Messages returned by the broker: no queue takes them.",
            ),
        }
    }
}

/// One worker's, for one kind of job.
pub(crate) struct JobMetrics {
    pub(crate) delivered: Counter,
    pub(crate) done: Counter,
    pub(crate) failed: Counter,
    pub(crate) retried: Counter,
    pub(crate) snoozed: Counter,
    pub(crate) given_back: Counter,
    pub(crate) parked: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) handler_seconds: Histogram,
    pub(crate) completion_seconds: Histogram,
}

impl JobMetrics {
    fn new(queue: &str, kind: &str) -> Self {
        let labels = vec![Label::new("queue", queue.to_owned()), Label::new("kind", kind.to_owned())];
        let counter = |name: &'static str, description: &'static str| {
            metrics::describe_counter!(name, Unit::Count, description);
            metrics::counter!(name, labels.clone())
        };
        let histogram = |name: &'static str, description: &'static str| {
            metrics::describe_histogram!(name, Unit::Seconds, description);
            metrics::histogram!(name, labels.clone())
        };
        metrics::describe_gauge!("queues_jobs_in_flight", Unit::Count, "Jobs that run or are being settled.");
        Self {
            delivered: counter("queues_jobs_delivered_total", "Deliveries, duplicates included."),
            done: counter("queues_jobs_done_total", "Jobs done; their messages are acknowledged next."),
            failed: counter("queues_jobs_failed_total", "Attempts whose handler failed: to be retried or parked."),
            retried: counter("queues_jobs_retried_total", "Failed jobs put into a retry queue."),
            snoozed: counter("queues_jobs_snoozed_total", "Jobs delayed without using up an attempt."),
            given_back: counter("queues_jobs_given_back_total", "Jobs returned to the queue at once by their handler."),
            parked: counter("queues_jobs_parked_total", "Jobs put into the parking queue by a worker."),
            in_flight: metrics::gauge!("queues_jobs_in_flight", labels.clone()),
            handler_seconds: histogram("queues_job_handler_seconds", "How long a handler ran."),
            completion_seconds: histogram(
                "queues_job_completion_seconds",
                "From a job's first publishing until it was done, waiting and retries included.",
            ),
        }
    }

    /// A job comes again later, after a failure or without one.
    pub(crate) fn count_delayed(&self, failed: bool) {
        if failed { self.retried.increment(1) } else { self.snoozed.increment(1) }
    }

    /// Two hosts' clocks may differ: a negative time is not recorded.
    pub(crate) fn count_done(&self, first_published_at: Option<DateTime<Utc>>) {
        self.done.increment(1);
        if let Some(Ok(time)) = first_published_at.map(|at| (Utc::now() - at).to_std()) {
            self.completion_seconds.record(time);
        }
    }
}

/// One worker's.
pub(crate) struct WorkerMetrics {
    queue: String,
    kinds: HashMap<&'static str, JobMetrics>,
    /// Made when the first one comes: most workers never see any.
    unknown: OnceLock<JobMetrics>,
}

impl WorkerMetrics {
    pub(crate) fn new(queue: &str, kinds: impl Iterator<Item = &'static str>) -> Self {
        let kinds = kinds.map(|kind| (kind, JobMetrics::new(queue, kind))).collect();
        Self { queue: queue.to_owned(), kinds, unknown: OnceLock::new() }
    }

    /// Kinds without a handler share one label: publishers could invent any number of them.
    pub(crate) fn of(&self, kind: &str) -> &JobMetrics {
        self.kinds.get(kind).unwrap_or_else(|| self.unknown.get_or_init(|| JobMetrics::new(&self.queue, "unknown")))
    }
}

/// Counts a job as in flight until it is dropped, even when its task is cut off.
pub(crate) struct InFlightGuard<'a>(&'a Gauge);

impl<'a> InFlightGuard<'a> {
    pub(crate) fn new(gauge: &'a Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
