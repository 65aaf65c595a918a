//! How handlers are registered and run, and what happens when they misbehave.

use crate::support::{Count, Running, bench, eventually, publish};
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
    async fn handle(&self, job: Count, _: Delivery) -> Outcome {
        self.heard.send(job.number.to_string()).unwrap();
        Outcome::Done
    }
}

impl Handler<Note> for Clerk {
    async fn handle(&self, job: Note, _: Delivery) -> Outcome {
        self.heard.send(job.0).unwrap();
        Outcome::Done
    }
}

#[tokio::test]
async fn a_panic_counts_as_a_failure_and_its_text_is_kept() {
    bench(&[200, 60_000], async |bench| {
        let handler = |_: Count, delivery: Delivery| async move { panic!("panic number {}", delivery.attempt) };
        let worker = Running::start(bench.worker().register(handler)).await;
        publish(&bench, bench.job(1)).await;
        let queue = bench.topology.retry_queue(Duration::from_secs(60));
        eventually("the second retry", async || (bench.ready(&queue).await == 1).then_some(())).await;
        worker.stop().await;
        let copy = &bench.management.get_messages(&queue, 1).await[0];
        assert_eq!(copy["properties"]["headers"]["last-error"], "panicked: panic number 2");
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
        assert!(matches!(error, WorkerError::DuplicateKind { kind: "count" }), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn no_more_jobs_run_at_a_time_than_allowed() {
    bench(&[100], async |bench| {
        let (starts, mut started) = mpsc::unbounded_channel();
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let open = Arc::clone(&gate);
        let handler = move |job: Count, _: Delivery| {
            let (gate, starts) = (Arc::clone(&gate), starts.clone());
            async move {
                let _ = starts.send(job.number);
                gate.acquire().await.unwrap().forget();
                Outcome::Done
            }
        };
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
