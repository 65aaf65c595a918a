//! The ledger's clock. Microseconds, which is what PostgreSQL keeps: what is written is what is read.

use chrono::{DateTime, NaiveDate, NaiveTime, SubsecRound, TimeDelta, Utc};
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

/// A time (`2026-11-01T09:30:00Z`), the beginning of a day in UTC (`2026-11-01`), or a duration before now (`24h`, `7d`).
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok();
    let day = || Some(text.parse::<NaiveDate>().ok()?.and_time(NaiveTime::MIN).and_utc());
    let ago = || Utc::now().checked_sub_signed(TimeDelta::from_std(humantime::parse_duration(text).ok()?).ok()?);
    time.or_else(day).or_else(ago)
}
