//! Operations on parked jobs: list, replay and discard.

mod parked_job;
mod replay;
mod rescue;
mod taking;
#[cfg(all(test, feature = "testing"))]
mod tests;

pub use parked_job::{ParkedJob, ParkingError, Selection, Verdict};
pub(crate) use rescue::rescue;

use crate::{Broker, Publisher, Topology};
use replay::Replay;
use std::time::Duration;
use taking::Taking;

/// The parking queue of a topology.
///
/// Every operation has its own connection and looks at the messages that are there when it begins, oldest first. It holds
/// them meanwhile: a concurrent operation does not see them, and so waits up to 5 seconds for it to end. What it leaves returns
/// to its place. It ends when it holds 65,535 messages that stay, AMQP's limit.
///
/// `Ok` means that the operation has looked at all of these messages, or as far as its [`Selection`] asked. While another
/// consumer holds some, or counted messages do not arrive within 5 seconds, it is
/// [`Interrupted`](ParkingError::Interrupted): what is held is unknown, and not an empty queue.
///
/// ```no_run
/// # use queues::{Broker, Parking, Selection, Topology};
/// # use std::time::Duration;
/// # async fn operate(broker: Broker, topology: Topology) -> Result<(), queues::ParkingError> {
/// let parking = Parking::new(&broker, topology);
/// for job in parking.list(&Selection::all().at_most(20)).await? {
///     println!("{} {}: {}", job.id, job.kind, job.reason.unwrap_or_default());
/// }
/// let back = Selection::all().kind("send_receipt").reason_contains("no printer");
/// parking.replay(&back, Duration::from_millis(100)).await?;
/// parking.discard(&Selection::id("receipt-4711"), "the order was cancelled").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Parking {
    broker: Broker,
    topology: Topology,
    /// For how long a judge's jobs are held.
    round: Duration,
}

impl Parking {
    /// Opens nothing yet.
    #[must_use]
    pub fn new(broker: &Broker, topology: Topology) -> Self {
        Self { broker: broker.clone(), topology, round: replay::ROUND }
    }

    /// Looks at parked jobs; they stay.
    ///
    /// # Errors
    /// [`ParkingError::Broker`], [`ParkingError::NoQueue`] and [`ParkingError::Interrupted`]; nothing is changed by a failure.
    pub async fn list(&self, selection: &Selection) -> Result<Vec<ParkedJob>, ParkingError> {
        match self.list_once(selection).await {
            Err(Failure { unreadable: true, .. }) if Box::pin(self.repair()).await > 0 => {
                self.list_once(selection).await
            }
            listed => listed,
        }
        .map_err(|failure| failure.error)
    }

    async fn list_once(&self, selection: &Selection) -> Result<Vec<ParkedJob>, Failure> {
        let mut taking = Taking::open(&self.broker, &self.topology, selection.reach()).await?;
        let mut jobs = Vec::new();
        let ended = async {
            while jobs.len() < selection.limit() {
                let Some(message) = taking.next().await? else { break };
                let job = ParkedJob::read(&message.properties, message.data);
                if selection.matches(&job) {
                    jobs.push(job);
                }
            }
            Ok(jobs.len() >= selection.limit())
        }
        .await;
        taking.end(ended).await?;
        Ok(jobs)
    }

    /// Replaces parked messages that lapin cannot read, which end the connection of every operation, by readable copies;
    /// answers how many there were.
    async fn repair(&self) -> u32 {
        let publisher = Publisher::start(&self.broker);
        let queue = self.topology.parked_queue();
        let repaired = rescue(&self.broker, &publisher, (&queue, &queue), u32::MAX, false).await;
        publisher.close().await;
        repaired.unwrap_or_default()
    }

    /// Looks at one parked job; it stays. `None` when no parked job has this id.
    ///
    /// # Errors
    /// As from [`list`](Self::list).
    pub async fn show(&self, id: &str) -> Result<Option<ParkedJob>, ParkingError> {
        Ok(self.list(&Selection::id(id).at_most(1)).await?.pop())
    }

