//! What can be seen of a connection from outside. Set by the publisher's and the worker's supervisors; read by health
//! checks and metrics.

use chrono::{DateTime, Utc};

/// The state of a supervised connection, as a `tokio::sync::watch` value.
///
/// It starts as `Reconnecting`, since nothing is connected yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// Ready for work. Left when the broker blocks the connection, when it is lost, and by closing.
    Connected,
    /// The broker has a memory or disk alarm and reads nothing from this connection. Left when the alarm ends, when the
    /// connection is lost, and by closing.
    Blocked,
    /// There is no connection; another try follows by itself. Left by success, and by closing.
    Reconnecting {
        /// Since when there has been no connection (UTC).
        since: DateTime<Utc>,
        /// Why the last try, or the last connection, ended; `None` before the first try has ended.
        last_error: Option<String>,
    },
    /// Closed by its owner. Nothing leads out of it.
    Closed,
}

impl ConnectionState {
    /// Whether work flows: true for `Connected` alone.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }

    /// The state before the first try.
    pub(crate) fn starting() -> Self {
        Self::Reconnecting { since: Utc::now(), last_error: None }
    }

    /// The state after a failure: `since` stays what it was when there was no connection before either.
    pub(crate) fn after_failure(&self, error: String) -> Self {
        let since = match self {
            Self::Reconnecting { since, .. } => *since,
            Self::Connected | Self::Blocked | Self::Closed => Utc::now(),
        };
        Self::Reconnecting { since, last_error: Some(error) }
    }
}
