//! Which messages of a channel are settled, and which of these the broker has not been told of: pure. Used by the task that
//! writes acknowledgements. Its memory is bounded by the open messages, however many are settled beside them.

use std::{collections::BTreeMap, mem};

/// By delivery tag, which counts from 1, without gaps, on each channel.
pub(super) struct Settled<A> {
    /// Every message before it is settled.
    oldest_open: u64,
    /// Added since the last [`take_rest`](Self::take_rest); `None` for a message that needs no acknowledgement.
    fresh: BTreeMap<u64, Option<A>>,
    /// Beyond the oldest open message, what needs nothing more: the first tag of each unbroken run, and the one after its
    /// last. Between two runs a message is open.
    written: BTreeMap<u64, u64>,
}

impl<A> Settled<A> {
    pub(super) fn new() -> Self {
        Self { oldest_open: 1, fresh: BTreeMap::new(), written: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, tag: u64, acknowledgement: Option<A>) {
        self.fresh.insert(tag, acknowledgement);
    }

    /// Of the messages before the oldest open one, the youngest that is not acknowledged: for it and all before it.
    pub(super) fn take_prefix(&mut self) -> Option<A> {
        let mut youngest = None;
        loop {
            if let Some(acknowledgement) = self.fresh.remove(&self.oldest_open) {
                youngest = acknowledgement.or(youngest);
                self.oldest_open += 1;
            } else if let Some(end) = self.written.remove(&self.oldest_open) {
                self.oldest_open = end;
            } else {
                return youngest;
            }
        }
    }

    /// Those behind an open message cannot wait for it, which may take its time: each by itself.
    pub(super) fn take_rest(&mut self) -> Vec<A> {
        let fresh = mem::take(&mut self.fresh);
        fresh
            .into_iter()
            .filter_map(|(tag, acknowledgement)| {
                self.remember(tag);
                acknowledgement
            })
            .collect()
    }

    /// Joins a tag to the runs beside it.
    fn remember(&mut self, tag: u64) {
        let end = self.written.remove(&(tag + 1)).unwrap_or(tag + 1);
        match self.written.range_mut(..tag).next_back() {
            Some((_, before)) if *before == tag => *before = end,
            _ => _ = self.written.insert(tag, end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against a broker in miniature, which knows the messages that are out, and refuses an unknown tag.
        #[test]
        fn exactly_the_settled_messages_are_acknowledged_whatever_their_order(
            settlements in proptest::collection::vec((any::<u16>(), any::<bool>(), any::<bool>()), 1..60),
            left_open in 0..5_usize,
        ) {
            let mut order: Vec<usize> = (0..settlements.len()).collect();
            order.sort_by_key(|number| settlements[*number].0);
            order.truncate(settlements.len().saturating_sub(left_open));
            let mut out: BTreeSet<u64> = (1..=settlements.len() as u64).collect();
            let (mut settled, mut acked, mut given_back) = (Settled::new(), BTreeSet::new(), BTreeSet::new());
            for (position, &number) in order.iter().enumerate() {
                let (tag, (_, is_done, flush)) = (number as u64 + 1, settlements[number]);
                if is_done {
                    settled.add(tag, Some(tag));
                } else {
                    prop_assert!(out.remove(&tag));
                    given_back.insert(tag);
                    settled.add(tag, None);
                }
                if flush || position + 1 == order.len() {
                    if let Some(tag) = settled.take_prefix() {
                        prop_assert!(out.contains(&tag), "unknown delivery tag {tag}");
                        let younger = out.split_off(&(tag + 1));
                        acked.append(&mut out);
                        out = younger;
                    }
                    for tag in settled.take_rest() {
                        prop_assert!(out.remove(&tag), "unknown delivery tag {tag}");
                        acked.insert(tag);
                    }
                    let youngest = order[..=position].iter().max().map_or(0, |number| *number as u64 + 1);
                    let open = (1..=youngest).filter(|tag| !acked.contains(tag) && !given_back.contains(tag)).count();
                    prop_assert!(settled.fresh.is_empty() && settled.written.len() <= open, "{:?}", settled.written);
                }
            }
            let done: BTreeSet<u64> =
                order.iter().filter(|number| settlements[**number].1).map(|number| *number as u64 + 1).collect();
            prop_assert_eq!(acked, done);
            prop_assert_eq!(out.len(), settlements.len() - order.len());
        }
    }
    #[test]
    fn what_is_remembered_beside_an_open_message_is_one_run_and_a_batch_is_only_itself() {
        let mut settled = Settled::new();
        for tag in 2..300_000_u64 {
            settled.add(tag, Some(tag));
            assert_eq!((settled.take_prefix(), settled.take_rest()), (None, vec![tag]));
            assert_eq!((settled.fresh.len(), settled.written.len()), (0, 1));
        }
        settled.add(1, Some(1));
        assert_eq!((settled.take_prefix(), settled.take_rest()), (Some(1), Vec::new()));
        assert_eq!((settled.oldest_open, settled.written.len()), (300_000, 0));
    }
}
