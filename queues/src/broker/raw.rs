//! A minimal AMQP client for what lapin cannot do: ask for the broker's version without logging in, and take a message
//! whose properties are not UTF-8, which ends any connection of lapin's that receives it.

use super::{Broker, BrokerError};
use futures_util::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use lapin::{
    AsyncTcpStream, BasicProperties,
    protocol::{AMQPClass, basic::parse_properties, connection::AMQPMethod, parse_class},
    runtime::default_runtime,
    tcp::TLSConfig,
    types::{AMQPValue, ShortString},
    uri::{AMQPScheme, AMQPUri},
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::lookup_host, time::timeout};

const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Far more than a frame of any broker has, and less than what a peer that speaks another protocol would make of it.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;
const FRAME_END: u8 = 0xce;
const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const NO_ARGUMENTS: [u8; 4] = [0; 4];

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}
type Stream = Box<dyn Duplex>;

/// A channel that takes messages from one queue. Dropping it returns what is not acknowledged.
pub(crate) struct RawChannel {
    stream: Stream,
    queue: String,
}

/// A message as it is on the wire.
pub(crate) struct RawMessage {
    pub(crate) tag: u64,
    /// The property flags and the properties.
    properties: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Broker {
    /// The broker's version, which it tells before anyone logs in; `None` when it does not.
    ///
    /// # Errors
    /// [`BrokerError::Unreachable`] when nothing there speaks AMQP 0-9-1.
    pub async fn version(&self) -> Result<Option<String>, BrokerError> {
        let asked = timeout(VERSION_TIMEOUT, greet(&self.next_uri())).await;
        let asked = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        asked.map(|(_, start)| version(&start)).map_err(|error| self.unreachable(error.to_string()))
    }

    /// Logs in, with user and password.
    pub(crate) async fn open_raw(&self, queue: &str) -> io::Result<RawChannel> {
        let uri = self.next_uri();
        let user = &uri.authority.userinfo;
        let (stream, _) = greet(&uri).await?;
        let mut channel = RawChannel { stream, queue: queue.to_owned() };
        let response = format!("\0{}\0{}", user.username, user.password);
        let length = u32::try_from(response.len()).unwrap_or_default().to_be_bytes();
        let start_ok = [&NO_ARGUMENTS[..], b"\x05PLAIN", &length, response.as_bytes(), b"\x05en_US"].concat();
        channel.send(0, 10, 11, &start_ok).await?;
        let tune = channel.expect(10, 30).await?;
        // Channels and frame size as offered; no heartbeats, because this does not live long.
        let limits = tune.get(..6).ok_or(io::ErrorKind::InvalidData)?;
        channel.send(0, 10, 31, &[limits, &[0, 0]].concat()).await?;
        channel.send(0, 10, 40, &[short(&uri.vhost), vec![0, 0]].concat()).await?;
        channel.expect(10, 41).await?;
        channel.send(1, 20, 10, &[0]).await?;
        channel.expect(20, 11).await?;
        Ok(channel)
    }
}

/// A TCP or TLS stream, and the broker's first frame.
async fn greet(uri: &AMQPUri) -> io::Result<(Stream, Vec<u8>)> {
    let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
    let runtime = default_runtime().map_err(io::Error::other)?;
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let mut stream = AsyncTcpStream::connect(&runtime, addresses).await?;
    if uri.scheme == AMQPScheme::AMQPS {
        stream = stream.into_tls(host, TLSConfig::default()).await?;
    }
    let mut stream: Stream = Box::new(stream);
    stream.write_all(b"AMQP\x00\x00\x09\x01").await?;
    stream.flush().await?;
    let (_, start) = read_frame(&mut stream).await?;
    Ok((stream, start))
}

impl RawChannel {
    /// The next message; `None` when the queue is empty.
    pub(crate) async fn get(&mut self) -> io::Result<Option<RawMessage>> {
        let arguments = [vec![0, 0], short(&self.queue), vec![0]].concat();
        self.send(1, 60, 70, &arguments).await?;
        let answer = self.method().await?;
        let Some(got) = answer.strip_prefix(&[0, 60, 0, 71]) else { return Ok(None) };
        let tag = u64::from_be_bytes(first(got)?);
        self.content(tag).await.map(Some)
    }

    /// Begins to consume. A queue with a single active consumer refuses [`get`](Self::get).
    pub(crate) async fn consume(&mut self, prefetch: u16) -> io::Result<()> {
        self.send(1, 60, 10, &[&NO_ARGUMENTS[..], &prefetch.to_be_bytes(), &[0]].concat()).await?;
        self.expect(60, 11).await?;
        let arguments = [vec![0, 0], short(&self.queue), vec![0, 0], NO_ARGUMENTS.to_vec()].concat();
        self.send(1, 60, 20, &arguments).await?;
        self.expect(60, 21).await.map(drop)
    }

