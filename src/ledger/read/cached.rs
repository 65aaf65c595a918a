//! Figures that are computed at most every few seconds, whoever asks for them: one computation at a time, and the others wait
//! for its result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use tokio::sync::Mutex;

use super::{FailureGroups, Situation, Sum, Summary};
use crate::ledger::LedgerError;
use crate::ledger::processes::Refused;

/// How old a figure may be.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// What this process has computed last.
#[derive(Debug, Default)]
pub(in crate::ledger) struct Figures {
    pub(super) summary: Cached<Summary>,
    pub(super) reversal_groups: Cached<FailureGroups>,
    pub(super) transfer_groups: Cached<FailureGroups>,
    pub(in crate::ledger) situation: Cached<Situation>,
    /// Webhooks that this process has refused.
    pub(in crate::ledger) refused: std::sync::Mutex<Refused>,
    /// What was taken back on days that are over, by currency.
    pub(super) past_days: Mutex<BTreeMap<NaiveDate, BTreeMap<String, Sum>>>,
}

impl Figures {
    /// Something about the groups has changed that must be seen at once.
    pub(in crate::ledger) async fn forget_groups(&self) {
        for groups in [&self.reversal_groups, &self.transfer_groups] {
            *groups.0.lock().await = None;
        }
    }
}

/// One figure.
#[derive(Debug)]
pub(in crate::ledger) struct Cached<T>(Mutex<Option<(Instant, Arc<T>)>>);

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Cached<T> {
    /// The figure, computed now unless it is fresh.
    pub(super) async fn get(
        &self,
        compute: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<Arc<T>, LedgerError> {
        self.get_within(FRESH_FOR, compute).await
    }

    /// The figure, computed now unless it is no older than `age`.
    pub(super) async fn get_within(
        &self,
        age: Duration,
        compute: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<Arc<T>, LedgerError> {
        let mut latest = self.0.lock().await;
        if let Some((_, figure)) = latest.as_ref().filter(|(at, _)| at.elapsed() < age) {
            return Ok(Arc::clone(figure));
        }
        let figure = Arc::new(compute.await?);
        *latest = Some((Instant::now(), Arc::clone(&figure)));
        Ok(figure)
    }

    /// Has the figure computed anew when it is next asked for.
    pub(in crate::ledger) async fn forget(&self) {
        *self.0.lock().await = None;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn of_many_who_ask_at_once_one_computes_and_an_error_is_not_kept() {
        let (cached, computed) = (Cached::default(), AtomicU32::new(0));
        let failed = cached.get(async { Err::<u32, _>(LedgerError::Overloaded) }).await;
        assert!(failed.is_err());
        let ask = || {
            cached.get(async {
                tokio::task::yield_now().await;
                Ok(computed.fetch_add(1, Ordering::Relaxed))
            })
        };
        let (one, other, third) = tokio::join!(ask(), ask(), ask());
        assert_eq!([*one.unwrap(), *other.unwrap(), *third.unwrap()], [0, 0, 0]);
        assert_eq!(computed.load(Ordering::Relaxed), 1);
    }
}
