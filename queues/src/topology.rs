//! Which exchange and queues a work queue needs, as a value.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// AMQP's limit for names.
const MAX_NAME_BYTES: usize = 255;
/// RabbitMQ's limit for `x-message-ttl`: 2^32 - 1 ms, some 49 days.
const LONGEST_DELAY: Duration = Duration::from_millis(u32::MAX as u64);
/// So large that looking at a parked message in the management UI, which counts as a delivery, never drops it. (A negative
/// number, RabbitMQ 4's "unlimited", means 0 on RabbitMQ 3.)
const PARKED_DELIVERY_LIMIT: i64 = 1_000_000_000;
const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];

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
    /// How often a message may be delivered from the work queue without an acknowledgement before the broker parks it: the
    /// safety net under a job that kills its worker.
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

    /// The exchange that jobs are published to; the work queue is bound to it by its own name.
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
        format!("{}.retry.{}", self.queue, delay_name(delay))
    }

    /// The declared delays, ascending; there is at least one.
    #[must_use]
    pub fn delays(&self) -> &[Duration] {
        &self.delays
    }

    /// The declared delay for a requested one: the smallest that is not shorter, or the longest.
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
        self.delays.iter().copied().find(|delay| *delay >= wanted).unwrap_or_else(|| self.longest_delay())
    }

    pub(crate) fn longest_delay(&self) -> Duration {
        self.delays.last().copied().unwrap_or_default()
    }

    /// The delay number `number`, from 0, or the longest.
    pub(crate) fn growing_delay(&self, number: u32) -> Duration {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.delays.get(number).copied().unwrap_or_else(|| self.longest_delay())
    }

    /// Every queue with its arguments, in the order of declaration: a dead-letter target comes before its source, so no
    /// message can meet a missing target.
    #[must_use]
    pub fn queues(&self) -> Vec<QueueSpec> {
        let parked = self.parked_queue();
        let work = QueueSpec::work(&self.queue, &parked);
        let retries = self.delays.iter().map(|delay| QueueSpec::retry(self.retry_queue(*delay), *delay, &self.queue));
        [QueueSpec::parked(parked), work].into_iter().chain(retries).collect()
    }
}

/// A durable queue's specification. What correctness rests on is an argument; what an operator may tune belongs in a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSpec {
    /// Its name.
    pub name: String,
    /// Its `x-` arguments.
    pub arguments: BTreeMap<&'static str, Argument>,
}

/// The value of a queue's argument.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Argument {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Integer(number) => write!(f, "{number}"),
        }
    }
}

impl QueueSpec {
    /// No TTL and no dead-letter target: parked jobs stay until a person decides.
    fn parked(name: String) -> Self {
        Self::quorum(name).with_integer("x-delivery-limit", PARKED_DELIVERY_LIMIT)
    }

    fn work(name: &str, parked: &str) -> Self {
        Self::quorum(name.to_owned())
            .dead_lettering_to(parked)
            .with_integer("x-delivery-limit", i64::from(Topology::DELIVERY_LIMIT))
    }

    /// No `x-expires`: it would delete the queue together with the messages in it.
    fn retry(name: String, delay: Duration, work: &str) -> Self {
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        Self::quorum(name).dead_lettering_to(work).with_integer("x-message-ttl", milliseconds)
    }

    fn quorum(name: String) -> Self {
        Self { name, arguments: BTreeMap::new() }.with_text("x-queue-type", "quorum")
    }

    /// Through the default exchange, at least once. Without `reject-publish` a quorum queue silently falls back to at most
    /// once.
    fn dead_lettering_to(self, queue: &str) -> Self {
        self.with_text("x-dead-letter-exchange", "")
            .with_text("x-dead-letter-routing-key", queue)
            .with_text("x-dead-letter-strategy", "at-least-once")
            .with_text("x-overflow", "reject-publish")
    }

    fn with_text(mut self, name: &'static str, value: &str) -> Self {
        self.arguments.insert(name, Argument::Text(value.to_owned()));
        self
    }

    fn with_integer(mut self, name: &'static str, value: i64) -> Self {
        self.arguments.insert(name, Argument::Integer(value));
        self
    }
}

/// A name or a delay that RabbitMQ would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A name is empty, too long or reserved.
    #[error("the {object} name must have 1 to 255 bytes and not begin with `amq.` (got {name:?})")]
    Name {
        /// `exchange` or `queue`.
        object: &'static str,
        /// The name as given, or as derived from it (`NAME.parked`, `NAME.retry.1m`).
        name: String,
    },
    /// Without a delay there is no retry queue.
    #[error("retry delays must have at least one entry (got none)")]
    NoDelays,
    /// A delay is too short, too long, or not in whole milliseconds.
    #[error("a retry delay must be in whole milliseconds, from 1 ms to 49 days (got {delay:?})")]
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

/// A delay, in whole milliseconds, in the largest exact unit: `90s`, not `1.5m`. Two delays never share a name.
fn delay_name(delay: Duration) -> String {
    let milliseconds = delay.as_millis();
    UNITS
        .iter()
        .find(|(size, _)| milliseconds.is_multiple_of(*size))
        .map_or_else(|| format!("{milliseconds}ms"), |(size, unit)| format!("{}{unit}", milliseconds / size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    fn the_largest_exact_unit_is_used() {
        let cases =
            [(500, "500ms"), (1500, "1500ms"), (10_000, "10s"), (90_000, "90s"), (120_000, "2m"), (3_600_000, "1h")];
        for (milliseconds, name) in cases {
            assert_eq!(delay_name(Duration::from_millis(milliseconds)), name);
        }
    }

    proptest! {
        #[test]
        fn a_name_can_be_read_back_so_no_two_delays_share_one(milliseconds in 1..=u64::from(u32::MAX), size in 0..4_usize) {
            let milliseconds = milliseconds.saturating_mul([1, 1000, 60_000, 3_600_000][size]);
            let name = delay_name(Duration::from_millis(milliseconds));
            let (number, unit) = name.split_at(name.find(|c: char| !c.is_ascii_digit()).unwrap());
            let size = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                _ => 3_600_000,
            };
            prop_assert_eq!(number.parse::<u64>().unwrap() * size, milliseconds);
        }
    }
}
