//! The one place that acknowledges. A worker's acknowledgements go through [`Acks`], many in one frame where many are
//! ready; those of parked jobs are written one by one.

use futures_util::future::join_all;
use lapin::{
    Acker, Channel,
    options::{BasicAckOptions, BasicNackOptions},
};
use std::{collections::BTreeMap, future::Future, mem, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::timeout,
};
use tracing::warn;

const TIMEOUT: Duration = Duration::from_secs(10);
/// More than any sensible prefetch.
const BATCH: usize = 1000;

/// The right to acknowledge one delivery, once.
pub(crate) struct Acknowledgement(Acker);

/// The delivery's channel has ended or does not answer: the broker delivers the message again.
#[derive(Debug)]
pub(crate) struct ChannelEnded;

impl Acknowledgement {
    pub(crate) fn new(acker: Acker) -> Self {
        Self(acker)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that acknowledges")]
    pub(crate) async fn ack(&self) -> Result<(), ChannelEnded> {
        written(self.0.ack(BasicAckOptions { multiple: false })).await
    }

    /// Acknowledges this message and every older one of its channel that is still out.
    #[expect(clippy::disallowed_methods, reason = "the one place that acknowledges")]
    async fn ack_with_all_before(&self) -> Result<(), ChannelEnded> {
        written(self.0.ack(BasicAckOptions { multiple: true })).await
    }

    /// Returns the message to its queue.
    #[expect(clippy::disallowed_methods, reason = "the one place that gives back")]
    pub(crate) async fn give_back(&self) -> Result<(), ChannelEnded> {
        written(self.0.nack(BasicNackOptions { multiple: false, requeue: true })).await
    }
}

/// Returns everything that a channel has out to its queue.
pub(crate) async fn give_back_all(channel: &Channel) -> lapin::Result<()> {
    /// AMQP's "every message so far".
    const ALL: u64 = 0;
    channel.basic_nack(ALL, BasicNackOptions { multiple: true, requeue: true }).await
}

/// lapin answers `Ok(false)` when the channel was lost before.
async fn written(sent: impl Future<Output = lapin::Result<bool>>) -> Result<(), ChannelEnded> {
    match timeout(TIMEOUT, sent).await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false) | Err(_)) | Err(_) => Err(ChannelEnded),
    }
}

/// Where the settled messages of one channel go. Its task ends with the last clone.
#[derive(Clone)]
pub(crate) struct Acks(mpsc::UnboundedSender<Entry>);

enum Entry {
    /// A delivery tag; with the acknowledgement unless the message was given back.
    Settled(u64, Option<Acknowledgement>),
    Flush(oneshot::Sender<()>),
}

/// A delivered message's duty: to be acknowledged or given back, once. When dropped, the message returns to its queue at
/// the end of its channel.
pub(crate) struct Unsettled {
    tag: u64,
    acknowledgement: Acknowledgement,
    acks: Acks,
}

impl Acks {
    /// Messages are acknowledged when a quarter of the prefetch is settled, if not before.
    pub(crate) fn start(prefetch: u16) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(write(receiver, usize::from(prefetch / 4)));
        Self(sender)
    }

    pub(crate) fn unsettled(&self, tag: u64, acker: Acker) -> Unsettled {
        Unsettled { tag, acknowledgement: Acknowledgement::new(acker), acks: self.clone() }
    }

    /// Waits until everything settled so far is written, or cannot be.
    pub(crate) async fn flush(&self) {
        let (written, flushed) = oneshot::channel();
        if self.0.send(Entry::Flush(written)).is_ok() {
            // Either error means that the connection is lost: the broker delivers those messages again.
            let _ = timeout(TIMEOUT, flushed).await;
        }
    }
}

impl Unsettled {
    /// Whether it can still be settled: false once the channel has ended.
    pub(crate) fn is_usable(&self) -> bool {
        self.acknowledgement.0.usable()
    }

    pub(crate) fn ack(self) {
        // An error means that the runtime shuts down.
        let _ = self.acks.0.send(Entry::Settled(self.tag, Some(self.acknowledgement)));
    }

    /// Returns the message to its queue. It counts as settled only once that is written: an acknowledgement of younger
    /// messages must not overtake it.
    pub(crate) async fn give_back(self) -> Result<(), ChannelEnded> {
        self.acknowledgement.give_back().await?;
        let _ = self.acks.0.send(Entry::Settled(self.tag, None));
        Ok(())
    }
}

/// Writes acknowledgements. What becomes ready during a write is the next batch, so nothing waits to be batched.
async fn write(mut entries: mpsc::UnboundedReceiver<Entry>, enough: usize) {
    let mut settled = Settled::new();
    let mut batch = Vec::new();
    while entries.recv_many(&mut batch, BATCH).await > 0 {
        // Let jobs that can end right now end first: a queue handles a frame as a whole. The loop ends as soon as nothing
        // arrives, so no message waits for work that has not begun.
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
        // The prefix goes first, and first polls keep this order: the broker closes a channel on which a message is
        // acknowledged twice.
        let mut failed = false;
        if let Some(acknowledgement) = settled.take_prefix() {
            failed |= acknowledgement.ack_with_all_before().await.is_err();
        }
        let rest = settled.take_rest();
        failed |= join_all(rest.iter().map(Acknowledgement::ack)).await.iter().any(Result::is_err);
        if failed {
            warn!("jobs could not be acknowledged: the connection is lost; the broker will deliver them again");
        }
        for done in flushed {
            let _ = done.send(());
        }
    }
}

/// Which messages of a channel are settled, and which of these the broker does not know of yet, by delivery tag (from 1,
/// without gaps). Memory is bounded by the open messages, however many are settled beside them.
struct Settled<A> {
    /// Every message before it is settled.
    oldest_open: u64,
    /// Added since the last [`take_rest`](Self::take_rest); `None` for a message that needs no acknowledgement.
    fresh: BTreeMap<u64, Option<A>>,
    /// Finished messages beyond the oldest open one: the first tag of each unbroken run, and the tag after its last.
    written: BTreeMap<u64, u64>,
}

impl<A> Settled<A> {
    fn new() -> Self {
        Self { oldest_open: 1, fresh: BTreeMap::new(), written: BTreeMap::new() }
    }

    fn add(&mut self, tag: u64, acknowledgement: Option<A>) {
        self.fresh.insert(tag, acknowledgement);
    }

    /// Of the messages before the oldest open one, the youngest unacknowledged: for it and all before it.
    fn take_prefix(&mut self) -> Option<A> {
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

    /// Those behind an open message, which may take its time: each is acknowledged on its own.
    fn take_rest(&mut self) -> Vec<A> {
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
