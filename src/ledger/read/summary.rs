//! How much is at risk, for how long, and why; what was taken back; how fast. No figure reads a whole table.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use sea_orm::FromQueryResult;
use serde::Serialize;
use strum::Display;
use utoipa::ToSchema;
use uuid::Uuid;

use super::query::Query;
use super::sellers::{OPEN, WAITS_FOR_BALANCE};
use super::waiting;
use crate::ledger::time::now;
use crate::ledger::{ClaimKind, Ledger, LedgerError, RunView};

/// The reversals by which the time to reverse is measured.
const MEASURED: u64 = 10_000;
const DAYS: i64 = 30;
/// The minutes over which the rate of reversals is measured.
const LATELY: u32 = 5;
/// After its end, nothing is committed any more that belongs to a day.
const DAY_SETTLES: TimeDelta = TimeDelta::hours(1);

/// The ledger in figures, as of a moment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Summary {
    /// When it was computed: some seconds ago at most.
    pub as_of: DateTime<Utc>,
    /// The money, in each currency that there is. Currencies are never added up.
    pub currencies: Vec<CurrencySummary>,
    /// From a claim's first report to its reversal at Stripe, over the last 24 hours (the latest 10,000). Null: nothing was
    /// reversed.
    pub time_to_reverse: Option<TimeToReverse>,
    /// The reversal that is owed for the longest time.
    pub oldest_open: Option<OldestOpen>,
    /// Sellers who were not paid, since creating their transfers failed permanently.
    pub unpaid: Vec<Unpaid>,
    /// Claims that an operator must do something about.
    pub needs_attention: NeedsAttention,
    /// When Clawback last recorded a reversal as done.
    pub last_reversal_at: Option<DateTime<Utc>>,
    /// How many reversals a minute were done over the last 5 minutes; of more than 10,000 in that time, those are counted.
    pub reversed_per_minute: f64,
    /// When the last webhook was recorded.
    pub last_webhook_at: Option<DateTime<Utc>>,
    /// The last comparison of the ledger with Stripe.
    pub last_reconcile: Option<RunView>,
}

/// The money of one currency, in its minor units.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CurrencySummary {
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// What is not back yet, one entry for each reason.
    pub at_risk: Vec<AtRisk>,
    /// What was taken back since midnight (UTC).
    pub taken_back_today: Sum,
    /// Today and on the 6 days before.
    pub taken_back_7_days: Sum,
    /// Today and on the 29 days before.
    pub taken_back_30_days: Sum,
    /// The same day by day, the oldest first.
    pub taken_back_by_day: Vec<DaySum>,
}

/// What was taken back on a day (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DaySum {
    /// The day.
    pub day: NaiveDate,
    /// How many reversals, and how much.
    #[serde(flatten)]
    pub sum: Sum,
}

/// A number of rows and their amounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sum {
    /// How many.
    pub count: i64,
    /// Minor units.
    pub amount: i64,
}

impl Sum {
    pub(in crate::ledger) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.amount = self.amount.saturating_add(other.amount);
    }
}

/// What is not back yet, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AtRisk {
    /// Why.
    pub reason: Risk,
    /// How many reversals, or claims.
    pub count: i64,
    /// Minor units.
    pub amount: i64,
    /// Since when the oldest of them is known.
    pub oldest: Option<DateTime<Utc>>,
    /// The same by age.
    pub by_age: ByAge,
}

/// Why money is not back.
#[derive(Clone, Copy, Debug, Display, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// A reversal that is on its way, or tried again.
    Pending,
    /// A reversal that Stripe refuses for lack of balance, and that is tried again.
    WaitingForBalance,
    /// A reversal that failed permanently: an operator must decide.
    Failed,
    /// A claim that takes nothing before an operator accepts it, or its provider says that it has succeeded.
    Held,
    /// A claim whose payment is not registered.
    Unmatched,
    /// A claim that does not fit its payment.
    Conflicting,
}

impl Risk {
    const ALL: [Self; 6] =
        [Self::Pending, Self::WaitingForBalance, Self::Failed, Self::Held, Self::Unmatched, Self::Conflicting];
}

/// Sums by age: each is of those that are younger than its limit, and not counted in the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ByAge {
    /// Younger than an hour.
    pub under_1_hour: Sum,
    /// Younger than a day.
    pub under_1_day: Sum,
    /// Younger than 7 days.
    pub under_7_days: Sum,
    /// Younger than 30 days.
    pub under_30_days: Sum,
    /// The others.
    pub older: Sum,
}

