//! Medians, spreads and ratios of what was measured.

use crate::tally::{median, milliseconds};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};

/// Rates (messages per second) by measurement.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<&'static str, Vec<f64>>);

impl Samples {
    pub(crate) fn add(&mut self, name: &'static str, rate: f64) {
        self.0.entry(name).or_default().push(rate);
    }

    fn median(&mut self, name: &str) -> f64 {
        median(self.0.get_mut(name).expect("it was measured"))
    }

    /// Latencies are ascending. The last line is JSON, for programs. Whether each ratio reaches its target.
    pub(crate) fn print(mut self, bare_latency: &[Duration], latency: &[Duration]) -> bool {
        let names: Vec<&str> = self.0.keys().copied().collect();
        println!("{:<30} {:>10} {:>10} {:>10}   messages per second", "", "median", "lowest", "highest");
        for name in names {
            let median = self.median(name);
            let rates = &self.0[name];
            println!("{name:<30} {median:>10.0} {:>10.0} {:>10.0}", rates[0], rates[rates.len() - 1]);
        }
        println!("from publishing to an idle consumer, in milliseconds:");
        for (name, delays) in [("bare", bare_latency), ("library", latency)] {
            println!("{name:<30} median {:.2}, 99 % below {:.2}", milliseconds(delays, 50), milliseconds(delays, 99));
        }
        let bare_publish = self.median("bare publish, one by one").max(self.median("bare publish, buffered"));
        let publish = self.median("library publish");
        let one_by_one = self.median("bare consume, ack one by one");
        let multiple = self.median("bare consume, ack multiple");
        let consume = self.median("library consume");
        let (parts_publish, parts_consume) = (self.median("partitions publish"), self.median("partitions consume"));
        let (best_consume, two) = (one_by_one.max(multiple), |number: f64| (number * 100.0).round() / 100.0);
        let ratios = [
            ("publish_ratio", publish / bare_publish, 0.9),
            ("consume_ratio", consume / best_consume, 0.9),
            ("partitions_publish_ratio", parts_publish / bare_publish, 0.8),
            ("partitions_consume_ratio", parts_consume / best_consume, 0.8),
        ];
        let mut summary = json!({
            "bare_publish_per_second": bare_publish.round(),
            "library_publish_per_second": publish.round(),
            "bare_consume_one_by_one_per_second": one_by_one.round(),
            "bare_consume_multiple_per_second": multiple.round(),
            "library_consume_per_second": consume.round(),
            "latency_median_ms": two(milliseconds(latency, 50)),
            "latency_p99_ms": two(milliseconds(latency, 99)),
        });
        for (name, ratio, target) in ratios {
            summary[name] = json!(two(ratio));
            if ratio < target {
                println!("TOO SLOW: {name} must be at least {target} (got {ratio:.2})");
            }
        }
        println!("{summary}");
        ratios.iter().all(|(_, ratio, target)| ratio >= target)
    }
}
