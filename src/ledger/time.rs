//! The ledger's clock. Microseconds, which is what PostgreSQL keeps, so that what is written is what is read.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use std::time::Duration;

/// Now, in UTC, to the microsecond.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// `after` from now. A duration that is too long for a date counts as a thousand years.
pub(crate) fn in_future(after: Duration) -> DateTime<Utc> {
    let after = TimeDelta::from_std(after).unwrap_or(TimeDelta::days(365_000)).min(TimeDelta::days(365_000));
    now() + after
}
