//! A message with its AMQP properties, and the one place that publishes.

use super::{
    PublishError,
    in_flight::{Answer, Lost, Returned, Route},
};
use crate::{
    Message,
    connection::{reply_code, text},
    headers,
};
use chrono::Utc;
use lapin::{
    BasicProperties, Channel, Confirmation,
    message::BasicReturnMessage,
    options::BasicPublishOptions,
    types::{AMQPValue, FieldTable, ShortString},
};
use std::sync::Arc;

/// AMQP's `delivery_mode` for messages that survive a restart.
pub(crate) const PERSISTENT: u8 = 2;
/// Quorum queues take 0 to 4 as normal and more as high.
const HIGH_PRIORITY: u8 = 5;
/// RabbitMQ 4's default for `max_message_size` (3.x: 128 MiB). A larger message costs the whole channel, with everything in
/// flight on it.
const MAX_PAYLOAD_BYTES: usize = 16 * 1024 * 1024;
/// A W3C `traceparent` has 55 bytes; all headers share one frame.
const MAX_TRACEPARENT_BYTES: usize = 255;

/// More than all properties without the headers can have, with the frame's own fields.
const OTHER_PROPERTIES_BYTES: usize = 3 * 1024;
const FRAME_MAX: usize = 131_072;
const NOT_FOUND: u16 = 404;

/// A message with its AMQP properties.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) id: String,
    pub(crate) exchange: ShortString,
    pub(crate) routing_key: ShortString,
    pub(crate) payload: Vec<u8>,
    pub(crate) properties: BasicProperties,
}

impl Outgoing {
    /// Checks AMQP's limits and sets the properties.
    pub(super) fn new(message: Message, app_id: &str) -> Result<Self, PublishError> {
        let Message { id, kind, exchange, routing_key, payload, attempt, .. } = message;
        let Message { correlation_id, traceparent, high_priority, headers: foreign, key, .. } = message;
        let Message { delay, longest_delay, longest_wait, .. } = message;
        let short = |field: &str, text: String| {
            ShortString::try_new(text).map_err(|error| PublishError::Invalid {
                id: id.clone(),
                problem: format!("{field}: {error}; at most 255 bytes are allowed"),
            })
        };
        let invalid = |problem: String| Err(PublishError::Invalid { id: id.clone(), problem });
        if payload.len() > MAX_PAYLOAD_BYTES {
            return invalid(format!("payload must have at most {MAX_PAYLOAD_BYTES} bytes (got {})", payload.len()));
        }
        if let (Some(delay), Some(longest)) = (delay, longest_delay)
            && delay > longest
        {
            return invalid(format!(
                "delay must be at most {longest:?}, the longest retry queue's (got {delay:?}); declare long delays for it"
            ));
        }
        if let Some(name) = foreign.keys().find(|name| headers::is_reserved(name)) {
            return invalid(format!("header {name:?} is reserved for the library or the broker"));
        }
        let mut headers = FieldTable::default();
        for (name, value) in foreign {
            headers.insert(short("header", name)?, AMQPValue::LongString(value.into()));
        }
        let now = Utc::now();
        headers.insert(headers::ATTEMPT.into(), AMQPValue::LongLongInt(attempt.into()));
        headers.insert(headers::PUBLISHED_MS.into(), AMQPValue::LongLongInt(now.timestamp_millis()));
        if let Some(key) = key {
            headers.insert(headers::KEY.into(), AMQPValue::LongString(short("key", key)?.as_str().into()));
        }
        if let Some(delay) = delay.filter(|delay| *delay > longest_wait) {
            let Some(due_at) = headers::after(now, delay) else {
                return invalid(format!("delay must end before the year 9999 (got {delay:?})"));
            };
            headers.insert(headers::DUE_AT.into(), AMQPValue::LongString(due_at.into()));
        }
        if let Some(traceparent) = traceparent.filter(|text| text.len() <= MAX_TRACEPARENT_BYTES) {
            headers.insert(headers::TRACEPARENT.into(), AMQPValue::LongString(traceparent.into()));
        }
        let mut properties = BasicProperties::default()
            .with_message_id(short("id", id.clone())?)
            .with_type(short("kind", kind)?)
            .with_app_id(short("app_id", app_id.to_owned())?)
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_timestamp(u64::try_from(now.timestamp()).unwrap_or_default())
            .with_headers(headers);
        if high_priority {
            properties = properties.with_priority(HIGH_PRIORITY);
        }
        if let Some(correlation_id) = correlation_id {
            properties = properties.with_correlation_id(short("correlation_id", correlation_id)?);
        }
        let (exchange, routing_key) = (short("exchange", exchange)?, short("routing_key", routing_key)?);
        Ok(Self { id, exchange, routing_key, payload, properties })
    }

    /// As [`new`](Self::new), and for the default frame size.
    pub(crate) fn check(message: Message) -> Result<(), PublishError> {
        let outgoing = Self::new(message, "")?;
        match outgoing.excess(FRAME_MAX) {
            Some(problem) => Err(PublishError::Invalid { id: outgoing.id, problem }),
            None => Ok(()),
        }
    }

    /// What keeps the properties from fitting into one frame, which must hold them all: a larger one costs the connection.
    pub(super) fn excess(&self, frame_max: usize) -> Option<String> {
        let bytes = self.properties.headers().as_ref().map_or(0, headers::encoded_bytes);
        let allowed = frame_max.saturating_sub(OTHER_PROPERTIES_BYTES);
        (frame_max > 0 && bytes > allowed)
            .then(|| format!("headers must have at most {allowed} bytes together (got {bytes})"))
    }

    pub(super) fn route(&self) -> Route {
        Route::new(self.id.as_str(), self.exchange.as_str(), self.routing_key.as_str())
    }

    /// Publishes and resolves with the broker's answer. lapin numbers messages at the first poll, so first polls must keep
    /// the order of the entries in flight.
    #[expect(clippy::disallowed_methods, reason = "the one place that publishes")]
    pub(super) async fn send(self, channel: Arc<Channel>) -> Answer {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let Self { exchange, routing_key, payload, properties, .. } = self;
        let written = channel.basic_publish(exchange, routing_key, options, &payload, properties).await;
        let confirmed = match written {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(Confirmation::Ack(returned)) => Answer::Acked(returned.map(read_return)),
            Ok(Confirmation::Nack(returned)) => Answer::Nacked(returned.map(read_return)),
            Ok(Confirmation::NotRequested) => {
                let reason = "the channel is not in confirm mode".to_owned();
                Answer::Lost(Lost { reason, no_exchange: false })
            }
            Err(error) => {
                let no_exchange = reply_code(&error) == Some(NOT_FOUND);
                Answer::Lost(Lost { reason: text(&error), no_exchange })
            }
        }
    }
}

fn read_return(message: BasicReturnMessage) -> Returned {
    let id = message.properties.message_id().as_ref().map_or("", ShortString::as_str);
    Returned {
        route: Route::new(id, message.exchange.as_str(), message.routing_key.as_str()),
        reply: format!("{} {}", message.reply_code, message.reply_text),
    }
}
