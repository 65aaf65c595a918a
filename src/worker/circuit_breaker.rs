//! The circuit breaker: when Stripe can't be used, for every job alike, the worker takes no more of them, and Stripe is
//! probed until it can be used again. The jobs' retries are spared.
//!
//! A probe is a read, and Stripe may answer reads while calls fail. So the breaker is half-open after a probe, until Stripe
//! answers a call: ONE job is let through at a time, and the first call that fails opens it again, for longer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use queues::WorkerControl;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Limiter;
use super::recent_calls::RecentCalls;
use crate::ledger::{Ledger, TransfersToProbe, after, now};
use crate::stripe::{self, Meaning, Report};

/// The pause before a probe doubles with every trial that fails, this many times at most: from 10 s to some minutes.
const MAX_DOUBLINGS: u32 = 5;
/// An outage is over once the breaker has been closed for so many pauses between probes: one answer among many failures ends none.
const OVER_AFTER: u32 = 6;

/// Whether Stripe is called.
#[derive(Clone, Debug, strum::Display, PartialEq, Eq)]
#[strum(serialize_all = "snake_case")]
pub enum CircuitState {
    /// It is.
    Closed,
    /// No jobs are taken; Stripe is probed.
    Open(Outage),
    /// Stripe answers a probe: jobs are taken again, one at a time, and the first that fails opens the breaker.
    HalfOpen(Outage),
}

/// Why Stripe can't be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when: not since the last probe, nor since the last of several openings.
    pub since: DateTime<Utc>,
    /// Why, in our own words.
    pub why: &'static str,
    /// What Stripe said.
    pub message: String,
    /// Stripe's id of the transfer, or of what else, at whose call it was noticed last.
    pub about: String,
    /// When Stripe is probed next.
    pub next_probe_at: Option<DateTime<Utc>>,
}

impl Outage {
    /// Why, with what Stripe said.
    #[must_use]
    pub fn reason(&self) -> String {
        format!("{}: {}", self.why, self.message)
    }
}

/// Watches the calls of one worker, and pauses it.
#[derive(Debug)]
pub struct CircuitBreaker {
    state: watch::Sender<CircuitState>,
    recent: Mutex<RecentCalls>,
    /// The job that tries Stripe out while the breaker is half-open.
    on_trial: watch::Sender<Option<Uuid>>,
    /// Since when the present outage lasts, until it is over.
    outage_since: Mutex<Option<DateTime<Utc>>>,
    probe_now: Notify,
}

/// The consumers of jobs that call Stripe.
#[derive(Debug)]
pub struct Consumers {
    /// Pauses and resumes each of them.
    pub controls: Vec<WorkerControl>,
    /// Their turns to call.
    pub limiter: Arc<Limiter>,
    /// A turn that is further away is no reason to take jobs.
    pub patience: Duration,
}

/// A job that may call Stripe. While the breaker is half-open no other may, until this is dropped.
#[derive(Debug)]
pub(super) struct Admitted<'a> {
    breaker: &'a CircuitBreaker,
    job: Uuid,
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.breaker.on_trial.send_if_modified(|on_trial| {
            let mine = *on_trial == Some(self.job);
            if mine {
                *on_trial = None;
            }
            mine
        });
    }
}

impl CircuitBreaker {
    /// A closed breaker.
    #[must_use]
    pub fn new() -> Self {
        let state = watch::Sender::new(CircuitState::Closed);
        Self {
            state,
            recent: Mutex::default(),
            on_trial: watch::Sender::new(None),
            outage_since: Mutex::default(),
            probe_now: Notify::new(),
        }
    }

    /// Probes Stripe at once, if the breaker is open.
    pub fn hurry(&self) {
        if self.is_open() {
            self.probe_now.notify_one();
        }
    }

