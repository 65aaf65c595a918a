//! Typed errors, middleware and batch handlers.

use crate::support::{Count, Running, bench, gated, publish};
use queues::{Attempt, Delivery, Handler, HandlerService, Outcome, Publisher, WorkerError};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::mpsc;
use tower::{BoxError, Layer, ServiceExt, layer::layer_fn, limit::GlobalConcurrencyLimitLayer, timeout::TimeoutLayer};

enum PrintError {
    NoPaper,
    NoOrder(u32),
}

impl From<PrintError> for Outcome {
    fn from(error: PrintError) -> Self {
        match error {
            PrintError::NoPaper => Self::retry("no paper"),
            PrintError::NoOrder(order) => Self::park(format!("no order {order}")),
        }
    }
}

/// A type may return a `Result`, too.
struct Printer;

impl Handler<Count> for Printer {
    type Output = Result<(), PrintError>;

    async fn handle(&self, job: Count, delivery: Delivery) -> Result<(), PrintError> {
        match (job.number, delivery.attempt) {
            (1, 1) => Err(PrintError::NoPaper),
            (1, _) => Err(PrintError::NoOrder(delivery.attempt)),
            (number, _) => Err(PrintError::NoOrder(number)).or(Ok(())),
        }
    }
}

#[tokio::test]
async fn an_error_says_itself_what_becomes_of_the_job() {
    bench(&[100], async |bench| {
        let worker = Running::start(bench.worker().register(Printer)).await;
        publish(&bench, bench.job(0)).await;
        publish(&bench, bench.job(1)).await;
        let parked = bench.parked(1).await;
        bench.drained().await;
        worker.stop().await;
        // The first error was a retry; the number is the attempt's.
        assert_eq!(parked[0]["properties"]["headers"]["parked-reason"], "no order 2");
    })
    .await;
}

#[tokio::test]
async fn layers_surround_the_handlers_that_were_registered_before_them_the_last_outermost() {
    bench(&[100], async |bench| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noting = |name: &'static str| {
            let seen = Arc::clone(&seen);
            layer_fn(move |inner: HandlerService| {
                let seen = Arc::clone(&seen);
                inner.map_request(move |attempt: Attempt| {
                    let body = String::from_utf8(attempt.payload.clone()).unwrap();
                    seen.lock().unwrap().push(format!("{name} {} {body}", attempt.delivery.kind));
                    attempt
                })
            })
        };
        let handler = |_: Count, delivery: Delivery| async move {
            match delivery.attempt {
                // Only the middleware ends it.
                1 => std::future::pending().await,
                _ => Outcome::park("the second attempt"),
            }
        };
        let worker = bench.worker().register(handler).layer(noting("inner")).layer(noting("outer"));
        let worker = Running::start(worker.layer(TimeoutLayer::new(Duration::from_millis(50)))).await;
        publish(&bench, bench.job(7)).await;
        let parked = bench.parked(1).await;
        worker.stop().await;
        let attempt = ["outer count {\"number\":7}", "inner count {\"number\":7}"];
        assert_eq!(*seen.lock().unwrap(), [attempt, attempt].concat());
        assert_eq!(parked[0]["properties"]["headers"]["attempt"], 2);
        assert_eq!(parked[0]["properties"]["headers"]["parked-reason"], "the second attempt");
    })
    .await;
}

#[tokio::test]
async fn a_layer_of_ones_own_is_tested_without_a_worker() {
    let silent = tower::service_fn(|_: Attempt| std::future::pending::<Result<Outcome, BoxError>>());
    let attempt = Attempt::new(Delivery::new("job-1", "count"), b"7".to_vec());
    let layered = TimeoutLayer::new(Duration::from_millis(1)).layer(silent);
    assert!(layered.oneshot(attempt).await.unwrap_err().is::<tower::timeout::error::Elapsed>());
}

#[tokio::test]
async fn a_concurrency_limit_lets_only_so_many_attempts_through() {
    bench(&[100], async |bench| {
        let (handler, mut started, open) = gated();
        let worker = bench.worker().register(handler).layer(GlobalConcurrencyLimitLayer::new(2));
        let control = worker.control();
        let worker = Running::start(worker).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..4)).await {
            result.unwrap();
        }
        for _ in 0..2 {
            started.recv().await.unwrap();
        }
        crate::support::eventually("four jobs with the worker", async || (control.health().running == 4).then_some(()))
            .await;
        assert!(started.is_empty(), "a third attempt came through");
        open.add_permits(4);
        worker.stop().await;
        assert_eq!(started.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_batch_handler_gets_many_jobs_at_once_and_each_is_settled_by_its_own_outcome() {
    bench(&[100], async |bench| {
        let (tell, mut told) = mpsc::unbounded_channel();
        let handler = move |jobs: Vec<(Count, Delivery)>| {
            let numbers: Vec<u32> = jobs.iter().map(|(job, _)| job.number).collect();
            let _ = tell.send(numbers.clone());
            async move {
                let print = |number: &u32| if *number > 1 { Err(PrintError::NoOrder(*number)) } else { Ok(()) };
                numbers.iter().map(print).collect::<Vec<_>>()
            }
        };
        let worker = bench.worker().register_batch(4, Duration::from_millis(300), handler);
        let worker = Running::start(worker).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..6)).await {
            result.unwrap();
        }
        // A full one, and what was there when the time was over.
        let (first, second) = (told.recv().await.unwrap(), told.recv().await.unwrap());
        assert_eq!((first.len(), second.len()), (4, 2), "{first:?} {second:?}");
        let parked = bench.parked(4).await;
        worker.stop().await;
        for job in &parked {
            let count: Count = serde_json::from_str(job["payload"].as_str().unwrap()).unwrap();
            assert_eq!(job["properties"]["headers"]["parked-reason"], format!("no order {}", count.number));
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_panics_or_answers_too_little_is_retried_whole() {
    bench(&[100], async |bench| {
        let handler = |jobs: Vec<(Count, Delivery)>| async move {
            match jobs[0].1.attempt {
                1 => panic!("a bad batch"),
                2 => vec![Outcome::Done],
                _ => jobs.iter().map(|(job, _)| Outcome::park(job.number)).collect(),
            }
        };
        let worker = bench.worker().register_batch(2, Duration::from_secs(20), handler);
        let worker = Running::start(worker).await;
        for result in Publisher::start(&bench.broker).publish_all(bench.jobs(0..2)).await {
            result.unwrap();
        }
        let parked = bench.parked(2).await;
        worker.stop().await;
        for (number, job) in parked.iter().enumerate() {
            let headers = &job["properties"]["headers"];
            assert_eq!(headers["attempt"], 3, "{number}: {headers}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_batch_that_could_never_become_full_is_refused() {
    bench(&[100], async |bench| {
        let handler = |jobs: Vec<(Count, Delivery)>| async move { vec![Outcome::Done; jobs.len()] };
        let worker = bench.worker().concurrency(5).register_batch(6, Duration::from_secs(1), handler);
        let error = worker.run(std::future::pending()).await.unwrap_err();
        assert!(matches!(error, WorkerError::BatchTooLarge { kind: "count", size: 6, at_once: 5, .. }), "{error:?}");
    })
    .await;
}
