//! Idempotency keys as Stripe keeps them: in flight, then with a saved answer, and pruned once they are 24 hours old.
//!
//! What is saved is up to the exchange: whatever an execution ended with, 400s and 500s included, and nothing else.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::shapes::Answer;

/// After this a key may run again.
const PRUNED_AFTER: TimeDelta = TimeDelta::hours(24);

/// What a request must repeat to be the same request: method, path and parameters, in any order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    pub(crate) method: String,
    pub(crate) path: String,
    /// Sorted.
    pub(crate) params: Vec<(String, String)>,
}

/// What is known of a key.
#[derive(Debug)]
pub(crate) enum Known {
    /// Never seen, or pruned.
    Fresh,
    /// A request with this key is being executed.
    InFlight,
    /// Its execution has ended with this.
    Saved(Answer),
    /// It was used for another request.
    OtherParameters,
}

#[derive(Debug, Default)]
pub(crate) struct IdempotencyKeys(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    since: DateTime<Utc>,
    /// None while in flight.
    answer: Option<Answer>,
}

impl IdempotencyKeys {
    pub(crate) fn look_up(&mut self, key: &str, fingerprint: &Fingerprint, now: DateTime<Utc>) -> Known {
        if self.0.get(key).is_some_and(|entry| entry.answer.is_some() && now - entry.since >= PRUNED_AFTER) {
            self.0.remove(key);
        }
        match self.0.get(key) {
            None => Known::Fresh,
            Some(entry) if entry.fingerprint != *fingerprint => Known::OtherParameters,
            Some(Entry { answer: None, .. }) => Known::InFlight,
            Some(Entry { answer: Some(answer), .. }) => Known::Saved(answer.clone()),
        }
    }

    /// An execution begins.
    pub(crate) fn claim(&mut self, key: &str, fingerprint: Fingerprint, now: DateTime<Utc>) {
        self.0.insert(key.to_owned(), Entry { fingerprint, since: now, answer: None });
    }

    /// The execution has ended.
    pub(crate) fn save(&mut self, key: &str, answer: Answer) {
        // Absent after a reset in the middle of an execution: then there is nothing to save it to.
        if let Some(entry) = self.0.get_mut(key) {
            entry.answer = Some(answer);
        }
    }

    /// The execution has left no trace.
    pub(crate) fn release(&mut self, key: &str) {
        self.0.remove(key);
    }
}
