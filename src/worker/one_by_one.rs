//! Calls about one transfer, one after another: Stripe locks a transfer while it works on it, and refuses who comes meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Lock, OwnedMutexGuard};
use uuid::Uuid;

/// More than this many locks are looked through for those that nobody holds.
const CLEAN_ABOVE: usize = 1_024;

/// The transfers that this process is calling Stripe about. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct OneByOne {
    locks: Arc<Mutex<HashMap<Uuid, Weak<Lock<()>>>>>,
}

impl OneByOne {
    /// Waits until nobody else works on `transfer`; `None` when that takes longer than `patience`.
    pub(super) async fn enter(&self, transfer: Uuid, patience: Duration) -> Option<OwnedMutexGuard<()>> {
        tokio::time::timeout(patience, self.lock_of(transfer).lock_owned()).await.ok()
    }

    fn lock_of(&self, transfer: Uuid) -> Arc<Lock<()>> {
        // A panic while the lock is held can't leave the map in a bad state.
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if locks.len() > CLEAN_ABOVE {
            locks.retain(|_, lock| lock.strong_count() > 0);
        }
        if let Some(lock) = locks.get(&transfer).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(Lock::new(()));
        locks.insert(transfer, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_transfer_is_worked_on_by_one_and_others_are_not_held_up() {
        let (transfers, patience) = (OneByOne::default(), Duration::from_secs(30));
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = transfers.clone().enter(one, patience).await.unwrap();
        assert!(transfers.enter(other, patience).await.is_some());
        assert!(transfers.enter(one, patience).await.is_none(), "two work on one transfer");
        drop(first);
        assert!(transfers.enter(one, patience).await.is_some());
    }
}
