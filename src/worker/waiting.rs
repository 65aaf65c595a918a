//! How long a job that is not done waits: what its row then says, and the outcome that goes with it. The same for every
//! job; the job writes the row, then answers the outcome.

use std::time::Duration;

use chrono::{DateTime, Utc};
use queues::Outcome;

use super::context::{ACTOR, JobContext};
use super::decision::{Pace, WaitFor};
use crate::ledger::{Aftermath, Failure, Note, Postponement, in_future, now};
use crate::stripe::{Meaning, Report};

/// A job that is put off.
#[derive(Debug)]
pub(super) struct PutOff {
    /// For the row.
    pub(super) how: Postponement,
    /// For the history.
    pub(super) note: Note,
    /// For the message, once the row is written.
    pub(super) outcome: Outcome,
}

impl JobContext {
    /// Another try, which uses up a retry. An error is why there is none: `used` are all.
    pub(super) fn retry(
        &self,
        used: i32,
        aftermath: Aftermath,
        pace: Pace,
        report: &Report,
    ) -> Result<PutOff, Failure> {
        let why = failed(report);
        let used = u32::try_from(used).unwrap_or(u32::MAX);
        let Some(backoff) = self.policy.next(used) else {
            let attempts = used.saturating_add(1);
            let message = format!("retries exhausted after {attempts} attempts; the last: {}", why.message);
            return Err(Failure { message, ..why });
        };
        let delay = match pace {
            Pace::Backoff => backoff.max(report.retry_after.unwrap_or_default().min(self.longest())),
            Pace::Soon => self.policy.delay(0),
        };
        let reason = why.message.clone();
        let how = Postponement { until: in_future(delay), counted: true, aftermath, failure: why };
        let (attempt, at) = (used.saturating_add(1), how.until.format("%F %T UTC"));
        let note = Note::new(ACTOR, format!("attempt {attempt}: {reason}; retry {attempt} at {at}"))
            .with_request_id(report.request_id.clone());
        Ok(PutOff { how, note, outcome: Outcome::RetryAfter { delay, reason } })
    }

    /// Waits for somebody who is not the job, which costs it no retry. An error is why it waits no longer; `since` is when
    /// its wait for a balance began.
    pub(super) fn wait_for(
        &self,
        since: DateTime<Utc>,
        aftermath: Aftermath,
        reason: WaitFor,
        report: &Report,
    ) -> Result<PutOff, Failure> {
        let why = failed(report);
        let delay = match reason {
            WaitFor::Rate => report.retry_after.unwrap_or_default().max(self.policy.delay(0)),
            // The kill switch has said so, and takes no more jobs.
            WaitFor::Operator | WaitFor::Recovery => self.policy.delay(0),
            WaitFor::Stripe => self.longest(),
            WaitFor::Balance => {
                let waited = (now() - since).to_std().unwrap_or_default();
                if waited >= self.timing.balance_deadline {
                    let message = format!("no balance for {:?}: {}", self.timing.balance_deadline, why.message);
                    return Err(Failure { message, ..why });
                }
                self.longest()
            }
        };
        Ok(wait(aftermath, delay, why, report.request_id.clone()))
    }

    pub(super) fn longest(&self) -> Duration {
        self.policy.delay(u32::MAX)
    }
}

/// Waits, which costs no retry.
pub(super) fn wait(aftermath: Aftermath, delay: Duration, why: Failure, request_id: Option<String>) -> PutOff {
    let reason = why.message.clone();
    let how = Postponement { until: in_future(delay), counted: false, aftermath, failure: why };
    let at = how.until.format("%F %T UTC");
    let note = Note::new(ACTOR, format!("{reason}; next try at {at}, no retry used up")).with_request_id(request_id);
    PutOff { how, note, outcome: Outcome::Snooze { delay, reason } }
}

pub(super) fn failure(code: &str, message: &str) -> Failure {
    Failure { code: code.to_owned(), message: message.to_owned() }
}

fn failed(report: &Report) -> Failure {
    failure(report.code.as_deref().unwrap_or(code_of(report)), &report.message)
}

/// A code of ours for an answer that carries none of Stripe's.
fn code_of(report: &Report) -> &'static str {
    match report.meaning {
        Meaning::Unreached => "unreached",
        Meaning::TlsFailed => "tls_failed",
        Meaning::Unreadable => "unreadable",
        Meaning::ServerError => "server_error",
        Meaning::Unavailable => "unavailable",
        Meaning::KeyInUse => "idempotency_key_in_use",
        Meaning::Locked => "lock_timeout",
        Meaning::RateLimited => "rate_limit",
        Meaning::Denied => "denied",
        Meaning::Pending { .. } => "pending_at_stripe",
        Meaning::BalanceInsufficient => "balance_insufficient",
        Meaning::AlreadyReversed => "already_reversed",
        Meaning::Reversed { .. }
        | Meaning::Created { .. }
        | Meaning::Ended { .. }
        | Meaning::MoreThanLeft
        | Meaning::NoSuchTransfer
        | Meaning::NoSuchAccount
        | Meaning::KeyMisused
        | Meaning::Rejected => "rejected",
    }
}
