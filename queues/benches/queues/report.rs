//! Medians, spreads and ratios of what was measured.

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
        let rates = self.0.get_mut(name).expect("it was measured");
        rates.sort_unstable_by(f64::total_cmp);
        rates[rates.len() / 2]
    }

    /// `latency` is ascending. The last line is JSON, for programs.
    pub(crate) fn print(mut self, latency: Vec<Duration>) {
        let names: Vec<&str> = self.0.keys().copied().collect();
        println!("{:<30} {:>10} {:>10} {:>10}   messages per second", "", "median", "lowest", "highest");
        for name in names {
            let median = self.median(name);
            let rates = &self.0[name];
            println!("{name:<30} {median:>10.0} {:>10.0} {:>10.0}", rates[0], rates[rates.len() - 1]);
        }
        let milliseconds = |part: usize| latency[latency.len() * part / 100].as_secs_f64() * 1000.0;
        let (median, high) = (milliseconds(50), milliseconds(99));
        println!("from publishing to an idle worker's handler: median {median:.2} ms, 99 % below {high:.2} ms");
        let bare_publish = self.median("bare publish, one by one").max(self.median("bare publish, buffered"));
        let publish = self.median("library publish");
        let one_by_one = self.median("bare consume, ack one by one");
        let multiple = self.median("bare consume, ack multiple");
        let consume = self.median("library consume");
        let (parts_publish, parts_consume) = (self.median("partitions publish"), self.median("partitions consume"));
        let two = |number: f64| (number * 100.0).round() / 100.0;
        println!(
            "{}",
            json!({
                "bare_publish_per_second": bare_publish.round(),
                "library_publish_per_second": publish.round(),
                "publish_ratio": two(publish / bare_publish),
                "bare_consume_one_by_one_per_second": one_by_one.round(),
                "bare_consume_multiple_per_second": multiple.round(),
                "library_consume_per_second": consume.round(),
                "consume_ratio": two(consume / one_by_one.max(multiple)),
                "partitions_publish_ratio": two(parts_publish / bare_publish),
                "partitions_consume_ratio": two(parts_consume / one_by_one.max(multiple)),
                "latency_median_ms": two(median),
                "latency_p99_ms": two(high),
            })
        );
    }
}
