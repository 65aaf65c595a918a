//! How handlers are registered and run, and what happens when they misbehave.

use crate::support::{Count, Running, bench, eventually, gated, publish, scripted};
use queues::{Delivery, Handler, Job, Message, Outcome, Publisher, RetryPolicy, Worker, WorkerError};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A handler that is a type, for two kinds of job.
struct Clerk {
    heard: mpsc::UnboundedSender<String>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Note(String);

impl Job for Note {
    const KIND: &'static str = "note";
}

impl Handler<Count> for Arc<Clerk> {
    type Output = Outcome;

    async fn handle(&self, job: Count, _: Delivery) -> Outcome {
        self.heard.send(job.number.to_string()).unwrap();
        Outcome::Done
    }
}

impl Handler<Note> for Clerk {
    type Output = Outcome;

    async fn handle(&self, job: Note, _: Delivery) -> Outcome {
        self.heard.send(job.0).unwrap();
        Outcome::Done
    }
}

#[tokio::test]
async fn a_panic_counts_as_a_failure_and_its_text_is_kept() {
    bench(&[60_000], async |bench| {
        async fn handler(_: Count, delivery: Delivery) -> Outcome {
            panic!("panic number {}", delivery.attempt)
        }
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        let queue = bench.topology.retry_queue(Duration::from_secs(60));
        eventually("the retry", async || (bench.ready(&queue).await == 1).then_some(())).await;
        worker.stop().await;
        let copy = &bench.management.get_messages(&queue, 1).await[0];
        assert_eq!(copy["properties"]["headers"]["last-error"], "panicked: panic number 1");
    })
    .await;
}

#[tokio::test]
async fn a_panic_before_the_first_await_is_caught_too() {
    bench(&[100], async |bench| {
        let handler = |_: Count, _: Delivery| -> std::future::Ready<Outcome> { panic!("at once") };
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(1), 0);
        let worker = Worker::new(&bench.broker, bench.topology.clone(), policy).register(handler);
        let worker = Running::start(worker).await;
        publish(&bench, bench.job(1)).await;
        let parked = bench.parked(1).await;
        worker.stop().await;
        let reason = &parked[0]["properties"]["headers"]["parked-reason"];
        assert_eq!(reason, "exhausted after 1 attempts: panicked: at once");
    })
    .await;
}

#[tokio::test]
async fn a_job_that_hangs_is_cut_off_and_retried() {
    bench(&[100], async |bench| {
        let handler = |_: Count, delivery: Delivery| async move {
            if delivery.attempt == 1 {
                std::future::pending::<()>().await;
            }
            Outcome::Park { reason: format!("attempt {}", delivery.attempt) }
        };
        let timeout = Duration::from_millis(100);
        let worker = Running::start(bench.worker().job_timeout(timeout).register(handler)).await;
        publish(&bench, bench.job(1)).await;
        let parked = bench.parked(1).await;
        worker.stop().await;
        assert_eq!(parked[0]["properties"]["headers"]["parked-reason"], "attempt 2");
    })
    .await;
}

