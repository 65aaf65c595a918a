//! Which names and delays the broker takes, and how a delay is written in a queue's name.

use super::TopologyError;
use std::time::Duration;

/// AMQP's limit for names.
const MAX_NAME_BYTES: usize = 255;
/// RabbitMQ's limit for `x-message-ttl`: 2^32 - 1 ms, some 49 days.
pub(super) const LONGEST_DELAY: Duration = Duration::from_millis(u32::MAX as u64);
const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];

pub(super) fn check_name(object: &'static str, name: &str) -> Result<(), TopologyError> {
    let allowed = (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with("amq.");
    if allowed { Ok(()) } else { Err(TopologyError::Name { object, name: name.to_owned() }) }
}

pub(super) fn is_declarable(delay: Duration) -> bool {
    let whole_milliseconds = delay.subsec_nanos().is_multiple_of(1_000_000);
    whole_milliseconds && delay > Duration::ZERO && delay <= LONGEST_DELAY
}

/// A delay, in whole milliseconds, in the largest exact unit: `90s`, not `1.5m`. Two delays never share a name.
pub(super) fn delay_name(delay: Duration) -> String {
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
