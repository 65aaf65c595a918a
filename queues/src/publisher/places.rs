//! Places for messages on their way. Each queue has its own, so that one which confirms nothing takes none of another's.

use lapin::types::ShortString;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many messages of one lane may be written or wait to be; those beyond wait with their callers.
const PLACES: usize = 1000;
/// Routing keys of one exchange that have a lane each; the others share one. The keys of long delays have no end.
const LANES_OF_AN_EXCHANGE: usize = 32;
/// More than a program has; beyond them those that are not in use are forgotten.
pub(super) const MAX_LANES: usize = 100;

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
            if lanes.len() >= MAX_LANES {
                lanes.retain(|_, places| places.available_permits() < PLACES);
            }
            if lanes.keys().filter(|other| other.exchange == *exchange).count() >= LANES_OF_AN_EXCHANGE {
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
    fn each_routing_key_has_a_lane_until_an_exchange_has_too_many() {
        let places = Places::default();
        let of = |exchange: &str, key: usize| places.of(&exchange.into(), &key.to_string().into());
        let lanes: Vec<Lane> = (0..LANES_OF_AN_EXCHANGE + 5).map(|key| of("jobs", key).0).collect();
        for (key, lane) in lanes.iter().enumerate() {
            let expected = (key < LANES_OF_AN_EXCHANGE).then(|| key.to_string().into());
            assert_eq!((lane.routing_key.clone(), of("jobs", key).0), (expected, lane.clone()));
        }
        assert!(of("others", 1_000).0.routing_key.is_some(), "another exchange's lanes count, too");
    }

    #[test]
    fn lanes_that_nobody_uses_are_forgotten_and_no_other() {
        let places = Places::default();
        let of = |exchange: usize| places.of(&exchange.to_string().into(), &"key".into());
        let used = of(0).1;
        let place = Arc::clone(&used).try_acquire_owned();
        for exchange in 1..3 * MAX_LANES {
            of(exchange);
        }
        assert!(places.of_lanes.lock().unwrap().len() <= MAX_LANES);
        assert!(Arc::ptr_eq(&used, &of(0).1));
        drop(place);
    }
}
