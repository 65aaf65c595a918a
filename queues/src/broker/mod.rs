//! Where the broker is, and what can be asked of it directly: declaring a topology and looking at it. Publishers and
//! workers get their connections here. It keeps no connection open, and never prints the password.

mod compare;
mod connection;
mod declare;
mod error;
#[cfg(feature = "management")]
mod management;
mod report;
mod server;
mod socket;

pub(crate) use connection::{close, close_channel, text};
pub(crate) use declare::{count_messages, declare};
#[cfg(feature = "management")]
pub use management::ManagementError;
pub use {
    declare::QueueStatus,
    error::BrokerError,
    report::{Difference, TopologyReport},
};

use crate::Topology;
use lapin::uri::AMQPUri;
use std::{fmt, sync::Arc};
use tokio::time::timeout;

/// A broker's address, credentials and the name that our connections have in its management UI. Cheap to clone; opens
/// nothing until asked.
#[derive(Clone)]
pub struct Broker {
    uri: Arc<AMQPUri>,
    connection_name: Arc<str>,
}

impl Broker {
    /// Checks the URL: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, or `amqps://` for TLS (rustls, with the system's root
    /// certificates). The vhost `/` is written `%2f`. `?heartbeat=SECONDS` and `?connection_timeout=MILLISECONDS`
    /// change their defaults of 30 s and 10 s. `connection_name` is what the management UI shows, and the `app_id` of
    /// published messages (at most 255 bytes; cut when longer).
    ///
    /// # Errors
    /// [`BrokerError::Url`], whose text never repeats the URL.
    pub fn new(amqp_url: &str, connection_name: &str) -> Result<Self, BrokerError> {
        let uri = connection::parse(amqp_url)?;
        let length = connection_name.floor_char_boundary(255);
        Ok(Self { uri: Arc::new(uri), connection_name: Arc::from(&connection_name[..length]) })
    }

    /// Declares the exchange, the queues and the binding. Repeating it is harmless: it creates what is missing and
    /// changes nothing that exists.
    ///
    /// # Errors
    /// [`BrokerError::Mismatch`] when a queue or the exchange exists and is declared otherwise; the others as named.
    pub async fn declare(&self, topology: &Topology) -> Result<(), BrokerError> {
        self.declare_all(std::slice::from_ref(topology)).await
    }

    /// [`declare`](Self::declare) for several, in their order and on one connection.
    ///
    /// # Errors
    /// As [`declare`](Self::declare), for the first that fails; those before it are declared.
    pub async fn declare_all(&self, topologies: &[Topology]) -> Result<(), BrokerError> {
        let connection = self.connect("declare").await?;
        let mut declared = Ok(());
        for topology in topologies {
            declared = declare(self, &connection, topology).await;
            if declared.is_err() {
                break;
            }
        }
        close(&connection).await;
        declared
    }

    /// Looks at every queue of the topology, in its order of declaration, and creates nothing. It sees whether a queue
    /// exists and how full it is; a queue's arguments are checked by [`declare`](Self::declare).
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses us; a missing queue is no error.
    pub async fn verify(&self, topology: &Topology) -> Result<Vec<QueueStatus>, BrokerError> {
        let connection = self.connect("verify").await?;
        let statuses = declare::look(self, &connection, topology).await;
        close(&connection).await;
        statuses
    }

    /// Compares what is declared with what is wanted, as far as AMQP tells: which queues or which exchange are missing,
    /// which are declared otherwise, with the first argument that differs, and which have no leader that answers. It creates
    /// and changes nothing (a queue that is deleted by somebody else at this very moment may be declared anew; a message that
    /// comes into an empty queue at this very moment may be taken and given back). `check_with_management`, with the feature
    /// `management`, sees every argument, the policies and the binding.
    ///
    /// # Errors
    /// When the broker cannot be reached or refuses us; a difference is no error.
    pub async fn check(&self, topology: &Topology) -> Result<TopologyReport, BrokerError> {
        let connection = self.connect("check").await?;
        let compared = timeout(declare::TIMEOUT, compare::compare(self, &connection, topology)).await;
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
