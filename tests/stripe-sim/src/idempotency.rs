//! Idempotency keys as Stripe keeps them: in flight, then with a saved answer, and pruned once they are 24 hours old.
//!
//! What is saved is up to the exchange: whatever an execution ended with, 400s and 500s included, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::shapes::Answer;

/// After this a key may run again.
const PRUNED_AFTER: TimeDelta = TimeDelta::hours(24);

/// What is known of a key.
#[derive(Debug)]
pub(crate) enum Known {
    /// Never seen, or pruned.
    Fresh,
    /// A request with this key is being executed.
    InFlight,
    /// Its execution has ended with this.
    Saved(Arc<Answer>),
    /// It was used for another request.
    OtherParameters,
}

#[derive(Debug, Default)]
pub(crate) struct IdempotencyKeys(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    /// Of method, path and parameters, which a request must repeat to be the same request.
    fingerprint: u64,
    since: DateTime<Utc>,
    /// None while in flight.
    answer: Option<Arc<Answer>>,
}

impl IdempotencyKeys {
    pub(crate) fn look_up(&mut self, key: &str, fingerprint: u64, now: DateTime<Utc>) -> Known {
        let Some(entry) = self.0.get(key) else { return Known::Fresh };
        match &entry.answer {
            Some(_) if now - entry.since >= PRUNED_AFTER => {
                self.0.remove(key);
                Known::Fresh
            }
            _ if entry.fingerprint != fingerprint => Known::OtherParameters,
            None => Known::InFlight,
            Some(answer) => Known::Saved(Arc::clone(answer)),
        }
    }

    /// An execution begins.
    pub(crate) fn claim(&mut self, key: &str, fingerprint: u64, now: DateTime<Utc>) {
        self.0.insert(key.to_owned(), Entry { fingerprint, since: now, answer: None });
    }

    /// The execution has ended.
    pub(crate) fn save(&mut self, key: &str, answer: Arc<Answer>) {
        // Absent after a reset in the middle of an execution: then there is nothing to save it to.
        if let Some(entry) = self.0.get_mut(key) {
            entry.answer = Some(answer);
        }
    }

    pub(crate) fn age(&mut self, by: TimeDelta) {
        self.0.values_mut().for_each(|entry| entry.since -= by);
    }

    /// The execution has left no trace.
    pub(crate) fn release(&mut self, key: &str) {
        self.0.remove(key);
    }
}
