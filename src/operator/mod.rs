//! What operators do about rows that were given up and about parked messages, with both the database and the broker in
//! view. Called by the command line.
//!
//! Everywhere the ledger comes first: the guarded transition with operator and reason in its history, and the new job in
//! the outbox, are one transaction; only then does the parked message go. Dying in between leaves a parked message whose
//! row has moved on. It does no harm: the list calls it by its row's status, a second run takes it away, and a worker
//! that gets it finds nothing to do. It never calls Stripe; the worker looks there before it calls again.

pub mod limits;
mod parked;
mod sorting;
mod subject;

use queues::{Broker, Parking, ParkingError, Selection, Topology, Verdict};
use uuid::Uuid;

use crate::ledger::{CallKind, Ledger, LedgerError, Note};

pub use parked::{Filter, Parked};
pub use sorting::{Handled, ParkedAction, Sorted};
pub use subject::{JobTarget, RowState};

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

/// The operators' hands.
#[derive(Clone, Debug)]
pub struct Operator {
    ledger: Ledger,
    broker: Broker,
    topologies: Vec<Topology>,
}

/// What became of the parked messages of a row that is tried again.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// How many were taken away.
    pub removed: usize,
    /// Why some may still be there. They do no harm.
    pub problem: Option<ParkingError>,
}

impl Operator {
    /// For this ledger, and the parking queues of these topologies.
    #[must_use]
    pub fn new(ledger: Ledger, broker: Broker, topologies: Vec<Topology>) -> Self {
        Self { ledger, broker, topologies }
    }

    /// [`Ledger::replay`], and takes the parked message away, whose place the new job takes.
    ///
    /// # Errors
    /// As [`Ledger::replay`]. A broker that can't be reached is none: see [`Leftovers`].
    pub async fn replay(&self, kind: CallKind, id: &str, note: &Note) -> Result<(Uuid, Leftovers), LedgerError> {
        let stale = match id.parse() {
            Ok(id) => self.messages_about(JobTarget { kind, id }).await,
            Err(_) => Ok(Vec::new()),
        };
        let id = self.ledger.replay(kind, id, note).await?;
        Ok((id, self.take_away(stale).await))
    }

    /// The parked messages about a row, as they are before its new job is made: that one may be parked anew at any time,
    /// under an id of its own, and must stay.
    async fn messages_about(&self, subject: JobTarget) -> Result<Vec<(&Topology, String)>, ParkingError> {
        let mut found = Vec::new();
        for topology in &self.topologies {
            let parked = match self.parking(topology).list(&Selection::all()).await {
                Err(ParkingError::NoQueue { .. }) => continue,
                parked => parked?,
            };
            let about_it = parked.into_iter().filter(|job| JobTarget::of(job) == Some(subject));
            found.extend(about_it.map(|job| (topology, job.id)));
        }
        Ok(found)
    }

    async fn take_away(&self, stale: Result<Vec<(&Topology, String)>, ParkingError>) -> Leftovers {
        let mut left = Leftovers::default();
        let stale = match stale {
            Ok(stale) => stale,
            Err(problem) => return Leftovers { problem: Some(problem), ..left },
        };
        for (topology, id) in stale {
            let reason = "its row is tried again with a new job";
            let judge = async |_: &_| Verdict::Discard { reason: reason.to_owned() };
            match self.parking(topology).judge(&Selection::id(id), std::time::Duration::ZERO, judge).await {
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
