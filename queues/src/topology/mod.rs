//! Which exchange and queues a work queue needs, as a value.

mod delays;
mod error;
mod long_delays;
mod names;
mod objects;
mod partitions;

pub use error::TopologyError;
pub(crate) use long_delays::is_long_delay;
pub(crate) use objects::Address;
pub use objects::{Argument, Binding, ExchangeSpec, QueueSpec};

use names::{check_name, delay_name, is_declarable};
use objects::DeadLetters;
use std::{collections::BTreeSet, time::Duration};

/// More work queues than any program needs.
const MAX_PARTITIONS: u16 = 256;

/// A direct exchange, a work queue, one retry queue per delay and a parking queue; all queues are quorum queues. Optionally
/// the work queue is [partitioned](Self::partitioned), and messages may have [long delays](Self::with_long_delays).
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
    long_delays: bool,
    /// 0 for one work queue without partitions.
    partitions: u16,
}

impl Topology {
    /// How often a message may be delivered from the work queue without an acknowledgement before the broker parks it: the
    /// safety net under a job that kills its worker.
    pub const DELIVERY_LIMIT: u32 = 20;

    /// Checks the names and the delays, which are deduplicated and sorted.
    ///
    /// # Errors
    /// [`TopologyError::Name`], [`TopologyError::NoDelays`] or [`TopologyError::Delay`], which names the value that is not
    /// allowed and says what is.
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
        let (exchange, queue, delays) = (exchange.into(), queue.into(), delays.into_iter().collect());
        check_name("exchange", &exchange)?;
        check_name("queue", &queue)?;
        Self { exchange, queue, delays, long_delays: false, partitions: 0 }.checked()
    }

    /// Splits the work queue into `partitions` queues (1 to 256), each with a single active consumer: jobs of one
    /// [key](crate::Message::with_key) go to one partition, and run one after the other in the order of their publishing. All
    /// programs must name the same number: keys move when it changes, so drain the queues before.
    ///
    /// ```
    /// # use queues::Topology;
    /// # use std::time::Duration;
    /// let topology = Topology::new("shop.jobs", "receipts", [Duration::from_secs(60)])?.partitioned(2)?;
    /// assert_eq!(topology.work_queues(), ["receipts.p0", "receipts.p1"]);
    /// assert_eq!(topology.work_queue_of("seller-17"), "receipts.p1");
    /// # Ok::<(), queues::TopologyError>(())
    /// ```
    ///
    /// # Errors
    /// [`TopologyError::Partitions`] when the number is 0 or too large; [`TopologyError::Name`], or with long delays
    /// [`TopologyError::LongDelays`], when a name gets too long.
    pub fn partitioned(self, partitions: u16) -> Result<Self, TopologyError> {
        if !(1..=MAX_PARTITIONS).contains(&partitions) {
            return Err(TopologyError::Partitions { partitions });
        }
        Self { partitions, ..self }.checked()
    }

    /// Declares 23 further queues and 24 exchanges, for the binary digits of a delay, which all topologies of this exchange share:
    /// [`Message::with_delay`](crate::Message::with_delay) and [`Outcome::Snooze`](crate::Outcome::Snooze) then take any
    /// delay, rounded up to whole seconds unless it is a declared one. A message waits up to 97 days in them; for a longer
    /// delay a worker sends it through them again. A snoozed job that [holds](crate::RetryOrder::Hold) its key waits in its worker
    /// instead, for at most 15 minutes.
    ///
    /// # Errors
    /// [`TopologyError::Name`] when a name gets too long; [`TopologyError::LongDelays`] when the work queue's is too long for the
    /// routing keys, or has a word `*` or `#`.
    pub fn with_long_delays(self) -> Result<Self, TopologyError> {
        Self { long_delays: true, ..self }.checked()
    }

    fn checked(self) -> Result<Self, TopologyError> {
        self.queues().iter().try_for_each(|queue| check_name("queue", &queue.name))?;
        self.exchanges().iter().try_for_each(|exchange| check_name("exchange", &exchange.name))?;
        let is_wild = |queue: &str| queue.split('.').any(|word| word == "*" || word == "#");
        let is_bad = |queue: &String| queue.len() > long_delays::MAX_NAME_BYTES || is_wild(queue);
        match self.work_queues().into_iter().find(|queue| self.long_delays && is_bad(queue)) {
            Some(name) => Err(TopologyError::LongDelays { name }),
            None => Ok(self),
        }
    }

    /// The exchange that jobs are published to; the work queue is bound to it by its own name.
    #[must_use]
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The work queue's name, from which those of its [partitions](Self::partitioned) are derived.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.queue
    }

    /// The queues that a worker takes jobs from: the work queue, or its partitions.
    #[must_use]
    pub fn work_queues(&self) -> Vec<String> {
        match self.partitions {
            0 => vec![self.queue.clone()],
            count => (0..count).map(|partition| partitions::queue(&self.queue, partition)).collect(),
        }
    }

    /// The queue that the jobs of a key go to: the partition numbered FNV-1a (64 bits) of the key's bytes, modulo the
    /// number of partitions.
    #[must_use]
    pub fn work_queue_of(&self, key: &str) -> String {
        match self.partitions {
            0 => self.queue.clone(),
            count => partitions::queue(&self.queue, partitions::of(key, count)),
        }
    }

    /// Whether jobs of one key run in order.
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        self.partitions > 0
    }

    /// A queue without messages that the workers of a partitioned topology consume, to know how many they are:
    /// `NAME.workers`.
    pub(crate) fn workers_queue(&self) -> Option<String> {
        self.is_partitioned().then(|| format!("{}.workers", self.queue))
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
        format!("{}.retry.{}", self.queue, delay_name(delay))
    }

    /// The declared delays, ascending; there is at least one.
    #[must_use]
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// Every queue with its arguments, in the order of declaration: a dead-letter target comes before its source, so no
    /// message can meet a missing target.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueSpec> {
        let parked = self.parked_queue();
        let make = if self.is_partitioned() { QueueSpec::partition } else { QueueSpec::work };
        let work = self.work_queues().into_iter().map(|name| make(name, &parked));
        let back = match self.partitions {
            0 => DeadLetters::To(&self.queue),
            _ => DeadLetters::Through(&self.exchange),
        };
        let retries = self.delays.iter().map(|delay| QueueSpec::waiting(self.retry_queue(*delay), *delay, &back));
        let long = self.long_delays.then(|| long_delays::queues(&self.exchange)).into_iter().flatten();
        let (parked, workers) = (QueueSpec::parked(parked.clone()), self.workers_queue().map(QueueSpec::quorum));
        [parked].into_iter().chain(workers).chain(work).chain(retries).chain(long).collect()
    }

    /// Every exchange. The one that jobs are published to comes last: once it is there, a publisher reaches queues that are
    /// complete.
    #[must_use]
    pub fn exchanges(&self) -> Vec<ExchangeSpec> {
        let long = self.long_delays.then(|| long_delays::exchanges(&self.exchange)).into_iter().flatten();
        // A retry queue keeps the routing key, which names the partition: so it needs an exchange of its own to get there.
        let delays = if self.is_partitioned() { self.delays.as_slice() } else { &[] };
        let retries = delays.iter().map(|delay| ExchangeSpec::new(self.retry_queue(*delay), "fanout"));
        let jobs = ExchangeSpec::new(self.exchange.clone(), "direct");
        long.chain(retries).chain([jobs]).collect()
    }

    /// Every binding.
    #[must_use]
    pub fn bindings(&self) -> Vec<Binding> {
        let work_queues = self.work_queues();
        let long = self.long_delays.then(|| long_delays::bindings(&self.exchange, &work_queues));
        let delays = if self.is_partitioned() { self.delays.as_slice() } else { &[] };
        let retries =
            delays.iter().map(|delay| self.retry_queue(*delay)).map(|name| Binding::to_queue(&name, &name, ""));
        let jobs = work_queues.iter().map(|queue| Binding::to_queue(&self.exchange, queue, queue));
        long.into_iter().flatten().chain(retries).chain(jobs).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{names::LONGEST_DELAY, *};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn names_that_the_broker_would_refuse_are_refused_by_name() {
        for name in ["", "amq.jobs", &"q".repeat(256), &"q".repeat(250)] {
            let error = Topology::new("jobs", name, [SECOND]).unwrap_err();
            assert!(matches!(&error, TopologyError::Name { object: "queue", name: named } if named.starts_with(name)));
        }
        let error = Topology::new("amq.direct", "q", [SECOND]).unwrap_err().to_string();
        assert_eq!(error, r#"the exchange name must have 1 to 255 bytes and not begin with `amq.` (got "amq.direct")"#);
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

    #[test]
    fn partitions_and_long_delays_that_the_broker_could_not_carry_are_refused() {
        let topology = |name: &str| Topology::new("jobs", name, [SECOND]).unwrap();
        for partitions in [0, 257] {
            assert_eq!(topology("q").partitioned(partitions).unwrap_err(), TopologyError::Partitions { partitions });
        }
        for name in ["q".repeat(210), "q.*".to_owned(), "#.q".to_owned()] {
            assert_eq!(topology(&name).with_long_delays().unwrap_err(), TopologyError::LongDelays { name });
        }
        let long_exchange = Topology::new("e".repeat(245), "q", [SECOND]).unwrap().with_long_delays();
        assert!(matches!(long_exchange.unwrap_err(), TopologyError::Name { .. }));
    }
}