    /// The next message for the consumer.
    pub(crate) async fn delivered(&mut self) -> io::Result<RawMessage> {
        let delivery = self.expect(60, 60).await?;
        let tag_at = delivery.first().map_or(0, |length| usize::from(*length) + 1);
        let tag = u64::from_be_bytes(first(delivery.get(tag_at..).unwrap_or_default())?);
        self.content(tag).await
    }

    async fn content(&mut self, tag: u64) -> io::Result<RawMessage> {
        let (kind, header) = read_frame(&mut self.stream).await?;
        if kind != HEADER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let size = u64::from_be_bytes(first(header.get(4..).unwrap_or_default())?);
        let mut payload = Vec::new();
        while (payload.len() as u64) < size {
            let (kind, body) = read_frame(&mut self.stream).await?;
            if kind == BODY {
                payload.extend(body);
            }
        }
        Ok(RawMessage { tag, properties: header.get(12..).unwrap_or_default().to_vec(), payload })
    }

    pub(crate) async fn ack(&mut self, tag: u64) -> io::Result<()> {
        self.send(1, 60, 80, &[&tag.to_be_bytes()[..], &[0]].concat()).await
    }

    /// Returns everything that is not acknowledged, and waits until the broker has closed the connection.
    pub(crate) async fn close(mut self) -> io::Result<()> {
        const MULTIPLE_AND_REQUEUE: u8 = 0b11;
        self.send(1, 60, 120, &[&[0; 8][..], &[MULTIPLE_AND_REQUEUE]].concat()).await?;
        // Through the channel first, so the broker has worked off what came before.
        self.send(1, 20, 40, &[0, 200, 0, 0, 0, 0, 0]).await?;
        self.expect(20, 41).await?;
        self.send(0, 10, 50, &[0, 200, 0, 0, 0, 0, 0]).await?;
        self.expect(10, 51).await.map(drop)
    }

    /// Closes the channel: only so, and not by returning them, do many messages keep their order (RabbitMQ 3).
    pub(crate) async fn stop_consuming(mut self) -> io::Result<()> {
        self.send(1, 20, 40, &[0, 200, 0, 0, 0, 0, 0]).await?;
        while !self.method().await?.starts_with(&[0, 20, 0, 41]) {}
        Ok(())
    }

    /// Publishes what lapin would not.
    #[cfg(test)]
    pub(crate) async fn publish(&mut self, queue: &str, properties: &[u8], payload: &[u8]) -> io::Result<()> {
        self.send(1, 60, 40, &[vec![0, 0, 0], short(queue), vec![0]].concat()).await?;
        let size = (payload.len() as u64).to_be_bytes();
        for (kind, content) in [(HEADER, [&[0, 60, 0, 0], &size[..], properties].concat()), (BODY, payload.to_vec())] {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            let frame = [&[kind, 0, 1], &length[..], &content, &[FRAME_END]].concat();
            self.stream.write_all(&frame).await?;
        }
        self.stream.flush().await
    }

    async fn send(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) -> io::Result<()> {
        let size = u32::try_from(4 + arguments.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut frame = vec![METHOD];
        frame.extend(channel.to_be_bytes());
        frame.extend(size);
        frame.extend(class.to_be_bytes());
        frame.extend(method.to_be_bytes());
        frame.extend(arguments);
        frame.push(FRAME_END);
        self.stream.write_all(&frame).await?;
        self.stream.flush().await
    }

    /// The next method's payload.
    async fn method(&mut self) -> io::Result<Vec<u8>> {
        loop {
            // Anything else is a heartbeat.
            if let (METHOD, payload) = read_frame(&mut self.stream).await? {
                // The broker closes the connection or the channel: its reply follows the code.
                let (Some([0, 10, 0, 50] | [0, 20, 0, 40]), Some(length)) = (payload.get(..4), payload.get(6)) else {
                    return Ok(payload);
                };
                let text = payload.get(7..7 + usize::from(*length)).unwrap_or_default();
                return Err(io::Error::other(String::from_utf8_lossy(text).into_owned()));
            }
        }
    }

    async fn expect(&mut self, class: u8, method: u8) -> io::Result<Vec<u8>> {
        let payload = self.method().await?;
        let arguments = payload.strip_prefix(&[0, class, 0, method]);
        arguments.map(<[u8]>::to_vec).ok_or_else(|| io::Error::other("an unexpected answer of the broker"))
    }
}

impl RawMessage {
    /// Whether lapin could read it.
    pub(crate) fn is_readable(&self) -> bool {
        parse_properties(self.properties.as_slice()).is_ok()
    }