/// In seconds: half, 95 and 99 of 100 reversals took no longer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct TimeToReverse {
    /// How many were measured.
    pub measured: u64,
    /// The median.
    pub p50_seconds: f64,
    /// The 95th percentile.
    pub p95_seconds: f64,
    /// The 99th percentile.
    pub p99_seconds: f64,
}

/// The oldest debt that is still owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OldestOpen {
    /// Clawback's id.
    pub reversal_id: Uuid,
    /// When it was recorded.
    pub created_at: DateTime<Utc>,
}

/// Transfers of one currency that could not be created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, FromQueryResult, ToSchema)]
pub struct Unpaid {
    /// ISO 4217, lower case.
    #[schema(examples("eur"))]
    pub currency: String,
    /// How many sellers wait for money.
    pub sellers: i64,
    /// How many transfers.
    pub transfers: i64,
    /// Minor units.
    pub amount: i64,
    /// When the oldest of them was registered.
    pub oldest: DateTime<Utc>,
}

/// How many claims need an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct NeedsAttention {
    /// Refunds.
    pub refunds: i64,
    /// Disputes.
    pub disputes: i64,
    /// When the oldest of them was reported.
    pub oldest: Option<DateTime<Utc>>,
}

/// Rows of one currency, reason and age.
#[derive(FromQueryResult)]
struct Group {
    currency: String,
    reason: String,
    age: i32,
    count: i64,
    amount: i64,
    oldest: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Day {
    day: String,
    currency: String,
    count: i64,
    amount: i64,
}

#[derive(FromQueryResult)]
struct Took {
    reported_at: DateTime<Utc>,
    reversed_at: DateTime<Utc>,
}

#[derive(FromQueryResult)]
struct Open {
    id: Uuid,
    created_at: DateTime<Utc>,
}

impl Ledger {
    /// The ledger in figures, computed at most every few seconds.
    pub async fn summary(&self) -> Result<Arc<Summary>, LedgerError> {
        self.figures.summary.get(self.compute_summary()).await
    }

    async fn compute_summary(&self) -> Result<Summary, LedgerError> {
        let as_of = now();
        let (
            reversals,
            claims,
            days,
            took,
            oldest_open,
            unpaid,
            attention,
            last_reversal_at,
            last_webhook_at,
            (runs, _),
        ) = tokio::try_join!(
            self.open_reversals(as_of),
            self.waiting_claims(as_of),
            self.taken_back(as_of),
            self.time_to_reverse(as_of),
            self.oldest_open(),
            self.unpaid(),
            async { Ok(waiting::attention(&self.store.reader).await?) },
            self.latest(
                "SELECT updated_at AS at FROM reversals WHERE status = 'reversed' ORDER BY updated_at DESC LIMIT 1"
            ),
            self.latest("SELECT received_at AS at FROM webhook_events ORDER BY id DESC LIMIT 1"),
            self.reconcile_runs(None, 1),
        )?;
        let mut needs_attention = NeedsAttention::default();
        for of in &attention {
            let count = if of.kind == ClaimKind::Dispute {
                &mut needs_attention.disputes
            } else {
                &mut needs_attention.refunds
            };
            *count += of.number;
            needs_attention.oldest = [needs_attention.oldest, Some(of.oldest)].into_iter().flatten().min();
        }
        let currencies = by_currency(as_of.date_naive(), reversals.into_iter().chain(claims), &days);
        let reversed_per_minute = per_minute(&took, as_of);
        let time_to_reverse = percentiles(took);
        let last_reconcile = runs.into_iter().next();
        Ok(Summary {
            as_of,
            currencies,
            time_to_reverse,
            oldest_open,
            unpaid,
            needs_attention,
            last_reversal_at,
            reversed_per_minute,
            last_webhook_at,
            last_reconcile,
        })
    }

    async fn open_reversals(&self, as_of: DateTime<Utc>) -> Result<Vec<Group>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let (age, amount) = (age(&mut query, "r.created_at", as_of), query.sum("r.amount"));
        let sql = format!(
            "SELECT r.currency, CASE WHEN r.status IN ('permanently_failed') THEN 'failed'
                    WHEN {WAITS_FOR_BALANCE} THEN 'waiting_for_balance' ELSE 'pending' END AS reason,
                {age} AS age, COUNT(*) AS count, {amount} AS amount, MIN(r.created_at) AS oldest
            FROM reversals r
            WHERE r.status IN ('pending', 'permanently_failed') AND {OPEN} GROUP BY 1, 2, 3"
        );
        Ok(query.all(db, sql).await?)
    }

