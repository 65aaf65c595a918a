//! How fast one worker calls Stripe. Workers share Stripe's limit without talking to each other: a 429 halves the rate of
//! the worker that met it, success raises it slowly, never above the ceiling.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The rate never falls below one call in ten seconds.
const SLOWEST_PER_SECOND: f64 = 0.1;
/// Each success raises the rate by this share of the ceiling.
const RAISE: f64 = 0.02;
/// Refusals within this time of each other belong to the same overload, and halve once.
const ONE_OVERLOAD: Duration = Duration::from_secs(1);

/// Spaces calls evenly.
#[derive(Debug)]
pub struct Limiter {
    ceiling: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    per_second: f64,
    next_slot: Instant,
    last_halved: Option<Instant>,
}

impl Limiter {
    /// A limiter that starts at its ceiling, in calls per second.
    #[must_use]
    pub fn new(ceiling: u32) -> Self {
        let ceiling = f64::from(ceiling).max(SLOWEST_PER_SECOND);
        let state = State { per_second: ceiling, next_slot: Instant::now(), last_halved: None };
        Self { ceiling, state: Mutex::new(state) }
    }

    /// Waits for this call's turn.
    pub async fn turn(&self) {
        let slot = {
            let mut state = self.lock();
            let slot = state.next_slot.max(Instant::now());
            state.next_slot = slot + Duration::from_secs_f64(1.0 / state.per_second);
            slot
        };
        tokio::time::sleep_until(slot).await;
    }

    /// Stripe took the call.
    pub fn raise(&self) {
        let mut state = self.lock();
        state.per_second = (state.per_second + self.ceiling * RAISE).min(self.ceiling);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_are_spaced_at_the_ceiling() {
        let limiter = Limiter::new(10);
        let start = Instant::now();
        for _ in 0..11 {
            limiter.turn().await;
        }
        assert_eq!(start.elapsed().as_millis(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn one_overload_halves_the_rate_once_and_success_brings_it_back() {
        let limiter = Limiter::new(10);
        limiter.halve(None);
        limiter.halve(None);
        assert!((limiter.lock().per_second - 5.0).abs() < 1e-9);
        for _ in 0..100 {
            limiter.raise();
        }
        assert!((limiter.lock().per_second - 10.0).abs() < 1e-9);
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
