//! The job that reverses one transfer for one refund: read the row, ask Stripe, report, settle the message.
//!
//! Safe at every point: what Stripe did and the row does not say yet is found again under the same idempotency key, or
//! in Stripe's list. The row decides; the message only says which row.

use std::sync::Arc;
use std::time::Duration;

use queues::{Delivery, Handler, Outcome, RetryPolicy};

use super::Limiter;
use super::decision::{Decision, Otherwise, Pace, WaitFor, decide};
use super::reconcile::{self, Sight};
use crate::ledger::{
    Aftermath, Failure, Ledger, LedgerError, Note, Postponement, ReversalStatus, ReversalTask, ReverseTransferJob,
    in_future, now,
};
use crate::stripe::{self, Meaning, Report};

/// Who the history names.
const ACTOR: &str = "worker";
/// How often a job that another worker overtook reads its row again before it lets some time pass.
const MAX_OVERTAKEN: usize = 3;
/// Stripe prunes a key once it is 24 h old, and it runs again. Past this age the list is read first.
const TRUSTED_KEY_AGE: Duration = Duration::from_secs(23 * 60 * 60);

/// The delays that are not the retry policy's.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a seller's balance may be too low, from when the debt was recorded.
    pub balance_deadline: Duration,
    /// Between two looks at Stripe's list that must both find nothing: longer than a call can be on its way.
    pub settling: Duration,
}

/// The handler of [`ReverseTransferJob`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReverseTransfer {
    ledger: Ledger,
    stripe: stripe::Client,
    limiter: Arc<Limiter>,
    policy: RetryPolicy,
    timing: Timing,
}

impl Handler<ReverseTransferJob> for ReverseTransfer {
    async fn handle(&self, job: ReverseTransferJob, delivery: Delivery) -> Outcome {
        for _ in 0..MAX_OVERTAKEN {
            match self.converge(job, &delivery).await {
                Ok(outcome) => return outcome,
                // Another worker holds a duplicate and was faster: the row says what is left to do.
                Err(LedgerError::Stale { .. }) => {}
                Err(error @ LedgerError::Database(_)) => return self.not_now(error.to_string()),
                Err(error) => return Outcome::Retry { reason: error.to_string() },
            }
        }
        self.not_now("another worker holds the same job".to_owned())
    }
}

