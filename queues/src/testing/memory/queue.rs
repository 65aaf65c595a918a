//! One queue: its messages in their order, and who gets the next.

use super::store::ChannelId;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// Ascending in each queue.
    pub(super) number: u64,
    pub(super) exchange: String,
    pub(super) routing_key: String,
    pub(super) properties: BasicProperties,
    pub(super) payload: Vec<u8>,
    /// How often it came back unacknowledged.
    pub(super) returns: i64,
    pub(super) due_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) channel: ChannelId,
    pub(super) tag: String,
    pub(super) prefetch: u16,
    pub(super) unacked: u16,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) arguments: FieldTable,
    pub(super) ready: VecDeque<Stored>,
    pub(super) consumers: VecDeque<Consumer>,
}

impl Queue {
    pub(super) fn new(arguments: FieldTable) -> Self {
        Self { arguments, ready: VecDeque::new(), consumers: VecDeque::new() }
    }

    pub(super) fn text(&self, argument: &str) -> Option<String> {
        self.arguments.inner().get(argument).and_then(|value| value.as_long_string()).map(ToString::to_string)
    }

    pub(super) fn number(&self, argument: &str) -> Option<i64> {
        match self.arguments.inner().get(argument)? {
            AMQPValue::LongLongInt(number) => Some(*number),
            AMQPValue::LongInt(number) => Some((*number).into()),
            _ => None,
        }
    }

    pub(super) fn is_single_active(&self) -> bool {
        self.arguments.inner().get("x-single-active-consumer") == Some(&AMQPValue::Boolean(true))
    }

    pub(super) fn delay(&self) -> Option<Duration> {
        self.number("x-message-ttl").and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis)
    }

    /// Consumers that are served: all, or the one that came first.
    pub(super) fn active_consumers(&self) -> usize {
        if self.is_single_active() { self.consumers.len().min(1) } else { self.consumers.len() }
    }

    /// To its place: before those that were published later.
    pub(super) fn put(&mut self, message: Stored) {
        let place = self.ready.partition_point(|other| other.number < message.number);
        self.ready.insert(place, message);
    }

    /// The next message, and who gets it: consumers take turns.
    pub(super) fn next(&mut self) -> Option<(ChannelId, String, Stored)> {
        let has_room = |consumer: &Consumer| consumer.prefetch == 0 || consumer.unacked < consumer.prefetch;
        let at = (0..self.active_consumers()).find(|at| has_room(&self.consumers[*at]))?;
        let message = self.ready.pop_front()?;
        let consumer = &mut self.consumers[at];
        consumer.unacked += 1;
        let (channel, tag) = (consumer.channel, consumer.tag.clone());
        if !self.is_single_active()
            && let Some(served) = self.consumers.remove(at)
        {
            self.consumers.push_back(served);
        }
        Some((channel, tag, message))
    }

    pub(super) fn settled(&mut self, channel: ChannelId, tag: &str) {
        let consumer = self.consumers.iter_mut().find(|consumer| consumer.channel == channel && consumer.tag == tag);
        if let Some(consumer) = consumer {
            consumer.unacked = consumer.unacked.saturating_sub(1);
        }
    }
}
