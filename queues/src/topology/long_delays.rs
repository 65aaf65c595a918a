//! Delays of any whole number of seconds with one queue for each binary digit: a message passes through the queues of the
//! digits that are 1, from the largest to the smallest, and through none twice, which the broker would take for a cycle.
//!
//! Each digit has a topic exchange, which reads its own word of the routing key (`1.0.1.….QUEUE`) and sends the message
//! into its queue or on to the next exchange; so does the queue when its time is over. The last exchange knows the work
//! queues. All topologies of one exchange share them.

use super::objects::{Address, Binding, DeadLetters, ExchangeSpec, QueueSpec};
use std::time::Duration;

/// The largest is 2^22 s: RabbitMQ's limit for `x-message-ttl` is 2^32 - 1 ms.
const DIGITS: usize = 23;
/// The longest that one passage can take: 97 days.
pub(super) const LONGEST_PASSAGE: Duration = Duration::from_secs((1 << DIGITS) - 1);
/// What a name may have beside the digits in a routing key of 255 bytes.
pub(super) const MAX_NAME_BYTES: usize = 255 - 2 * DIGITS;

/// The address at which a message begins to wait for `delay`, rounded up to whole seconds, before it reaches `queue`.
pub(super) fn address(exchange: &str, queue: &str, delay: Duration) -> Address {
    let seconds = delay.min(LONGEST_PASSAGE).as_millis().div_ceil(1000).max(1);
    let digit = |number: usize| (seconds >> number) & 1;
    let largest = (0..DIGITS).rev().find(|number| digit(*number) == 1).unwrap_or_default();
    let digits: String = (0..DIGITS).rev().map(|number| format!("{}.", digit(number))).collect();
    Address { exchange: stage(exchange, largest), routing_key: format!("{digits}{queue}") }
}

/// The queue of a digit and its exchange have this name.
fn stage(exchange: &str, digit: usize) -> String {
    format!("{exchange}.delay.{}s", 1_u32 << digit)
}

/// Whether an exchange has such a name.
pub(crate) fn is_long_delay(exchange: &str) -> bool {
    exchange.contains(".delay.")
}

fn last(exchange: &str) -> String {
    format!("{exchange}.delay.over")
}

fn next(exchange: &str, digit: usize) -> String {
    digit.checked_sub(1).map_or_else(|| last(exchange), |digit| stage(exchange, digit))
}

pub(super) fn queues(exchange: &str) -> impl Iterator<Item = QueueSpec> {
    (0..DIGITS).map(move |digit| {
        let delay = Duration::from_secs(1 << digit);
        QueueSpec::waiting(stage(exchange, digit), delay, &DeadLetters::Through(&next(exchange, digit)))
    })
}

pub(super) fn exchanges(exchange: &str) -> impl Iterator<Item = ExchangeSpec> {
    let stages = (0..DIGITS).map(move |digit| stage(exchange, digit));
    [last(exchange)].into_iter().chain(stages).map(|name| ExchangeSpec::new(name, "topic"))
}

pub(super) fn bindings(exchange: &str, work_queues: &[String]) -> Vec<Binding> {
    let all_digits = "*.".repeat(DIGITS);
    let ends =
        work_queues.iter().map(|queue| Binding::to_queue(&last(exchange), queue, format!("{all_digits}{queue}")));
    let stages = (0..DIGITS).flat_map(|digit| {
        let (stage, before) = (stage(exchange, digit), "*.".repeat(DIGITS - 1 - digit));
        [
            Binding::to_exchange(&stage, &next(exchange, digit), format!("{before}0.#")),
            Binding::to_queue(&stage, &stage, format!("{before}1.#")),
        ]
    });
    ends.chain(stages).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As a topic exchange compares words.
    fn matches(pattern: &[&str], words: &[&str]) -> bool {
        match (pattern, words) {
            ([], []) => true,
            (["#"], _) => true,
            ([first, pattern @ ..], [word, words @ ..]) => (*first == "*" || first == word) && matches(pattern, words),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn a_message_waits_its_seconds_through_no_queue_twice_and_ends_in_its_queue_alone(
            milliseconds in 1..=u64::try_from(LONGEST_PASSAGE.as_millis()).unwrap(),
        ) {
            let work_queues = ["receipts", "shop.receipts", "receipts.p1"].map(str::to_owned);
            let (bindings, queues) = (bindings("jobs", &work_queues), queues("jobs").collect::<Vec<_>>());
            let start = address("jobs", "shop.receipts", Duration::from_millis(milliseconds));
            let words: Vec<&str> = start.routing_key.split('.').collect();
            let (mut at, mut waited, mut passed) = (start.exchange.clone(), 0, Vec::new());
            loop {
                let taken: Vec<&Binding> = bindings
                    .iter()
                    .filter(|binding| binding.source == at)
                    .filter(|binding| matches(&binding.routing_key.split('.').collect::<Vec<_>>(), &words))
                    .collect();
                prop_assert_eq!(taken.len(), 1, "at {}: {:?}", at, taken);
                let destination = taken[0].destination.clone();
                if !taken[0].to_queue {
                    at = destination;
                } else if destination == "shop.receipts" {
                    break;
                } else {
                    prop_assert!(!passed.contains(&destination), "twice through {}", destination);
                    let queue = queues.iter().find(|queue| queue.name == destination).unwrap();
                    waited += queue.arguments["x-message-ttl"].to_string().parse::<u64>().unwrap();
                    at = queue.arguments["x-dead-letter-exchange"].to_string();
                    passed.push(destination);
                }
            }
            prop_assert_eq!(waited, milliseconds.div_ceil(1000) * 1000);
            prop_assert_eq!(&passed[0], &start.exchange, "it enters at the first queue that it waits in");
        }
    }
}