    /// Sends jobs back to the work queue, one every `interval` (zero: as fast as the broker confirms), and returns their
    /// ids, oldest first. A replayed job has all its retries again, and its handler sees why it was parked.
    ///
    /// A job leaves the parking queue only when its copy in the work queue is confirmed: a crash leaves some jobs in both,
    /// and none in neither. Dropping the future stops between two jobs.
    ///
    /// # Errors
    /// [`ParkingError::Interrupted`] lists the replayed jobs; after [`ParkingError::Broker`] and [`ParkingError::NoQueue`] there are
    /// none.
    pub async fn replay(&self, selection: &Selection, interval: Duration) -> Result<Vec<String>, ParkingError> {
        self.judge(selection, interval, async |_| Verdict::Replay).await
    }

    /// Shows each selected job to `judge`, oldest first, and applies its verdict; returns the ids of those that left the
    /// parking queue. After one that leaves, the next is shown `interval` later; after one that stays, at once. The job is
    /// held while `judge` runs, so what it writes elsewhere is written before the job goes.
    ///
    /// A call asks about each job once, however long it takes. (Every ten minutes it briefly gives back what it holds,
    /// because the broker closes a channel that holds a message for 30 minutes: one verdict must not take longer than 15.)
    /// After an interruption, the next call may ask again about the last jobs.
    ///
    /// # Errors
    /// [`ParkingError::Interrupted`] lists the jobs that left; after [`ParkingError::Broker`] and [`ParkingError::NoQueue`] there are
    /// none.
    pub async fn judge(
        &self,
        selection: &Selection,
        interval: Duration,
        judge: impl AsyncFnMut(&ParkedJob) -> Verdict,
    ) -> Result<Vec<String>, ParkingError> {
        let publisher = Publisher::start(&self.broker);
        let mut replay = Replay::new(&publisher, &self.topology, selection, interval, self.round, judge);
        let ended = replay.run(&self.broker).await;
        let done = replay.into_done();
        publisher.close().await;
        let Err(Failure { error, unreadable }) = ended else { return Ok(done) };
        let repaired = if unreadable { Box::pin(self.repair()).await } else { 0 };
        match error {
            _ if repaired > 0 => {
                Err(interrupted(done, format!("{repaired} unreadable messages were replaced by readable copies")))
            }
            ParkingError::Interrupted { reason, .. } => Err(interrupted(done, reason)),
            error if done.is_empty() => Err(error),
            error => Err(interrupted(done, error.to_string())),
        }
    }

    /// Deletes jobs and returns them with their payloads. Each is logged at level WARN, without its payload, with `reason`:
    /// say who decided it, and why.
    ///
    /// # Errors
    /// [`ParkingError::NoReason`]; [`ParkingError::Interrupted`] lists the discarded jobs; after [`ParkingError::Broker`] and
    /// [`ParkingError::NoQueue`] there are none.
    pub async fn discard(&self, selection: &Selection, reason: &str) -> Result<Vec<ParkedJob>, ParkingError> {
        if reason.trim().is_empty() {
            return Err(ParkingError::NoReason);
        }
        let mut discarded = Vec::new();
        let discard = async |job: &ParkedJob| {
            discarded.push(job.clone());
            Verdict::Discard { reason: reason.to_owned() }
        };
        self.judge(selection, Duration::ZERO, discard).await?;
        Ok(discarded)
    }
}

/// Why an operation has ended early, and whether it was for a message that lapin cannot read.
struct Failure {
    error: ParkingError,
    unreadable: bool,
}

impl<E: Into<ParkingError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), unreadable: false }
    }
}

fn interrupted(done: Vec<String>, reason: String) -> ParkingError {
    ParkingError::Interrupted { done, reason }
}
