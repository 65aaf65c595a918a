//! The sweeper: at every interval, has the ledger make new jobs for debts that no job is coming for, and prunes the
//! outbox. The broker's losses end here.

use std::time::Duration;

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::store;
use crate::ledger::{Ledger, LedgerError};

const BATCH: u64 = 500;

/// Sweeps the ledger for lost jobs.
#[derive(Debug)]
pub struct Sweeper {
    ledger: Ledger,
    interval: Duration,
}

impl Sweeper {
    /// A sweeper that looks every `interval`.
    #[must_use]
    pub fn new(ledger: Ledger, interval: Duration) -> Self {
        Self { ledger, interval }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "the sweep failed; trying again at the next interval");
            }
        }
    }

    async fn sweep(&self) -> Result<(), LedgerError> {
        loop {
            let swept = self.ledger.sweep(BATCH).await?;
            if swept > 0 {
                tracing::info!(reversals = swept, "no job was coming for due reversals: new jobs made");
            }
            if (swept as u64) < BATCH {
                break;
            }
        }
        store::prune(self.ledger.db()).await?;
        Ok(())
    }
}
