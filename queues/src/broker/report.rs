//! What a check of the topology found. Filled by `compare` and `management`; printed by users. It judges nothing.

use std::fmt;

/// How the broker differs from a topology.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TopologyReport {
    /// The broker's version, as far as it was told.
    pub broker_version: Option<String>,
    /// What is not as wanted, in the order of declaration; empty when all is well.
    pub differences: Vec<Difference>,
}

/// One thing that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// ``queue `NAME` ``, ``exchange `NAME` ``, ``binding `NAME` `` or `broker`.
    pub object: String,
    /// An argument's or a policy's name (`x-message-ttl`, `policy message-ttl`), or `type`, `durable`, `declaration`,
    /// `existence`, `leader`, `version`, `feature flag stream_queue`.
    pub property: String,
    /// The wanted value; `None` for something that should not be set.
    pub wanted: Option<String>,
    /// The value that is there; `None` when there is none.
    pub found: Option<String>,
}

impl Difference {
    pub(super) fn new(object: &str, property: &str, wanted: Option<String>, found: Option<String>) -> Self {
        Self { object: object.to_owned(), property: property.to_owned(), wanted, found }
    }

    pub(super) fn missing(object: &str) -> Self {
        Self::new(object, "existence", Some("declared".to_owned()), None)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(f, "{}: {} is {}, wanted {}", self.object, self.property, value(&self.found), value(&self.wanted))
    }
}

impl fmt::Display for TopologyReport {
    /// One line for each difference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.differences.is_empty() {
            return writeln!(f, "everything is declared as wanted");
        }
        self.differences.iter().try_for_each(|difference| writeln!(f, "{difference}"))
    }
}
