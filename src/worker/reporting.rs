//! What the reversal job writes into the ledger, and the outcome that goes with it: the row first, the message after it.
//!
//! Called by `reverse_transfer`. Decides how long to wait and when retries are used up, and calls Stripe only for a last
//! look before giving up.

use std::time::Duration;

use queues::Outcome;

use super::decision::{Pace, WaitFor};
use super::reverse_transfer::ReverseTransfer;
use crate::ledger::{
    Aftermath, Failure, LedgerError, Note, Postponement, ReversalStatus, ReversalTask, in_future, now,
};
use crate::stripe::{Meaning, Report};

/// Who the history names.
const ACTOR: &str = "worker";

impl ReverseTransfer {
    pub(super) async fn succeed(
        &self,
        task: &ReversalTask,
        stripe_reversal_id: &str,
        externally: bool,
        request_id: Option<String>,
    ) -> Result<Outcome, LedgerError> {
        let reason = if externally { "reversed at Stripe by somebody else" } else { "Stripe has reversed it" };
        let note = Note::new(ACTOR, reason).with_request_id(request_id);
        match self.ledger.succeed(task, stripe_reversal_id, externally, &note).await {
            // Another worker gave it up while our call was on its way. Stripe's word counts.
            Err(LedgerError::Stale { .. }) if self.was_given_up(task).await? => {
                let late = Note::new(ACTOR, "Stripe had done it when it was given up");
                let task = self.ledger.replay(task, &late).await?;
                self.ledger.succeed(&task, stripe_reversal_id, externally, &note).await?;
            }
            result => result?,
        }
        tracing::info!(reversal_id = %task.id, stripe_reversal_id, externally, "reversed");
        Ok(Outcome::Done)
    }

    async fn was_given_up(&self, task: &ReversalTask) -> Result<bool, LedgerError> {
        let current = self.ledger.reversal_task(task.id).await?;
        Ok(current.is_some_and(|row| row.status == ReversalStatus::PermanentlyFailed))
    }

    pub(super) async fn give_up(
        &self,
        task: &ReversalTask,
        why: Failure,
        request_id: Option<String>,
    ) -> Result<Outcome, LedgerError> {
        let reason = format!("{}: {}", why.code, why.message);
        let note = Note::new(ACTOR, &reason).with_request_id(request_id);
        self.ledger.fail(task, &why, &note).await?;
        tracing::warn!(reversal_id = %task.id, reason, "given up and parked");
        Ok(Outcome::Park { reason })
    }

    /// Tries again later, unless the retries are used up.
    pub(super) async fn retry(
        &self,
        task: &ReversalTask,
        transfer_id: &str,
        aftermath: Aftermath,
        pace: Pace,
        report: Report,
    ) -> Result<Outcome, LedgerError> {
        let why = failure(report.code.as_deref().unwrap_or(code_of(&report)), &report.message);
        let used = u32::try_from(task.retry_count).unwrap_or(u32::MAX);
        let Some(backoff) = self.policy.next(used) else {
            // It may have happened all the same, with its answers lost: one look before giving up.
            if let Ok(sight) = self.look(task, transfer_id).await
                && let Some(outcome) = self.report_if_seen(task, &sight).await?
            {
                return Ok(outcome);
            }
            let message =
                format!("retries exhausted after {} attempts; the last: {}", used.saturating_add(1), why.message);
            return self.give_up(task, failure(&why.code, &message), report.request_id).await;
        };
        let delay = match pace {
            Pace::Backoff => backoff.max(report.retry_after.unwrap_or_default().min(self.longest())),
            Pace::Soon => self.policy.delay(0),
        };
        let note = Note::new(ACTOR, format!("retry {} in {delay:?}: {}", used.saturating_add(1), why.message))
            .with_request_id(report.request_id);
        let reason = why.message.clone();
        let how = Postponement { until: in_future(delay), counted: true, aftermath, failure: why };
        self.ledger.postpone(task, &how, &note).await?;
        Ok(Outcome::RetryAfter { delay, reason })
    }

    /// Waits for somebody who is not the job, which costs it no retry.
    pub(super) async fn wait_for(
        &self,
        task: &ReversalTask,
        aftermath: Aftermath,
        reason: WaitFor,
        report: Report,
    ) -> Result<Outcome, LedgerError> {
        let why = failure(report.code.as_deref().unwrap_or(code_of(&report)), &report.message);
        let delay = match reason {
            WaitFor::Rate => report.retry_after.unwrap_or_default().max(self.policy.delay(0)),
            // The kill switch has said so, and takes no more jobs.
            WaitFor::Operator => self.policy.delay(0),
            WaitFor::Stripe => self.longest(),
            WaitFor::Balance => {
                let waited = (now() - task.created_at).to_std().unwrap_or_default();
                if waited >= self.timing.balance_deadline {
                    let message = format!("no balance for {:?}: {}", self.timing.balance_deadline, why.message);
                    return self.give_up(task, failure(&why.code, &message), report.request_id).await;
                }
                self.longest()
            }
        };
        self.wait(task, aftermath, delay, why, report.request_id).await
    }

    pub(super) async fn wait(
        &self,
        task: &ReversalTask,
        aftermath: Aftermath,
        delay: Duration,
        why: Failure,
        request_id: Option<String>,
    ) -> Result<Outcome, LedgerError> {
        let note = Note::new(ACTOR, format!("waits {delay:?}: {}", why.message)).with_request_id(request_id);
        let reason = why.message.clone();
        let how = Postponement { until: in_future(delay), counted: false, aftermath, failure: why };
        self.ledger.postpone(task, &how, &note).await?;
        Ok(Outcome::Snooze { delay, reason })
    }

    pub(super) fn longest(&self) -> Duration {
        self.policy.delay(u32::MAX)
    }
}

pub(super) fn failure(code: &str, message: &str) -> Failure {
    Failure { code: code.to_owned(), message: message.to_owned() }
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
        | Meaning::Ended { .. }
        | Meaning::MoreThanLeft
        | Meaning::NoSuchTransfer
        | Meaning::KeyMisused
        | Meaning::Rejected => "rejected",
    }
}
