//! What is to become of a parked job. Said by users, for each job that [`Parking::judge`](super::Parking::judge) shows.

/// What to do with a parked job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Back to the work queue.
    Replay,
    /// Away for good; logged without its payload.
    Discard {
        /// Who decided it, and why.
        reason: String,
    },
    /// It stays parked.
    Keep,
}
