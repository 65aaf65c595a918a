//! Publishes the outbox, and marks what the broker confirmed. Published but not marked (a crash) is published again; never marked
//! and not published.

mod listen;
mod store;
mod sweeper;

use std::sync::Arc;
use std::time::Duration;

use queues::{Broker, Message, PublishError, Publisher, Topology};
use sea_orm::{DatabaseConnection, DbErr};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use sweeper::Sweeper;

use crate::ledger::schema::outbox;
use crate::ledger::{Handoff, Ledger, now};
use crate::reached::reached;

/// Rows in one claim, all of them in flight on the broker together.
const BATCH: usize = 500;
/// Before a row that the broker refused is tried again.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(2);
/// Before the database is asked again after an error.
const PAUSE_AFTER_DATABASE_ERROR: Duration = Duration::from_secs(1);

/// Where jobs of one kind go.
#[derive(Clone, Debug)]
pub struct Route {
    /// The job's kind.
    pub kind: &'static str,
    /// Its queues.
    pub topology: Topology,
}

/// Publishes the outbox.
#[derive(Debug)]
pub struct Relay {
    db: DatabaseConnection,
    handoff: Arc<Handoff>,
    broker: Broker,
    publisher: Publisher,
    routes: Vec<Route>,
    fallback: Duration,
}

impl Relay {
    /// A relay for the ledger's outbox. `fallback` is how often it looks when nothing wakes it.
    #[must_use]
    pub fn new(ledger: &Ledger, broker: Broker, publisher: Publisher, routes: Vec<Route>, fallback: Duration) -> Self {
        let (db, handoff) = (ledger.relay_db().clone(), Arc::clone(ledger.handoff()));
        Self { db, handoff, broker, publisher, routes, fallback }
    }

    /// Runs until `stop`. What is in flight then is still confirmed and marked.
    pub async fn run(self, stop: CancellationToken) {
        let listening = listen::listen(&self.db, &self.handoff);
        tokio::select! {
            () = self.publish_for_ever(&stop) => {}
            () = listening => {}
        }
    }

