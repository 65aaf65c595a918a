//! What publishers and workers share about connections: the visible state, the delay before reconnecting, closing, and
//! the broker's error replies.

use crate::BrokerError;
use backoff::{SystemClock, backoff::Backoff, exponential::ExponentialBackoff};
use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use lapin::{Channel, Connection, ErrorKind};
use std::{ops::Deref, time::Duration};
use tokio::time::{Instant, timeout};

const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A connection that lived this long was good: the next failure starts with the first delay.
const GOOD_LIFE: Duration = Duration::from_secs(10);

/// The state of a supervised connection, as a `tokio::sync::watch` value. It starts as `Reconnecting`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Ready for work. Ends when the broker blocks the connection, when it is lost, and on closing.
    Connected,
    /// The broker has a memory or disk alarm and reads nothing from this connection. Ends with the alarm, when the
    /// connection is lost, and on closing.
    Blocked,
    /// There is no connection; retries continue automatically. Ends on success and on closing.
    Reconnecting {
        /// Since when there has been no connection (UTC).
        since: DateTime<Utc>,
        /// Why the last try, or the last connection, ended; `None` until the first try has ended.
        last_error: Option<String>,
    },
    /// Closed by its owner; final.
    Closed,
    /// The broker refused the user, the vhost or a permission for longer than
    /// [`Broker::with_refusal_timeout`](crate::Broker::with_refusal_timeout) allows; final.
    Refused {
        /// The broker's reply.
        error: String,
    },
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

    /// The state after a failure: `since` keeps its value if there was no connection before either.
    pub(crate) fn after_failure(&self, error: String) -> Self {
        let since = match self {
            Self::Reconnecting { since, .. } => *since,
            Self::Connected | Self::Blocked | Self::Closed | Self::Refused { .. } => Utc::now(),
        };
        Self::Reconnecting { since, last_error: Some(error) }
    }
}

/// The delays between tries to connect: exponential, with jitter, so clients of a restarted broker do not return at once.
/// The only user of the `backoff` crate.
pub(crate) struct Reconnect(ExponentialBackoff<SystemClock>);

impl Reconnect {
    pub(crate) fn new() -> Self {
        Self(ExponentialBackoff {
            current_interval: FIRST_DELAY,
            initial_interval: FIRST_DELAY,
            randomization_factor: 0.5,
            multiplier: 2.0,
            max_interval: LONGEST_DELAY,
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        })
    }

    /// The delay after a connection that lived for `lived` (zero if it was never established). A short life counts as
    /// another failure, or a connection that is lost at once would be retried in a busy loop.
    pub(crate) fn delay_after(&mut self, lived: Duration) -> Duration {
        if lived >= GOOD_LIFE {
            self.0.reset();
        }
        self.0.next_backoff().unwrap_or(LONGEST_DELAY)
    }
}

/// How long a broker has been refusing us.
#[derive(Default)]
pub(crate) struct Refusals(Option<Instant>);

impl Refusals {
    /// Whether an error is a refusal that has lasted for `patience`.
    pub(crate) fn are_final(&mut self, error: &BrokerError, patience: Duration) -> bool {
        matches!(error, BrokerError::Refused { .. }) && self.0.get_or_insert_with(Instant::now).elapsed() >= patience
    }

    pub(crate) fn end(&mut self) {
        self.0 = None;
    }
}

/// The reply code with which the broker closed a channel or connection.
pub(crate) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => Some(reply.get_id()),
        _ => None,
    }
}

/// The broker's words, or else lapin's.
pub(crate) fn text(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(reply) => reply.get_message().to_string(),
        _ => error.to_string(),
    }
}

/// Closes a channel before its connection: one that is merely dropped would still be closing then, and lapin logs that
/// as an error.
pub(crate) async fn close_channel(channel: &Channel) {
    let _ = timeout(CLOSE_TIMEOUT, channel.close(200, "OK".into())).await;
}

/// A connection that begins to close when it is dropped. lapin keeps one that is merely let go as long as anything belongs to it, and
/// cancels its consumers first: what they were given would come back late, or behind what others get meanwhile.
pub(crate) struct Opened(pub(crate) Connection);

impl Deref for Opened {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // Sent at the first poll. An error means that the connection has ended.
        let _ = self.0.close(200, "OK".into()).now_or_never();
    }
}

/// Closes a connection without waiting long: it may be dead or blocked.
pub(crate) async fn close(connection: &Connection) {
    let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "OK".into())).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_with_jitter_up_to_a_ceiling_and_never_end() {
        let mut reconnect = Reconnect::new();
        let delays: Vec<Duration> = (0..100).map(|_| reconnect.delay_after(Duration::ZERO)).collect();
        assert!(delays[0] <= FIRST_DELAY * 3 / 2 + Duration::from_millis(1), "{:?}", delays[0]);
        assert!(
            delays[20..].iter().all(|delay| (LONGEST_DELAY / 2..=LONGEST_DELAY * 3 / 2).contains(delay)),
            "{delays:?}"
        );
        assert!(delays[20..].windows(2).any(|pair| pair[0] != pair[1]), "no jitter: {delays:?}");
    }

    #[test]
    fn a_connection_that_lived_long_starts_the_delays_anew() {
        let mut reconnect = Reconnect::new();
        for _ in 0..20 {
            reconnect.delay_after(Duration::from_secs(1));
        }
        assert!(reconnect.delay_after(GOOD_LIFE) < FIRST_DELAY * 2);
    }
}
