//! Opens and closes connections: name, heartbeat, timeouts and TLS are set here, for every connection of the crate.
//! It never reconnects: supervisors do, and lapin's own recovery, which forgot the prefetch until 4.12.1 and does not
//! outlive a consumer that the broker cancels, stays off.

use super::{Broker, BrokerError, socket::Socket};
use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties, ErrorKind,
    runtime::default_runtime,
    tcp::TLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::lookup_host, time::timeout};
use url::{Host, Url};

/// TCP, TLS and the AMQP handshake together, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A lost peer is noticed after twice this time at the latest.
const HEARTBEAT_SECONDS: u16 = 30;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Reads the URL. Nothing of it goes into an error's text but what cannot be a secret.
pub(super) fn parse(amqp_url: &str) -> Result<AMQPUri, BrokerError> {
    let bad = |problem: String| BrokerError::Url { problem };
    let url = Url::parse(amqp_url).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(bad("its scheme is neither amqp nor amqps".to_owned()));
    }
    let host = url.host().filter(|host| *host != Host::Domain("")).ok_or_else(|| bad("it has no host".to_owned()))?;
    let mut uri: AMQPUri = amqp_url.parse().map_err(bad)?;
    if let Host::Ipv6(address) = host {
        // lapin's own parser takes an IPv6 address for a missing host, and that for localhost.
        uri.authority.host = address.to_string();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    uri.query.connection_timeout.get_or_insert(u64::try_from(CONNECT_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
    Ok(uri)
}

impl Broker {
    /// A new connection. `purpose` is added to its name, so that the management UI tells publishing from consuming.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Connection, BrokerError> {
        let name = format!("{} ({purpose})", self.connection_name());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let patience = self.uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis);
        // lapin bounds no part of connecting, and leaves a thread and a socket behind for each try that is given up:
        // whichever way this function ends, its socket does not outlive it without a connection.
        let socket = Socket::new();
        let held = socket.held();
        let connecting = async {
            let runtime = default_runtime()?;
            let reactor = runtime.clone();
            let open = async move |uri: AMQPUri, _| {
                let opening = async {
                    let (host, port) = (uri.authority.host.as_str(), uri.authority.port);
                    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
                    let stream = AsyncTcpStream::connect(&reactor, addresses).await?;
                    if let AsyncTcpStream::Plain(stream) = &stream {
                        held.hold(stream.get_ref())?;
                    }
                    match uri.scheme {
                        AMQPScheme::AMQP => Ok(stream),
                        AMQPScheme::AMQPS => stream.into_tls(host, TLSConfig::default()).await,
                    }
                };
                let opened = timeout(patience, opening).await;
                Ok(opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?)
            };
            Connection::connector((*self.uri).clone(), runtime, open, properties).await
        };
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => {
                socket.keep();
                Ok(connection)
            }
            Ok(Err(error)) => Err(self.error(&error)),
            Err(_) => Err(self.unreachable(format!("no answer within {patience:?}"))),
        }
    }

    /// Whether trying again can help is what callers must know of an error.
    pub(crate) fn error(&self, error: &lapin::Error) -> BrokerError {
        /// AMQP reply codes: `ACCESS_REFUSED` and, for a missing vhost, `NOT_ALLOWED`.
        const REFUSALS: [u16; 2] = [403, 530];
        match reply_code(error) {
            Some(code) if REFUSALS.contains(&code) => {
                BrokerError::Refused { address: self.address(), reply: text(error) }
            }
            _ => self.unreachable(text(error)),
        }
    }

    pub(crate) fn unreachable(&self, reason: String) -> BrokerError {
        BrokerError::Unreachable { address: self.address(), reason }
    }
}

/// The reply code with which the broker closed a channel or connection.
pub(super) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
        _ => None,
    }
}

/// What the broker said, or else what lapin says.
pub(crate) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => reply.get_message().to_string(),
        _ => error.to_string(),
    }
}

/// Closes a channel that has done its work, before its connection. Merely dropped it would still be closing when the
/// connection is closed, which lapin logs as an error.
pub(crate) async fn close_channel(channel: &Channel) {
    let _ = timeout(CLOSE_TIMEOUT, channel.close(200, "OK".into())).await;
}

/// Says goodbye, and does not wait long for an answer: the connection may be dead or blocked. It is over either way.
pub(crate) async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await;
}