impl ReverseTransfer {
    /// A handler whose calls all go through `limiter`.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        stripe: stripe::Client,
        limiter: Arc<Limiter>,
        policy: RetryPolicy,
        timing: Timing,
    ) -> Self {
        Self { ledger, stripe, limiter, policy, timing }
    }

    async fn converge(&self, job: ReverseTransferJob, delivery: &Delivery) -> Result<Outcome, LedgerError> {
        let Some(mut task) = self.ledger.reversal_task(job.reversal_id).await? else {
            return Ok(Outcome::Park { reason: format!("the ledger has no reversal {}", job.reversal_id) });
        };
        // Somebody moved the message back from the parking queue: that is an operator's replay.
        if task.status == ReversalStatus::PermanentlyFailed && delivery.parked_reason.is_some() {
            let note = Note::new("operator", "replayed: its message was moved back from the parking queue");
            task = self.ledger.replay(&task, &note).await?;
        }
        match task.status {
            ReversalStatus::Reversed => return Ok(Outcome::Done),
            ReversalStatus::PermanentlyFailed => return Ok(Outcome::Park { reason: given_up_because(&task) }),
            ReversalStatus::Pending => {}
        }
        if let Some(ahead) = task.next_retry_at.and_then(|at| (at - now()).to_std().ok())
            && ahead > self.clock_tolerance()
        {
            return Ok(Outcome::Snooze { delay: ahead, reason: "its next try lies ahead".to_owned() });
        }
        let Some(transfer_id) = task.stripe_transfer_id.clone() else {
            let message = "the transfer has no Stripe id, so that Stripe can't be asked to reverse it";
            return self.give_up(&task, failure("no_stripe_transfer_id", message), None).await;
        };
        self.advance(task, &transfer_id).await
    }

    /// Takes the next step towards the end: looks at what Stripe has where that is in doubt, calls where it is not.
    async fn advance(&self, task: ReversalTask, transfer_id: &str) -> Result<Outcome, LedgerError> {
        let key_age = (now() - task.epoch_started_at).to_std().unwrap_or_default();
        let in_doubt = task.pending_reversal_id.is_some() || task.doubtful_since.is_some();
        if !in_doubt && key_age < TRUSTED_KEY_AGE {
            return self.call(&task, transfer_id).await;
        }
        let sight = match self.look(&task, transfer_id).await {
            Ok(sight) => sight,
            Err(report) => return self.follow(&task, transfer_id, report).await,
        };
        if let Some(outcome) = self.report_if_seen(&task, &sight).await? {
            return Ok(outcome);
        }
        if let Some(reversal_id) = task.pending_reversal_id.clone() {
            // Stripe had accepted it: whatever the list says, there is no second call.
            let why = failure("pending_at_stripe", &format!("{reversal_id} is not in Stripe's list; looking again"));
            let aftermath = Aftermath::AcceptedByStripe { reversal_id };
            return self.wait(&task, aftermath, self.longest(), why, None).await;
        }
        let looked_before = task.absent_since.and_then(|since| (now() - since).to_std().ok());
        if !sight.complete || looked_before.is_none_or(|ago| ago < self.timing.settling) {
            let why = failure("not_found_yet", "Stripe's list does not have it; looking once more before a new call");
            return self.wait(&task, Aftermath::Absent, self.timing.settling, why, None).await;
        }
        let note = Note::new(ACTOR, "not at Stripe, looked twice: calling under a new key");
        let task = self.ledger.begin_epoch(&task, &note).await?;
        self.call(&task, transfer_id).await
    }

    /// Asks Stripe to reverse, and does what its answer asks for.
    async fn call(&self, task: &ReversalTask, transfer_id: &str) -> Result<Outcome, LedgerError> {
        let command = stripe::ReverseTransfer {
            transfer_id: transfer_id.to_owned(),
            amount: task.amount,
            currency: task.currency.clone(),
            reversal_id: task.id,
            refund_id: task.refund_id,
            epoch: task.epoch,
        };
        self.limiter.turn().await;
        let report = self.stripe.reverse_transfer(&command).await;
        self.follow(task, transfer_id, report).await
    }

    async fn look(&self, task: &ReversalTask, transfer_id: &str) -> Result<Sight, Report> {
        self.limiter.turn().await;
        let sight = reconcile::look(&self.stripe, transfer_id, task.id).await?;
        self.limiter.raise();
        Ok(sight)
    }

    /// Does what follows from an answer of Stripe's.
    async fn follow(&self, task: &ReversalTask, transfer_id: &str, report: Report) -> Result<Outcome, LedgerError> {
        match report.meaning {
            Meaning::RateLimited => self.limiter.halve(report.retry_after),
            Meaning::Unreached | Meaning::TlsFailed => {}
            _ => self.limiter.raise(),
        }
        match decide(&report.meaning) {
            Decision::Succeed { reversal_id } => self.succeed(task, &reversal_id, false, report.request_id).await,
            Decision::GiveUp { code } => {
                let why = failure(report.code.as_deref().unwrap_or(code), &report.message);
                self.give_up(task, why, report.request_id).await
            }
            Decision::Look { otherwise } => self.look_or(task, transfer_id, otherwise, report).await,
            Decision::Retry { aftermath, pace } => self.retry(task, transfer_id, aftermath, pace, report).await,
            Decision::Wait { aftermath, reason } => self.wait_for(task, aftermath, reason, report).await,
        }
    }

    /// Stripe says that less is left than we ask for: looks for whose reversal that was.
    async fn look_or(
        &self,
        task: &ReversalTask,
        transfer_id: &str,
        otherwise: Otherwise,
        report: Report,
    ) -> Result<Outcome, LedgerError> {
        let sight = match self.look(task, transfer_id).await {
            Ok(sight) => sight,
            // What stays for the next try is that a look is due.
            Err(failed) => {
                return self.retry(task, transfer_id, Aftermath::Doubtful, Pace::Backoff, failed).await;
            }
        };
        if let Some(outcome) = self.report_if_seen(task, &sight).await? {
            return Ok(outcome);
        }
        match (otherwise, sight.newest_foreign) {
            (Otherwise::TakeTheForeignOne, Some(foreign)) => {
                self.succeed(task, &foreign, true, report.request_id).await
            }
            // Fully reversed, and nobody to be seen who did it: the list lags.
            (Otherwise::TakeTheForeignOne, None) => {
                self.retry(task, transfer_id, Aftermath::Doubtful, Pace::Backoff, report).await
            }
            (Otherwise::GiveUp, _) => {
                let why = failure(report.code.as_deref().unwrap_or("more_than_left"), &report.message);
                self.give_up(task, why, report.request_id).await
            }
        }
    }

    /// Reports what Stripe's list says of our reversal, if it is in there.
    async fn report_if_seen(&self, task: &ReversalTask, sight: &Sight) -> Result<Option<Outcome>, LedgerError> {
        let Some(ours) = &sight.ours else { return Ok(None) };
        if ours.amount != task.amount {
            let message = format!("{} at Stripe takes back {}, not {}", ours.id, ours.amount, task.amount);
            return self.give_up(task, failure("amount_mismatch", &message), None).await.map(Some);
        }
        match ours.status.as_deref() {
            None | Some("succeeded") => self.succeed(task, &ours.id, false, None).await.map(Some),
            Some(ended @ ("failed" | "canceled")) => {
                let message = format!("{} has {ended} at Stripe", ours.id);
                self.give_up(task, failure("reversal_ended", &message), None).await.map(Some)
            }
            Some(status) => {
                let why = failure("pending_at_stripe", &format!("{} is {status} at Stripe", ours.id));
                let aftermath = Aftermath::AcceptedByStripe { reversal_id: ours.id.clone() };
                self.wait(task, aftermath, self.longest(), why, None).await.map(Some)
            }
        }
    }

    async fn succeed(
        &self,
        task: &ReversalTask,
        stripe_reversal_id: &str,
        externally: bool,
        request_id: Option<String>,
    ) -> Result<Outcome, LedgerError> {
        let reason = if externally { "reversed at Stripe by somebody else" } else { "Stripe has reversed it" };
        let note = Note::new(ACTOR, reason).with_request_id(request_id);
        self.ledger.succeed(task, stripe_reversal_id, externally, &note).await?;
        tracing::info!(reversal_id = %task.id, stripe_reversal_id, externally, "reversed");
        Ok(Outcome::Done)
    }

    async fn give_up(
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
    async fn retry(
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
            // It may have happened all the same: one look before giving up.
            if aftermath == Aftermath::Doubtful
                && let Ok(sight) = self.look(task, transfer_id).await
                && let Some(outcome) = self.report_if_seen(task, &sight).await?
            {
                return Ok(outcome);
            }
            let message = format!("retries exhausted after {} attempts; the last: {}", used.saturating_add(1), why.message);
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
    async fn wait_for(
        &self,
        task: &ReversalTask,
        aftermath: Aftermath,
        reason: WaitFor,
        report: Report,
    ) -> Result<Outcome, LedgerError> {
        let why = failure(report.code.as_deref().unwrap_or(code_of(&report)), &report.message);
        let delay = match reason {
            WaitFor::Rate => report.retry_after.unwrap_or_default().max(self.policy.delay(0)),
            WaitFor::Operator => {
                tracing::error!(code = why.code, message = why.message, "Stripe can't be used; check STRIPE_API_KEY");
                self.policy.delay(0)
            }
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

    async fn wait(
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

    /// Neither the row nor Stripe was touched: the message comes again.
    fn not_now(&self, reason: String) -> Outcome {
        Outcome::Snooze { delay: self.policy.delay(0), reason }
    }

    fn longest(&self) -> Duration {
        self.policy.delay(u32::MAX)
    }

    /// Two machines' clocks may differ a little; a message that comes that much too early is on time.
    fn clock_tolerance(&self) -> Duration {
        (self.policy.delay(0) / 10).min(Duration::from_secs(1))
    }
}

fn failure(code: &str, message: &str) -> Failure {
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

fn given_up_because(task: &ReversalTask) -> String {
    let code = task.failure_code.as_deref().unwrap_or("permanently_failed");
    format!("{code}: {}", task.failure_message.as_deref().unwrap_or("given up earlier"))
}
