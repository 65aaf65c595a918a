//! The metrics, through the `metrics` facade: their names, units and labels. Handles are made once per publisher and per
//! worker, when it starts, so that counting a message costs an atomic addition and a program without a recorder pays
//! nothing. It measures nothing by itself: see the publisher's task and the worker's jobs.

use chrono::{DateTime, Utc};
use metrics::{Counter, Gauge, Histogram, Label, Unit};
use std::collections::HashMap;

/// One publisher's.
#[derive(Clone)]
pub(crate) struct PublisherMetrics {
    pub(crate) published: Counter,
    pub(crate) confirmed: Counter,
    pub(crate) returned: Counter,
}

impl PublisherMetrics {
    pub(crate) fn new() -> Self {
        let [published, confirmed, returned] =
            ["queues_messages_published_total", "queues_messages_confirmed_total", "queues_messages_returned_total"];
        metrics::describe_counter!(
            published,
            Unit::Count,
            "Messages written to the broker, a worker's copies included."
        );
        metrics::describe_counter!(confirmed, Unit::Count, "Messages that a queue has confirmed.");
        metrics::describe_counter!(
            returned,
            Unit::Count,
            "Messages that the broker returned, because no queue takes them."
        );
        Self {
            published: metrics::counter!(published),
            confirmed: metrics::counter!(confirmed),
            returned: metrics::counter!(returned),
        }
    }
}

/// One worker's, for one kind of job.
pub(crate) struct JobMetrics {
    pub(crate) delivered: Counter,
    pub(crate) done: Counter,
    pub(crate) retried: Counter,
    pub(crate) parked: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) handler_seconds: Histogram,
    pub(crate) completion_seconds: Histogram,
}

impl JobMetrics {
    fn new(queue: &str, kind: &str) -> Self {
        let labels = vec![Label::new("queue", queue.to_owned()), Label::new("kind", kind.to_owned())];
        let counter = |name: &'static str| metrics::counter!(name, labels.clone());
        Self {
            delivered: counter("queues_jobs_delivered_total"),
            done: counter("queues_jobs_done_total"),
            retried: counter("queues_jobs_retried_total"),
            parked: counter("queues_jobs_parked_total"),
            in_flight: metrics::gauge!("queues_jobs_in_flight", labels.clone()),
            handler_seconds: metrics::histogram!("queues_job_handler_seconds", labels.clone()),
            completion_seconds: metrics::histogram!("queues_job_completion_seconds", labels),
        }
    }
}

impl JobMetrics {
    /// The clocks of two hosts may differ: a negative time counts as none.
    pub(crate) fn count_done(&self, first_published_at: Option<DateTime<Utc>>) {
        self.done.increment(1);
        if let Some(Ok(time)) = first_published_at.map(|at| (Utc::now() - at).to_std()) {
            self.completion_seconds.record(time);
        }
    }
}

/// One worker's.
pub(crate) struct WorkerMetrics {
    kinds: HashMap<&'static str, JobMetrics>,
    unknown: JobMetrics,
}

impl WorkerMetrics {
    pub(crate) fn new(queue: &str, kinds: impl Iterator<Item = &'static str>) -> Self {
        metrics::describe_counter!("queues_jobs_delivered_total", Unit::Count, "Deliveries, duplicates included.");
        metrics::describe_counter!(
            "queues_jobs_done_total",
            Unit::Count,
            "Jobs done; their messages are acknowledged next."
        );
        metrics::describe_counter!(
            "queues_jobs_retried_total",
            Unit::Count,
            "Jobs put into a retry queue, snoozed ones included."
        );
        metrics::describe_counter!(
            "queues_jobs_parked_total",
            Unit::Count,
            "Jobs put into the parking queue by a worker."
        );
        metrics::describe_gauge!("queues_jobs_in_flight", Unit::Count, "Jobs that run or are being settled.");
        metrics::describe_histogram!("queues_job_handler_seconds", Unit::Seconds, "How long a handler ran.");
        let completion = "From a job's first publishing until it was done, its waiting and its retries included.";
        metrics::describe_histogram!("queues_job_completion_seconds", Unit::Seconds, completion);
        let kinds = kinds.map(|kind| (kind, JobMetrics::new(queue, kind))).collect();
        Self { kinds, unknown: JobMetrics::new(queue, "unknown") }
    }

    /// Kinds without a handler share one label: whoever publishes could invent any number of them.
    pub(crate) fn of(&self, kind: &str) -> &JobMetrics {
        self.kinds.get(kind).unwrap_or(&self.unknown)
    }
}

/// Counts a job as in flight until it is dropped, also when its task is cut off.
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
