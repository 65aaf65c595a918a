//! Opens every connection of the crate. lapin's own recovery stays off: it forgot the prefetch until 4.12.1 and does not
//! survive a consumer that the broker cancels. Supervisors reconnect instead.

use super::{Broker, BrokerError};
use crate::connection::{Opened, reply_code, text};
use lapin::{
    AsyncTcpStream, Connection, ConnectionProperties,
    runtime::default_runtime,
    tcp::TLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::lookup_host, time::timeout};
use url::{Host, Url};

/// For TCP, TLS and the AMQP handshake together, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A lost peer is detected within twice this time.
const HEARTBEAT_SECONDS: u16 = 30;
/// RabbitMQ's own. Said beforehand, lapin makes its two buffers (32 frames each) from memory that the system gives when it is
/// used; else it grows them on connecting and fills them, which takes 8 MiB a connection.
const FRAME_MAX: u32 = 131_072;

/// Parses the URL. No error text quotes it: it may hold a password.
pub(super) fn parse(amqp_url: &str) -> Result<AMQPUri, BrokerError> {
    let bad = |problem: String| BrokerError::Url { problem };
    let url = Url::parse(amqp_url).map_err(|error| bad(error.to_string()))?;
    if !matches!(url.scheme(), "amqp" | "amqps") {
        return Err(bad("its scheme is neither amqp nor amqps".to_owned()));
    }
    // Without a TLS library lapin would connect in the clear.
    if url.scheme() == "amqps" && !cfg!(feature = "tls") {
        return Err(bad("amqps needs this library's feature `tls`".to_owned()));
    }
    let host = url.host().filter(|host| *host != Host::Domain("")).ok_or_else(|| bad("it has no host".to_owned()))?;
    let mut uri: AMQPUri = amqp_url.parse().map_err(bad)?;
    if let Host::Ipv6(address) = host {
        // lapin's own parser takes an IPv6 address for a missing host, and that for localhost.
        uri.authority.host = address.to_string();
    }
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    uri.query.connection_timeout.get_or_insert(u64::try_from(CONNECT_TIMEOUT.as_millis()).unwrap_or(u64::MAX));
    Ok(uri)
}

impl Broker {
    /// A new connection. `purpose` is added to its name for the management UI.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Opened, BrokerError> {
        let name = format!("{} ({purpose})", self.connection_name());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let uri = self.next_uri();
        let patience = uri.query.connection_timeout.map_or(CONNECT_TIMEOUT, Duration::from_millis);
        // lapin bounds no part of connecting, and leaks a thread and a socket for each abandoned try: the guard ends the
        // socket however this function ends, unless there is a connection.
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
            Connection::connector(uri, runtime, open, properties).await
        };
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => {
                socket.keep();
                Ok(Opened(connection))
            }
            Ok(Err(error)) => Err(self.error(&error)),
            Err(_) => Err(self.unreachable(format!("no answer within {patience:?}"))),
        }
    }

    /// Tells refusals, which no retry heals, from everything else.
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

/// Shuts its socket down when dropped, unless kept: a peer that accepts and then stays silent would keep lapin's thread and
/// the socket for ever.
struct Socket(Held);

/// The side that opens the socket.
#[derive(Clone)]
struct Held(Arc<Mutex<State>>);

enum State {
    /// A second handle of the socket, once it is open.
    Connecting(Option<TcpStream>),
    Kept,
    GivenUp,
}

impl Socket {
    fn new() -> Self {
        Self(Held(Arc::new(Mutex::new(State::Connecting(None)))))
    }

    fn held(&self) -> Held {
        self.0.clone()
    }

    /// The AMQP connection is established and owns the socket alone.
    fn keep(self) {
        *self.0.state() = State::Kept;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut state = self.0.state();
        if let State::Connecting(socket) = &*state {
            // An error means that it has already ended.
            let _ = socket.as_ref().map(|socket| socket.shutdown(Shutdown::Both));
            *state = State::GivenUp;
        }
    }
}

impl Held {
    /// # Errors
    /// When the try was abandoned, or no file handles are left.
    fn hold(&self, socket: &tokio::net::TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if !matches!(*state, State::Connecting(_)) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = State::Connecting(Some(second_handle(socket)?));
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn second_handle(socket: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    use std::os::fd::AsFd;
    Ok(socket.as_fd().try_clone_to_owned()?.into())
}

#[cfg(windows)]
fn second_handle(socket: &tokio::net::TcpStream) -> io::Result<TcpStream> {
    use std::os::windows::io::AsSocket;
    Ok(socket.as_socket().try_clone_to_owned()?.into())
}
