//! A delay as part of a queue's name. Used by the topology alone. It never rounds: two delays never share a name.

use std::time::Duration;

const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];

/// The delay, in whole milliseconds, in the largest unit that is exact: `90s`, not `1.5m`.
pub(super) fn of(delay: Duration) -> String {
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
            assert_eq!(of(Duration::from_millis(milliseconds)), name);
        }
    }

    proptest! {
        #[test]
        fn a_name_can_be_read_back_so_no_two_delays_share_one(milliseconds in 1..=u64::from(u32::MAX), size in 0..4_usize) {
            let milliseconds = milliseconds.saturating_mul([1, 1000, 60_000, 3_600_000][size]);
            let name = of(Duration::from_millis(milliseconds));
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