    async fn waiting_claims(&self, as_of: DateTime<Utc>) -> Result<Vec<Group>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let (age, amount) = (age(&mut query, "created_at", as_of), query.sum("amount"));
        let sql = format!(
            "SELECT currency, status AS reason, {age} AS age, COUNT(*) AS count, {amount} AS amount, MIN(created_at) AS oldest
            FROM claims WHERE status IN ('held', 'unmatched', 'conflicting') AND acknowledged_at IS NULL GROUP BY 1, 2, 3"
        );
        Ok(query.all(db, sql).await?)
    }

    /// What was taken back on each of the last days, by currency. Days that are over are read once.
    async fn taken_back(
        &self,
        as_of: DateTime<Utc>,
    ) -> Result<BTreeMap<NaiveDate, BTreeMap<String, Sum>>, LedgerError> {
        let mut known = self.figures.past_days.lock().await;
        let today = as_of.date_naive();
        let first = today - TimeDelta::days(DAYS - 1);
        let mut all = known.split_off(&first);
        let mut start = first;
        while all.contains_key(&start) {
            start += TimeDelta::days(1);
        }
        all.retain(|day, _| *day < start);
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let since = query.bind(start.and_time(NaiveTime::MIN).and_utc());
        let (day, amount) = (query.day("updated_at"), query.sum("amount"));
        let sql = format!(
            "SELECT {day} AS day, currency, COUNT(*) AS count, {amount} AS amount FROM reversals
            WHERE updated_at >= {since} AND status = 'reversed' GROUP BY 1, 2"
        );
        let found: Vec<Day> = query.all(db, sql).await?;
        let mut day = start;
        while day <= today {
            all.insert(day, BTreeMap::new());
            day += TimeDelta::days(1);
        }
        for Day { day, currency, count, amount } in found {
            let sums = day.parse().ok().and_then(|day: NaiveDate| all.get_mut(&day));
            sums.map(|sums| sums.insert(currency, Sum { count, amount }));
        }
        *known = all.clone();
        known.retain(|day, _| (*day + TimeDelta::days(1)).and_time(NaiveTime::MIN).and_utc() + DAY_SETTLES < as_of);
        Ok(all)
    }

    async fn time_to_reverse(&self, as_of: DateTime<Utc>) -> Result<Vec<Took>, LedgerError> {
        let db = &self.store.reader;
        let mut query = Query::new(db);
        let since = query.bind(as_of - TimeDelta::days(1));
        let sql = format!(
            "SELECT cl.created_at AS reported_at, r.updated_at AS reversed_at
            FROM (SELECT claim_id, updated_at FROM reversals WHERE updated_at >= {since} AND status = 'reversed'
                ORDER BY updated_at DESC, id DESC LIMIT {MEASURED}) r
            JOIN claims cl ON cl.id = r.claim_id"
        );
        Ok(query.all(db, sql).await?)
    }

    async fn oldest_open(&self) -> Result<Option<OldestOpen>, LedgerError> {
        let db = &self.store.reader;
        let oldest = |status: &str| {
            format!(
                "SELECT * FROM (SELECT r.id, r.created_at FROM reversals r
                WHERE r.status IN ('{status}') AND {OPEN} ORDER BY r.id LIMIT 1) oldest_{status}"
            )
        };
        let sql = format!("{} UNION ALL {}", oldest("pending"), oldest("permanently_failed"));
        let found: Vec<Open> = Query::new(db).all(db, sql).await?;
        let oldest = found.into_iter().min_by_key(|open| open.created_at);
        Ok(oldest.map(|Open { id, created_at }| OldestOpen { reversal_id: id, created_at }))
    }

    /// What sellers were not paid, by currency: creations that failed permanently.
    pub(super) async fn unpaid(&self) -> Result<Vec<Unpaid>, LedgerError> {
        let db = &self.store.reader;
        let query = Query::new(db);
        let amount = query.sum("t.amount - t.withheld");
        let sql = format!(
            "SELECT t.currency, COUNT(DISTINCT t.seller_id) AS sellers, COUNT(*) AS transfers, {amount} AS amount,
                MIN(t.created_at) AS oldest
            FROM calls c JOIN seller_transfers t ON t.id = c.id
            WHERE c.kind = 'create' AND c.state = 'failed' GROUP BY t.currency ORDER BY t.currency"
        );
        Ok(query.all(db, sql).await?)
    }

    async fn latest(&self, sql: &str) -> Result<Option<DateTime<Utc>>, LedgerError> {
        let db = &self.store.reader;
        let rows = Query::new(db).rows(db, sql.to_owned()).await?;
        Ok(rows.first().map(|row| row.try_get("", "at")).transpose()?)
    }
}

