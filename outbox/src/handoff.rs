//! Committed jobs on their way to the relay of the same process, which then has no need to look for them in the table.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// How long a row that was committed for the relay of this process is left to it. Should the process die, another relay
/// claims it after that. Shorter than a publisher may wait for a sick broker: then another relay may publish the row too.
const LEASE: Duration = Duration::from_secs(15);
/// What has waited in memory for so long, behind a batch that the broker was slow to confirm, is left to a claim: a third of the
/// lease is enough for a confirm, or the broker is still slow.
const TOO_LATE: Duration = Duration::from_secs(10);
/// Rows that wait in memory. Those beyond wait in the table alone.
const MOST_WAITING: usize = 1_000;

/// The hand-over between whoever commits jobs and the relay of the same process: their rows are committed with a lease for
/// it, and published without a claim. [`Batch`](crate::Batch) does that for the crate's own table; this is for a
/// [`Table`](crate::Table) of yours: see the example there.
///
/// The order is: ask for a [`lease`](Self::lease), insert the rows with it, commit, [`hand`](Self::hand) them over. Without a
/// lease: insert them free, commit, [`wake`](Self::wake).
pub struct Handoff<R> {
    waiting: Mutex<Waiting<R>>,
    handed: Notify,
    committed: Notify,
}

struct Waiting<R> {
    /// With the time since which each waits.
    rows: Vec<(Instant, R)>,
    /// How many relays take rows.
    relays: usize,
}

impl<R> Handoff<R> {
    /// With no rows yet, for [`Relay::with_table`](crate::Relay::with_table).
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// For how long rows that are committed now belong to this process's relay: claim them for so long in the transaction
    /// that writes them, and [`hand`](Self::hand) them over after its commit. `None` while no relay is connected to the
    /// broker, or too many rows wait, `held` included, which are the caller's and not handed over yet: then commit them free,
    /// and [`wake`](Self::wake).
    ///
    /// It is 15 s, and a publisher waits up to 45 s for a sick broker: then another relay may publish the row, too.
    #[must_use]
    pub fn lease(&self, held: usize) -> Option<Duration> {
        let waiting = self.lock();
        (waiting.relays > 0 && waiting.rows.len() + held < MOST_WAITING).then_some(LEASE)
    }

    /// Hands over rows that are committed with a lease. Without a relay they are dropped: a claim finds them when it has
    /// ended.
    pub fn hand(&self, rows: impl IntoIterator<Item = R>) {
        let mut waiting = self.lock();
        if waiting.relays > 0 {
            let now = Instant::now();
            waiting.rows.extend(rows.into_iter().map(|row| (now, row)));
            self.handed.notify_one();
        }
    }

    /// Has this process's relay look at the table now.
    pub fn wake(&self) {
        self.committed.notify_one();
    }

    /// Takes rows until the guard is dropped. What waits then is to be taken, too.
    pub(crate) fn open(&self) -> Open<'_, R> {
        self.lock().relays += 1;
        Open(self)
    }

    /// At most `limit` rows that are wanted, oldest first. What has waited too long is left to a claim.
    pub(crate) fn take(&self, limit: usize, is_wanted: impl Fn(&R) -> bool) -> Taken<R> {
        let waiting = &mut self.lock().rows;
        let too_late = waiting.iter().take_while(|(since, _)| since.elapsed() >= TOO_LATE).count();
        waiting.drain(..too_late);
        let rows = waiting.extract_if(.., |(_, row)| is_wanted(row)).take(limit).map(|(_, row)| row).collect();
        if waiting.iter().any(|(_, row)| is_wanted(row)) {
            self.handed.notify_one();
        }
        Taken { rows, too_late }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().rows.is_empty()
    }

    /// Waits until there is something to [`take`](Self::take).
    pub(crate) async fn handed(&self) {
        self.handed.notified().await;
    }

    /// Waits until a commit, perhaps of another process, has left jobs in the table.
    pub(crate) async fn committed(&self) {
        self.committed.notified().await;
    }

    // A panic while the lock is held can't leave the list in a bad state.
    fn lock(&self) -> MutexGuard<'_, Waiting<R>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> Default for Handoff<R> {
    fn default() -> Self {
        let waiting = Mutex::new(Waiting { rows: Vec::new(), relays: 0 });
        Self { waiting, handed: Notify::new(), committed: Notify::new() }
    }
}

impl<R> fmt::Debug for Handoff<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Waiting { rows, relays } = &*self.lock();
        f.debug_struct("Handoff").field("waiting", &rows.len()).field("relays", relays).finish_non_exhaustive()
    }
}

/// What a relay has to publish, and how many rows it has not.
pub(crate) struct Taken<R> {
    pub(crate) rows: Vec<R>,
    pub(crate) too_late: usize,
}

/// A relay that takes rows. A guard, since its future may be dropped at any await: rows would be leased to nobody.
pub(crate) struct Open<'a, R>(&'a Handoff<R>);

impl<R> Drop for Open<'_, R> {
    fn drop(&mut self) {
        self.0.lock().relays -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_row_that_waited_behind_a_slow_batch_is_left_to_a_claim_before_its_lease_ends() {
        let handoff = Handoff::default();
        let _open = handoff.open();
        handoff.hand([1, 2]);
        tokio::time::advance(TOO_LATE).await;
        handoff.hand([3]);
        let Taken { rows, too_late } = handoff.take(10, |_| true);
        assert_eq!((rows, too_late), (vec![3], 2));
        assert!(handoff.is_empty() && TOO_LATE < LEASE);
    }

    #[tokio::test]
    async fn a_row_that_is_not_wanted_now_waits_and_keeps_its_place() {
        let handoff = Handoff::default();
        let _open = handoff.open();
        handoff.hand(1..=6);
        let is_even = |row: &i32| row % 2 == 0;
        assert_eq!(handoff.take(2, is_even).rows, [2, 4]);
        assert_eq!(handoff.take(10, is_even).rows, [6]);
        assert_eq!(handoff.take(10, |_| true).rows, [1, 3, 5]);
    }
}
