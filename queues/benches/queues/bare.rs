//! What lapin alone can do, written as fast as we know how: the yardstick.

#![expect(clippy::disallowed_methods, reason = "what the library has its own places for is measured without it")]

use crate::{Place, tally::latencies};
use futures_util::{StreamExt, stream};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, ExchangeDeleteOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable},
};
use queues::Message;
use std::{
    collections::VecDeque,
    pin::pin,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Confirms that are awaited at a time. More do not make it faster.
const IN_FLIGHT: usize = 1000;

pub(crate) async fn open(place: &Place) -> (Connection, Channel) {
    let connection = Connection::connect(&place.url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

/// Messages per second, each confirmed: written one after the other, with [`IN_FLIGHT`] confirms awaited.
pub(crate) async fn publish(place: &Place, messages: Vec<Message>) -> f64 {
    let (connection, channel) = open_confirming(place).await;
    let count = messages.len();
    let mut in_flight = VecDeque::with_capacity(IN_FLIGHT);
    let started = Instant::now();
    for message in messages {
        in_flight.push_back(write(&channel, message).await);
        if in_flight.len() == IN_FLIGHT {
            let confirm = in_flight.pop_front().unwrap();
            assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
        }
    }
    for confirm in in_flight {
        assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    connection.close(200, "OK".into()).await.unwrap();
    rate
}

/// The same without waiting until lapin has written a message before it is given the next one.
pub(crate) async fn publish_buffered(place: &Place, messages: Vec<Message>) -> f64 {
    let (connection, channel) = open_confirming(place).await;
    let count = messages.len();
    let started = Instant::now();
    let confirmed = stream::iter(messages).map(|message| async { write(&channel, message).await.await.unwrap() });
    let mut confirmed = pin!(confirmed.buffered(IN_FLIGHT));
    while let Some(confirmation) = confirmed.next().await {
        assert_eq!(confirmation, Confirmation::Ack(None));
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    connection.close(200, "OK".into()).await.unwrap();
    rate
}

async fn open_confirming(place: &Place) -> (Connection, Channel) {
    let (connection, channel) = open(place).await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// With the library's properties, so that the broker has the same work.
async fn write(channel: &Channel, message: Message) -> PublisherConfirm {
    let mut headers = FieldTable::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    headers.insert("attempt".into(), AMQPValue::LongLongInt(message.attempt.into()));
    headers.insert("published-ms".into(), AMQPValue::LongLongInt(now.as_millis() as i64));
    let properties = BasicProperties::default()
        .with_message_id(message.id.into())
        .with_type(message.kind.into())
        .with_app_id("bench-01234567-0123-0123-0123-0123456789ab".into())
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_timestamp(now.as_secs())
        .with_headers(headers);
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, key) = (message.exchange.into(), message.routing_key.into());
    channel.basic_publish(exchange, key, options, &message.payload, properties).await.unwrap()
}

/// Messages per second from the first delivery until the consumer is cancelled, which says that the queue has worked off all
/// acknowledgements (one for `every` so many messages), and the connection closed. Bodies are not decoded.
pub(crate) async fn consume(place: &Place, count: usize, prefetch: u16, every: usize) -> f64 {
    let (connection, channel) = open(place).await;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(place.topology.queue().into(), "".into(), options, none).await.unwrap();
    let mut started = None;
    for number in 1..=count {
        let delivery = consumer.next().await.unwrap().unwrap();
        started.get_or_insert_with(Instant::now);
        if number % every == 0 || number == count {
            delivery.acker.ack(BasicAckOptions { multiple: every > 1 }).await.unwrap();
        }
    }
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    connection.close(200, "OK".into()).await.unwrap();
    count as f64 / started.unwrap().elapsed().as_secs_f64()
}

/// From publishing, confirmed, to a consumer that has nothing to do, one message at a time; ascending.
pub(crate) async fn latency(place: &Place, count: usize) -> Vec<Duration> {
    let (consuming, channel) = open(place).await;
    let (options, none) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(place.topology.queue().into(), "".into(), options, none).await.unwrap();
    let (tell, mut heard) = mpsc::unbounded_channel();
    let consume = tokio::spawn(async move {
        for _ in 0..count {
            let delivery = consumer.next().await.unwrap().unwrap();
            let _ = tell.send(Instant::now());
            delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        }
    });
    let (publishing, channel) = open_confirming(place).await;
    let mut messages = place.messages(count).into_iter();
    let publish = async || drop(write(&channel, messages.next().unwrap()).await.await.unwrap());
    let delays = latencies(count, &mut heard, publish).await;
    consume.await.unwrap();
    for connection in [consuming, publishing] {
        connection.close(200, "OK".into()).await.unwrap();
    }
    delays
}

/// Empties a queue; how many messages were in it.
pub(crate) async fn purge(place: &Place, queue: &str) -> u32 {
    let (connection, channel) = open(place).await;
    let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap();
    connection.close(200, "OK".into()).await.unwrap();
    purged
}

/// Deletes what the run has declared. RabbitMQ 3.10 answers that with `INTERNAL_ERROR` at times, and the figures are no worse for it.
#[expect(clippy::print_stderr, reason = "what is printed to stdout is a figure, at times")]
pub(crate) async fn delete(place: &Place) {
    if let Err(error) = try_delete(place).await {
        eprintln!("not everything was deleted: {error}");
    }
}

async fn try_delete(place: &Place) -> lapin::Result<()> {
    let (connection, channel) = open(place).await;
    for queue in place.topology.queues() {
        channel.queue_delete(queue.name.into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in place.topology.exchanges() {
        channel.exchange_delete(exchange.name.into(), ExchangeDeleteOptions::default()).await?;
    }
    connection.close(200, "OK".into()).await
}
