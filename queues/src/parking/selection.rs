//! Which parked jobs an operation is about. Built by users, asked by the parking operations. It never talks to a broker.

use super::ParkedJob;

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

    /// Only the oldest so many of those that match: so many are listed, replayed, discarded, or shown to a judge, whatever it
    /// says of them.
    pub fn at_most(mut self, limit: usize) -> Self {
        self.at_most = Some(limit);
        self
    }

    pub(super) fn limit(&self) -> usize {
        self.at_most.unwrap_or(usize::MAX)
    }

    /// How many messages need to be looked at, at most.
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
