//! Which queues a message goes to.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Exchanges(BTreeMap<String, Exchange>);

#[derive(Debug)]
struct Exchange {
    kind: String,
    bindings: BTreeSet<(String, Target)>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Queue(String),
    Exchange(String),
}

impl Exchanges {
    pub(super) fn kind(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|exchange| exchange.kind.as_str())
    }

    pub(super) fn declare(&mut self, name: &str, kind: &str) {
        self.0.insert(name.to_owned(), Exchange { kind: kind.to_owned(), bindings: BTreeSet::new() });
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.0.remove(name);
        self.unbind(&Target::Exchange(name.to_owned()));
    }

    pub(super) fn bind(&mut self, source: &str, key: &str, target: Target) {
        if let Some(exchange) = self.0.get_mut(source) {
            exchange.bindings.insert((key.to_owned(), target));
        }
    }

    pub(super) fn unbind(&mut self, gone: &Target) {
        for exchange in self.0.values_mut() {
            exchange.bindings.retain(|(_, target)| target != gone);
        }
    }

    /// The names of the queues; the default exchange knows each by its own.
    pub(super) fn route(&self, exchange: &str, key: &str) -> BTreeSet<String> {
        if exchange.is_empty() {
            return [key.to_owned()].into();
        }
        let Some(Exchange { kind, bindings }) = self.0.get(exchange) else { return BTreeSet::new() };
        let matches = |pattern: &str| match kind.as_str() {
            "fanout" => true,
            "topic" => topic_matches(&words(pattern), &words(key)),
            _ => pattern == key,
        };
        let targets = bindings.iter().filter(|(pattern, _)| matches(pattern)).map(|(_, target)| target);
        targets
            .flat_map(|target| match target {
                Target::Queue(queue) => [queue.clone()].into(),
                Target::Exchange(next) => self.route(next, key),
            })
            .collect()
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn topic_matches(pattern: &[&str], words: &[&str]) -> bool {
    match (pattern, words) {
        ([], []) => true,
        (["#", pattern @ ..], words) => (0..=words.len()).any(|skipped| topic_matches(pattern, &words[skipped..])),
        ([first, pattern @ ..], [word, words @ ..]) => {
            (*first == "*" || first == word) && topic_matches(pattern, words)
        }
        _ => false,
    }
}
