//! How fast one worker calls Stripe. Workers share Stripe's limit without talking to each other, as TCP's senders share a
//! line: a 429 halves the rate of the worker that met it, success raises it, never above the ceiling. A worker starts low
//! and doubles its rate every second until the first 429; from then on it feels its way up.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::stripe;

/// The rate never falls below one call in ten seconds.
const SLOWEST_PER_SECOND: f64 = 0.1;
/// The first rate, as a share of the ceiling.
const START: f64 = 0.25;
/// Before the first 429, each success raises the rate by this, which doubles it in a second.
const FIRST_RAISE: f64 = 0.7;
/// After it, a second of successes raises the rate by this share of the ceiling.
const RAISE_IN_A_SECOND: f64 = 0.04;
/// Refusals within this time of each other belong to the same overload, and halve once.
const ONE_OVERLOAD: Duration = Duration::from_secs(1);

/// Spaces calls evenly.
#[derive(Debug)]
pub struct Limiter {
    ceiling: f64,
    state: Mutex<State>,
    /// Somebody's turn was too far away.
    too_far: Notify,
}

#[derive(Debug)]
struct State {
    per_second: f64,
    next_slot: Instant,
    /// None before the first 429.
    last_halved: Option<Instant>,
}

impl Limiter {
    /// A limiter that never goes above `ceiling`, in calls per second.
    #[must_use]
    pub fn new(ceiling: u32) -> Self {
        let ceiling = f64::from(ceiling).max(SLOWEST_PER_SECOND);
        let state = State { per_second: ceiling * START, next_slot: Instant::now(), last_halved: None };
        Self { ceiling, state: Mutex::new(state), too_far: Notify::new() }
    }

    /// How fast it lets calls through at present.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        self.lock().per_second
    }

    /// Waits for this call's turn, however long.
    pub async fn turn(&self) {
        if let Ok(slot) = self.take(Duration::MAX) {
            sleep_until(slot).await;
        }
    }

    /// Waits for this call's turn, unless it is further away than `patience`.
    ///
    /// # Errors
    /// How far away it is. It is then left to others.
    pub async fn turn_within(&self, patience: Duration) -> Result<(), Duration> {
        sleep_until(self.take(patience)?).await;
        Ok(())
    }

    /// Waits until somebody's turn is too far away, and the next one further than `patience`; and returns when that is.
    pub(super) async fn held_off(&self, patience: Duration) -> Instant {
        loop {
            self.too_far.notified().await;
            let next_slot = self.lock().next_slot;
            if next_slot > Instant::now() + patience {
                return next_slot;
            }
        }
    }

    /// `stripe` for a look that may take several requests: each has a turn of its own, but the first, whose turn has come.
    #[must_use]
    pub fn pace(self: &Arc<Self>, stripe: &stripe::Client) -> stripe::Client {
        let (limiter, is_first) = (Arc::clone(self), AtomicBool::new(true));
        stripe.paced(move || {
            let (limiter, has_turn) = (Arc::clone(&limiter), is_first.swap(false, Ordering::Relaxed));
            let turn = async move {
                if !has_turn {
                    limiter.turn().await;
                }
            };
            turn.boxed()
        })
    }

    fn take(&self, patience: Duration) -> Result<Instant, Duration> {
        let mut state = self.lock();
        let now = Instant::now();
        let slot = state.next_slot.max(now);
        let wait = slot.duration_since(now);
        if wait > patience {
            self.too_far.notify_one();
            return Err(wait);
        }
        state.next_slot = slot + Duration::from_secs_f64(1.0 / state.per_second);
        Ok(slot)
    }

    /// Stripe took the call.
    pub fn raise(&self) {
        let mut state = self.lock();
        let raise = match state.last_halved {
            None => FIRST_RAISE,
            Some(_) => self.ceiling * RAISE_IN_A_SECOND / state.per_second,
        };
        state.per_second = (state.per_second + raise).min(self.ceiling);
    }

    /// Stripe refused the call as one too many, and may have said how long to wait.
    pub fn halve(&self, retry_after: Option<Duration>) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.last_halved.is_none_or(|last| now.duration_since(last) >= ONE_OVERLOAD) {
            state.per_second = (state.per_second / 2.0).max(SLOWEST_PER_SECOND);
            state.last_halved = Some(now);
        }
        state.next_slot = state.next_slot.max(now + retry_after.unwrap_or_default());
    }

    // A panic while the lock is held can't leave the three numbers in a bad state.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A timer rounds up to the next millisecond, also a time that has come already.
async fn sleep_until(slot: Instant) {
    if slot > Instant::now() {
        tokio::time::sleep_until(slot).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn without_refusals_the_rate_doubles_every_second_up_to_the_ceiling() {
        let limiter = Limiter::new(40);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            limiter.turn().await;
            limiter.raise();
        }
        assert!((limiter.lock().per_second - 40.0).abs() < 1e-9);
        let start = Instant::now();
        for _ in 0..40 {
            limiter.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn one_overload_halves_the_rate_once_and_success_brings_it_back() {
        let limiter = Limiter::new(40);
        limiter.halve(None);
        limiter.halve(None);
        assert!((limiter.lock().per_second - 5.0).abs() < 1e-9);
        for _ in 0..2_000 {
            limiter.raise();
        }
        assert!((limiter.lock().per_second - 40.0).abs() < 1e-9);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_too_far_away_is_left_to_others() {
        let limiter = Limiter::new(1);
        limiter.turn().await;
        assert_eq!(limiter.turn_within(Duration::from_secs(3)).await, Err(Duration::from_secs(4)));
        assert_eq!(limiter.turn_within(Duration::from_secs(3)).await, Err(Duration::from_secs(4)));
        let start = Instant::now();
        assert_eq!(limiter.turn_within(Duration::from_secs(4)).await, Ok(()));
        assert_eq!(start.elapsed().as_secs(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_pauses_jobs_hears_of_a_turn_that_is_too_far_away_and_not_of_one_that_has_come() {
        let (limiter, patience) = (Limiter::new(1), Duration::from_secs(3));
        limiter.turn().await;
        assert!(limiter.turn_within(patience).await.is_err());
        let start = Instant::now();
        assert_eq!(limiter.held_off(patience).await - start, Duration::from_secs(4));
        assert!(limiter.turn_within(patience).await.is_err());
        tokio::time::sleep(Duration::from_secs(4)).await;
        let later = tokio::time::timeout(Duration::from_secs(60), limiter.held_off(patience)).await;
        assert!(later.is_err(), "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_holds_off_every_later_call() {
        let limiter = Limiter::new(10);
        limiter.halve(Some(Duration::from_secs(7)));
        let start = Instant::now();
        limiter.turn().await;
        assert_eq!(start.elapsed().as_secs(), 7);
    }
}
