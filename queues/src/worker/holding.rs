//! How long a worker may hold a message: the arithmetic that keeps it below the broker's consumer timeout, pure. Used when
//! a worker begins, and by jobs whose copy cannot be published. It cuts nothing off itself.

use std::time::Duration;

/// Half of the broker's consumer timeout (`consumer_timeout`, 30 minutes), after which it closes the channel, and delivers
/// again all that was held on it. A message waits for its turn at most so long, and has as long from there.
pub(super) const LONGEST: Duration = Duration::from_secs(15 * 60);

/// As much of `wanted` as `concurrency` jobs at a time get through within [`LONGEST`], should each run into its timeout;
/// but no fewer than can run at once.
pub(super) fn prefetch(wanted: u16, concurrency: usize, job_timeout: Duration) -> u16 {
    // Jobs without any time are cut off at once.
    let rounds = LONGEST.as_nanos().checked_div(job_timeout.as_nanos()).unwrap_or(u128::MAX).max(1);
    let in_time = rounds.saturating_mul(concurrency as u128);
    wanted.min(u16::try_from(in_time).unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_prefetch_that_is_worked_off_in_time_stays_as_it_is() {
        assert_eq!(prefetch(100, 10, MINUTE), 100);
        assert_eq!(prefetch(150, 10, MINUTE), 150);
        assert_eq!(prefetch(u16::MAX, 1, Duration::ZERO), u16::MAX);
    }

    #[test]
    fn a_prefetch_that_would_be_held_too_long_is_cut_down_but_not_below_what_runs_at_once() {
        assert_eq!(prefetch(100, 1, Duration::from_secs(20)), 45);
        assert_eq!(prefetch(151, 10, MINUTE), 150);
        assert_eq!(prefetch(100, 3, 7 * MINUTE), 6);
        assert_eq!(prefetch(100, 3, 60 * MINUTE), 3);
        assert_eq!(prefetch(2, 3, 60 * MINUTE), 2);
    }

    proptest! {
        #[test]
        fn the_last_of_the_prefetched_jobs_ends_in_time(
            wanted in 1..u16::MAX, concurrency in 1..2000_usize, job_timeout in any::<Duration>(),
        ) {
            let capped = prefetch(wanted, concurrency, job_timeout);
            let rounds = u32::try_from(usize::from(capped).div_ceil(concurrency)).unwrap();
            prop_assert!((1..=wanted).contains(&capped));
            prop_assert!(rounds == 1 || job_timeout.saturating_mul(rounds) <= LONGEST);
            prop_assert!(usize::from(capped) >= concurrency.min(wanted.into()));
        }
    }
}
