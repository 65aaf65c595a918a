//! The sweeper: at its intervals, has the ledger make new jobs for debts and for transfers that no job is coming for, and
//! prunes the outbox. The broker's losses end here.

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
    reversals_every: Duration,
    creations_every: Duration,
}

impl Sweeper {
    /// A sweeper that looks for lost reversals and for lost creations of transfers at these intervals.
    #[must_use]
    pub fn new(ledger: Ledger, reversals_every: Duration, creations_every: Duration) -> Self {
        Self { ledger, reversals_every, creations_every }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            repeat(self.reversals_every, &stop, || self.sweep_reversals()),
            repeat(self.creations_every, &stop, || self.sweep_creations()),
        );
    }

    async fn sweep_reversals(&self) -> Result<(), LedgerError> {
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

    async fn sweep_creations(&self) -> Result<(), LedgerError> {
        loop {
            let swept = self.ledger.sweep_creations(BATCH).await?;
            if swept > 0 {
                tracing::info!(transfers = swept, "no job was coming for transfers to create: new jobs made");
            }
            if (swept as u64) < BATCH {
                return Ok(());
            }
        }
    }
}

/// Sweeps at every interval, until `stop`.
async fn repeat<F: Future<Output = Result<(), LedgerError>>>(
    interval: Duration,
    stop: &CancellationToken,
    sweep: impl Fn() -> F,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = sweep().await {
            tracing::warn!(%error, "the sweep failed; trying again at the next interval");
        }
    }
}