    async fn publish_for_ever(&self, stop: &CancellationToken) {
        let mut state = self.publisher.state();
        loop {
            // Without a broker there is nothing to claim for: rows would only pile up attempts.
            tokio::select! {
                () = stop.cancelled() => return,
                connected = state.wait_for(|state| state.is_connected()) => if connected.is_err() { return },
            }
            self.declare().await;
            self.handoff.set_open(true);
            let mut look_at = Instant::now();
            while !stop.is_cancelled() && self.is_connected() {
                if look_at <= Instant::now() {
                    look_at = Instant::now() + self.publish_claimed(stop).await;
                }
                // A commit between this look and the wait leaves its wake-up behind, and ends the wait at once.
                look_at = look_at.min(self.publish_handed().await);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.handoff.handed() => {}
                    () = self.handoff.committed() => look_at = Instant::now(),
                    () = tokio::time::sleep_until(look_at) => {}
                    _ = state.wait_for(|state| !state.is_connected()) => {}
                }
            }
            self.handoff.set_open(false);
            // What can't be published any more is given back.
            self.publish_handed().await;
        }
    }

    fn is_connected(&self) -> bool {
        self.publisher.state().borrow().is_connected()
    }

    /// Publishes what this process has committed, and returns when the table must be looked at because of it.
    async fn publish_handed(&self) -> Instant {
        let mut look_at = Instant::now() + self.fallback;
        loop {
            let rows = self.handoff.take(BATCH);
            if rows.is_empty() {
                return look_at;
            }
            match self.publish(rows).await {
                Ok(true) => {}
                Ok(false) => look_at = look_at.min(Instant::now() + PAUSE_AFTER_REFUSAL),
                // They were published, but not marked: a claim finds them when their lease is over.
                Err(error) => {
                    metrics::counter!("clawback_relay_errors_total", "what" => "database").increment(1);
                    tracing::warn!(%error, "the outbox can't be marked; these jobs will be published again");
                }
            }
        }
    }

    /// Publishes until nothing is left to claim, and returns how long to wait before looking again if nothing wakes the relay.
    async fn publish_claimed(&self, stop: &CancellationToken) -> Duration {
        while !stop.is_cancelled() && self.is_connected() {
            match self.claim_and_publish().await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    metrics::counter!("clawback_relay_errors_total", "what" => "database").increment(1);
                    tracing::warn!(%error, "the outbox can't be read or marked; trying again");
                    return PAUSE_AFTER_DATABASE_ERROR;
                }
            }
        }
        // Rows that another relay claimed and did not finish, or that the broker refused.
        match store::next_free(&self.db).await {
            Ok(Some(free)) => (free - now()).to_std().unwrap_or(Duration::ZERO).min(self.fallback),
            Ok(None) => self.fallback,
            Err(_) => PAUSE_AFTER_DATABASE_ERROR,
        }
    }

    async fn claim_and_publish(&self) -> Result<usize, DbErr> {
        let rows = store::claim(&self.db, BATCH as u64).await?;
        if rows.iter().any(|row| row.attempts > 1 && row.last_error.is_none()) {
            reached!("the lease of another relay had ended");
        }
        let claimed = rows.len();
        self.publish(rows).await?;
        Ok(claimed)
    }

    /// Publishes rows that belong to this relay. Whether the broker took them all.
    async fn publish(&self, rows: Vec<outbox::Model>) -> Result<bool, DbErr> {
        let (mut messages, mut known, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            match self.message(&row) {
                Some(message) => {
                    messages.push(message);
                    known.push(row);
                }
                None => unknown.push(row.id),
            }
        }
        // A newer program's job: it is left to that program's relay.
        store::give_back(&self.db, &unknown, self.fallback, "this version knows no such kind of job").await?;

        let results = self.publisher.publish_all(messages).await;
        let (confirmed, refused) = sort_out(known, results);
        let ids: Vec<Uuid> = confirmed.iter().map(|row| row.id).collect();
        store::mark_published(&self.db, &ids).await?;
        if let Some((_, error)) = refused.first() {
            let ids: Vec<Uuid> = refused.iter().map(|(row, _)| row.id).collect();
            let first = error.to_string();
            metrics::counter!("clawback_relay_errors_total", "what" => "refused").increment(ids.len() as u64);
            tracing::warn!(refused = ids.len(), confirmed = confirmed.len(), first, "jobs not taken by the broker");
            store::give_back(&self.db, &ids, PAUSE_AFTER_REFUSAL, &first).await?;
            if refused.iter().any(|(_, error)| matches!(error, PublishError::Returned { .. })) {
                reached!("the broker returned a job, since its queue was gone");
                self.declare().await;
            }
        } else if !ids.is_empty() {
            tracing::debug!(confirmed = confirmed.len(), "jobs published");
        }
        Ok(refused.is_empty() && unknown.is_empty())
    }

    fn message(&self, row: &outbox::Model) -> Option<Message> {
        let route = self.routes.iter().find(|route| route.kind == row.kind)?;
        let payload = row.payload.clone().into_bytes();
        let message = Message::new(&route.topology, row.kind.clone(), row.id.to_string(), payload);
        let message = message.with_correlation_id(row.entity_id.to_string());
        Some(match &row.traceparent {
            Some(traceparent) => message.with_traceparent(traceparent),
            None => message,
        })
    }

    /// Declares the queues (again): a broker that was wiped has none, and would return every message.
    async fn declare(&self) {
        for route in &self.routes {
            if let Err(error) = self.broker.declare(&route.topology).await {
                tracing::warn!(%error, queue = route.topology.queue(), "the queues could not be declared");
            }
        }
    }
}

fn sort_out(
    rows: Vec<outbox::Model>,
    results: Vec<Result<(), PublishError>>,
) -> (Vec<outbox::Model>, Vec<(outbox::Model, PublishError)>) {
    let (mut confirmed, mut refused) = (Vec::new(), Vec::new());
    for (row, result) in rows.into_iter().zip(results) {
        match result {
            Ok(()) => confirmed.push(row),
            Err(error) => refused.push((row, error)),
        }
    }
    (confirmed, refused)
}
