//! Which exchange and queues a work queue needs, as a value: built by users, declared and verified by the broker, asked
//! for names by the worker. It never talks to a broker.

mod delay_name;
mod queue_spec;

pub use queue_spec::{Argument, QueueSpec};
use std::{collections::BTreeSet, time::Duration};

/// AMQP's limit for names.
const MAX_NAME_BYTES: usize = 255;
/// RabbitMQ's limit for `x-message-ttl`: 2^32 - 1 ms, some 49 days.
const LONGEST_DELAY: Duration = Duration::from_millis(u32::MAX as u64);

/// A direct exchange, a work queue, one retry queue per delay and a parking queue; all queues are quorum queues.
///
/// ```
/// use queues::Topology;
/// use std::time::Duration;
///
/// let topology = Topology::new("shop.jobs", "receipts", [60, 120, 3600].map(Duration::from_secs))?;
/// let names: Vec<String> = topology.queues().into_iter().map(|queue| queue.name).collect();
/// assert_eq!(names, ["receipts.parked", "receipts", "receipts.retry.1m", "receipts.retry.2m", "receipts.retry.1h"]);
/// # Ok::<(), queues::TopologyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    exchange: String,
    queue: String,
    /// Ascending, distinct, never empty.
    delays: Vec<Duration>,
}

impl Topology {
    /// How often a message may be delivered from the work queue without being acknowledged, before the broker parks it:
    /// the last net under a job that kills its worker.
    pub const DELIVERY_LIMIT: u32 = 20;

    /// Checks the names and the delays, which are deduplicated and sorted.
    ///
    /// # Errors
    /// [`TopologyError`] names the value that is not allowed and says what is.
    pub fn new(
        exchange: impl Into<String>,
        queue: impl Into<String>,
        delays: impl IntoIterator<Item = Duration>,
    ) -> Result<Self, TopologyError> {
        let delays: BTreeSet<Duration> = delays.into_iter().collect();
        if delays.is_empty() {
            return Err(TopologyError::NoDelays);
        }
        if let Some(&delay) = delays.iter().find(|delay| !is_declarable(**delay)) {
            return Err(TopologyError::Delay { delay });
        }
        let topology = Self { exchange: exchange.into(), queue: queue.into(), delays: delays.into_iter().collect() };
        check_name("exchange", &topology.exchange)?;
        check_name("queue", &topology.queue)?;
        topology.queues().iter().try_for_each(|queue| check_name("queue", &queue.name))?;
        Ok(topology)
    }

    /// The exchange that jobs are published to; the work queue is bound to it with its own name as the key.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The work queue.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The parking queue: `NAME.parked`.
    #[must_use]
    pub fn parked_queue(&self) -> String {
        format!("{}.parked", self.queue)
    }

    /// The retry queue of a declared delay: `NAME.retry.` and the delay in its shortest exact unit (`500ms`, `10s`,
    /// `2m`, `1h`). Different delays have different names, so a queue's arguments never change under its name.
    #[must_use]
    pub fn retry_queue(&self, delay: Duration) -> String {
        format!("{}.retry.{}", self.queue, delay_name::of(delay))
    }

    /// The declared delays, ascending; there is at least one.
    #[must_use]
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// The declared delay for a wanted one: the smallest that is not shorter, or the longest there is.
    ///
    /// ```
    /// # use queues::Topology;
    /// # use std::time::Duration;
    /// let topology = Topology::new("shop.jobs", "receipts", [1, 10].map(Duration::from_secs))?;
    /// assert_eq!(topology.delay_for(Duration::ZERO), Duration::from_secs(1));
    /// assert_eq!(topology.delay_for(Duration::from_millis(1001)), Duration::from_secs(10));
    /// assert_eq!(topology.delay_for(Duration::from_secs(99)), Duration::from_secs(10));
    /// # Ok::<(), queues::TopologyError>(())
    /// ```
    #[must_use]
    pub fn delay_for(&self, wanted: Duration) -> Duration {
        let longest = self.delays.last().copied().unwrap_or(wanted);
        self.delays.iter().copied().find(|delay| *delay >= wanted).unwrap_or(longest)
    }

    /// Every queue with its arguments, in the order of declaration: what a queue dead-letters to comes before it, so that
    /// no message can meet a missing target.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueSpec> {
        let parked = self.parked_queue();
        let work = QueueSpec::work(&self.queue, &parked);
        let retries = self.delays.iter().map(|delay| QueueSpec::retry(self.retry_queue(*delay), *delay, &self.queue));
        [QueueSpec::parked(parked), work].into_iter().chain(retries).collect()
    }
}

/// A name or a delay that RabbitMQ would not take, or that this topology could not tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A name is empty, too long or reserved.
    #[error("the {object} name {name:?} is not allowed: 1 to 255 bytes, not beginning with `amq.`")]
    Name {
        /// `exchange` or `queue`.
        object: &'static str,
        /// The name as given, or as derived from it (`NAME.parked`, `NAME.retry.1m`).
        name: String,
    },
    /// There is no delay, so there would be no retry queue.
    #[error("no retry delays were given: at least one is needed")]
    NoDelays,
    /// A delay is too short, too long, or not in whole milliseconds.
    #[error("the retry delay {delay:?} is not allowed: whole milliseconds, from 1 ms to 49 days")]
    Delay {
        /// The delay as given.
        delay: Duration,
    },
}

fn check_name(object: &'static str, name: &str) -> Result<(), TopologyError> {
    let allowed = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with("amq.");
    if allowed { Ok(()) } else { Err(TopologyError::Name { object, name: name.to_owned() }) }
}

fn is_declarable(delay: Duration) -> bool {
    let whole_milliseconds = delay.subsec_nanos().is_multiple_of(1_000_000);
    whole_milliseconds && delay > Duration::ZERO && delay <= LONGEST_DELAY
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn names_that_the_broker_would_refuse_are_refused_by_name() {
        for name in ["", "amq.jobs", &"q".repeat(256), &"q".repeat(250)] {
            let error = Topology::new("jobs", name, [SECOND]).unwrap_err();
            assert!(matches!(&error, TopologyError::Name { object: "queue", name: named } if named.starts_with(name)));
        }
        let error = Topology::new("amq.direct", "q", [SECOND]).unwrap_err().to_string();
        assert_eq!(
            error,
            r#"the exchange name "amq.direct" is not allowed: 1 to 255 bytes, not beginning with `amq.`"#
        );
    }

    #[test]
    fn delays_that_no_queue_can_have_are_refused() {
        assert_eq!(Topology::new("jobs", "q", []).unwrap_err(), TopologyError::NoDelays);
        for delay in [Duration::ZERO, Duration::from_micros(1500), LONGEST_DELAY + Duration::from_millis(1)] {
            assert_eq!(Topology::new("jobs", "q", [SECOND, delay]).unwrap_err(), TopologyError::Delay { delay });
        }
    }

    #[test]
    fn delays_are_sorted_and_each_is_declared_once() {
        let topology = Topology::new("jobs", "q", [SECOND * 60, SECOND, Duration::from_millis(1000)]).unwrap();
        assert_eq!(topology.delays(), [SECOND, SECOND * 60]);
        assert_eq!(topology.queues().len(), 4);
    }
}