    /// The properties with replacement characters for what is not UTF-8, and without headers that cannot be read.
    pub(crate) fn repaired(&self) -> BasicProperties {
        let mut rest = self.properties.as_slice();
        let flags = take(&mut rest, 2).map_or(0, |flags| u16::from_be_bytes([flags[0], flags[1]]));
        let mut properties = BasicProperties::default();
        for bit in (0..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            properties = match bit {
                13 => {
                    let length = rest.get(..4).and_then(|bytes| first(bytes).ok()).map_or(0, u32::from_be_bytes);
                    let length = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(4);
                    let Some(table) = take(&mut rest, length) else { break };
                    match lapin::types::parsing::parse_field_table(table) {
                        Ok((_, headers)) => properties.with_headers(headers),
                        Err(_) => properties,
                    }
                }
                12 => match take(&mut rest, 1) {
                    Some(_) => properties,
                    None => break,
                },
                11 => match take(&mut rest, 1) {
                    Some(priority) => properties.with_priority(priority[0]),
                    None => break,
                },
                6 => match take(&mut rest, 8).and_then(|bytes| first(bytes).ok()) {
                    Some(seconds) => properties.with_timestamp(u64::from_be_bytes(seconds)),
                    None => break,
                },
                _ => {
                    let Some(length) = take(&mut rest, 1) else { break };
                    let Some(text) = take(&mut rest, usize::from(length[0])) else { break };
                    let text = lossy(text);
                    match bit {
                        15 => properties.with_content_type(text),
                        14 => properties.with_content_encoding(text),
                        10 => properties.with_correlation_id(text),
                        9 => properties.with_reply_to(text),
                        7 => properties.with_message_id(text),
                        5 => properties.with_type(text),
                        3 => properties.with_app_id(text),
                        // `expiration`, `user_id` and `cluster_id` must not travel.
                        _ => properties,
                    }
                }
            };
        }
        properties
    }
}

fn lossy(text: &[u8]) -> ShortString {
    let text = String::from_utf8_lossy(text);
    text[..text.floor_char_boundary(255)].into()
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(taken)
}

fn first<const N: usize>(bytes: &[u8]) -> io::Result<[u8; N]> {
    bytes.first_chunk().copied().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn short(text: &str) -> Vec<u8> {
    let text = &text[..text.floor_char_boundary(255)];
    [&[u8::try_from(text.len()).unwrap_or(u8::MAX)], text.as_bytes()].concat()
}

/// A frame's type and payload.
async fn read_frame(stream: &mut Stream) -> io::Result<(u8, Vec<u8>)> {
    // Type, channel and size.
    let mut header = [0; 7];
    stream.read_exact(&mut header).await?;
    let [kind, _, _, size @ ..] = header;
    let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
    if size > MAX_FRAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "what answers does not speak AMQP 0-9-1"));
    }
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload).await?;
    payload.truncate(size);
    Ok((kind, payload))
}

fn version(payload: &[u8]) -> Option<String> {
    match parse_class(payload) {
        Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) => {
            match start.server_properties.inner().get("version")? {
                AMQPValue::LongString(version) => Some(version.to_string()),
                _ => None,
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_start_frame_tells_no_version() {
        for payload in [&b""[..], b"\x00\x0a\x00\x0a", b"\x00\x0a\x00\x1e\x00\x00", &[0xff; 64]] {
            assert_eq!(version(payload), None);
        }
    }

    #[test]
    fn what_can_be_read_of_a_foreign_message_is_kept() {
        // content_type, priority, message_id and type; the id is Latin-1.
        let flags: u16 = 1 << 15 | 1 << 11 | 1 << 7 | 1 << 5;
        let properties = [&flags.to_be_bytes()[..], b"\x08text/xml", b"\x05", b"\x03m\xfcd", b"\x05count"].concat();
        let message = RawMessage { tag: 1, properties, payload: Vec::new() };
        assert!(!message.is_readable());
        let repaired = message.repaired();
        assert_eq!(repaired.message_id().as_ref().map(ShortString::as_str), Some("m\u{fffd}d"));
        assert_eq!(repaired.kind().as_ref().map(ShortString::as_str), Some("count"));
        assert_eq!(*repaired.priority(), Some(5));
    }
}
