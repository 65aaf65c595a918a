//! What takes long to look at, as it was seen some seconds ago: one looks, and everybody is shown what was seen, and when.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use crate::ledger::now;

/// What is older is looked at anew, while whoever asks is shown it all the same.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// What is older is shown to nobody: who asks waits for the next look.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// What was seen.
#[derive(Debug)]
pub struct Seen<T> {
    /// When somebody looked.
    pub at: DateTime<Utc>,
    /// What was found.
    pub found: T,
}

/// Something that is looked at no more often than every few seconds, whoever asks.
pub struct Watched<T>(Arc<Inner<T>>);

struct Inner<T> {
    look: Box<dyn Fn() -> BoxFuture<'static, T> + Send + Sync>,
    /// Held by the one who looks.
    turn: tokio::sync::Mutex<()>,
    last: Mutex<Option<(Instant, Arc<Seen<T>>)>>,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// To be looked at by `look`, which ends within some seconds.
    pub fn new<F: Future<Output = T> + Send + 'static>(look: impl Fn() -> F + Send + Sync + 'static) -> Self {
        let look = Box::new(move || look().boxed());
        Self(Arc::new(Inner { look, turn: Default::default(), last: Default::default() }))
    }

    /// What was seen last. Only who comes first, or after a minute in which nobody asked, waits for a look.
    pub async fn seen(&self) -> Arc<Seen<T>> {
        let Some((age, seen)) = self.0.last(SHOWN_FOR) else {
            let _turn = self.0.turn.lock().await;
            return match self.0.last(SHOWN_FOR) {
                Some((_, seen)) => seen,
                None => self.0.look().await,
            };
        };
        if age >= FRESH_FOR {
            let inner = Arc::clone(&self.0);
            tokio::spawn(async move {
                if let Ok(_turn) = inner.turn.try_lock() {
                    inner.look().await;
                }
            });
        }
        seen
    }
}

impl<T> Inner<T> {
    /// What was seen last, and how long ago, unless that is too old.
    fn last(&self, limit: Duration) -> Option<(Duration, Arc<Seen<T>>)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, seen) = last.as_ref()?;
        Some((at.elapsed(), Arc::clone(seen))).filter(|(age, _)| *age < limit)
    }

    async fn look(&self) -> Arc<Seen<T>> {
        let seen = Arc::new(Seen { at: now(), found: (self.look)().await });
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&seen)));
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// The clock goes on by itself while everybody waits.
    #[tokio::test(start_paused = true)]
    async fn one_looks_for_all_and_nobody_waits_for_it_twice() {
        const LOOK: Duration = Duration::from_secs(3);
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let watched = Watched::new(move || {
            let counted = Arc::clone(&counted);
            async move {
                tokio::time::sleep(LOOK).await;
                counted.fetch_add(1, Ordering::Relaxed) + 1
            }
        });
        let start = Instant::now();
        let (one, other) = tokio::join!(watched.seen(), watched.seen());
        assert_eq!((one.found, other.found, start.elapsed()), (1, 1, LOOK));
        tokio::time::sleep(FRESH_FOR).await;
        // Out of date: shown at once, and looked at once by one of those who ask.
        let start = Instant::now();
        for _ in 0..3 {
            assert_eq!(watched.seen().await.found, 1);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokio::time::sleep(LOOK + Duration::from_secs(1)).await;
        assert_eq!((watched.seen().await.found, looks.load(Ordering::Relaxed)), (2, 2));
        // Too old to be shown.
        tokio::time::sleep(SHOWN_FOR).await;
        let start = Instant::now();
        assert_eq!((watched.seen().await.found, start.elapsed()), (3, LOOK));
    }
}
