//! The sweeper: new jobs for calls that no job is coming for, claims left unmatched, and what nobody will ask for. The broker's
//! losses end here.

use std::time::Duration;

use queues::{Broker, Topology};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Route;
use crate::ledger::{CallKind, Ledger, LedgerError};

const BATCH: u64 = 500;

/// Sweeps the ledger for lost jobs.
#[derive(Debug)]
pub struct Sweeper {
    ledger: Ledger,
    broker: Broker,
    routes: Vec<Route>,
    reversals_every: Duration,
    creations_every: Duration,
    inbox_retention: Duration,
}

impl Sweeper {
    /// A sweeper that looks for lost reversals and look-ups, and for lost creations of transfers, at these intervals, and
    /// deletes webhooks that are older than `inbox_retention`. `routes` say which queue of the broker has which jobs.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        broker: Broker,
        routes: Vec<Route>,
        reversals_every: Duration,
        creations_every: Duration,
        inbox_retention: Duration,
    ) -> Self {
        Self { ledger, broker, routes, reversals_every, creations_every, inbox_retention }
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        tokio::join!(
            self.repeat(CallKind::Reverse, self.reversals_every, &stop),
            self.repeat(CallKind::LookUp, self.reversals_every, &stop),
            self.repeat(CallKind::Notify, self.reversals_every, &stop),
            self.repeat(CallKind::Create, self.creations_every, &stop),
            self.prune(&stop),
        );
    }

    async fn repeat(&self, kind: CallKind, interval: Duration, stop: &CancellationToken) {
        let (mut ticks, mut resumed) = (ticks(interval), self.ledger.resumed());
        loop {
            let resumed = tokio::select! {
                is_next = is_next(&mut ticks, stop) => if is_next { false } else { return },
                // The ledger lives as long as this.
                _ = resumed.changed() => true,
            };
            if let Err(error) = self.sweep(kind, resumed).await {
                tracing::warn!(%error, "the sweep failed; trying again at the next interval");
            }
        }
    }

    /// Whatever becomes of the sweeps: without it the disk fills.
    async fn prune(&self, stop: &CancellationToken) {
        let mut ticks = ticks(self.reversals_every);
        while is_next(&mut ticks, stop).await {
            if let Err(error) = self.ledger.forget_processes().await {
                tracing::warn!(%error, "rows of dead processes were not deleted; trying again at the next interval");
            }
            match self.ledger.forget(self.inbox_retention).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "old webhooks, notifications and previews deleted"),
                Err(error) => {
                    tracing::warn!(%error, "old webhooks and previews were not deleted; trying again at the next interval")
                }
            }
        }
    }

    async fn sweep(&self, kind: CallKind, resumed: bool) -> Result<(), LedgerError> {
        let mut left = self.without_a_job(kind).await?;
        while left > 0 {
            let batch = left.min(BATCH);
            let swept = self.ledger.sweep(kind, batch).await?;
            metrics::counter!("clawback_swept_jobs_total", "kind" => kind.to_string()).increment(swept.jobs as u64);
            if swept.jobs > 0 && resumed {
                tracing::info!(%kind, calls = swept.jobs, "resumed: new jobs made for due calls");
            } else if swept.jobs > 0 {
                tracing::warn!(%kind, calls = swept.jobs, "no job was coming for due calls: new jobs made");
            }
            let looked_at = swept.looked_at as u64;
            left = if looked_at < batch { 0 } else { left - looked_at };
        }
        if kind == CallKind::Reverse {
            self.rematch().await?;
        }
        Ok(())
    }

    /// How many due calls have no job in their queue, at least. A queue that can't be looked at counts as empty.
    async fn without_a_job(&self, kind: CallKind) -> Result<u64, LedgerError> {
        let Some(route) = self.routes.iter().find(|route| route.kind == kind.job()) else { return Ok(0) };
        let (due, without_news) = self.ledger.due_calls(kind).await?;
        if without_news == 0 {
            return Ok(0);
        }
        let waiting = match self.waiting(&route.topology).await {
            // A busy broker says 0 as well.
            0 => self.waiting(&route.topology).await,
            waiting => waiting,
        };
        Ok(due.saturating_sub(waiting).min(without_news))
    }

    async fn waiting(&self, topology: &Topology) -> u64 {
        let queues = self.broker.queue_statuses(topology).await.unwrap_or_default();
        queues.iter().find(|queue| queue.name == topology.queue()).map_or(0, |queue| queue.messages.into())
    }

    /// Claims that no registration and no report came upon, one page after the other.
    async fn rematch(&self) -> Result<(), LedgerError> {
        let mut after = None;
        loop {
            let (claims, last) = self.ledger.rematch(after, BATCH).await?;
            if claims > 0 {
                tracing::info!(claims, "claims were brought together with their payments");
            }
            match last {
                Some(last) => after = Some(last),
                None => return Ok(()),
            }
        }
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits for the next tick; `false` once told to stop.
async fn is_next(ticks: &mut Interval, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => false,
        _ = ticks.tick() => true,
    }
}
