//! What operators do about failed rows and their parked messages: the ledger first, in one transaction with history and new
//! job, then the message. One that is left behind does no harm: it is dropped when an operator next acts on parked messages.

pub mod doctor;
pub mod limits;
mod operations;
mod parked;
mod part;
mod sorting;
mod subject;
mod superseded;
pub mod survey;
mod watched;

use std::collections::HashSet;

use queues::{Broker, ParkedJob, Parking, ParkingError, Selection, Topology, Verdict};
use uuid::Uuid;

use crate::ledger::{CallKind, Ledger, LedgerError, Note};

pub use operations::work_on_operations;
pub use parked::{Filter, Parked};
pub use part::{Part, amount};
pub use sorting::{Handled, ParkedAction, Sorted};
pub use subject::{JobTarget, RowState};
pub use survey::Surveys;
pub use watched::{Seen, Watched};

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The ledger refused, or was not there.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The parking queue could not be worked on.
    #[error(transparent)]
    Parking(#[from] ParkingError),
}

/// Does what operators decide: in the ledger first, then with the parked messages.
#[derive(Clone, Debug)]
pub struct Operator {
    ledger: Ledger,
    broker: Broker,
    topologies: Vec<Topology>,
}

/// A parked message about a row: where it is, the row, and the message's id.
type Stale<'a> = (&'a Topology, JobTarget, String);

/// What became of the parked messages of a row that is replayed or closed.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// How many were taken away.
    pub removed: usize,
    /// Why some may still be there. They do no harm.
    pub problem: Option<ParkingError>,
}

/// What became of many rows that were to be replayed.
#[derive(Debug, Default)]
pub struct ReplayedRows {
    /// Clawback's ids.
    pub replayed: Vec<Uuid>,
    /// Clawback's ids, each with the reason.
    pub skipped: Vec<(Uuid, String)>,
    /// What became of their parked messages.
    pub leftovers: Leftovers,
}

impl Operator {
    /// For this ledger, and the parking queues of these topologies.
    #[must_use]
    pub fn new(ledger: Ledger, broker: Broker, topologies: Vec<Topology>) -> Self {
        Self { ledger, broker, topologies }
    }

    /// The ledger that it works on.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// [`Ledger::replay`], or with an amount [`Ledger::replay_part`], and takes the parked message away, whose place the new
    /// job takes.
    ///
    /// # Errors
    /// As [`Ledger::replay_part`]. A broker that can't be reached is none: see [`Leftovers`].
    pub async fn replay(
        &self,
        kind: CallKind,
        id: &str,
        amount: Option<i64>,
        note: &Note,
    ) -> Result<(Uuid, Leftovers), LedgerError> {
        let stale = self.messages_about(&target(kind, id)).await;
        let id = match amount {
            Some(amount) => self.ledger.replay_part(id, amount, note).await?,
            None => self.ledger.replay(kind, id, note).await?,
        };
        Ok((id, self.take_away(stale, "its row is replayed with a new job").await))
    }

    /// [`Ledger::close_reversal`], and takes the parked message away.
    ///
    /// # Errors
    /// As [`Ledger::close_reversal`]. A broker that can't be reached is none: see [`Leftovers`].
    pub async fn close_reversal(&self, id: &str, note: &Note) -> Result<(Uuid, Leftovers), LedgerError> {
        let stale = self.messages_about(&target(CallKind::Reverse, id)).await;
        let id = self.ledger.close_reversal(id, note).await?;
        Ok((id, self.take_away(stale, "its row is closed").await))
    }

    /// [`Self::replay`] for many rows of one kind. One that is refused stops no other.
    ///
    /// # Errors
    /// [`LedgerError::Database`]: those before were replayed, and it can be run again.
    pub async fn replay_all(&self, kind: CallKind, ids: &[Uuid], note: &Note) -> Result<ReplayedRows, LedgerError> {
        let targets: HashSet<JobTarget> = ids.iter().map(|id| JobTarget { kind, id: *id }).collect();
        let mut stale = self.messages_about(&targets).await;
        let mut rows = ReplayedRows::default();
        for id in ids {
            match self.ledger.replay(kind, &id.to_string(), note).await {
                Ok(id) => rows.replayed.push(id),
                Err(error @ LedgerError::Database(_)) => return Err(error),
                Err(error) => rows.skipped.push((*id, error.to_string())),
            }
        }
        if let Ok(stale) = &mut stale {
            stale.retain(|(_, target, _)| rows.replayed.contains(&target.id));
        }
        rows.leftovers = self.take_away(stale, "its row is replayed with a new job").await;
        Ok(rows)
    }

    /// The parked messages about these rows, as they are before new jobs are made: those may be parked anew at any time,
    /// under ids of their own, and must stay.
    async fn messages_about(&self, targets: &HashSet<JobTarget>) -> Result<Vec<Stale<'_>>, ParkingError> {
        let mut found = Vec::new();
        for topology in self.topologies.iter().filter(|_| !targets.is_empty()) {
            let parked = match self.parking(topology).list(&Selection::all()).await {
                Err(ParkingError::NoQueue { .. }) => continue,
                parked => parked?,
            };
            let about = |job: ParkedJob| {
                let target = JobTarget::of(&job).filter(|target| targets.contains(target))?;
                Some((topology, target, job.id))
            };
            found.extend(parked.into_iter().filter_map(about));
        }
        Ok(found)
    }

    async fn take_away(&self, stale: Result<Vec<Stale<'_>>, ParkingError>, reason: &str) -> Leftovers {
        let mut left = Leftovers::default();
        let stale = match stale {
            Ok(stale) => stale,
            Err(problem) => return Leftovers { problem: Some(problem), ..left },
        };
        for topology in &self.topologies {
            let is_here = |(its, _, _): &&Stale<'_>| its.queue() == topology.queue();
            let ids: HashSet<&str> = stale.iter().filter(is_here).map(|(_, _, id)| id.as_str()).collect();
            let selection = match ids.len() {
                0 => continue,
                1 => Selection::id(ids.iter().copied().collect::<String>()),
                _ => Selection::all(),
            };
            let judge = async |job: &ParkedJob| match ids.contains(job.id.as_str()) {
                true => Verdict::Discard { reason: reason.to_owned() },
                false => Verdict::Keep,
            };
            match self.parking(topology).judge(&selection, std::time::Duration::ZERO, judge).await {
                Ok(gone) => left.removed += gone.len(),
                Err(problem) => left.problem = Some(problem),
            }
        }
        left
    }

    fn parking(&self, topology: &Topology) -> Parking {
        Parking::new(&self.broker, topology.clone())
    }
}

/// The row, if `id` is Clawback's. What has failed has none of Stripe's.
fn target(kind: CallKind, id: &str) -> HashSet<JobTarget> {
    id.parse().ok().map(|id| JobTarget { kind, id }).into_iter().collect()
}
