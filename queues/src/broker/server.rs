//! What a broker says of itself in the first frame of the AMQP handshake. lapin reads it and keeps it to itself, so that
//! this opens a socket of its own, and leaves before it would have to log in. Called by [`Broker::check`].

use super::{Broker, BrokerError};
use futures_io::{AsyncRead, AsyncWrite};
use lapin::{
    AsyncTcpStream,
    protocol::{AMQPClass, connection::AMQPMethod, parse_class},
    runtime::default_runtime,
    tcp::TLSConfig,
    types::AMQPValue,
    uri::AMQPScheme,
};
use std::{future::poll_fn, io, net::SocketAddr, pin::Pin, time::Duration};
use tokio::{net::lookup_host, time::timeout};

const TIMEOUT: Duration = Duration::from_secs(5);
/// A client that speaks AMQP 0-9-1.
const GREETING: &[u8] = b"AMQP\x00\x00\x09\x01";
/// A frame's type, channel and size stand before its payload.
const FRAME_HEADER_BYTES: usize = 7;
/// Far more than any broker says of itself.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;

impl Broker {
    /// The broker's version, as it tells it to anybody who connects; `None` when it does not.
    ///
    /// # Errors
    /// [`BrokerError::Unreachable`] when there is no broker that speaks AMQP 0-9-1.
    pub async fn version(&self) -> Result<Option<String>, BrokerError> {
        let asked = timeout(TIMEOUT, self.ask_version()).await;
        let asked = asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        asked.map_err(|error| self.unreachable(error.to_string()))
    }

    async fn ask_version(&self) -> io::Result<Option<String>> {
        let (host, port) = (self.uri.authority.host.as_str(), self.uri.authority.port);
        let runtime = default_runtime().map_err(io::Error::other)?;
        let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
        let mut stream = AsyncTcpStream::connect(&runtime, addresses).await?;
        if self.uri.scheme == AMQPScheme::AMQPS {
            stream = stream.into_tls(host, TLSConfig::default()).await?;
        }
        write_all(&mut stream, GREETING).await?;
        let mut header = [0; FRAME_HEADER_BYTES];
        read_exact(&mut stream, &mut header).await?;
        let [_, _, _, size @ ..] = header;
        let size = usize::try_from(u32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if size > MAX_PAYLOAD_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what answers does not speak AMQP 0-9-1"));
        }
        let mut payload = vec![0; size];
        read_exact(&mut stream, &mut payload).await?;
        Ok(version(&payload))
    }
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

async fn write_all(stream: &mut (impl AsyncWrite + Unpin), mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = poll_fn(|context| Pin::new(&mut *stream).poll_write(context, bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
    }
    poll_fn(|context| Pin::new(&mut *stream).poll_flush(context)).await
}

async fn read_exact(stream: &mut (impl AsyncRead + Unpin), bytes: &mut [u8]) -> io::Result<()> {
    let mut read = 0;
    while read < bytes.len() {
        let more = poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut bytes[read..])).await?;
        if more == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read += more;
    }
    Ok(())
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
}
