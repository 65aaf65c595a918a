//! Jobs that are published until each is confirmed, and a worker that counts: of ten jobs one fails once and is
//! retried, of a hundred one is parked.

use super::{Job, PATIENCE, Place};
use queues::{ConnectionState, Delivery, Outcome, Publisher, WorkerError};
use std::{collections::BTreeSet, future::Future, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How many there are at least.
pub(crate) const JOBS: u32 = 10_000;

/// What becomes of a job, which its number says.
pub(crate) fn outcome_of(number: u32, attempt: u32) -> Outcome {
    match number % 100 {
        7 => Outcome::Park { reason: "for a person".to_owned() },
        last_two if last_two % 10 == 1 && attempt == 1 => Outcome::Retry { reason: "once".to_owned() },
        _ => Outcome::Done,
    }
}

/// A worker under load, and what it has handled to an end.
pub(crate) struct Load {
    pub(crate) state: watch::Receiver<ConnectionState>,
    handled: mpsc::UnboundedReceiver<u32>,
    seen: BTreeSet<u32>,
    stop: oneshot::Sender<()>,
    worker: JoinHandle<Result<(), WorkerError>>,
}

impl Load {
    /// Starts the worker and waits until it consumes.
    pub(crate) async fn start(place: &Place) -> Self {
        let (tell, handled) = mpsc::unbounded_channel();
        let worker = place.worker().register(move |job: Job, delivery: Delivery| {
            let outcome = outcome_of(job.number, delivery.attempt);
            if !matches!(outcome, Outcome::Retry { .. }) {
                let _ = tell.send(job.number);
            }
            std::future::ready(outcome)
        });
        let mut state = worker.state();
        let (stop, stopped) = oneshot::channel();
        let worker = tokio::spawn(worker.run(async { stopped.await.unwrap_or_default() }));
        timeout(PATIENCE, state.wait_for(ConnectionState::is_connected)).await.expect("no connection").unwrap();
        Self { state, handled, seen: BTreeSet::new(), stop, worker }
    }

    /// Waits until each of these jobs has been handled; others may come in between.
    pub(crate) async fn handled_all_of(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let mut open: BTreeSet<u32> = numbers.into_iter().filter(|number| !self.seen.contains(number)).collect();
        while !open.is_empty() {
            let number = timeout(PATIENCE, self.handled.recv()).await;
            let number = number.unwrap_or_else(|_| panic!("{} jobs were not handled", open.len()));
            let number = number.expect("the worker ended");
            open.remove(&number);
            self.seen.insert(number);
        }
    }

    /// Stops the worker; the numbers of the jobs that it has handled.
    pub(crate) async fn stop(mut self) -> BTreeSet<u32> {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.worker).await.expect("the worker did not stop").unwrap().unwrap();
        while let Ok(number) = self.handled.try_recv() {
            self.seen.insert(number);
        }
        self.seen
    }
}

/// Publishes until every job is confirmed, whatever breaks on the way: as a program that keeps its jobs in a database would.
pub(crate) async fn publish_until_confirmed(place: &Place, numbers: impl IntoIterator<Item = u32>) {
    let publisher = Publisher::start(&place.broker);
    publish_all(&publisher, place, numbers).await;
    publisher.close().await;
}

async fn publish_all(publisher: &Publisher, place: &Place, numbers: impl IntoIterator<Item = u32>) {
    let mut open: Vec<u32> = numbers.into_iter().collect();
    let mut last_error = None;
    let publishing = async {
        while !open.is_empty() {
            let results = publisher.publish_all(open.iter().map(|number| place.job(*number)).collect()).await;
            let failed = open.iter().zip(&results).filter(|(_, result)| result.is_err()).map(|(number, _)| *number);
            open = failed.collect();
            last_error = results.into_iter().find_map(Result::err).or(last_error.take());
        }
    };
    let published = timeout(PATIENCE, publishing).await;
    published.unwrap_or_else(|_| panic!("jobs were not confirmed; the last error was {last_error:?}"));
}

/// What every test ends with. While `breaking` breaks something (it is told how many jobs are confirmed) jobs are published,
/// 5000 a second as far as that works, and [`JOBS`] at least; then it sees that each was handled, that those to be parked
/// are parked, and that nothing else is left.
pub(crate) async fn handled_everything<F: Future<Output = ()>>(
    place: &Place,
    breaking: impl FnOnce(watch::Receiver<u32>) -> F,
) {
    let mut load = Load::start(place).await;
    let (tell, confirmed) = watch::channel(0);
    let broken = CancellationToken::new();
    let publishing = async {
        let publisher = Publisher::start(&place.broker);
        let mut pace = interval(Duration::from_millis(50));
        let mut count = 0;
        while count < JOBS || !broken.is_cancelled() {
            pace.tick().await;
            publish_all(&publisher, place, count..count + 250).await;
            count += 250;
            tell.send_replace(count);
        }
        publisher.close().await;
        count
    };
    let (count, ()) = tokio::join!(publishing, async {
        breaking(confirmed).await;
        broken.cancel();
    });
    load.handled_all_of(0..count).await;
    // Duplicates and copies that are still on their way are handled before the worker is stopped.
    place.drained().await;
    load.stop().await;
    place.drained().await;
    let parked: BTreeSet<u32> = place.parked().await.iter().map(|job| job.id.parse().unwrap()).collect();
    let expected = (0..count).filter(|number| matches!(outcome_of(*number, 1), Outcome::Park { .. })).collect();
    assert_eq!(parked, expected, "the parking queue");
}
