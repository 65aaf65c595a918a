//! Keeps a repeated warning from filling the log: the first at once, then a count at most once a minute.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);

/// One kind of warning.
#[derive(Debug, Default)]
pub(super) struct Sampled(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// When it was last logged, while the series lasts.
    logged: Option<Instant>,
    first: Option<Instant>,
    unlogged: u64,
    total: u64,
}

/// A series that has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Series {
    pub(super) total: u64,
    pub(super) lasted: Duration,
}

impl Sampled {
    /// Counts an occurrence. `Some(n)`: log it now, and that `n` more have occurred since the last line.
    pub(super) fn occurred(&self, now: Instant) -> Option<u64> {
        let mut state = self.state();
        state.first.get_or_insert(now);
        state.total += 1;
        if state.logged.is_some_and(|logged| now < logged + EVERY) {
            state.unlogged += 1;
            return None;
        }
        state.logged = Some(now);
        Some(std::mem::take(&mut state.unlogged))
    }

    /// How many occurrences are still to be told, if a minute has passed since the last line.
    pub(super) fn overdue(&self, now: Instant) -> Option<u64> {
        let mut state = self.state();
        if state.unlogged == 0 || state.logged.is_some_and(|logged| now < logged + EVERY) {
            return None;
        }
        state.logged = None;
        Some(std::mem::take(&mut state.unlogged))
    }

    /// Ends the series, if there is one.
    pub(super) fn ended(&self, now: Instant) -> Option<Series> {
        let State { first, total, .. } = std::mem::take(&mut *self.state());
        Some(Series { total, lasted: now - first? })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(super) use tests::captured_log;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests fail loudly")]

    use std::sync::Arc;

    use tracing::subscriber::DefaultGuard;

    use super::*;

    /// The log of a test, at INFO and above.
    #[derive(Clone, Default)]
    pub(in crate::http) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        pub(in crate::http) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Captures the log of this thread until the guard is dropped.
    pub(in crate::http) fn captured_log() -> (Lines, DefaultGuard) {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        (lines, tracing::subscriber::set_default(subscriber))
    }

    #[test]
    fn the_first_is_logged_and_then_a_count_once_a_minute() {
        let (sampled, start) = (Sampled::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(sampled.occurred(start), Some(0));
        for second in 1..60 {
            assert_eq!(sampled.occurred(after(second)), None);
        }
        assert_eq!(sampled.occurred(after(60)), Some(59));
        assert_eq!(sampled.occurred(after(61)), None);
        assert_eq!(sampled.overdue(after(62)), None);
        assert_eq!(sampled.overdue(after(120)), Some(1));
        assert_eq!(sampled.overdue(after(300)), None);
        assert_eq!(sampled.occurred(after(300)), Some(0));
    }

    #[test]
    fn a_series_ends_once_with_its_total() {
        let (sampled, start) = (Sampled::default(), Instant::now());
        assert_eq!(sampled.ended(start), None);
        sampled.occurred(start);
        sampled.occurred(start + Duration::from_secs(3));
        let lasted = Duration::from_secs(5);
        assert_eq!(sampled.ended(start + lasted), Some(Series { total: 2, lasted }));
        assert_eq!(sampled.ended(start + lasted), None);
        assert_eq!(sampled.occurred(start + lasted), Some(0));
    }
}
