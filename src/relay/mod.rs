//! Publishes the ledger's outbox: the relay is the crate `outbox`'s, the table the ledger's. And the sweeper.

mod sweeper;
mod table;

use std::time::Duration;

use queues::{Broker, Publisher, Topology};

pub use sweeper::Sweeper;
pub use table::LedgerTable;

use crate::ledger::Ledger;

/// How long published rows are kept, for whoever asks what became of a job.
const KEEP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where jobs of one kind go.
#[derive(Clone, Debug)]
pub struct Route {
    /// The job's kind.
    pub kind: &'static str,
    /// Its queues.
    pub topology: Topology,
}

/// Publishes the outbox.
pub type Relay = outbox::Relay<LedgerTable>;

/// A relay for the ledger's outbox. `fallback` is how often it looks when nothing wakes it, and how often it deletes old rows.
pub fn relay(ledger: &Ledger, broker: &Broker, publisher: Publisher, routes: &[Route], fallback: Duration) -> Relay {
    let table = LedgerTable::new(ledger.relay_db().clone(), routes.to_vec(), fallback);
    outbox::Relay::with_table(table, ledger.handoff(), publisher)
        .declare(broker, routes.iter().map(|route| route.topology.clone()))
        .look_every(fallback)
        .maintain_every(fallback)
        .keep(KEEP)
}
