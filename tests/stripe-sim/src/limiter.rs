//! The rate limit: a bucket of tokens that one second fills, as Stripe's documentation describes its own.
//!
//! Off unless a test sets it. Reads count as writes do, replays too; requests with a refused key don't.

use chrono::{DateTime, Utc};

#[derive(Debug)]
pub(crate) struct Limiter {
    per_second: f64,
    tokens: f64,
    refilled_at: DateTime<Utc>,
}

impl Limiter {
    pub(crate) fn new(per_second: u32, now: DateTime<Utc>) -> Limiter {
        let per_second = f64::from(per_second);
        Limiter { per_second, tokens: per_second, refilled_at: now }
    }

    /// Whether one more request is within the limit.
    pub(crate) fn admits(&mut self, now: DateTime<Utc>) -> bool {
        let since = (now - self.refilled_at).to_std().unwrap_or_default().as_secs_f64();
        self.tokens = (self.tokens + since * self.per_second).min(self.per_second);
        self.refilled_at = now;
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}
