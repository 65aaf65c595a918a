//! The parked messages of every queue, each beside the row that it is about.

use std::collections::HashMap;

use queues::{ParkedJob, ParkingError, Selection};
use uuid::Uuid;

use super::superseded::{self, sorted_out};
use super::{JobTarget, Operator, OperatorError, RowState};
use crate::ledger::{Call, LedgerError};

/// Superseded messages that a look with a limit passes by.
const LOOKED_PAST: usize = 1_000;

/// Which parked messages are meant: those that match every condition given.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The message's id, or Clawback's id of the row that it is about.
    pub id: Option<String>,
    /// The kind of job.
    pub kind: Option<String>,
    /// A part of the reason for which it was parked, in this spelling.
    pub reason_contains: Option<String>,
    /// The oldest so many.
    pub limit: Option<usize>,
}

/// A parked message, and the row that it is about.
#[derive(Clone, Debug)]
pub struct Parked {
    /// The parking queue that it is in.
    pub queue: String,
    /// The message.
    pub job: ParkedJob,
    /// The row that it is about.
    pub subject: Option<JobTarget>,
    /// That row's status.
    pub status: Option<String>,
    /// What that status means for the message.
    pub standing: RowState,
}

impl Operator {
    /// The parked messages that `filter` selects and that still say something, oldest first in each queue. A look changes
    /// nothing. A queue that is not declared has none, as long as one is.
    pub async fn parked(&self, filter: &Filter) -> Result<Vec<Parked>, OperatorError> {
        let (_, mut left) = sorted_out(self.found(filter).await?);
        left.truncate(filter.limit.unwrap_or(usize::MAX));
        Ok(left)
    }

    /// Each with whether it is superseded; up to [`LOOKED_PAST`] more than `filter` wants.
    pub(super) async fn found(&self, filter: &Filter) -> Result<Vec<(Parked, bool)>, OperatorError> {
        let mut selection = Selection::all();
        if let Some(kind) = &filter.kind {
            selection = selection.kind(kind);
        }
        if let Some(text) = &filter.reason_contains {
            selection = selection.reason_contains(text);
        }
        let limit = filter.limit.map_or(usize::MAX, |limit| limit.saturating_add(LOOKED_PAST));
        let (mut found, mut missing) = (Vec::new(), None);
        for topology in &self.topologies {
            let selection = match &filter.id {
                Some(_) => selection.clone(),
                None => selection.clone().at_most(limit - found.len()),
            };
            let jobs = match self.parking(topology).list(&selection).await {
                Err(error @ ParkingError::NoQueue { .. }) => {
                    missing = missing.or(Some(error));
                    continue;
                }
                jobs => jobs?,
            };
            let is_meant = |job: &ParkedJob| filter.id.as_ref().is_none_or(|id| is_about(job, id));
            let jobs = jobs.into_iter().filter(is_meant);
            found.extend(jobs.map(|job| (topology.parked_queue(), job)));
            if found.len() >= limit {
                break;
            }
        }
        match missing {
            Some(missing) if found.is_empty() && self.topologies.len() == 1 => return Err(missing.into()),
            _ => {}
        }
        found.truncate(limit);
        self.beside_their_rows(found).await
    }

    /// What must be typed before these are replayed.
    pub async fn to_confirm(&self, chosen: &[Parked]) -> Result<Option<String>, LedgerError> {
        let failed = chosen.iter().filter(|parked| parked.standing == RowState::Failed);
        let ids: Vec<Uuid> = failed.filter_map(|parked| Some(parked.subject?.id)).collect();
        self.ledger.to_confirm_of(&ids).await
    }

    /// Each with whether it is superseded.
    async fn beside_their_rows(&self, found: Vec<(String, ParkedJob)>) -> Result<Vec<(Parked, bool)>, OperatorError> {
        let ids: Vec<Uuid> = found.iter().filter_map(|(_, job)| JobTarget::of(job)).map(|subject| subject.id).collect();
        let rows = self.ledger.calls(&ids).await?;
        let parked = |(queue, job): (String, ParkedJob)| {
            let subject = JobTarget::of(&job);
            let row = subject.and_then(|subject| rows.get(&subject.id).filter(|(call, _)| call.kind == subject.kind));
            let standing = row.map_or(RowState::Unknown, |(call, _)| RowState::from(call.state));
            let is_superseded = row.is_some_and(|(call, _)| superseded::is_superseded(&job, call));
            (Parked { queue, job, subject, status: row.map(|(_, status)| status.clone()), standing }, is_superseded)
        };
        Ok(found.into_iter().map(parked).collect())
    }

    /// How these rows stand now, in words and as what that means; those that the ledger has not are left out.
    pub(super) async fn standings(
        &self,
        subjects: &[JobTarget],
    ) -> Result<HashMap<JobTarget, (String, RowState)>, LedgerError> {
        let ids: Vec<Uuid> = subjects.iter().map(|subject| subject.id).collect();
        let calls = self.ledger.calls(&ids).await?;
        let standing = |(id, (call, status)): (Uuid, (Call, String))| {
            (JobTarget { kind: call.kind, id }, (status, RowState::from(call.state)))
        };
        Ok(calls.into_iter().map(standing).collect())
    }
}

fn is_about(job: &ParkedJob, id: &str) -> bool {
    job.id == id || JobTarget::of(job).is_some_and(|subject| id.parse() == Ok(subject.id))
}
