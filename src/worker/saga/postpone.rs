//! A call that is not done yet, or never will be: when it is tried again, and when it is given up.

use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Caller, Interrupted, failure};
use crate::ledger::{Failure, Postponement, Remainder, Retries, Task, TryOutcome, after, now};
use crate::stripe::Report;
use crate::worker::decision::{WaitFor, delay_for_other};
use crate::worker::sight::Sight;

impl Caller {
    /// Tries again later, unless the retries are used up.
    pub(super) async fn retry(&self, task: &Task, remainder: Remainder, report: Report) -> Result<Task, Interrupted> {
        let why = failed(&report);
        let used = u32::try_from(task.call.attempts).unwrap_or(u32::MAX);
        let Some(backoff) = self.policy.next(used) else {
            return self.exhausted(task, remainder, report).await;
        };
        let delay = backoff.max(report.retry_after.unwrap_or_default().min(self.longest()));
        let (attempt, until) = (used.saturating_add(1), after(now(), delay));
        let at = until.format("%F %T UTC");
        let reason = format!("attempt {attempt}: {}; retry {attempt} at {at}", why.message);
        let how = Postponement { until, retries: Retries::Used, remainder, failure: why };
        self.report(task, TryOutcome::Later(how), &reason, report.request_id).await
    }

    /// The retries are used up. That counts only while Stripe answers other calls: otherwise they are there again.
    pub(super) async fn exhausted(
        &self,
        task: &Task,
        remainder: Remainder,
        report: Report,
    ) -> Result<Task, Interrupted> {
        let (why, attempts) = (failed(&report), task.call.attempts.saturating_add(1));
        // It may have happened all the same, with its answers lost.
        if let Ok(Sight { seen: Some(seen), request_id, .. }) = self.see(task).await? {
            return self.report_seen(task, seen, request_id).await;
        }
        if self.breaker.answers() {
            let message = format!("retries exhausted after {attempts} attempts; the last: {}", why.message);
            return self.fail(task, Failure { message, ..why }, report.request_id).await;
        }
        let until = after(now(), self.longest());
        let at = until.format("%F %T UTC");
        let reason = format!(
            "attempt {attempts}: {}; Stripe answers no call, so all retries are there again at {at}",
            why.message
        );
        let how = Postponement { until, retries: Retries::Restored, remainder, failure: why };
        self.report(task, TryOutcome::Later(how), &reason, report.request_id).await
    }

    /// Delays the call for a reason outside its control, without using up a retry, unless that takes too long.
    pub(super) async fn wait_for(
        &self,
        task: &Task,
        remainder: Remainder,
        reason: WaitFor,
        report: Report,
    ) -> Result<Task, Interrupted> {
        let why = failed(&report);
        let delay = match reason {
            WaitFor::Rate => report.retry_after.unwrap_or_default().max(self.policy.delay(0)),
            // The circuit breaker has said so, and takes no more jobs.
            WaitFor::Operator | WaitFor::Recovery | WaitFor::NewKey => self.policy.delay(0),
            WaitFor::Stripe => self.longest(),
            WaitFor::OtherRequest => {
                let waited = task.call.requested_at.map_or(Duration::ZERO, since);
                let random = u8::try_from(Uuid::new_v4().as_u128() % 256).unwrap_or_default();
                delay_for_other(waited, random).clamp(self.policy.delay(0), self.longest())
            }
            WaitFor::Balance => {
                let waited = task.call.refused_since.map_or(Duration::ZERO, since);
                if waited >= self.timing.balance_deadline {
                    let message = format!("no balance for {:?}: {}", self.timing.balance_deadline, why.message);
                    let ended = TryOutcome::Ended(Failure { message, ..why });
                    return self.report_failure(task, ended, report.request_id).await;
                }
                self.longest()
            }
        };
        self.wait(task, remainder, delay, why, report.request_id).await
    }

    pub(super) async fn wait(
        &self,
        task: &Task,
        remainder: Remainder,
        delay: Duration,
        why: Failure,
        request_id: Option<String>,
    ) -> Result<Task, Interrupted> {
        let until = after(now(), delay);
        let reason = format!("{}; next try at {}, no retry used up", why.message, until.format("%F %T UTC"));
        let how = Postponement { until, retries: Retries::Kept, remainder, failure: why };
        self.report(task, TryOutcome::Later(how), &reason, request_id).await
    }

    pub(super) async fn fail(
        &self,
        task: &Task,
        why: Failure,
        request_id: Option<String>,
    ) -> Result<Task, Interrupted> {
        self.report_failure(task, TryOutcome::Failed(why), request_id).await
    }

    pub(super) async fn report_failure(
        &self,
        task: &Task,
        outcome: TryOutcome,
        request_id: Option<String>,
    ) -> Result<Task, Interrupted> {
        let reason = match &outcome {
            TryOutcome::Failed(why) | TryOutcome::Ended(why) => format!("{}: {}", why.code, why.message),
            _ => String::new(),
        };
        let note = format!("failed permanently, its message is parked: {reason}");
        let failed = self.report(task, outcome, &note, request_id).await?;
        metrics::counter!("clawback_failed_permanently_total", "kind" => task.call.kind.to_string()).increment(1);
        let (payment, transfer, amount, currency) = task.target.in_logs();
        tracing::warn!(payment, transfer, amount, currency, reason, "failed permanently and parked");
        Ok(failed)
    }

    pub(super) fn longest(&self) -> Duration {
        self.policy.delay(u32::MAX)
    }
}

fn since(then: DateTime<Utc>) -> Duration {
    (now() - then).to_std().unwrap_or_default()
}

/// With a code of ours for an answer that carries none of Stripe's.
fn failed(report: &Report) -> Failure {
    failure(report.code.as_deref().unwrap_or(report.meaning.code()), &report.message)
}
