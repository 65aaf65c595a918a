//! Where a message waits for how long.

use super::{Address, Topology, long_delays};
use std::time::Duration;

impl Topology {
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

    /// The longest delay for which a message can wait without meeting a worker.
    pub(crate) fn longest_wait(&self) -> Duration {
        let longest = self.longest_delay();
        if self.long_delays { longest.max(long_delays::LONGEST_PASSAGE) } else { longest }
    }

    /// Whether any delay can be asked for.
    pub(crate) fn has_long_delays(&self) -> bool {
        self.long_delays
    }

    /// Where a message waits for `delay`, or for the longest wait, before it goes to a work queue.
    pub(crate) fn delayed(&self, delay: Duration, work_queue: &str) -> Address {
        let declared = self.delay_for(delay);
        if self.long_delays && declared != delay {
            return long_delays::address(&self.exchange, work_queue, delay);
        }
        match self.partitions {
            0 => Address::queue(self.retry_queue(declared)),
            _ => Address { exchange: self.retry_queue(declared), routing_key: work_queue.to_owned() },
        }
    }

    pub(crate) fn longest_delay(&self) -> Duration {
        self.delays.last().copied().unwrap_or_default()
    }

    /// The delay number `number`, from 0, or the longest.
    pub(crate) fn growing_delay(&self, number: u32) -> Duration {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        self.delays.get(number).copied().unwrap_or_else(|| self.longest_delay())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_delay_is_the_declared_one_or_composed_of_seconds() {
        let topology = Topology::new("jobs", "q", [SECOND * 60]).unwrap();
        let short = |topology: &Topology| topology.delayed(SECOND * 45, "q");
        assert_eq!(short(&topology), Address::queue("q.retry.1m".to_owned()));
        let long = topology.with_long_delays().unwrap();
        assert_eq!(long.delayed(SECOND * 60, "q"), Address::queue("q.retry.1m".to_owned()));
        assert_eq!(short(&long).exchange, "jobs.delay.32s");
        let partitioned = long.partitioned(4).unwrap();
        let address = partitioned.delayed(SECOND * 60, "q.p3");
        assert_eq!((address.exchange.as_str(), address.routing_key.as_str()), ("q.retry.1m", "q.p3"));
    }
}
