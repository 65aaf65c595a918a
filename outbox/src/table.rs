//! The seam between the relay and the table that it publishes from.

use queues::{Message, PublishError};
use std::{fmt, future::Future, time::Duration};

/// A table with jobs to publish. [`StandardTable`](crate::StandardTable) is the crate's own; implement this for one that your
/// program has already, and run [`Relay::with_table`](crate::Relay::with_table).
///
/// Times are by the database's clock. No transaction stays open while the broker is talked to.
pub trait Table: Send + Sync {
    /// A row that belongs to this process's relay.
    type Row: Send;
    /// What the database says when it refuses.
    type Error: fmt::Display + Send;

    /// Takes at most `limit` rows that are neither published nor another relay's, oldest first, under a lease: two relays
    /// never get the same row, and those of a relay that died come free again. The lease must be longer than the publisher
    /// waits for a connection, a place and a confirm together: 45 s. Rows for the queues in `except` stay.
    ///
    /// # Errors
    /// What the database says.
    fn claim(
        &self,
        limit: usize,
        except: &[String],
    ) -> impl Future<Output = Result<Vec<Self::Row>, Self::Error>> + Send;

    /// The queue that the row is for, or whatever stands for it in your table. While one is slow to confirm, the rows for
    /// others are published without waiting for it.
    fn queue<'a>(&'a self, row: &'a Self::Row) -> &'a str;

    /// The row's message; called once for each row.
    ///
    /// # Errors
    /// The reason why this program has none, when the row is a newer program's, say: it is given back.
    fn message(&self, row: &mut Self::Row) -> Result<Message, String>;

    /// Marks rows that the broker has confirmed, at least one.
    ///
    /// # Errors
    /// What the database says.
    fn mark(&self, published: &[Self::Row]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Ends the lease of rows that were not published, at least one, after some pause.
    ///
    /// # Errors
    /// What the database says.
    fn give_back(&self, refused: &[(Self::Row, Refusal)]) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// How long until a row, of whatever relay, comes free; zero if one is, `None` if nothing waits for another queue than
    /// those in `except`.
    ///
    /// # Errors
    /// What the database says.
    fn next_free(&self, except: &[String]) -> impl Future<Output = Result<Option<Duration>, Self::Error>> + Send;

    /// Deletes rows that were published longer ago than `keep`, and measures what is to be measured. Does nothing unless written.
    ///
    /// # Errors
    /// What the database says.
    fn maintain(&self, keep: Duration) -> impl Future<Output = Result<(), Self::Error>> + Send {
        let _ = keep;
        async { Ok(()) }
    }

    /// Where commits of jobs are announced by NOTIFY: the pool for LISTEN, and the channel. `None`, nowhere, unless written: then
    /// the relay looks each second, or when it is [woken](crate::Handoff::wake).
    #[cfg(feature = "postgres")]
    fn announcements(&self) -> Option<(&sqlx::PgPool, &'static str)> {
        None
    }
}

/// Why a row was not published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// It has no message for this program.
    #[error("{0}")]
    NoMessage(String),
    /// The broker did not take it, or may not have.
    #[error(transparent)]
    Broker(#[from] PublishError),
}