    /// The state, and its changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<CircuitState> {
        self.state.subscribe()
    }

    /// Whether jobs are to be given back untouched.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(*self.state.borrow(), CircuitState::Open(_))
    }

    /// Lets `job` through, when it is its turn: at once while the breaker is closed, one after another while it is half-open.
    /// `None`: the breaker is open.
    pub(super) async fn admit(&self, job: Uuid) -> Option<Admitted<'_>> {
        // Registered before the first look, so no change falls between the two.
        let (mut states, mut trials) = (self.state.subscribe(), self.on_trial.subscribe());
        loop {
            let (state, on_trial) = (states.borrow_and_update().clone(), *trials.borrow_and_update());
            match state {
                CircuitState::Closed => return Some(Admitted { breaker: self, job }),
                CircuitState::Open(_) => return None,
                CircuitState::HalfOpen(_) if on_trial.is_none() && self.begin_trial(job) => {
                    return Some(Admitted { breaker: self, job });
                }
                CircuitState::HalfOpen(_) => {}
            }
            // The senders live as long as this.
            tokio::select! { _ = states.changed() => {}, _ = trials.changed() => {} }
        }
    }

    fn begin_trial(&self, job: Uuid) -> bool {
        self.on_trial.send_if_modified(|on_trial| {
            let free = on_trial.is_none();
            if free {
                *on_trial = Some(job);
            }
            free
        })
    }

    /// Whether an admitted job may still call: the breaker may have opened since.
    pub(super) fn lets_call(&self, job: Uuid) -> bool {
        match *self.state.borrow() {
            CircuitState::Closed => true,
            CircuitState::Open(_) => false,
            CircuitState::HalfOpen(_) => *self.on_trial.borrow() == Some(job),
        }
    }

    /// Whether Stripe has answered a call lately. While it answers none, a failure says nothing of the job.
    pub(super) fn answers(&self) -> bool {
        self.recent().answers(Instant::now())
    }

    /// Learns what a call of `job` met, which was about `about` and the account `account`, and opens if Stripe can't be used. Returns whether the job is spared:
    /// it is hardly to blame, and its failure uses up no retry.
    pub fn note(&self, job: Uuid, account: &str, about: &str, report: &Report) -> bool {
        let (verdict, on_trial) = {
            let mut recent = self.recent();
            (recent.add(job, account, report, Instant::now()), recent.rounds() > 0)
        };
        match verdict.unusable {
            Some(why) => self.open(why, &report.message, about),
            None if !on_trial => self.close(),
            None => {}
        }
        verdict.spared
    }

    fn open(&self, why: &'static str, message: &str, about: &str) {
        self.state.send_if_modified(|state| {
            if matches!(state, CircuitState::Open(_)) {
                return false;
            }
            metrics::counter!("clawback_circuit_breaker_opened_total").increment(1);
            let since = *self.since().get_or_insert_with(now);
            let (message, about) = (message.to_owned(), about.to_owned());
            *state = CircuitState::Open(Outage { since, why, message, about, next_probe_at: None });
            true
        });
    }

    fn probe_at(&self, at: DateTime<Utc>) {
        self.state.send_if_modified(|state| match state {
            CircuitState::Open(outage) => {
                outage.next_probe_at = Some(at);
                true
            }
            CircuitState::Closed | CircuitState::HalfOpen(_) => false,
        });
    }

    fn half_open(&self) {
        self.recent().begin_trial();
        self.state.send_if_modified(|state| match state {
            CircuitState::Open(outage) => {
                tracing::debug!("circuit breaker half-open: Stripe answers a probe");
                *state = CircuitState::HalfOpen(Outage { next_probe_at: None, ..outage.clone() });
                true
            }
            CircuitState::Closed | CircuitState::HalfOpen(_) => false,
        });
    }

    fn close(&self) {
        self.state.send_if_modified(|state| match state {
            CircuitState::HalfOpen(_) => {
                tracing::debug!("circuit breaker closed: Stripe has answered a call");
                *state = CircuitState::Closed;
                true
            }
            CircuitState::Closed | CircuitState::Open(_) => false,
        });
    }

    // A panic while the lock is held can't leave it in a bad state.
    fn recent(&self) -> MutexGuard<'_, RecentCalls> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // As above.
    fn since(&self) -> MutexGuard<'_, Option<DateTime<Utc>>> {
        self.outage_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, probe_every: Duration) -> Duration {
        probe_every.saturating_mul(2_u32.pow(self.recent().rounds().min(MAX_DOUBLINGS)))
    }

    /// Pauses `consumers`, all of them, while the breaker is open, or their turns are too far away; until `stop`. Stripe is
    /// probed every `probe_every`, or less often when it answered probes before and calls failed all the same.
    pub async fn run(
        &self,
        consumers: Consumers,
        stripe: stripe::Client,
        ledger: Ledger,
        probe_every: Duration,
        stop: CancellationToken,
    ) {
        tokio::select! {
            () = self.tell_of_outages(&ledger, probe_every * OVER_AFTER) => {}
            () = self.pause_and_resume(&consumers, &stripe, &ledger, probe_every, &stop) => {}
        }
    }

    /// Logs the beginning and the end of each outage, and tells another system of them: no row of the ledger says when Stripe
    /// can't be used. It is over once the breaker stays closed for `steady`.
    async fn tell_of_outages(&self, ledger: &Ledger, steady: Duration) {
        let (mut state, mut begun) = (self.state(), None);
        loop {
            let now_is = state.borrow_and_update().clone();
            match (now_is, &begun) {
                (CircuitState::Open(outage), None) => {
                    let (reason, about) = (outage.reason(), &outage.about);
                    tracing::error!(
                        reason,
                        about,
                        "circuit breaker open: no jobs are taken until Stripe can be used again"
                    );
                    tell(ledger, "breaker.opened", &outage).await;
                    begun = Some(outage);
                }
                (CircuitState::Closed, Some(outage)) => {
                    tokio::select! {
                        changed = state.changed() => if changed.is_err() { return } else { continue },
                        () = tokio::time::sleep(steady) => {}
                    }
                    *self.since() = None;
                    let outage_seconds = (now() - outage.since).num_seconds();
                    tracing::info!(outage_seconds, "circuit breaker closed: Stripe answers calls again");
                    tell(ledger, "breaker.closed", outage).await;
                    begun = None;
                }
                (CircuitState::Closed, None) => *self.since() = None,
                _ => {}
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    async fn pause_and_resume(
        &self,
        consumers: &Consumers,
        stripe: &stripe::Client,
        ledger: &Ledger,
        probe_every: Duration,
        stop: &CancellationToken,
    ) {
        let Consumers { controls, limiter, patience } = consumers;
        let mut state = self.state();
        let is_open = |state: &CircuitState| matches!(state, CircuitState::Open(_));
        loop {
            let next_turn = tokio::select! {
                () = stop.cancelled() => return,
                open = state.wait_for(is_open) => if open.is_err() { return } else { None },
                // Jobs that are taken before would only be sent into retry queues, one after the other.
                next_turn = limiter.held_off(*patience) => Some(next_turn),
            };
            controls.iter().for_each(WorkerControl::pause);
            if let Some(next_turn) = next_turn {
                let seconds = (next_turn - Instant::now()).as_secs();
                tracing::info!(seconds, "no jobs are taken until the next turn to call Stripe");
                tokio::select! {
                    () = stop.cancelled() => return,
                    open = state.wait_for(is_open) => if open.is_err() { return },
                    () = tokio::time::sleep_until(next_turn) => {}
                }
            }
            while self.is_open() {
                let pause = self.pause(probe_every);
                self.probe_at(after(now(), pause));
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(pause) => {}
                    () = self.probe_now.notified() => tracing::info!("circuit breaker: probing Stripe, as an operator asks"),
                }
                if probe(stripe, ledger).await {
                    self.half_open();
                }
            }
            controls.iter().for_each(WorkerControl::resume);
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        Self::new()
    }
}

async fn tell(ledger: &Ledger, topic: &'static str, outage: &Outage) {
    let data = json!({"since": outage.since, "reason": outage.reason(), "about": outage.about});
    if let Err(error) = ledger.tell(topic, data).await {
        tracing::warn!(topic, %error, "not told");
    }
}

/// Whether Stripe answers a read of a transfer that it should know: of the latest that we have seen reversed or created, unless
/// key and account don't belong together; or, where the account is another one by now, of the latest that is owed. Without any
/// to ask for, it is asked for a list.
async fn probe(stripe: &stripe::Client, ledger: &Ledger) -> bool {
    let TransfersToProbe { confirmed, owed } = match ledger.transfers_to_probe().await {
        Ok(transfers) => transfers,
        Err(error) => {
            tracing::warn!(%error, "circuit breaker: the ledger can't be asked for a transfer to probe with");
            return false;
        }
    };
    for transfer in confirmed.iter().chain(&owed) {
        match stripe.get_transfer(transfer).await {
            Ok(_) => return true,
            Err(report) => {
                tracing::debug!(transfer, message = report.message, "circuit breaker: probed Stripe");
                if report.meaning != Meaning::NoSuchTransfer {
                    return false;
                }
            }
        }
    }
    match owed {
        // One that Stripe never confirmed may really be unknown there.
        Some(_) => confirmed.is_none(),
        None => stripe.ping().await.is_ok(),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail loudly")]

    use super::*;
    use crate::ledger::{ClaimPolicy, LedgerOptions};

    fn outage(breaker: &CircuitBreaker) -> Outage {
        match breaker.state().borrow().clone() {
            CircuitState::Open(outage) => outage,
            other => panic!("it is {other}"),
        }
    }

    fn open(breaker: &CircuitBreaker, about: &str) -> Outage {
        breaker.open("most recent calls to Stripe failed", "503", about);
        outage(breaker)
    }

    #[tokio::test]
    async fn an_outage_begins_once_however_often_the_breaker_closes_for_a_moment() {
        const STEADY: Duration = Duration::from_millis(200);
        let second = Duration::from_secs(1);
        let options = LedgerOptions {
            reversal_grace: second,
            creation_grace: second,
            max_connections: 1,
            claims: ClaimPolicy::default(),
            notifies: false,
        };
        let ledger = Ledger::connect("sqlite::memory:", options).await.unwrap();
        let breaker = CircuitBreaker::new();
        let flaps = async {
            let first = open(&breaker, "tr_1");
            for about in ["tr_2", "tr_3"] {
                tokio::time::sleep(STEADY / 10).await;
                breaker.half_open();
                breaker.close();
                tokio::time::sleep(STEADY / 10).await;
                let again = open(&breaker, about);
                assert_eq!((again.since, again.about.as_str()), (first.since, about));
            }
            breaker.half_open();
            breaker.close();
            tokio::time::sleep(STEADY * 3).await;
            assert!(open(&breaker, "tr_4").since > first.since, "it was over");
        };
        tokio::select! {
            () = flaps => {}
            () = breaker.tell_of_outages(&ledger, STEADY) => panic!("nobody told it to stop"),
        }
    }
}
