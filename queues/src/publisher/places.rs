//! Places for messages on their way. Each queue has its own, so that one which confirms nothing takes none of another's.

use crate::topology::is_long_delay;
use lapin::types::ShortString;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many messages of one lane may be written or wait to be; those beyond wait with their callers.
const PLACES: usize = 1000;
/// Routing keys that have a lane each, of one exchange and in all; the others of an exchange share one.
const LANES_OF_AN_EXCHANGE: usize = 32;
const MAX_LANES: usize = 100;

/// What is written to one channel, in its order: the messages for one routing key, which is a queue's name unless they are
/// delayed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) exchange: ShortString,
    /// `None` for all that have no lane of their own.
    routing_key: Option<ShortString>,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routing_key = self.routing_key.as_ref().map_or("*", ShortString::as_str);
        write!(f, "{}/{routing_key}", self.exchange)
    }
}

/// A message's right to be on its way; it comes free when it is dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// A routing key's lane never changes, or its messages could overtake each other.
#[derive(Default)]
pub(super) struct Places {
    of_lanes: Mutex<HashMap<Lane, Arc<Semaphore>>>,
}

impl Places {
    /// The lane of a message, and where its places are waited for.
    pub(super) fn of(&self, exchange: &ShortString, routing_key: &ShortString) -> (Lane, Arc<Semaphore>) {
        let mut lanes = self.of_lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lane = Lane { exchange: exchange.clone(), routing_key: Some(routing_key.clone()) };
        if !lanes.contains_key(&lane) {
            let of_exchange = lanes.keys().filter(|other| other.exchange == *exchange).count();
            // The keys of long delays have no end.
            if lanes.len() >= MAX_LANES || of_exchange >= LANES_OF_AN_EXCHANGE || is_long_delay(exchange.as_str()) {
                lane.routing_key = None;
            }
        }
        let places = lanes.entry(lane.clone()).or_insert_with(|| Arc::new(Semaphore::new(PLACES)));
        (lane, Arc::clone(places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routing_key_keeps_its_lane_also_when_others_have_taken_all() {
        let places = Places::default();
        let of = |exchange: usize, key: usize| places.of(&exchange.to_string().into(), &key.to_string().into()).0;
        let all = || (0..10).flat_map(|exchange| (0..50).map(move |key| (exchange, key)));
        let first: Vec<Lane> = all().map(|(exchange, key)| of(exchange, key)).collect();
        let own = |lane: &&Lane| lane.routing_key.is_some();
        assert_eq!(first.iter().take(50).filter(own).count(), LANES_OF_AN_EXCHANGE);
        assert!(first.iter().filter(own).count() <= MAX_LANES);
        assert_eq!(all().map(|(exchange, key)| of(exchange, key)).collect::<Vec<_>>(), first);
    }

    #[test]
    fn long_delays_share_a_lane_for_each_of_their_exchanges() {
        let places = Places::default();
        let of = |exchange: &str, key: &str| places.of(&exchange.into(), &key.into()).0;
        assert_eq!(of("jobs.delay.4s", "0.1.q"), of("jobs.delay.4s", "1.1.q"));
        assert_ne!(of("jobs", "q"), of("jobs", "r"));
    }
}
