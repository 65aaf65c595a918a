//! The kill switch: when Stripe can't be used, for every job alike, the worker takes no more of them, and Stripe is
//! probed until it can be used again. The jobs' retries are spared.
//!
//! The jobs tell it what every call met; `app` runs it beside their consumers. It never settles a message and never
//! writes to the ledger.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use queues::WorkerControl;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ledger::{Ledger, now};
use crate::stripe::{self, Meaning, Report};

/// How many of the most recent calls are looked at.
const WINDOW: usize = 20;
/// So many of them must have failed.
const MOST: usize = 16;
/// Fewer calls than this, and all of them failed, are enough, too.
const FIRST_FEW: usize = 8;
/// So many unknown transfers, or accounts, in a row look like the wrong account or mode.
const BURST: usize = 10;

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
    recent: Mutex<Recent>,
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

    /// Learns what a call met, and turns off if Stripe can't be used.
    pub fn note(&self, report: &Report) {
        let verdict = self.recent.lock().unwrap_or_else(PoisonError::into_inner).add(&report.meaning);
        if let Some(verdict) = verdict {
            self.turn_off(format!("{verdict}: {}", report.message));
        }
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
        *self.recent.lock().unwrap_or_else(PoisonError::into_inner) = Recent::default();
        self.switch.send_replace(Switch::On);
        tracing::info!("kill switch: Stripe can be used again");
    }

    /// Pauses and resumes `workers`, all of them, with the switch, until `stop`. While it is off, Stripe is probed every `probe_every`.
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
                    () = tokio::time::sleep(probe_every) => {}
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

/// What the most recent calls met.
#[derive(Debug, Default)]
struct Recent {
    failed: VecDeque<bool>,
    unknown_in_a_row: usize,
}

impl Recent {
    /// Adds a call, and says why Stripe can't be used, if it can't.
    fn add(&mut self, meaning: &Meaning) -> Option<&'static str> {
        match meaning {
            Meaning::Denied => return Some("Stripe refuses the API key (check STRIPE_API_KEY)"),
            Meaning::TlsFailed => return Some("Stripe's TLS certificate can't be verified (check STRIPE_API_BASE)"),
            Meaning::NoSuchTransfer | Meaning::NoSuchAccount => self.unknown_in_a_row += 1,
            _ => self.unknown_in_a_row = 0,
        }
        if self.unknown_in_a_row >= BURST {
            return Some(
                "Stripe knows none of the transfers or accounts (check that STRIPE_API_KEY is of this account and mode)",
            );
        }
        let failed = matches!(meaning, Meaning::Unreached | Meaning::Unavailable | Meaning::ServerError);
        self.failed.push_back(failed);
        if self.failed.len() > WINDOW {
            self.failed.pop_front();
        }
        let failures = self.failed.iter().filter(|failed| **failed).count();
        let all_of_the_first = self.failed.len() >= FIRST_FEW && failures == self.failed.len();
        (failures >= MOST || all_of_the_first).then_some("most recent calls to Stripe failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(meanings: impl IntoIterator<Item = Meaning>) -> Vec<bool> {
        let mut recent = Recent::default();
        meanings.into_iter().map(|meaning| recent.add(&meaning).is_some()).collect()
    }

    #[test]
    fn a_refused_key_turns_off_at_once() {
        assert_eq!(verdicts([Meaning::Denied]), [true]);
        assert_eq!(verdicts([Meaning::TlsFailed]), [true]);
    }

    #[test]
    fn an_outage_turns_off_after_the_first_few_calls() {
        let verdicts = verdicts(vec![Meaning::Unavailable; FIRST_FEW]);
        assert_eq!(verdicts.iter().position(|off| *off), Some(FIRST_FEW - 1));
    }

    #[test]
    fn half_of_the_calls_failing_does_not_turn_off() {
        let calls = (0..200).map(|n| if n % 2 == 0 { Meaning::Unreached } else { Meaning::AlreadyReversed });
        assert!(verdicts(calls).iter().all(|off| !off));
    }

    #[test]
    fn unknown_transfers_turn_off_only_in_a_row() {
        let mut calls = vec![Meaning::NoSuchTransfer; BURST - 1];
        calls.push(Meaning::AlreadyReversed);
        calls.extend(vec![Meaning::NoSuchTransfer; BURST]);
        assert_eq!(verdicts(calls).iter().position(|off| *off), Some(2 * BURST - 1));
    }
}
