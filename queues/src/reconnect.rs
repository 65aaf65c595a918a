//! How long to wait before the next try to connect: exponential, with jitter, so that many clients of a broker that comes
//! back do not all come at once. Used by the publisher's and the worker's supervisors; the only user of the `backoff`
//! crate. It never sleeps and never gives up.

use backoff::{SystemClock, backoff::Backoff, exponential::ExponentialBackoff};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);
/// A connection that lived this long was a good one: what ends it is a new story, told from the beginning.
const GOOD_LIFE: Duration = Duration::from_secs(10);

pub(crate) struct Reconnect(ExponentialBackoff<SystemClock>);

impl Reconnect {
    pub(crate) fn new() -> Self {
        Self(ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: LONGEST,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The delay after a connection that lived for `lived` (zero for one that never came about). A short life counts as
    /// another failure, so that a connection that is lost again at once is not sought in a busy loop.
    pub(crate) fn delay_after(&mut self, lived: Duration) -> Duration {
        if lived >= GOOD_LIFE {
            self.0.reset();
        }
        self.0.next_backoff().unwrap_or(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_with_jitter_up_to_a_ceiling_and_never_end() {
        let mut reconnect = Reconnect::new();
        let delays: Vec<Duration> = (0..100).map(|_| reconnect.delay_after(Duration::ZERO)).collect();
        assert!(delays[0] <= FIRST * 3 / 2 + Duration::from_millis(1), "{:?}", delays[0]);
        assert!(delays[20..].iter().all(|delay| (LONGEST / 2..=LONGEST * 3 / 2).contains(delay)), "{delays:?}");
        assert!(delays[20..].windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {delays:?}");
    }

    #[test]
    fn a_connection_that_lived_long_starts_the_delays_anew() {
        let mut reconnect = Reconnect::new();
        for _ in 0..20 {
            reconnect.delay_after(Duration::from_secs(1));
        }
        assert!(reconnect.delay_after(GOOD_LIFE) < FIRST * 2);
    }
}
