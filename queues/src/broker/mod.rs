//! The broker's address, and what can be asked of it directly: declaring a topology and checking it.

mod check;
mod connect;
mod declare;
#[cfg(feature = "management")]
mod management;
mod raw;

pub(crate) use declare::{Counted, count_messages, declare};
#[cfg(feature = "management")]
pub use management::ManagementError;
pub use {
    check::{Difference, TopologyReport},
    declare::QueueStatus,
};

use crate::{Topology, connection::close};
use lapin::uri::AMQPUri;
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::timeout;

const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5 * 60);

type Renewal = dyn Fn() -> Option<String> + Send + Sync;

/// A broker's address, credentials and our connections' name. Cheap to clone; opens no connection by itself.
#[derive(Clone)]
pub struct Broker {
    uri: Arc<AMQPUri>,
    /// Gives the URL of the next connection.
    renewal: Option<Arc<Renewal>>,
    connection_name: Arc<str>,
    refusal_timeout: Duration,
}

impl Broker {
    /// Checks the URL: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://` for TLS (feature `tls`: rustls, with the
    /// system's root certificates). The vhost `/` is written `%2f`. `?heartbeat=SECONDS` and `?connection_timeout=MILLISECONDS`
    /// change their defaults of 30 s and 10 s. `connection_name` appears in the management UI and is the `app_id` of
    /// published messages (truncated to 255 bytes).
    ///
    /// # Errors
    /// [`BrokerError::Url`], whose text never repeats the URL.
    pub fn new(amqp_url: &str, connection_name: &str) -> Result<Self, BrokerError> {
        let uri = connect::parse(amqp_url)?;
        let length = connection_name.floor_char_boundary(255);
        let connection_name = Arc::from(&connection_name[..length]);
        Ok(Self { uri: Arc::new(uri), renewal: None, connection_name, refusal_timeout: REFUSAL_TIMEOUT })
    }

    /// Asks `url` for the URL before each connection: its password may have changed. While that gives none, or one that can't
    /// be used, the URL of [`new`](Self::new) serves. Must not block for long.
    #[must_use]
    pub fn with_renewed_url(mut self, url: impl Fn() -> Option<String> + Send + Sync + 'static) -> Self {
        self.renewal = Some(Arc::new(url));
        self
    }

    /// The URL that the next connection is made with.
    fn next_uri(&self) -> AMQPUri {
        let renewed = self.renewal.as_ref().and_then(|url| url());
        let renewed = renewed.and_then(|url| {
            let parsed = connect::parse(&url);
            parsed.inspect_err(|error| tracing::warn!(%error, "the renewed URL can't be used")).ok()
        });
        renewed.unwrap_or_else(|| (*self.uri).clone())
    }

    /// How long publishers and workers retry when the broker refuses the user, the vhost or a permission (5 minutes unless
    /// set). Then a worker ends with [`WorkerError::Refused`](crate::WorkerError::Refused), and a publisher with
    /// [`ConnectionState::Refused`](crate::ConnectionState::Refused). Zero: the first refusal is final.
    #[must_use]
    pub fn with_refusal_timeout(mut self, timeout: Duration) -> Self {
        self.refusal_timeout = timeout;
        self
    }

    pub(crate) fn refusal_timeout(&self) -> Duration {
        self.refusal_timeout
    }

