//! A session's acknowledgements, many in one frame where many are ready: a task for each session writes them, and what
//! becomes ready while it writes is its next batch, so that nothing ever waits to be batched. Used by the session and its
//! jobs. It never acknowledges a message that is not settled: only up to the oldest one that is still open.

use crate::acknowledge::{Acknowledgement, ChannelEnded};
use futures_util::future::join_all;
use lapin::Acker;
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::timeout,
};
use tracing::warn;

const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// More than a prefetch that makes sense.
const BATCH: usize = 1000;

/// Where the settled messages of one channel go. Its task ends with the last clone.
#[derive(Clone)]
pub(super) struct Acks(mpsc::UnboundedSender<Entry>);

enum Entry {
    /// A delivery tag; with the acknowledgement unless the message was given back.
    Settled(u64, Option<Acknowledgement>),
    Flush(oneshot::Sender<()>),
}

/// A delivered message's duty: to be acknowledged or given back, once. Dropped, it leaves that to the end of its channel.
pub(super) struct Unsettled {
    tag: u64,
    acknowledgement: Acknowledgement,
    acks: Acks,
}

impl Acks {
    /// Messages are acknowledged when a quarter of the prefetch is settled, if not before.
    pub(super) fn start(prefetch: u16) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(write(receiver, usize::from(prefetch / 4)));
        Self(sender)
    }

    pub(super) fn unsettled(&self, tag: u64, acker: Acker) -> Unsettled {
        Unsettled { tag, acknowledgement: Acknowledgement::new(acker), acks: self.clone() }
    }

    /// Waits until everything that is settled by now is written, or cannot be.
    pub(super) async fn flush(&self) {
        let (written, flushed) = oneshot::channel();
        if self.0.send(Entry::Flush(written)).is_ok() {
            // Either error means that the connection is past help: the broker delivers those messages again.
            let _ = timeout(FLUSH_TIMEOUT, flushed).await;
        }
    }
}

impl Unsettled {
    /// Whether it can still be settled: false once the channel has ended.
    pub(super) fn is_usable(&self) -> bool {
        self.acknowledgement.is_usable()
    }

    /// The message is dealt with.
    pub(super) fn ack(self) {
        // An error means that the runtime shuts down.
        let _ = self.acks.0.send(Entry::Settled(self.tag, Some(self.acknowledgement)));
    }

    /// Back to the queue, for whoever comes next. It counts as settled only when that is written: an acknowledgement of
    /// younger messages must not overtake it.
    pub(super) async fn give_back(self) -> Result<(), ChannelEnded> {
        self.acknowledgement.give_back().await?;
        let _ = self.acks.0.send(Entry::Settled(self.tag, None));
        Ok(())
    }
}

async fn write(mut entries: mpsc::UnboundedReceiver<Entry>, enough: usize) {
    let mut settled = Settled::new();
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, BATCH).await > 0 {
        // Jobs that can end right now do so first, and their messages go along: a queue works a frame off as a whole. It
        // ends as soon as nothing comes, so that no message waits for work that has not begun.
        loop {
            let before = batch.len();
            yield_now().await;
            while let Ok(entry) = entries.try_recv() {
                batch.push(entry);
            }
            if batch.len() == before || batch.len() >= enough {
                break;
            }
        }
        let mut flushed = Vec::new();
        for entry in batch.drain(..) {
            match entry {
                Entry::Settled(tag, acknowledgement) => settled.add(tag, acknowledgement),
                Entry::Flush(done) => flushed.push(done),
            }
        }
        // In this order, which is also the order of first polls: the broker closes a channel on which a message is acknowledged that already is.
        let mut failed = false;
        if let Some(acknowledgement) = settled.take_prefix() {
            failed |= acknowledgement.ack_with_all_before().await.is_err();
        }
        let rest = settled.take_rest();
        failed |= join_all(rest.iter().map(Acknowledgement::ack)).await.iter().any(Result::is_err);
        if failed {
            warn!("jobs could not be acknowledged, their connection is lost; the broker will deliver them again");
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// The settled messages beyond the oldest open one, by delivery tag; `None` when there is nothing left to write.
struct Settled<A> {
    /// Tags count from 1, without gaps, on each channel.
    oldest_open: u64,
    beyond: BTreeMap<u64, Option<A>>,
}

impl<A> Settled<A> {
    fn new() -> Self {
        Self { oldest_open: 1, beyond: BTreeMap::new() }
    }

    fn add(&mut self, tag: u64, acknowledgement: Option<A>) {
        self.beyond.insert(tag, acknowledgement);
    }

    /// Of the messages before the oldest open one, the youngest that is not acknowledged: for it and all before it.
    fn take_prefix(&mut self) -> Option<A> {
        let mut youngest = None;
        while let Some(acknowledgement) = self.beyond.remove(&self.oldest_open) {
            youngest = acknowledgement.or(youngest);
            self.oldest_open += 1;
        }
        youngest
    }

    /// Those behind an open message cannot wait for it, which may take its time: each by itself.
    fn take_rest(&mut self) -> Vec<A> {
        self.beyond.values_mut().filter_map(Option::take).collect()
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
                }
            }
            let done: BTreeSet<u64> =
                order.iter().filter(|number| settlements[**number].1).map(|number| *number as u64 + 1).collect();
            prop_assert_eq!(acked, done);
            prop_assert_eq!(out.len(), settlements.len() - order.len());
        }
    }
}