/// The number of an age in [`ByAge`].
fn age(query: &mut Query, since: &str, as_of: DateTime<Utc>) -> String {
    let limits = [TimeDelta::hours(1), TimeDelta::days(1), TimeDelta::days(7), TimeDelta::days(30)];
    let when = limits.iter().enumerate().map(|(age, limit)| {
        let after = query.bind(as_of - *limit);
        format!("WHEN {since} > {after} THEN {age}")
    });
    format!("CASE {} ELSE 4 END", when.collect::<Vec<_>>().join(" "))
}

fn by_currency(
    today: NaiveDate,
    groups: impl Iterator<Item = Group>,
    days: &BTreeMap<NaiveDate, BTreeMap<String, Sum>>,
) -> Vec<CurrencySummary> {
    let nothing = |currency: &str| CurrencySummary {
        currency: currency.to_owned(),
        at_risk: Risk::ALL.map(AtRisk::none).to_vec(),
        taken_back_today: Sum::default(),
        taken_back_7_days: Sum::default(),
        taken_back_30_days: Sum::default(),
        taken_back_by_day: days.keys().map(|day| DaySum { day: *day, sum: Sum::default() }).collect(),
    };
    let mut all: BTreeMap<String, CurrencySummary> = BTreeMap::new();
    for group in groups {
        let of_currency = all.entry(group.currency.clone()).or_insert_with(|| nothing(&group.currency));
        if let Some(at_risk) = of_currency.at_risk.iter_mut().find(|of| of.reason.to_string() == group.reason) {
            at_risk.add(&group);
        }
    }
    for (day, sums) in days {
        for (currency, sum) in sums {
            let of_currency = all.entry(currency.clone()).or_insert_with(|| nothing(currency));
            of_currency.taken_back_30_days.add(*sum);
            if let Some(of_day) = of_currency.taken_back_by_day.iter_mut().find(|of_day| of_day.day == *day) {
                of_day.sum.add(*sum);
            }
            if *day > today - TimeDelta::days(7) {
                of_currency.taken_back_7_days.add(*sum);
            }
            if *day == today {
                of_currency.taken_back_today.add(*sum);
            }
        }
    }
    all.into_values().collect()
}

impl AtRisk {
    fn none(reason: Risk) -> Self {
        Self { reason, count: 0, amount: 0, oldest: None, by_age: ByAge::default() }
    }

    fn add(&mut self, group: &Group) {
        let sum = Sum { count: group.count, amount: group.amount };
        self.count += sum.count;
        self.amount = self.amount.saturating_add(sum.amount);
        self.oldest = [self.oldest, Some(group.oldest)].into_iter().flatten().min();
        let ByAge { under_1_hour, under_1_day, under_7_days, under_30_days, older } = &mut self.by_age;
        match group.age {
            0 => under_1_hour,
            1 => under_1_day,
            2 => under_7_days,
            3 => under_30_days,
            _ => older,
        }
        .add(sum);
    }
}

fn per_minute(took: &[Took], as_of: DateTime<Utc>) -> f64 {
    let lately = took.iter().filter(|took| took.reversed_at > as_of - TimeDelta::minutes(LATELY.into())).count();
    f64::from(u32::try_from(lately).unwrap_or(u32::MAX)) / f64::from(LATELY)
}

fn percentiles(took: Vec<Took>) -> Option<TimeToReverse> {
    let seconds = |took: Took| (took.reversed_at - took.reported_at).to_std().unwrap_or_default().as_secs_f64();
    let mut seconds: Vec<f64> = took.into_iter().map(seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let at = |percent: usize| seconds.get((seconds.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    let (p50_seconds, p95_seconds, p99_seconds) = (at(50)?, at(95)?, at(99)?);
    Some(TimeToReverse { measured: seconds.len() as u64, p50_seconds, p95_seconds, p99_seconds })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let start = now();
        let took = |seconds| Took { reported_at: start, reversed_at: start + TimeDelta::seconds(seconds) };
        let of = |range: std::ops::RangeInclusive<i64>| percentiles(range.rev().map(took).collect());
        let TimeToReverse { measured, p50_seconds, p95_seconds, p99_seconds } = of(1..=100).unwrap();
        assert_eq!((measured, p50_seconds, p95_seconds, p99_seconds), (100, 50.0, 95.0, 99.0));
        assert_eq!(of(7..=7).unwrap().p99_seconds, 7.0);
        assert_eq!(percentiles(Vec::new()), None);
        // Another host's clock.
        assert_eq!(of(-5..=-5).unwrap().p50_seconds, 0.0);
    }
}
