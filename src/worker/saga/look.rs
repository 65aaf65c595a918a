//! What Stripe has of a call, read before another request may be made, and what that means.

use chrono::{DateTime, TimeDelta, Utc};
use queues::Outcome;

use super::{Caller, Interrupted, Success, failure};
use crate::ledger::{Remainder, Target, Task, TryOutcome, now};
use crate::reached::reached;
use crate::stripe::Report;
use crate::worker::decision::Otherwise;
use crate::worker::sight::{AfterLook, AfterRefusal, Seen, Sight, after_look, after_refusal, has_settled};
use crate::worker::{create, reverse};

/// Stripe ends what it has accepted within 45 days; a key is used for one day at most.
const LONGEST_ACCEPTED: TimeDelta = TimeDelta::days(46);

impl Caller {
    /// Reads what Stripe has of it, and does what that means.
    pub(super) async fn look(&self, task: Task) -> Result<Task, Interrupted> {
        let sight = match self.see(&task).await? {
            Ok(sight) => sight,
            Err(report) => return self.follow(task, report).await,
        };
        let request_id = sight.request_id.clone();
        match after_look(&task, sight, now(), self.timing.settling) {
            AfterLook::Seen(seen) => self.report_seen(&task, seen, request_id).await,
            AfterLook::Accepted(id) => self.still_accepted(&task, id, "not in Stripe's list", request_id).await,
            AfterLook::Make => self.make(task).await,
            AfterLook::LookAgain => {
                let why = failure("not_found_yet", "Stripe's list does not have it; looking once more");
                self.wait(&task, Remainder::Absent, self.timing.settling, why, request_id).await
            }
            AfterLook::NewGeneration => {
                reached!("a new key after two looks");
                let reason = "not at Stripe, looked twice: calling under a new key";
                self.report(&task, TryOutcome::NewGeneration, reason, request_id).await
            }
            AfterLook::CallOff => {
                let message = "its claim takes nothing any more, and Stripe has not done it";
                self.report(&task, TryOutcome::CalledOff(failure("not_owed", message)), message, request_id).await
            }
        }
    }

    /// Nothing is owed any more, and so nothing is called. What Stripe has done all the same is recorded.
    pub(super) async fn only_look(&self, task: &Task) -> Result<Outcome, Interrupted> {
        if task.call.requested_at.is_none() {
            return Ok(Outcome::Done);
        }
        match self.see(task).await? {
            Ok(Sight { seen: Some(seen @ Seen::Done { .. }), request_id, .. }) => {
                self.report_seen(task, seen, request_id).await?;
                Ok(Outcome::Done)
            }
            Ok(_) => Ok(Outcome::Done),
            Err(report) => {
                self.judge(task, &report);
                let reason = format!("not owed any more; whether Stripe has done it is unknown: {}", report.message);
                Ok(Outcome::Park { reason })
            }
        }
    }

    /// Stripe says that less is left than asked, or that the key was used for something else: looks for who did what.
    pub(super) async fn look_or(&self, task: Task, otherwise: Otherwise, report: Report) -> Result<Task, Interrupted> {
        let sight = match self.see(&task).await? {
            Ok(sight) => sight,
            // What stays for the next try is that a look is due.
            Err(failed) => return self.retry(&task, Remainder::Unknown, failed).await,
        };
        let request_id = sight.request_id.clone();
        match after_refusal(otherwise, sight) {
            AfterRefusal::Seen(seen) => self.report_seen(&task, seen, request_id).await,
            AfterRefusal::DoneByAnother(id) => {
                let success = Success { id, externally: true, balance_transaction: None };
                self.succeed(&task, success, report.request_id).await
            }
            AfterRefusal::LookAgain => self.retry(&task, Remainder::Unknown, report).await,
            AfterRefusal::Fail => {
                // Stripe has saved the refusal: the key never executes any more, so a replay may ask for less under another.
                let why = failure(report.code.as_deref().unwrap_or(report.meaning.label()), &report.message);
                self.report_failure(&task, TryOutcome::Ended(why), report.request_id).await
            }
        }
    }

    pub(super) async fn see(&self, task: &Task) -> Result<Result<Sight, Report>, Interrupted> {
        let _place = self.turn(task).await?;
        let stripe = self.limiter.pace(&self.stripe);
        let sight = match &task.target {
            Target::Reversal(target) => reverse::look(&stripe, &task.call, target).await,
            Target::Creation(target) => create::look(&stripe, &self.ledger, &task.call, target).await?,
            // They leave nothing at Stripe.
            Target::LookUp(_) | Target::Notification(_) => {
                Ok(Sight { seen: None, foreign: None, complete: true, nothing_left: false, request_id: None })
            }
        };
        if sight.is_ok() {
            self.limiter.raise();
        }
        Ok(sight)
    }

    pub(super) async fn report_seen(
        &self,
        task: &Task,
        seen: Seen,
        request_id: Option<String>,
    ) -> Result<Task, Interrupted> {
        match seen {
            Seen::Done { id, balance_transaction } => {
                reached!("a look found what nobody had recorded");
                let success = Success { id, externally: false, balance_transaction };
                self.succeed(task, success, request_id).await
            }
            Seen::Mismatch { code, message } => self.fail(task, failure(code, &message), request_id).await,
            Seen::Ended { message } => {
                let outcome = TryOutcome::Ended(failure("reversal_ended", &message));
                self.report_failure(task, outcome, request_id).await
            }
            Seen::Accepted { id, status } => self.still_accepted(task, id, &status, request_id).await,
        }
    }

    /// Stripe has accepted it and is not done, which lasts 45 days at the longest.
    pub(super) async fn still_accepted(
        &self,
        task: &Task,
        id: String,
        what: &str,
        request_id: Option<String>,
    ) -> Result<Task, Interrupted> {
        let since = task.call.requested_at.unwrap_or(task.call.generation_started_at);
        if now() - since > LONGEST_ACCEPTED {
            let message =
                format!("{id} was accepted by Stripe, is {what}, and was asked for on {}", since.format("%F"));
            return self.fail(task, failure("accepted_without_end", &message), request_id).await;
        }
        let why = failure("pending_at_stripe", &format!("{id} is {what}; looking again"));
        self.wait(task, Remainder::Accepted { id }, self.longest(), why, request_id).await
    }

    pub(super) fn has_settled(&self, absent_since: Option<DateTime<Utc>>) -> bool {
        has_settled(absent_since, now(), self.timing.settling)
    }
}
