//! The ledger's clock. Microseconds, which is what PostgreSQL keeps: what is written is what is read.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::time::Duration;

/// Now, in UTC, to the microsecond.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// `delay` from now.
pub(crate) fn in_future(delay: Duration) -> DateTime<Utc> {
    after(now(), delay)
}

/// `delay` after `start`. A duration that is too long for a date counts as a thousand years.
pub(crate) fn after(start: DateTime<Utc>, delay: Duration) -> DateTime<Utc> {
    let delay = TimeDelta::from_std(delay).unwrap_or(TimeDelta::days(365_000)).min(TimeDelta::days(365_000));
    start + delay.min(DateTime::<Utc>::MAX_UTC - start)
}
