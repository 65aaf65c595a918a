//! The simulator's clock: the real time, plus what tests have moved it by.
//!
//! Everything that Stripe would do by the clock goes by this one: the pruning of idempotency keys, the rate limit,
//! lagging lists, `created`. Only the delays of slow answers pass in real time.

use std::time::Duration;

use chrono::{DateTime, Utc};

#[derive(Debug, Default)]
pub(crate) struct Clock {
    ahead: Duration,
}

impl Clock {
    pub(crate) fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.ahead
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.ahead += by;
    }
}
