//! A session's acknowledgements, many in one frame where many are ready: a task for each session writes them, and what
//! becomes ready while it writes is its next batch, so that nothing ever waits to be batched. Used by the session and its
//! jobs. It never acknowledges a message that is not settled: only up to the oldest one that is still open.

use super::settled::Settled;
use crate::acknowledge::{Acknowledgement, ChannelEnded};
use futures_util::future::join_all;
use lapin::Acker;
use std::time::Duration;
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
