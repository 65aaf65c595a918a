//! A worker's share of the partitions. The broker gives a partition to the consumer that came first, so the first worker would
//! have them all: whoever has more than its share leaves the rest to those that wait.
//!
//! How many workers there are is asked of a queue without messages, which each of them consumes: of a queue with a single active consumer
//! the broker counts only that one.

use lapin::{
    Channel, Connection, Consumer,
    options::{BasicConsumeOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::{mem, time::Duration};
use tokio::time::Instant;

const CHECKS: Duration = Duration::from_secs(5);

pub(super) struct Share {
    channel: Channel,
    /// Ends when it is dropped.
    _consumer: Consumer,
    queue: String,
    pub(super) check_at: Instant,
    /// At the last check.
    had_too_many: bool,
}

impl Share {
    pub(super) async fn join(connection: &Connection, queue: &str) -> lapin::Result<Self> {
        let channel = connection.create_channel().await?;
        let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue.into(), "".into(), options, none).await?;
        let check_at = Instant::now() + CHECKS;
        Ok(Self { channel, _consumer: consumer, queue: queue.to_owned(), check_at, had_too_many: false })
    }

    /// How many of the partitions that are `mine` to leave to others: those beyond the share, if there were too many at the last check
    /// already. A worker that has just died will be replaced.
    pub(super) async fn excess(&mut self, mine: usize, partitions: usize) -> lapin::Result<usize> {
        self.check_at = Instant::now() + CHECKS;
        let options = QueueDeclareOptions::durable().passive();
        let queue = self.channel.queue_declare(self.queue.as_str().into(), options, FieldTable::default()).await?;
        // The broker says 0 when the queue does not answer in time.
        let share = partitions.div_ceil(usize::try_from(queue.consumer_count().max(1)).unwrap_or(1));
        let excess = mine.saturating_sub(share);
        let had_too_many = mem::replace(&mut self.had_too_many, excess > 0);
        Ok(if had_too_many { excess } else { 0 })
    }
}
