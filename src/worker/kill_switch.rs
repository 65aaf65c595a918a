//! The kill switch: when Stripe can't be used, for every job alike, the worker takes no more of them, and Stripe is
//! probed until it can be used again. The jobs' retries are spared.
//!
//! A probe is a read, and Stripe may answer reads while calls fail. So it is on trial after a probe, until Stripe answers a
//! call: the first one that fails turns it off again, for longer.
//!
//! The jobs tell it what every call met; `app` runs it beside their consumers. It never settles a message and never
//! writes to the ledger.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use queues::WorkerControl;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::recent_calls::RecentCalls;
use crate::ledger::{Ledger, now};
use crate::stripe::{self, Meaning, Report};

/// The pause before a probe doubles with every trial that fails, this many times at most: from 10 s to some minutes.
const MAX_DOUBLINGS: u32 = 5;

/// Whether Stripe is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// No jobs are taken; Stripe is probed.
    Off {
        /// Since when.
        since: DateTime<Utc>,
        /// Why, for people.
        reason: String,
    },
}

/// Watches the calls of one worker, and pauses it.
#[derive(Debug)]
pub struct KillSwitch {
    switch: watch::Sender<Switch>,
    recent: Mutex<RecentCalls>,
}

impl KillSwitch {
    /// A switch that is on.
    #[must_use]
    pub fn new() -> Self {
        Self { switch: watch::Sender::new(Switch::On), recent: Mutex::default() }
    }

    /// The state, and its changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Switch> {
        self.switch.subscribe()
    }

    /// Whether jobs are to be given back untouched.
    #[must_use]
    pub fn is_off(&self) -> bool {
        *self.switch.borrow() != Switch::On
    }

    /// Learns what a call of `job` met, and turns off if Stripe can't be used. Whether the job is spared: it was let
    /// through to try Stripe out, and that it failed uses up no retry.
    pub fn note(&self, job: Uuid, report: &Report) -> bool {
        let verdict = self.recent().add(job, &report.meaning, Instant::now());
        if let Some(why) = verdict.unusable {
            self.turn_off(format!("{why}: {}", report.message));
        }
        verdict.spared
    }

    fn turn_off(&self, reason: String) {
        self.switch.send_if_modified(|switch| {
            let turned = *switch == Switch::On;
            if turned {
                tracing::error!(reason, "kill switch: no more jobs are taken until Stripe can be used again");
                *switch = Switch::Off { since: now(), reason };
            }
            turned
        });
    }

    fn turn_on(&self) {
        self.recent().begin_trial();
        self.switch.send_replace(Switch::On);
        tracing::info!("kill switch: Stripe answers again, jobs are taken");
    }

    // A panic while the lock is held can't leave it in a bad state.
    fn recent(&self) -> MutexGuard<'_, RecentCalls> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, probe_every: Duration) -> Duration {
        probe_every.saturating_mul(2_u32.pow(self.recent().rounds().min(MAX_DOUBLINGS)))
    }

    /// Pauses and resumes `workers`, all of them, with the switch, until `stop`. While it is off, Stripe is probed every
    /// `probe_every`, or less often when it answered probes before and calls failed all the same.
    pub async fn run(
        &self,
        workers: Vec<WorkerControl>,
        stripe: stripe::Client,
        ledger: Ledger,
        probe_every: Duration,
        stop: CancellationToken,
    ) {
        let mut state = self.state();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                off = state.wait_for(|switch| *switch != Switch::On) => if off.is_err() { return },
            }
            workers.iter().for_each(WorkerControl::pause);
            while self.is_off() {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(self.pause(probe_every)) => {}
                }
                if probe(&stripe, &ledger).await {
                    self.turn_on();
                }
            }
            workers.iter().for_each(WorkerControl::resume);
        }
    }
}

impl Default for KillSwitch {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether Stripe answers a read of a transfer that it should know. A transfer that we have seen reversed or created is
/// best: Stripe does know it, unless key and account don't belong together. Without any, it is asked for a list.
async fn probe(stripe: &stripe::Client, ledger: &Ledger) -> bool {
    let transfer = match ledger.transfer_to_probe().await {
        Ok(transfer) => transfer,
        Err(error) => {
            tracing::warn!(%error, "kill switch: the ledger can't be asked for a transfer to probe with");
            return false;
        }
    };
    let probed = match &transfer {
        Some(transfer) => stripe.get_transfer(&transfer.stripe_transfer_id).await.map(drop),
        None => stripe.ping().await.map(drop),
    };
    match probed {
        Ok(()) => true,
        Err(report) => {
            // One that Stripe never confirmed may really be unknown there.
            let may_be_unknown = transfer.is_some_and(|transfer| !transfer.known_to_stripe);
            let answered = report.meaning == Meaning::NoSuchTransfer && may_be_unknown;
            tracing::info!(message = report.message, answered, "kill switch: probed Stripe");
            answered
        }
    }
}
