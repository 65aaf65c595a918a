//! The next step of a call, and what one try leaves behind in it. Pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Call, Target, Task};
use crate::ledger::lookups::Found;
use crate::ledger::status::CallState;
use crate::ledger::time::after;

/// Stripe prunes a key once it is 24 h old, and it runs again. A key that may be older than this is not used, and what may
/// have been asked longer ago is looked for first.
const TRUSTED_KEY_AGE: TimeDelta = TimeDelta::hours(23);
/// The broker counts the time of its own parking in whole seconds.
const PARKING_CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

/// What is to be done about a call now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: it is done, called off, or brings a job of its own later.
    Nothing,
    /// Nothing before an operator replays it.
    Park {
        /// Why it failed.
        reason: String,
    },
    /// Nothing before this time.
    Wait {
        /// UTC.
        until: DateTime<Utc>,
    },
    /// Read what Stripe has of it.
    Look,
    /// Ask Stripe to do it, under the key of the call's generation.
    Make,
}

impl Task {
    /// What is to be done at `now`.
    #[must_use]
    pub fn next_step(&self, now: DateTime<Utc>) -> NextStep {
        let call = &self.call;
        match call.state {
            CallState::Waiting | CallState::Done | CallState::CalledOff => NextStep::Nothing,
            CallState::Failed => {
                let code = call.failure_code.as_deref().unwrap_or("permanently_failed");
                let message = call.failure_message.as_deref().unwrap_or("failed permanently earlier");
                NextStep::Park { reason: format!("{code}: {message}") }
            }
            CallState::Open => match call.next_attempt_at {
                Some(until) if until > now => NextStep::Wait { until },
                _ if self.may_be_made(now) && call.outcome_unknown_since.is_none() && !self.may_be_a_repetition() => {
                    NextStep::Make
                }
                _ => NextStep::Look,
            },
        }
    }

    /// Whether Stripe may be asked under the call's key, after a look if one is due.
    #[must_use]
    pub fn may_be_made(&self, now: DateTime<Utc>) -> bool {
        self.is_owed() && self.call.key_is_usable(now)
    }

    /// Whether it is still wanted: a claim may fail at any time.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        match &self.target {
            Target::Reversal(target) => target.claim_stands,
            Target::Creation(_) | Target::LookUp(_) | Target::Notification(_) => true,
        }
    }

    /// Whether a ledger that was lost since, in a failover or for a backup, may have asked for the same under a key that
    /// Stripe has forgotten. A payment does not say how old it is.
    fn may_be_a_repetition(&self) -> bool {
        let is_first = self.call.requested_at.is_none() && self.call.generation == 0;
        is_first
            && match &self.target {
                Target::Reversal(target) => {
                    target.claim_created_at.is_none_or(|at| at < self.read_at - TRUSTED_KEY_AGE)
                }
                Target::Creation(_) => true,
                // Reading or telling twice does no harm.
                Target::LookUp(_) | Target::Notification(_) => false,
            }
    }
}

impl Call {
    /// Whether it has surely changed since a message about it was parked. `parked_at` is the broker's time of that, if known.
    #[must_use]
    pub fn has_changed_since(&self, parked_at: Option<DateTime<Utc>>) -> bool {
        parked_at.is_some_and(|at| at + PARKING_CLOCK_TOLERANCE < self.updated_at)
    }

    /// Whether its key executes at most once more: Stripe has not forgotten it, did not accept the call, and is not known to
    /// answer it from what it has saved.
    pub(in crate::ledger) fn key_is_usable(&self, now: DateTime<Utc>) -> bool {
        self.accepted_id.is_none() && self.key_burnt_at.is_none() && self.generation_started_at >= now - TRUSTED_KEY_AGE
    }
}

/// Why something failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Stripe's code, or ours, for programs.
    pub code: String,
    /// For people; never a secret.
    pub message: String,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TryOutcome {
    /// Stripe has done it.
    Done {
        /// Stripe's id of the reversal or of the transfer.
        stripe_id: String,
        /// Another program had done it.
        externally: bool,
    },
    /// A look-up has read what it is about.
    Found(Box<Found>),
    /// It failed permanently.
    Failed(Failure),
    /// Stripe has ended it, or refused it for the last time, without doing it: its key is burnt. It failed permanently; a
    /// replay may ask anew.
    Ended(Failure),
    /// It is tried again later.
    Later(Postponement),
    /// Stripe's list was seen twice without it, and the key never executes again: the next call uses a new one.
    NewGeneration,
    /// Its claim takes nothing any more, and Stripe's list was seen twice without it.
    CalledOff(Failure),
}

/// When a call is tried again, and what the next try must know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponement {
    /// Stripe is not asked before.
    pub until: DateTime<Utc>,
    /// What this does to the retries, where Stripe has given no definite answer.
    pub retries: Retries,
    /// What the next try must know.
    pub remainder: Remainder,
    /// What happened.
    pub failure: Failure,
}

