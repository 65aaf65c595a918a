//! Prometheus' text format (version 0.0.4), for what is asked for at scrape time: a family is its HELP and TYPE lines and
//! then its samples. What is counted as it happens comes from the recorder, which writes the same format.

use std::fmt::{Display, Write};

/// Grows by a family at a time.
#[derive(Debug, Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// A gauge with one sample.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help, [(String::new(), value)]);
    }

    /// A gauge with a sample for each set of labels, as [`labels`] writes them.
    pub(super) fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }
}

/// Labels as they stand behind a name. The values are the ledger's own words and currencies, which need no escaping.
pub(super) fn labels<const N: usize>(pairs: [(&str, &str); N]) -> String {
    let pairs = pairs.map(|(name, value)| format!("{name}=\"{value}\""));
    format!("{{{}}}", pairs.join(","))
}
