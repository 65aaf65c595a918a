//! What can be seen from outside: metrics and spans.

use crate::support::{Count, Running, bench, scripted};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use queues::{Outcome, Publisher};
use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

#[tokio::test]
async fn what_is_published_delivered_retried_parked_and_done_is_counted_and_timed() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // The test's runtime has this one thread.
    let _guard = metrics::set_default_local_recorder(&recorder);
    bench(&[200, 400], async |bench| {
        let (handler, mut heard) =
            scripted::<Count>(|delivery| match (delivery.message_id.rsplit('-').next(), delivery.attempt) {
                (Some("0"), _) if !delivery.redelivered => Outcome::GiveBack,
                (Some("1"), 1) => Outcome::Retry { reason: "once".to_owned() },
                (Some("2"), _) => Outcome::Park { reason: "broken".to_owned() },
                _ => Outcome::Done,
            });
        let worker = Running::start(bench.worker().unknown_kind_timeout(Duration::ZERO).register(handler)).await;
        let mut messages = bench.jobs(0..4);
        messages[3].routing_key = "nowhere".to_owned();
        Publisher::start(&bench.broker).publish_all(messages).await;
        assert!(bench.management.publish(&bench.name, serde_json::json!({ "type": "sing" }), "{}").await);
        for _ in 0..5 {
            heard.next().await;
        }
        bench.parked(2).await;
        worker.stop().await;

        let mut counts = BTreeMap::new();
        let mut times = BTreeMap::new();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let key = key.key();
            let label = |name| key.labels().find(|label| label.key() == name).map(|label| label.value().to_owned());
            if key.name().contains("_job") {
                assert_eq!(label("queue").as_ref(), Some(&bench.name), "{key}");
            }
            let name = format!("{} {}", key.name(), label("kind").unwrap_or_default());
            match value {
                DebugValue::Counter(count) => _ = counts.insert(name, count as f64),
                DebugValue::Gauge(value) => _ = counts.insert(name, value.0),
                DebugValue::Histogram(values) => _ = times.insert(name, values),
            }
        }
        let expected = [
            // Four of ours, one retry and two parkings.
            ("queues_messages_published_total ", 7.0),
            ("queues_messages_confirmed_total ", 6.0),
            ("queues_messages_returned_total ", 1.0),
            ("queues_jobs_delivered_total count", 5.0),
            ("queues_jobs_delivered_total unknown", 1.0),
            ("queues_jobs_done_total count", 2.0),
            ("queues_jobs_done_total unknown", 0.0),
            ("queues_jobs_failed_total count", 2.0),
            ("queues_jobs_failed_total unknown", 0.0),
            ("queues_jobs_retried_total count", 1.0),
            ("queues_jobs_retried_total unknown", 0.0),
            ("queues_jobs_snoozed_total count", 0.0),
            ("queues_jobs_snoozed_total unknown", 0.0),
            ("queues_jobs_given_back_total count", 1.0),
            ("queues_jobs_given_back_total unknown", 0.0),
            ("queues_jobs_parked_total count", 1.0),
            ("queues_jobs_parked_total unknown", 1.0),
            ("queues_jobs_in_flight count", 0.0),
            ("queues_jobs_in_flight unknown", 0.0),
        ];
        assert_eq!(counts, expected.map(|(name, count)| (name.to_owned(), count)).into());
        assert_eq!(times["queues_job_handler_seconds count"].len(), 5);
        let mut completions: Vec<f64> =
            times["queues_job_completion_seconds count"].iter().map(|seconds| seconds.0).collect();
        completions.sort_by(f64::total_cmp);
        assert!(completions.len() == 2 && completions[0] < completions[1], "{completions:?}");
        assert!((0.2..20.0).contains(&completions[1]), "in seconds, from the first publishing: {completions:?}");
    })
    .await;
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_handler_logs_carries_the_id_the_kind_and_the_attempt_and_no_body_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| {
            tracing::info!("the handler is here");
            match delivery.attempt {
                1 => Outcome::Retry { reason: "once".to_owned() },
                _ => Outcome::Park { reason: "twice".to_owned() },
            }
        });
        let worker = Running::start(bench.worker().register(handler)).await;
        Publisher::start(&bench.broker).publish(bench.job(80_712_345)).await.unwrap();
        for _ in 0..2 {
            heard.next().await;
        }
        bench.parked(1).await;
        worker.stop().await;
        let discarded = bench.parking().discard(&queues::Selection::all(), "ann: not ours").await.unwrap();
        assert_eq!(discarded[0].payload, br#"{"number":80712345}"#);
        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let ours: Vec<&str> = log.lines().filter(|line| line.contains("queues::") || line.contains("it::")).collect();
        for attempt in 1..=2 {
            let span = format!(r#"job{{id="{}-80712345" kind="count" attempt={attempt}}}"#, bench.name);
            let said = |text: &str| ours.iter().any(|line| line.contains(&span) && line.contains(text));
            assert!(
                said("the handler is here") && said(if attempt == 1 { "job failed; retrying" } else { "job parked" }),
                "{span} is missing: {ours:#?}"
            );
        }
        let discarding = ours.iter().find(|line| line.contains("discarding")).unwrap();
        assert!(discarding.contains("twice") && discarding.contains("ann: not ours"), "{discarding}");
        assert!(!ours.iter().any(|line| line.contains(r#"{"number""#)), "a body is in the log");
    })
    .await;
}
