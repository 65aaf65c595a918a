//! What operators do with parked jobs: look at them, send them back to work, or throw them away. Called by users'
//! command lines and APIs. It never runs a handler, and never decides by itself.

mod error;
mod parked_job;
mod replay;
mod selection;
mod taking;
#[cfg(all(test, feature = "testing"))]
mod tests;
mod verdict;

pub use {error::ParkingError, parked_job::ParkedJob, selection::Selection, verdict::Verdict};

use crate::{Broker, Publisher, Topology, acknowledge::Acknowledgement};
use replay::Replay;
use std::time::Duration;
use taking::Taking;
use tracing::warn;

/// The parking queue of a topology.
///
/// Every operation has a connection of its own, and looks at the messages that are there when it begins, oldest first.
/// While it looks it holds them: another operation at the same time does not see those. What it leaves goes back to its
/// place. It ends when it holds 65,535 messages that stay, which is as many as AMQP lets it hold.
///
/// An operation that says `Ok` has looked at all of these messages, or as far as its [`Selection`] asked. When the broker
/// has counted messages that do not come within 5 seconds, because somebody else holds them, it is
/// [`Interrupted`](ParkingError::Interrupted).
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
    /// [`ParkingError`]; nothing is changed by a failure.
    pub async fn list(&self, selection: &Selection) -> Result<Vec<ParkedJob>, ParkingError> {
        let mut taking = Taking::open(&self.broker, &self.topology, selection.reach()).await?;
        let mut jobs = Vec::new();
        let ended = async {
            while jobs.len() < selection.limit() {
                let Some(message) = taking.next().await? else { break };
                let job = ParkedJob::new(&message.properties, message.data);
                if selection.matches(&job) {
                    jobs.push(job);
                }
            }
            Ok(())
        }
        .await;
        let closed = taking.close().await;
        ended.and(closed).map_err(|reason| interrupted(Vec::new(), reason))?;
        Ok(jobs)
    }

    /// Looks at one parked job; it stays. `None` when no parked job has this id.
    ///
    /// # Errors
    /// As from [`list`](Self::list).
    pub async fn show(&self, id: &str) -> Result<Option<ParkedJob>, ParkingError> {
        Ok(self.list(&Selection::id(id).at_most(1)).await?.pop())
    }

    /// Sends jobs back to the work queue, one every `interval` (zero: as fast as the broker confirms), and answers their
    /// ids, oldest first. A replayed job has all its retries again, and its handler sees why it had been parked.
    ///
    /// A job leaves the parking queue only when the broker has confirmed its copy in the work queue: a crash on the way
    /// leaves some jobs in both, and none in neither. Dropping the future stops between two jobs, in the same way.
    ///
    /// # Errors
    /// [`ParkingError::Interrupted`] tells which jobs had been replayed.
    pub async fn replay(&self, selection: &Selection, interval: Duration) -> Result<Vec<String>, ParkingError> {
        self.judge(selection, interval, async |_| Verdict::Replay).await
    }

    /// Shows each selected job to `judge`, oldest first, and does as it says; answers the ids of those that left the parking
    /// queue. After one that leaves, the next is shown `interval` later; after one that stays, at once. The job is held
    /// while `judge` runs, one at a time, so that what it writes elsewhere comes before the job goes.
    ///
    /// A call asks about each job once, however long it takes, and however many stay. (Every ten minutes it gives back for a
    /// moment what it holds, because the broker closes the channel of whoever holds a message for 30 minutes: so one
    /// verdict must not take longer than 15.) A job that was to leave when a call was interrupted may still be parked: then
    /// the next call asks again.
    ///
    /// # Errors
    /// [`ParkingError::Interrupted`] tells which jobs had left.
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
        match ended {
            Ok(()) => Ok(done),
            Err(ParkingError::Interrupted { reason, .. }) => Err(interrupted(done, reason)),
            Err(error) if done.is_empty() => Err(error),
            Err(error) => Err(interrupted(done, error.to_string())),
        }
    }

    /// Throws jobs away for good, and answers them with their payloads. Each is logged, at level WARN and without its
    /// payload, with `reason`: say who decided it, and why.
    ///
    /// # Errors
    /// [`ParkingError::NoReason`]; [`ParkingError::Interrupted`] tells which jobs had been discarded.
    pub async fn discard(&self, selection: &Selection, reason: &str) -> Result<Vec<ParkedJob>, ParkingError> {
        if reason.trim().is_empty() {
            return Err(ParkingError::NoReason);
        }
        let mut taking = Taking::open(&self.broker, &self.topology, selection.reach()).await?;
        let mut discarded: Vec<ParkedJob> = Vec::new();
        let ended = async {
            while discarded.len() < selection.limit() {
                let Some(message) = taking.next().await? else { break };
                let job = ParkedJob::new(&message.properties, message.data);
                if selection.matches(&job) {
                    // Before it is gone, so that no job can go without a word.
                    warn!(id = job.id, kind = job.kind, parked_reason = job.reason, reason, "discarding a parked job");
                    let acked = Acknowledgement::new(message.acker).ack().await;
                    acked.map_err(|_| "the connection was lost".to_owned())?;
                    taking.gone();
                    discarded.push(job);
                }
            }
            Ok::<(), String>(())
        }
        .await;
        let closed = taking.close().await;
        match ended.and(closed) {
            Ok(()) => Ok(discarded),
            Err(reason) => Err(interrupted(discarded.into_iter().map(|job| job.id).collect(), reason)),
        }
    }
}

fn interrupted(done: Vec<String>, reason: String) -> ParkingError {
    ParkingError::Interrupted { done, reason }
}