#[tokio::test]
async fn types_may_be_handlers_and_several_kinds_share_a_queue() {
    bench(&[100], async |bench| {
        let (heard, mut hear) = mpsc::unbounded_channel();
        let worker = bench
            .worker()
            .concurrency(1)
            .register::<Count, _>(Arc::new(Clerk { heard: heard.clone() }))
            .register::<Note, _>(Clerk { heard });
        let worker = Running::start(worker).await;
        publish(&bench, bench.job(1)).await;
        publish(&bench, Message::job(&bench.topology, "n-1", &Note("hello".to_owned())).unwrap()).await;
        assert_eq!(hear.recv().await.unwrap(), "1");
        assert_eq!(hear.recv().await.unwrap(), "hello");
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_worker_with_a_wrong_set_of_handlers_does_not_run() {
    bench(&[100], async |bench| {
        let error = bench.worker().run(std::future::pending()).await.unwrap_err();
        assert!(matches!(error, WorkerError::NoHandler { .. }), "{error:?}");
        let done = |_: Count, _: Delivery| async { Outcome::Done };
        let error = bench.worker().register(done).register(done).run(std::future::pending()).await.unwrap_err();
        assert!(matches!(error, WorkerError::DuplicateKind { kind: "count", .. }), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn a_policy_with_a_delay_that_has_no_queue_is_refused_with_both_named() {
    bench(&[100, 200], async |bench| {
        let done = |_: Count, _: Delivery| async { Outcome::Done };
        let policy = RetryPolicy::new(Duration::from_millis(100), Duration::from_millis(400), 3);
        let worker = Worker::new(&bench.broker, bench.topology.clone(), policy).register(done);
        let error = worker.run(std::future::pending()).await.unwrap_err().to_string();
        assert!(error.contains("[100ms, 200ms, 400ms]") && error.contains("declares [100ms, 200ms]"), "{error}");
        let batch = |jobs: Vec<(Count, Delivery)>| async move { vec![Outcome::Done; jobs.len()] };
        let of_one = bench.worker().register_with_policy(policy, done);
        let of_many = bench.worker().register_batch_with_policy(policy, 2, Duration::ZERO, batch);
        for worker in [of_one, of_many] {
            let error = worker.run(std::future::pending()).await.unwrap_err();
            assert!(matches!(error, WorkerError::MissingDelays { .. }), "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_kind_may_have_a_policy_of_its_own() {
    bench(&[100, 200], async |bench| {
        let once = RetryPolicy::new(Duration::from_millis(200), Duration::from_millis(200), 1);
        let (fail, mut failed) = scripted::<Count>(|_| Outcome::Retry { reason: "no luck".to_owned() });
        let note = |_: Note, _: Delivery| async { Outcome::Retry { reason: "no luck".to_owned() } };
        let worker = bench.worker().register_with_policy(once, fail).register(note);
        let worker = Running::start(worker).await;
        publish(&bench, bench.job(1)).await;
        publish(&bench, Message::job(&bench.topology, "n-1", &Note("hello".to_owned())).unwrap()).await;
        for attempt in 1..=2 {
            let (_, delivery, _) = failed.next().await;
            assert_eq!((delivery.attempt, delivery.max_attempts), (attempt, Some(2)));
        }
        let parked = bench.parked(2).await;
        worker.stop().await;
        let mut reasons: Vec<_> =
            parked.iter().map(|job| job["properties"]["headers"]["parked-reason"].as_str()).collect();
        reasons.sort_unstable();
        assert_eq!(
            reasons,
            [2, 3].map(|n| format!("exhausted after {n} attempts: no luck")).each_ref().map(|r| Some(r.as_str()))
        );
    })
    .await;
}

#[tokio::test]
async fn a_handler_sees_the_headers_and_the_age_of_its_job_through_a_retry_and_the_hook_hears_of_its_parking() {
    bench(&[100], async |bench| {
        let (handler, mut heard) = scripted::<Count>(|delivery| match delivery.attempt {
            1 => Outcome::Retry { reason: "once".to_owned() },
            _ => Outcome::Park { reason: "hopeless".to_owned() },
        });
        let (tell, mut told) = mpsc::unbounded_channel();
        let worker = bench.worker().on_parked(move |delivery, reason| {
            let _ = tell.send((delivery.message_id.clone(), reason.to_owned()));
        });
        let worker = Running::start(worker.register(handler)).await;
        publish(&bench, bench.job(1).with_header("tenant", "blue")).await;
        for _ in 0..2 {
            let (_, delivery, _) = heard.next().await;
            assert_eq!(
                delivery.headers.iter().next().map(|(name, value)| (&**name, &**value)),
                Some(("tenant", "blue"))
            );
            assert!(delivery.headers.len() == 1 && delivery.max_attempts == Some(3), "{delivery:?}");
            let least = Duration::from_millis(100 * u64::from(delivery.attempt - 1));
            assert!(delivery.age().is_some_and(|age| age >= least && age < Duration::from_secs(20)), "{delivery:?}");
        }
        assert_eq!(told.recv().await, Some((format!("{}-1", bench.name), "hopeless".to_owned())));
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_job_of_a_kind_that_only_another_worker_knows_finds_it() {
    bench(&[1000], async |bench| {
        let note = |_: Note, _: Delivery| async { Outcome::Done };
        // The old version, which also takes jobs of the new kind.
        let old = Running::start(bench.worker().register(note)).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..5)).await {
            result.unwrap();
        }
        eventually("a return", async || (bench.ready(&bench.name).await == 0).then_some(())).await;
        let (handler, mut heard) = scripted::<Count>(|_| Outcome::Done);
        let new = Running::start(bench.worker().register(note).register(handler)).await;
        old.stop().await;
        assert_eq!(heard.numbers(5).await.len(), 5);
        new.stop().await;
        assert_eq!(bench.ready(&bench.topology.parked_queue()).await, 0);
    })
    .await;
}

#[tokio::test]
async fn no_more_jobs_run_at_a_time_than_allowed() {
    bench(&[100], async |bench| {
        let (handler, mut started, open) = gated();
        let worker = Running::start(bench.worker().prefetch(10).concurrency(3).register(handler)).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..6)).await {
            result.unwrap();
        }
        for _ in 0..3 {
            started.recv().await.unwrap();
        }
        // All six are with the worker; the broker has none left that it could still deliver.
        bench.drained().await;
        assert!(started.is_empty(), "a fourth job runs");
        open.add_permits(1);
        started.recv().await.unwrap();
        assert!(started.is_empty(), "one place became free, and two jobs took it");
        open.add_permits(5);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn no_more_messages_are_held_than_can_be_worked_off_before_the_broker_loses_its_patience() {
    bench(&[100], async |bench| {
        let worker = bench.worker().prefetch(100).concurrency(1).job_timeout(Duration::from_secs(5 * 60));
        let worker = Running::start(worker.register(|_: Count, _: Delivery| async { Outcome::Done })).await;
        assert_eq!(bench.management.consumers(&bench.name, 1).await[0]["prefetch_count"], 3);
        worker.stop().await;
    })
    .await;
}
