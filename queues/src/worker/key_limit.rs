//! How often and how many jobs of one key may run in a worker.

use std::time::Duration;

/// A year: so that no sum of times overflows.
const LONGEST_SPACING: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What each key may have of a worker: a number of jobs at a time, and a number of starts in a period.
///
/// ```
/// use queues::KeyLimit;
/// use std::time::Duration;
///
/// // Of each customer: two jobs at a time, and five a second.
/// let limit = KeyLimit::new().concurrency(2).rate(5, Duration::from_secs(1));
/// # let _ = limit;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyLimit {
    pub(super) concurrency: usize,
    /// Between two starts.
    pub(super) spacing: Duration,
}

impl KeyLimit {
    /// No limit.
    #[must_use]
    pub const fn new() -> Self {
        Self { concurrency: usize::MAX, spacing: Duration::ZERO }
    }

    /// At most this many jobs of one key run at a time; 0 counts as 1.
    #[must_use]
    pub fn concurrency(self, jobs: usize) -> Self {
        Self { concurrency: jobs.max(1), ..self }
    }

    /// At most `jobs` (0 counts as 1) of one key start in each `period`, evenly spaced. Every attempt counts. A zero period is no
    /// limit.
    #[must_use]
    pub fn rate(self, jobs: u32, period: Duration) -> Self {
        Self { spacing: (period / jobs.max(1)).min(LONGEST_SPACING), ..self }
    }
}

impl Default for KeyLimit {
    fn default() -> Self {
        Self::new()
    }
}
