//! For handlers that learn only from their own books what a job is about.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// More than this many keys are looked through for those that nobody uses.
const CLEAN_ABOVE: usize = 1024;

/// How many may do something for one key at a time, in this process. Clones share it. A handler that gets no permit answers
/// [`Outcome::Snooze`](crate::Outcome::Snooze). Where messages carry the key, prefer
/// [`Worker::limit_per_key`](crate::Worker::limit_per_key): a job then takes no place while it waits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use queues::KeyPermits;
/// use std::time::Duration;
///
/// let printers = KeyPermits::new(1);
/// let printing = printers.enter("printer-7", Duration::ZERO).await;
/// assert!(printing.is_some() && printers.enter("printer-7", Duration::ZERO).await.is_none());
/// assert!(printers.enter("printer-8", Duration::ZERO).await.is_some());
/// drop(printing);
/// assert!(printers.enter("printer-7", Duration::ZERO).await.is_some());
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct KeyPermits {
    permits: usize,
    keys: Arc<Mutex<HashMap<String, Weak<Semaphore>>>>,
}

/// The right to do something for one key, until it is dropped.
#[derive(Debug)]
pub struct KeyPermit {
    _permit: OwnedSemaphorePermit,
}

impl KeyPermits {
    /// `permits` (0 counts as 1) for each key.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self { permits: permits.clamp(1, Semaphore::MAX_PERMITS), keys: Arc::default() }
    }

    /// Waits for a permit; `None` when that takes longer than `patience`. Who came first goes first.
    pub async fn enter(&self, key: &str, patience: Duration) -> Option<KeyPermit> {
        // It is never closed, so only the time ends the waiting.
        let entered = timeout(patience, self.semaphore(key).acquire_owned()).await.ok()?;
        Some(KeyPermit { _permit: entered.ok()? })
    }

    /// Whether no permit is free at this moment.
    #[must_use]
    pub fn is_exhausted(&self, key: &str) -> bool {
        self.semaphore(key).available_permits() == 0
    }

    fn semaphore(&self, key: &str) -> Arc<Semaphore> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() > CLEAN_ABOVE {
            keys.retain(|_, semaphore| semaphore.strong_count() > 0);
        }
        if let Some(semaphore) = keys.get(key).and_then(Weak::upgrade) {
            return semaphore;
        }
        let semaphore = Arc::new(Semaphore::new(self.permits));
        keys.insert(key.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail loudly")]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_key_is_worked_on_by_as_many_as_there_are_permits_and_others_are_not_held_up() {
        let (keys, patience) = (KeyPermits::new(2), Duration::from_secs(30));
        let first = keys.clone().enter("one", patience).await.unwrap();
        let _second = keys.enter("one", patience).await.unwrap();
        assert!(keys.enter("other", patience).await.is_some());
        assert!(keys.enter("one", patience).await.is_none(), "three work on one key");
        drop(first);
        assert!(keys.enter("one", patience).await.is_some());
    }
}
