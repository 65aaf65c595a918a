//! The ledger's clock, which is the database's: how old a key is, say, two processes must not judge by two clocks. In
//! microseconds, which is what PostgreSQL keeps: what is written is what is read.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, SubsecRound, TimeDelta, Utc};
use serde::de::Error;
use serde::{Deserialize, Deserializer};

use super::input::shown;

/// By how many microseconds the database's clock is ahead of this machine's.
static AHEAD: AtomicI64 = AtomicI64::new(0);
/// A difference that is worth a line in the log.
const MUCH: TimeDelta = TimeDelta::seconds(5);

/// Now, in UTC, to the microsecond, by the database's clock.
pub(crate) fn now() -> DateTime<Utc> {
    (Utc::now() + ahead()).trunc_subsecs(6)
}

fn ahead() -> TimeDelta {
    TimeDelta::microseconds(AHEAD.load(Ordering::Relaxed))
}

/// Takes the database's time, which it told between `asked` and now by this machine's clock. While both agree, as far as that
/// tells, nothing changes: time does not jump about.
pub(super) fn set_clock(told: DateTime<Utc>, asked: DateTime<Utc>) {
    let answered = Utc::now();
    let agrees = |ahead: TimeDelta| (asked..=answered).contains(&(told - ahead));
    if answered < asked || agrees(ahead()) {
        return;
    }
    let ahead = if agrees(TimeDelta::zero()) { TimeDelta::zero() } else { told - (asked + (answered - asked) / 2) };
    let before = AHEAD.swap(ahead.num_microseconds().unwrap_or_default(), Ordering::Relaxed);
    if (ahead - TimeDelta::microseconds(before)).abs() > MUCH {
        let seconds = ahead.num_seconds();
        tracing::warn!(seconds, "this machine's clock is behind the database's by so much; the database's counts");
    }
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

/// What [`parse`] takes.
pub(crate) const TIMES: &str =
    "a time like 2026-11-01T09:30:00Z, a date like 2026-11-01, or a duration before now like 24h; from 1970 to 9999";

/// A time, the beginning of a day in UTC, or a duration before now. Only what each database can compare.
pub(crate) fn parse(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).ok();
    let day = || Some(text.parse::<NaiveDate>().ok()?.and_time(NaiveTime::MIN).and_utc());
    let ago = || now().checked_sub_signed(TimeDelta::from_std(humantime::parse_duration(text).ok()?).ok()?);
    time.or_else(day).or_else(ago).filter(|time| (1970..=9999).contains(&time.year()))
}

/// The same in a JSON body; null counts as left out.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    parse(&text).map(Some).ok_or_else(|| D::Error::custom(format!("must be {TIMES} (got {:?})", shown(&text))))
}
