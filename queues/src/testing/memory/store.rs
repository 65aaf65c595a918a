//! What the broker keeps, and what it does with it. Without I/O: frames go into each channel's outbox, and the caller says
//! what time it is.

use super::{
    exchanges::{Exchanges, Target},
    queue::{Consumer, Queue, Stored},
};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use lapin::{
    BasicProperties,
    protocol::{AMQPClass, basic},
    types::{AMQPValue, FieldArray, FieldTable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::{sync::mpsc::UnboundedSender, time::Instant};

const BASIC: u16 = 60;
/// What a message brings along of the queues in which its time was over.
const DEATHS: &str = "x-death";

/// A connection's number, and a channel's in it.
pub(super) type ChannelId = (u64, u16);

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) exchanges: Exchanges,
    pub(super) queues: BTreeMap<String, Queue>,
    channels: BTreeMap<ChannelId, Channel>,
    published: u64,
}

#[derive(Debug)]
struct Channel {
    outbox: UnboundedSender<AMQPFrame>,
    prefetch: u16,
    delivered: u64,
    unacked: BTreeMap<u64, Unacked>,
    /// How many messages were published, once they are to be confirmed.
    confirmed: Option<u64>,
}

#[derive(Debug)]
struct Unacked {
    queue: String,
    /// `None` for one that was asked for by `basic.get`.
    consumer: Option<String>,
    message: Stored,
}

/// Why a channel is closed by the broker.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: u16,
    pub(super) text: String,
}

impl Refused {
    pub(super) fn not_found(object: &str, name: &str) -> Self {
        Self { code: 404, text: format!("NOT_FOUND - no {object} '{name}' in vhost '/'") }
    }

    pub(super) fn mismatch(what: &str, object: &str, name: &str) -> Self {
        Self {
            code: 406,
            text: format!("PRECONDITION_FAILED - inequivalent arg '{what}' for {object} '{name}' in vhost '/'"),
        }
    }
}

impl Store {
    pub(super) fn open(&mut self, id: ChannelId, outbox: UnboundedSender<AMQPFrame>) {
        let unacked = BTreeMap::new();
        self.channels.insert(id, Channel { outbox, prefetch: 0, delivered: 0, unacked, confirmed: None });
    }

    pub(super) fn is_open(&self, id: ChannelId) -> bool {
        self.channels.contains_key(&id)
    }

    /// What it has not settled returns before anyone else is served.
    pub(super) fn close(&mut self, id: ChannelId, now: Instant) {
        let Some(channel) = self.channels.remove(&id) else { return };
        for queue in self.queues.values_mut() {
            queue.consumers.retain(|consumer| consumer.channel != id);
        }
        self.give_back(channel.unacked.into_values().collect(), now);
    }

    pub(super) fn close_all(&mut self, connection: u64, now: Instant) {
        let all: Vec<ChannelId> =
            self.channels.range((connection, 0)..=(connection, u16::MAX)).map(|(id, _)| *id).collect();
        all.into_iter().for_each(|id| self.close(id, now));
    }

