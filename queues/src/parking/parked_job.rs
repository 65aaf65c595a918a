//! A parked job, and what users say and hear about it: which jobs, their fate, and what went wrong.

use crate::{BrokerError, headers};
use chrono::{DateTime, Utc};
use lapin::BasicProperties;
use std::collections::BTreeMap;

/// A job in the parking queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParkedJob {
    /// The message's id; empty when another program published it without one and the broker parked it.
    pub id: String,
    /// The job's kind: the message's `type` property; empty when it has none.
    pub kind: String,
    /// The last attempt before it was parked: 1 for a job that was parked at its first.
    pub attempts: u32,
    /// Why it was parked; `None` for a message that was published into the parking queue.
    pub reason: Option<String>,
    /// When it was parked (UTC): see [`Delivery::parked_at`](crate::Delivery::parked_at).
    pub parked_at: Option<DateTime<Utc>>,
    /// When the job was first published (UTC).
    pub first_published_at: Option<DateTime<Utc>>,
    /// The publisher's correlation id.
    pub correlation_id: Option<String>,
    /// The publisher's W3C trace context.
    pub traceparent: Option<String>,
    /// Every header as text, foreign ones and the broker's included.
    pub headers: BTreeMap<String, String>,
    /// The body, untouched; JSON for a [`Job`](crate::Job) that could be decoded.
    pub payload: Vec<u8>,
}

impl ParkedJob {
    /// A job that was parked after its first attempt, for tests of what judges or shows parked jobs.
    #[must_use]
    pub fn new(id: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            kind: kind.into(),
            attempts: 1,
            reason: None,
            parked_at: None,
            first_published_at: None,
            correlation_id: None,
            traceparent: None,
            headers: BTreeMap::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn read(properties: &BasicProperties, payload: Vec<u8>) -> Self {
        let delivery = headers::delivery(properties, false);
        Self {
            id: headers::message_id(properties).unwrap_or_default(),
            kind: delivery.kind,
            attempts: headers::attempt(properties),
            reason: delivery.parked_reason,
            parked_at: delivery.parked_at,
            first_published_at: headers::first_published_at(properties),
            correlation_id: delivery.correlation_id,
            traceparent: delivery.traceparent,
            headers: headers::as_text(properties),
            payload,
        }
    }
}

/// Parked jobs, oldest first: all of them, or those that match every condition given.
///
/// ```
/// # use queues::Selection;
/// let some = Selection::all().kind("send_receipt").reason_contains("no printer").at_most(100);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use]
pub struct Selection {
    id: Option<String>,
    kind: Option<String>,
    reason: Option<String>,
    at_most: Option<usize>,
}

impl Selection {
    /// Every parked job.
    pub fn all() -> Self {
        Self::default()
    }

    /// The job with this id (with all its copies, if it was parked more than once).
    pub fn id(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()), ..Self::default() }
    }

    /// Only jobs of this kind.
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }

    /// Only jobs whose reason contains this text, in this spelling.
    pub fn reason_contains(mut self, text: impl Into<String>) -> Self {
        self.reason = Some(text.into());
        self
    }

    /// Only the oldest `limit` of those that match, whatever a judge decides about them. No limit unless set.
    pub fn at_most(mut self, limit: usize) -> Self {
        self.at_most = Some(limit);
        self
    }

    pub(super) fn limit(&self) -> usize {
        self.at_most.unwrap_or(usize::MAX)
    }

    /// How many messages must be looked at, at most.
    pub(super) fn reach(&self) -> u32 {
        let every_one_matches = self.id.is_none() && self.kind.is_none() && self.reason.is_none();
        if every_one_matches { u32::try_from(self.limit()).unwrap_or(u32::MAX) } else { u32::MAX }
    }

    pub(super) fn matches(&self, job: &ParkedJob) -> bool {
        let reason = job.reason.as_deref().unwrap_or_default();
        self.id.as_ref().is_none_or(|id| *id == job.id)
            && self.kind.as_ref().is_none_or(|kind| *kind == job.kind)
            && self.reason.as_ref().is_none_or(|text| reason.contains(text.as_str()))
    }
}

/// What to do with a parked job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// Back to the work queue.
    Replay,
    /// Deleted; logged without its payload.
    Discard {
        /// Who decided, and why.
        reason: String,
    },
    /// It stays parked.
    Keep,
}

/// A failed operation on the parking queue.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParkingError {
    /// The broker cannot be used; nothing was done.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// There is no parking queue; nothing was done.
    #[error("there is no queue {queue:?}: declare the topology, or correct the work queue's name")]
    #[non_exhaustive]
    NoQueue {
        /// The parking queue's name.
        queue: String,
    },
    /// It was cut short. Every other job is still parked. Acknowledgements may have been lost with the connection: some jobs
    /// may then be both parked and replayed.
    #[error("interrupted after {} jobs: {reason}; the others are still parked: run it again", done.len())]
    #[non_exhaustive]
    Interrupted {
        /// The ids of the jobs that were replayed or discarded.
        done: Vec<String>,
        /// What went wrong.
        reason: String,
    },
    /// A job is discarded for a reason, which is logged; nothing was done.
    #[error("discarding needs a written reason, and this one is empty")]
    NoReason,
}