    /// Declares the exchange, the queues and the binding. Idempotent: it creates what is missing and changes nothing. It has 30 s,
    /// besides the time for connecting (10 s, see [`new`](Self::new)).
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] when a queue or the exchange exists with other arguments; [`BrokerError::Unreachable`], also when
    /// it takes too long; [`BrokerError::Refused`].
    pub async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.declare_all(std::slice::from_ref(topology)).await
    }

    /// [`declare`](Self::declare) for several, in order, on one connection. Each has 30 s.
    ///
    /// # Errors
    /// As [`declare`](Self::declare), for the first that fails; those before it are declared.
    pub async fn declare_all(&self, topologies: &[Topology]) -> Result<(), BrokerError> {
        let connection = self.connect("declare").await?;
        let declaring = async {
            for topology in topologies {
                declare(self, &connection, topology).await?;
            }
            Ok(())
        };
        let declared = declaring.await;
        close(&connection).await;
        declared
    }

    /// Whether each queue of the topology exists and how full it is, in the order of declaration. Creates nothing, and does
    /// not compare arguments: [`check`](Self::check) does.
    ///
    /// # Errors
    /// [`BrokerError::Unreachable`], also when it takes longer than 30 s, and [`BrokerError::Refused`]; a missing queue is not an
    /// error.
    pub async fn queue_statuses(&self, topology: &Topology) -> Result<Vec<QueueStatus>, BrokerError> {
        let connection = self.connect("verify").await?;
        let statuses = declare::look(self, &connection, topology).await;
        close(&connection).await;
        statuses
    }

    /// Compares the broker with the topology as far as AMQP allows: missing queues or exchange, other arguments (the first
    /// that differs), and queues whose leader does not answer. It changes nothing, except in a race: a queue deleted at this
    /// moment may be declared again, and a message entering an empty queue may be taken and given back.
    /// `check_with_management` (feature `management`) sees every argument, the policies and the binding.
    ///
    /// # Errors
    /// [`BrokerError::Unreachable`], also when it takes longer than 30 s, and [`BrokerError::Refused`]; a difference is not an
    /// error.
    pub async fn check(&self, topology: &Topology) -> Result<TopologyReport, BrokerError> {
        let connection = self.connect("check").await?;
        let compared = timeout(declare::TIMEOUT, check::compare(self, &connection, topology)).await;
        close(&connection).await;
        let compared = compared.unwrap_or_else(|_| Err(declare::too_slow(self)))?;
        Ok(TopologyReport { broker_version: self.version().await.ok().flatten(), ..compared })
    }

    pub(crate) fn connection_name(&self) -> &str {
        &self.connection_name
    }

    /// `HOST:PORT`, for error texts.
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("address", &self.address())
            .field("user", &self.uri.authority.userinfo.username)
            .field("password", &"***")
            .field("vhost", &self.uri.vhost)
            .field("connection_name", &self.connection_name)
            .finish()
    }
}

/// Why the broker cannot be used, and what to do about it. No text holds the URL or its password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The URL is not a broker's. The text does not repeat it: it may hold a password.
    #[error("the AMQP URL is not usable: {problem}; expected amqp://USER:PASSWORD@HOST:PORT/VHOST (or amqps://)")]
    #[non_exhaustive]
    Url {
        /// What is wrong.
        problem: String,
    },
    /// There is no connection, or it was lost: try again.
    #[error("the broker at {address} cannot be reached: {reason}")]
    #[non_exhaustive]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the operating system or the broker said.
        reason: String,
    },
    /// Unknown user, wrong password, unknown vhost or missing permission: trying again does not help.
    #[error(
        "the broker at {address} refused us: {reply}; check the user, its password and its permissions on the vhost"
    )]
    #[non_exhaustive]
    Refused {
        /// Host and port.
        address: String,
        /// The broker's reply.
        reply: String,
    },
    /// A queue or the exchange exists with other arguments. The broker's reply names the first that differs.
    #[error(
        "{object} exists and is declared otherwise: {reply}; nothing was changed: drain and delete it, or use another name"
    )]
    #[non_exhaustive]
    Mismatch {
        /// Which one: ``queue `NAME` `` or ``exchange `NAME` ``.
        object: String,
        /// The broker's reply.
        reply: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_explained_without_repeating_it() {
        let urls = [
            "",
            "guest:hunter2@localhost",
            "http://guest:hunter2@localhost",
            "amqp://guest:hunter2@localhost:notaport/",
            "amqp:hunter2",
            "amqp://guest:hunter2@localhost/%ff",
            "amqp://guest:hunter2@localhost/%2f?heartbeat=often",
        ];
        for url in urls {
            let text = format!("{0} {0:?}", Broker::new(url, "test").unwrap_err());
            assert!(
                text.contains("amqp://USER:PASSWORD@HOST:PORT/VHOST") && !text.contains("hunter2"),
                "{url}: {text}"
            );
        }
    }

    #[test]
    fn debug_shows_where_it_connects_but_not_the_password() {
        let text = format!("{:?}", Broker::new("amqps://ann:hunter2@broker.example/jobs", "test").unwrap());
        assert!(text.contains("broker.example:5671") && text.contains("ann") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        assert_eq!(Broker::new("amqp://[::1]:5673/", "test").unwrap().address(), "::1:5673");
    }
}