/// What a try does to the number of retries used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// Nothing.
    Kept,
    /// It uses one up.
    Used,
    /// All are there again: the tries so far say nothing of this call.
    Restored,
}

/// What a try that did not finish leaves to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// The same call, under the same key.
    SameKey,
    /// Stripe executed the call and refused, and may agree later: a new key, since the old one replays the refusal; and all
    /// retries, since what went wrong before is over.
    NewKey,
    /// Stripe may have done it: look before calling again, under the same key.
    Unknown,
    /// Stripe answered from what it had saved for the key, and that was no success. The key never executes again; look
    /// before leaving it.
    Burnt,
    /// Looked, and it was not there: look once more after a settling time.
    Absent,
    /// Stripe has accepted it and is not done: look again, with all retries, and never call again.
    Accepted {
        /// Stripe's id of the reversal.
        id: String,
    },
}

impl Call {
    /// The call after `outcome`. `grace` is how long after its next try the sweeper leaves it alone.
    #[must_use]
    pub fn after(&self, outcome: &TryOutcome, now: DateTime<Utc>, grace: Duration) -> Self {
        let mut call = Self { version: self.version + 1, updated_at: now, ..self.clone() };
        match outcome {
            TryOutcome::Done { .. } | TryOutcome::Found(_) => {
                call.state = CallState::Done;
                call.next_attempt_at = None;
                call.accepted_id = None;
                call.fail(None);
            }
            TryOutcome::Failed(failure) | TryOutcome::Ended(failure) => {
                call.state = CallState::Failed;
                call.next_attempt_at = None;
                call.fail(Some(failure));
                if matches!(outcome, TryOutcome::Ended(_)) {
                    call.accepted_id = None;
                    call.key_burnt_at.get_or_insert(now);
                }
            }
            TryOutcome::CalledOff(failure) => {
                call = Self { version: call.version, ..call.moved_to(CallState::CalledOff, now) };
                call.fail(Some(failure));
            }
            TryOutcome::Later(how) => {
                call.next_attempt_at = Some(how.until);
                call.fail(Some(&how.failure));
                call.sweep_after = after(how.until, grace);
                call.sweep_count = 0;
                call.attempts = match how.retries {
                    Retries::Kept => call.attempts,
                    Retries::Used => call.attempts.saturating_add(1),
                    Retries::Restored => 0,
                };
                match &how.remainder {
                    Remainder::SameKey => {}
                    Remainder::NewKey => {
                        call.attempts = 0;
                        call.refused_since.get_or_insert(now);
                        call.begin_generation(now);
                    }
                    Remainder::Unknown => call.doubt(now),
                    Remainder::Burnt => {
                        call.doubt(now);
                        call.key_burnt_at.get_or_insert(now);
                    }
                    Remainder::Absent => {
                        call.doubt(now);
                        call.absent_since.get_or_insert(now);
                    }
                    Remainder::Accepted { id } => {
                        call.attempts = 0;
                        call.accepted_id = Some(id.clone());
                    }
                }
            }
            TryOutcome::NewGeneration => call.begin_generation(now),
        }
        call
    }

    /// The call after an operator's replay: all retries, and a look before its key is used again, since earlier tries may
    /// have had an effect after all. The key stays: whoever still holds it could use it beside a new one.
    #[must_use]
    pub(in crate::ledger) fn replayed(&self, now: DateTime<Utc>, grace: Duration) -> Self {
        let mut call = Self { version: self.version + 1, updated_at: now, ..self.clone() };
        call.state = CallState::Open;
        call.attempts = 0;
        call.doubt(now);
        call.absent_since = None;
        call.refused_since = None;
        call.sweep_after = after(now, grace);
        call.sweep_count = 0;
        call
    }

    /// The call in another state, with nothing else to remember.
    #[must_use]
    pub(in crate::ledger) fn moved_to(&self, state: CallState, now: DateTime<Utc>) -> Self {
        Self { version: self.version + 1, updated_at: now, state, next_attempt_at: None, ..self.clone() }
    }

    fn begin_generation(&mut self, now: DateTime<Utc>) {
        self.generation += 1;
        self.generation_started_at = now;
        // Whatever was asked before was refused, or is not there: a claim that fails now is called off at once.
        self.requested_at = None;
        self.key_burnt_at = None;
        self.outcome_unknown_since = None;
        self.absent_since = None;
    }

    fn doubt(&mut self, now: DateTime<Utc>) {
        self.outcome_unknown_since.get_or_insert(now);
    }

    pub(in crate::ledger) fn fail(&mut self, failure: Option<&Failure>) {
        self.failure_code = failure.map(|failure| failure.code.clone());
        self.failure_message = failure.map(|failure| failure.message.clone());
    }
}
