//! When a failed job is retried, and when it is exhausted: pure arithmetic.

use std::time::Duration;

/// Exponential delays up to a ceiling, and a number of retries.
///
/// ```
/// use queues::RetryPolicy;
/// use std::time::Duration;
///
/// let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(10), 5);
/// let seconds: Vec<u64> = (0..6).map(|retry| policy.delay(retry).as_secs()).collect();
/// assert_eq!(seconds, [1, 2, 4, 8, 10, 10]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    base: Duration,
    max: Duration,
    max_retries: u32,
}

impl RetryPolicy {
    /// The first retry comes after `base`, each further one after twice the previous delay, at most `max`. A job runs at
    /// most `1 + max_retries` times.
    ///
    /// Without retries there are no [`delays`](Self::delays), and [`Topology::new`](crate::Topology::new) then answers
    /// [`NoDelays`](crate::TopologyError::NoDelays); to delays of zero, or not in whole milliseconds, it answers
    /// [`Delay`](crate::TopologyError::Delay).
    #[must_use]
    pub const fn new(base: Duration, max: Duration, max_retries: u32) -> Self {
        Self { base, max, max_retries }
    }

    /// How many retries a job has.
    #[must_use]
    pub const fn max_retries(&self) -> u32 {
        self.max_retries
    }

    /// The delay before retry `retry`, counted from 0: `min(base · 2^retry, max)`, saturating. It ignores the number of
    /// retries allowed: see [`next`](Self::next).
    #[must_use]
    pub fn delay(&self, retry: u32) -> Duration {
        let mut delay = self.base;
        for _ in 0..retry {
            // Zero never grows; everything else reaches the largest ceiling within some 90 steps.
            if delay.is_zero() || delay >= self.max {
                break;
            }
            delay = delay.saturating_mul(2);
        }
        delay.min(self.max)
    }

    /// The delay before the next try of a job that has used `retries_used` retries, or `None` when it is exhausted: the
    /// one place that decides so.
    ///
    /// ```
    /// # use queues::RetryPolicy;
    /// # use std::time::Duration;
    /// let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(3600), 2);
    /// assert_eq!(policy.next(0), Some(Duration::from_secs(60)));
    /// assert_eq!(policy.next(1), Some(Duration::from_secs(120)));
    /// assert_eq!(policy.next(2), None);
    /// ```
    #[must_use]
    pub fn next(&self, retries_used: u32) -> Option<Duration> {
        (retries_used < self.max_retries).then(|| self.delay(retries_used))
    }

    /// Whether the delays of all retries together are at most `limit`.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let mut total = Duration::ZERO;
        // A policy without delays takes no time, however many retries it has.
        (0..self.max_retries).take_while(|_| !self.base.is_zero()).all(|retry| {
            total = total.saturating_add(self.delay(retry));
            total <= limit
        })
    }

    /// The distinct delays that [`next`](Self::next) can return, ascending: one retry queue each. Some 90 at most, because
    /// they double; none when `max_retries` is 0.
    ///
    /// ```
    /// # use queues::RetryPolicy;
    /// # use std::time::Duration;
    /// let policy = RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(300), 1_000_000);
    /// assert_eq!(policy.delays(), [60, 120, 240, 300].map(Duration::from_secs));
    /// ```
    #[must_use]
    pub fn delays(&self) -> Vec<Duration> {
        let mut delays: Vec<Duration> = Vec::new();
        let mut retry = 0;
        while let Some(delay) = self.next(retry) {
            if delays.last() == Some(&delay) {
                break;
            }
            delays.push(delay);
            retry += 1;
        }
        delays
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_policy() -> impl Strategy<Value = RetryPolicy> {
        (any::<Duration>(), any::<Duration>(), any::<u32>())
            .prop_map(|(base, max, max_retries)| RetryPolicy::new(base, max, max_retries))
    }

    proptest! {
        #[test]
        fn a_delay_never_exceeds_the_ceiling_and_never_shrinks(policy in any_policy(), retry in 0..u32::MAX) {
            prop_assert!(policy.delay(retry) <= policy.max);
            prop_assert!(policy.delay(retry) <= policy.delay(retry + 1));
        }

        #[test]
        fn a_delay_doubles_until_it_meets_the_ceiling(policy in any_policy(), retry in 0..200_u32) {
            let doubled = policy.delay(retry).checked_mul(2);
            let expected = doubled.map_or(policy.max, |doubled| doubled.min(policy.max));
            prop_assert_eq!(policy.delay(retry + 1), expected);
        }

        #[test]
        fn a_job_is_exhausted_exactly_when_its_retries_are_used(policy in any_policy(), used in any::<u32>()) {
            prop_assert_eq!(policy.next(used).is_none(), used >= policy.max_retries());
        }

        #[test]
        fn every_delay_that_can_be_asked_for_is_listed_once(policy in any_policy(), used in 0..100_u32) {
            let delays = policy.delays();
            prop_assert!(delays.len() <= 100);
            prop_assert!(delays.is_sorted_by(|a, b| a < b));
            if let Some(delay) = policy.next(used) {
                prop_assert!(delays.contains(&delay));
            }
        }
    }

    #[test]
    fn the_time_of_all_retries_is_their_sum() {
        let policy = |retries| RetryPolicy::new(Duration::from_secs(60), Duration::from_secs(300), retries);
        assert!(policy(4).ends_within(Duration::from_secs(60 + 120 + 240 + 300)));
        assert!(!policy(4).ends_within(Duration::from_secs(719)));
        assert!(!policy(u32::MAX).ends_within(Duration::from_secs(3600)));
    }

    #[test]
    fn a_policy_without_retries_is_exhausted_at_once() {
        let policy = RetryPolicy::new(Duration::from_secs(1), Duration::from_secs(10), 0);
        assert_eq!(policy.next(0), None);
        assert!(policy.delays().is_empty());
    }
}
