//! Counters and histograms of this process, in Prometheus' text format. Installed before the parts are made: their counters
//! are bound to a recorder when they are made.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Label, Unit, describe_counter, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::stripe::Meaning;

/// The upper bounds of what a request, or a job's handler, takes: 5 ms to 2 min.
const SHORT_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
/// The upper bounds of what takes as long as Stripe and the sellers' balances make it: 1 s to 30 d.
const LONG_SECONDS: [f64; 14] = [
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3_600.0,
    14_400.0,
    43_200.0,
    86_400.0,
    259_200.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
];
/// How often what histograms have taken in is put into their buckets; until then every single value is kept.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// One for the whole process, which may hold several apps: tests do.
static INSTALLED: LazyLock<Result<PrometheusHandle, String>> =
    LazyLock::new(|| install().map_err(|error| error.to_string()));

/// What this process has counted. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorder(PrometheusHandle);

/// Why nothing can be counted.
#[derive(Debug, thiserror::Error)]
#[error("the metrics recorder can't be installed: {0}")]
pub struct RecorderError(String);

impl Recorder {
    /// The process's recorder, installed by the first call.
    ///
    /// # Errors
    /// When something else in the process has installed another one.
    pub fn installed() -> Result<Self, RecorderError> {
        INSTALLED.clone().map(Self).map_err(RecorderError)
    }

    /// Prometheus' text format. The queue library's metrics, which any program may have, get this one's prefix.
    #[must_use]
    pub fn render(&self) -> String {
        let own = |line: &str| {
            let (start, rest) = match line.strip_prefix("# ").and_then(|line| line.split_once(' ')) {
                Some((word, rest)) => (format!("# {word} "), rest),
                None => (String::new(), line),
            };
            let prefix = if rest.starts_with("queues_") { "clawback_" } else { "" };
            format!("{start}{prefix}{rest}\n")
        };
        self.0.render().lines().map(own).collect()
    }

    /// Keeps the recorder small, also where nobody scrapes it, until `stop`.
    pub async fn keep_small(&self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.0.run_upkeep(),
            }
        }
    }
}

fn install() -> Result<PrometheusHandle, BuildError> {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let handle = PrometheusBuilder::new()
        .set_buckets(&SHORT_SECONDS)?
        .set_buckets_for_metric(full("queues_job_completion_seconds"), &LONG_SECONDS)?
        .set_buckets_for_metric(full("clawback_refund_to_reversed_seconds"), &LONG_SECONDS)?
        .install_recorder()?;
    let help = "From when a debt was recorded until Stripe had reversed it.";
    describe_histogram!("clawback_refund_to_reversed_seconds", Unit::Seconds, help);
    let help = "From a request's headers to its answer, by route pattern; its _count counts the requests.";
    describe_histogram!("clawback_http_request_duration_seconds", Unit::Seconds, help);
    for Counter { name, help, labels } in COUNTERS {
        describe_counter!(*name, Unit::Count, *help);
        // There from the start, with 0: a rate sees the first event.
        let mut series: Vec<Vec<Label>> = vec![Vec::new()];
        for (label, values) in *labels {
            let with =
                |of: &Vec<Label>, value: &'static str| [&of[..], &[Label::from_static_parts(label, value)]].concat();
            series = series.iter().flat_map(|of| values.iter().map(move |value| with(of, value))).collect();
        }
        series.into_iter().for_each(|labels| metrics::counter!(*name, labels).increment(0));
    }
    Ok(handle)
}

/// A counter, with all values of its labels.
struct Counter {
    name: &'static str,
    help: &'static str,
    labels: &'static [(&'static str, &'static [&'static str])],
}

const KINDS: &[&str] = &["reverse", "create", "look_up", "notify"];

const COUNTERS: &[Counter] = &[
    Counter {
        name: "clawback_webhooks_total",
        help: "Webhooks by provider and what became of them. refused_signature: not signed by the provider; not_committed: \
               answered with 5xx, and sent again.",
        labels: &[
            ("source", &["stripe", "hyperswitch"]),
            (
                "outcome",
                &[
                    "accepted",
                    "unmatched",
                    "held",
                    "conflicting",
                    "failed",
                    "looking_up",
                    "duplicate",
                    "ignored",
                    "refused_signature",
                    "malformed",
                    "not_committed",
                ],
            ),
        ],
    },
    Counter {
        name: "clawback_webhooks_not_ours_total",
        help: "Stripe's events of connected accounts and of the other mode, which are ignored.",
        labels: &[("why", &["connected_account", "other_mode"])],
    },
    Counter {
        name: "clawback_stripe_calls_total",
        help: "Answers of Stripe, and calls without one, by what they mean to the worker.",
        labels: &[("meaning", Meaning::LABELS)],
    },
    Counter {
        name: "clawback_circuit_breaker_opened_total",
        help: "How often this process's circuit breaker has opened.",
        labels: &[],
    },
    Counter {
        name: "clawback_failed_permanently_total",
        help: "Calls that failed permanently in this process, by kind.",
        labels: &[("kind", KINDS)],
    },
    Counter {
        name: "clawback_foreign_reversals_total",
        help: "Reversals that another program had made at Stripe.",
        labels: &[],
    },
    Counter {
        name: "clawback_reversed_twice_total",
        help: "Reversals for which Stripe has two. Wake somebody.",
        labels: &[],
    },
    Counter {
        name: "clawback_paid_twice_total",
        help: "Transfers that Stripe has created twice. Wake somebody.",
        labels: &[],
    },
    Counter {
        name: "clawback_replays_total",
        help: "Calls that operators had tried again through this process, by kind.",
        labels: &[("kind", KINDS)],
    },
    Counter {
        name: "clawback_swept_jobs_total",
        help: "New jobs for due calls that no job was coming for, by kind: the broker has lost them, or they were resumed.",
        labels: &[("kind", KINDS)],
    },
    Counter {
        name: "clawback_relay_errors_total",
        help: "Failures of the relay: the database could not be asked, or the broker refused jobs, each of which is tried again.",
        labels: &[("what", &["database", "refused"])],
    },
];