    pub(super) fn set_prefetch(&mut self, id: ChannelId, prefetch: u16) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.prefetch = prefetch;
        }
    }

    pub(super) fn confirm(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.confirmed.get_or_insert(0);
        }
    }

    pub(super) fn declare_queue(&mut self, name: &str, passive: bool, arguments: &FieldTable) -> Result<(), Refused> {
        let Some(queue) = self.queues.get(name) else {
            if passive {
                return Err(Refused::not_found("queue", name));
            }
            self.queues.insert(name.to_owned(), Queue::new(arguments.clone()));
            return Ok(());
        };
        let (ours, asked) = (queue.arguments.inner(), arguments.inner());
        let names: BTreeSet<_> = ours.keys().chain(asked.keys()).collect();
        match names.into_iter().find(|name| ours.get(*name) != asked.get(*name)) {
            Some(argument) if !passive => Err(Refused::mismatch(argument.as_str(), "queue", name)),
            _ => Ok(()),
        }
    }

    /// Messages that are ready, and consumers that are served.
    pub(super) fn counts(&self, queue: &str) -> (u32, u32) {
        let queue = self.queues.get(queue);
        let counts = queue.map(|queue| (queue.ready.len(), queue.active_consumers())).unwrap_or_default();
        (u32::try_from(counts.0).unwrap_or(u32::MAX), u32::try_from(counts.1).unwrap_or(u32::MAX))
    }

    pub(super) fn delete_queue(&mut self, name: &str) {
        self.exchanges.unbind(&Target::Queue(name.to_owned()));
        for Consumer { channel, tag, .. } in self.queues.remove(name).into_iter().flat_map(|queue| queue.consumers) {
            let cancel = basic::Cancel { consumer_tag: tag.into(), nowait: true };
            self.send(channel, [method(channel, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)))]);
        }
    }

    pub(super) fn declare_exchange(&mut self, name: &str, kind: &str, passive: bool) -> Result<(), Refused> {
        match self.exchanges.kind(name) {
            Some(declared) if !passive && declared != kind => Err(Refused::mismatch("type", "exchange", name)),
            Some(_) => Ok(()),
            None if passive => Err(Refused::not_found("exchange", name)),
            None => {
                self.exchanges.declare(name, kind);
                Ok(())
            }
        }
    }

    /// Answers whether it is confirmed or returned, and serves consumers.
    pub(super) fn publish(
        &mut self,
        id: ChannelId,
        publish: &basic::Publish,
        content: (BasicProperties, Vec<u8>),
        now: Instant,
    ) -> Result<(), Refused> {
        let (exchange, routing_key) = (publish.exchange.as_str(), publish.routing_key.as_str());
        if !exchange.is_empty() && self.exchanges.kind(exchange).is_none() {
            return Err(Refused::not_found("exchange", exchange));
        }
        let (properties, payload) = content;
        let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
        let message = Stored { number: 0, exchange, routing_key, properties, payload, returns: 0, due_at: None };
        let mut answers = Vec::new();
        if !self.enqueue(message.clone(), now) && publish.mandatory {
            let (exchange, routing_key) = (publish.exchange.clone(), publish.routing_key.clone());
            let returned = basic::Return { reply_code: 312, reply_text: "NO_ROUTE".into(), exchange, routing_key };
            answers.push(method(id, AMQPClass::Basic(basic::AMQPMethod::Return(returned))));
            answers.extend(content_frames(id, message));
        }
        if let Some(delivery_tag) = self.channels.get_mut(&id).and_then(|channel| channel.confirmed.as_mut()) {
            *delivery_tag += 1;
            let ack = basic::Ack { delivery_tag: *delivery_tag, multiple: false };
            answers.push(method(id, AMQPClass::Basic(basic::AMQPMethod::Ack(ack))));
        }
        self.send(id, answers);
        Ok(())
    }

    pub(super) fn consume(&mut self, id: ChannelId, queue: &str, tag: &str) -> Result<(), Refused> {
        let (Some(channel), Some(consumed)) = (self.channels.get(&id), self.queues.get_mut(queue)) else {
            return Err(Refused::not_found("queue", queue));
        };
        let (tag, prefetch) = (tag.to_owned(), channel.prefetch);
        consumed.consumers.push_back(Consumer { channel: id, tag, prefetch, unacked: 0 });
        Ok(())
    }

    pub(super) fn cancel(&mut self, id: ChannelId, tag: &str) {
        for queue in self.queues.values_mut() {
            queue.consumers.retain(|consumer| !(consumer.channel == id && consumer.tag == tag));
        }
    }

    /// The next message of a queue, on the channel; `None` when there is none.
    pub(super) fn get(&mut self, id: ChannelId, name: &str) -> Result<Option<Vec<AMQPFrame>>, Refused> {
        let Some(queue) = self.queues.get_mut(name) else { return Err(Refused::not_found("queue", name)) };
        let Some(message) = queue.ready.pop_front() else { return Ok(None) };
        let message_count = u32::try_from(queue.ready.len()).unwrap_or(u32::MAX);
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(None) };
        let delivery_tag = channel.hold(name, None, &message);
        let (exchange, routing_key) = (message.exchange.as_str().into(), message.routing_key.as_str().into());
        let got = basic::GetOk { delivery_tag, redelivered: message.returns > 0, exchange, routing_key, message_count };
        let mut frames = vec![method(id, AMQPClass::Basic(basic::AMQPMethod::GetOk(got)))];
        frames.extend(content_frames(id, message));
        Ok(Some(frames))
    }

    /// Acknowledges, returns to the queue, or rejects one message, or with `multiple` all up to it (0: all).
    pub(super) fn settle(
        &mut self,
        id: ChannelId,
        tag: u64,
        multiple: bool,
        settlement: Settlement,
        now: Instant,
    ) -> Result<(), Refused> {
        let Some(channel) = self.channels.get_mut(&id) else { return Ok(()) };
        let settled: Vec<Unacked> = if multiple {
            let rest = if tag == 0 { BTreeMap::new() } else { channel.unacked.split_off(&(tag + 1)) };
            std::mem::replace(&mut channel.unacked, rest).into_values().collect()
        } else {
            channel.unacked.remove(&tag).into_iter().collect()
        };
        if settled.is_empty() && tag > 0 {
            return Err(Refused { code: 406, text: format!("PRECONDITION_FAILED - unknown delivery tag {tag}") });
        }
        for Unacked { queue, consumer, .. } in &settled {
            if let (Some(queue), Some(consumer)) = (self.queues.get_mut(queue), consumer) {
                queue.settled(id, consumer);
            }
        }
        match settlement {
            Settlement::Ack => {}
            Settlement::GiveBack => self.give_back(settled, now),
            Settlement::Reject => {
                settled
                    .into_iter()
                    .for_each(|Unacked { queue, message, .. }| self.bury(&queue, message, "rejected", now));
            }
        }
        Ok(())
    }

    /// When the next delayed message is due, and how long its whole delay is.
    pub(super) fn next_due(&self) -> Option<(Instant, Duration)> {
        self.queues.values().filter_map(|queue| Some((queue.ready.front()?.due_at?, queue.delay()?))).min()
    }

    /// Hands on what is due, each at its own time: it may have to wait again in the next queue.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some((at, _)) = self.next_due().filter(|(at, _)| *at <= now) {
            let due = self
                .queues
                .iter()
                .find(|(_, queue)| queue.ready.front().is_some_and(|message| message.due_at == Some(at)));
            let Some(name) = due.map(|(name, _)| name.clone()) else { return };
            if let Some(message) = self.queues.get_mut(&name).and_then(|queue| queue.ready.pop_front()) {
                self.bury(&name, message, "expired", at);
            }
        }
    }

    fn enqueue(&mut self, message: Stored, now: Instant) -> bool {
        let mut is_routed = false;
        for name in self.exchanges.route(&message.exchange, &message.routing_key) {
            let Some(queue) = self.queues.get_mut(&name) else { continue };
            self.published += 1;
            let due_at = queue.delay().map(|delay| now + delay);
            queue.ready.push_back(Stored { number: self.published, due_at, returns: 0, ..message.clone() });
            is_routed = true;
        }
        is_routed
    }

    fn give_back(&mut self, messages: Vec<Unacked>, now: Instant) {
        for Unacked { queue: name, mut message, .. } in messages {
            let Some(queue) = self.queues.get_mut(&name) else { continue };
            message.returns += 1;
            match queue.number("x-delivery-limit") {
                Some(limit) if message.returns > limit => self.bury(&name, message, "delivery_limit", now),
                _ => queue.put(message),
            }
        }
    }

    /// To the queue's dead-letter target; but not in a circle on which nobody has rejected it.
    fn bury(&mut self, name: &str, mut message: Stored, reason: &str, now: Instant) {
        let Some(queue) = self.queues.get(name) else { return };
        let Some(exchange) = queue.text("x-dead-letter-exchange") else { return };
        let routing_key = queue.text("x-dead-letter-routing-key").unwrap_or_else(|| message.routing_key.clone());
        let mut headers = message.properties.headers().clone().unwrap_or_default();
        let mut deaths = match headers.inner().get(DEATHS) {
            Some(AMQPValue::FieldArray(deaths)) => deaths.as_slice().to_vec(),
            _ => Vec::new(),
        };
        let mut death = FieldTable::default();
        death.insert("queue".into(), AMQPValue::LongString(name.into()));
        death.insert("reason".into(), AMQPValue::LongString(reason.into()));
        deaths.push(AMQPValue::FieldTable(death));
        let rejected = deaths.iter().any(|death| told(death, "reason").as_deref() == Some("rejected"));
        let passed: BTreeSet<String> = deaths.iter().filter_map(|death| told(death, "queue")).collect();
        let targets = self.exchanges.route(&exchange, &routing_key);
        if !rejected && targets.iter().any(|target| passed.contains(target)) {
            return;
        }
        headers.insert(DEATHS.into(), AMQPValue::FieldArray(FieldArray::from(deaths)));
        message.properties = message.properties.with_headers(headers);
        self.enqueue(Stored { exchange, routing_key, ..message }, now);
    }

    pub(super) fn serve_all(&mut self) {
        let names: Vec<String> = self.queues.keys().cloned().collect();
        names.iter().for_each(|name| self.serve(name));
    }

    fn serve(&mut self, name: &str) {
        while let Some((id, tag, message)) = self.queues.get_mut(name).and_then(Queue::next) {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let delivery_tag = channel.hold(name, Some(tag.clone()), &message);
            let (exchange, routing_key) = (message.exchange.as_str().into(), message.routing_key.as_str().into());
            let (consumer_tag, redelivered) = (tag.into(), message.returns > 0);
            let deliver = basic::Deliver { consumer_tag, delivery_tag, redelivered, exchange, routing_key };
            let frames = [method(id, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)))];
            self.send(id, frames.into_iter().chain(content_frames(id, message)));
        }
    }

    pub(super) fn send(&self, id: ChannelId, frames: impl IntoIterator<Item = AMQPFrame>) {
        if let Some(channel) = self.channels.get(&id) {
            // An error means that the connection is ending.
            frames.into_iter().for_each(|frame| _ = channel.outbox.send(frame));
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Settlement {
    Ack,
    GiveBack,
    Reject,
}

impl Channel {
    fn hold(&mut self, queue: &str, consumer: Option<String>, message: &Stored) -> u64 {
        self.delivered += 1;
        let (queue, message) = (queue.to_owned(), message.clone());
        self.unacked.insert(self.delivered, Unacked { queue, consumer, message });
        self.delivered
    }
}

fn told(death: &AMQPValue, name: &str) -> Option<String> {
    death.as_field_table()?.inner().get(name)?.as_long_string().map(ToString::to_string)
}

pub(super) fn method((_, channel): ChannelId, class: AMQPClass) -> AMQPFrame {
    AMQPFrame::Method(channel, class)
}

/// In frames of at most 100 kB.
fn content_frames((_, channel): ChannelId, message: Stored) -> Vec<AMQPFrame> {
    let Stored { mut properties, payload, returns, .. } = message;
    if returns > 0 {
        let mut headers = properties.headers().clone().unwrap_or_default();
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(returns));
        properties = properties.with_headers(headers);
    }
    let body_size = payload.len() as u64;
    let header = AMQPFrame::Header(channel, AMQPContentHeader { class_id: BASIC, body_size, properties });
    let body = payload.chunks(100_000).map(|chunk| AMQPFrame::Body(channel, chunk.to_vec()));
    [header].into_iter().chain(body).collect()
}
