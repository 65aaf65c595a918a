//! The job that reverses one transfer for one refund: read the row, ask Stripe, report, settle the message.
//!
//! Safe at every point: what Stripe did and the row does not say yet is found again under the same idempotency key, or
//! in Stripe's list. The row decides; the message only says which row.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use queues::{Delivery, Handler, Outcome, RetryPolicy};

use super::decision::{Decision, Otherwise, Pace, decide};
use super::reconcile::{self, Sight};
use super::reporting::failure;
use super::{KillSwitch, Limiter};
use crate::ledger::{Aftermath, Ledger, LedgerError, Note, ReversalStatus, ReversalTask, ReverseTransferJob, now};
use crate::stripe::{self, Meaning, Report};

/// Who the history names.
const ACTOR: &str = "worker";
/// How often a job that another worker overtook reads its row again before it lets some time pass.
const MAX_OVERTAKEN: usize = 3;
/// Stripe prunes a key once it is 24 h old, and it runs again. Past this age the list is read first.
const TRUSTED_KEY_AGE: Duration = Duration::from_secs(23 * 60 * 60);
/// The broker counts the time of its own parking in whole seconds.
const PARKING_CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(1);

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
    pub(super) ledger: Ledger,
    stripe: stripe::Client,
    limiter: Arc<Limiter>,
    kill_switch: Arc<KillSwitch>,
    pub(super) policy: RetryPolicy,
    pub(super) timing: Timing,
}

impl Handler<ReverseTransferJob> for ReverseTransfer {
    async fn handle(&self, job: ReverseTransferJob, delivery: Delivery) -> Outcome {
        if self.kill_switch.is_off() {
            return Outcome::GiveBack;
        }
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
    /// A handler whose calls all go through `limiter`, and tell `kill_switch` what they met.
    #[must_use]
    pub fn new(
        ledger: Ledger,
        stripe: stripe::Client,
        limiter: Arc<Limiter>,
        kill_switch: Arc<KillSwitch>,
        policy: RetryPolicy,
        timing: Timing,
    ) -> Self {
        Self { ledger, stripe, limiter, kill_switch, policy, timing }
    }

    async fn converge(&self, job: ReverseTransferJob, delivery: &Delivery) -> Result<Outcome, LedgerError> {
        let Some(mut task) = self.ledger.reversal_task(job.reversal_id).await? else {
            return Ok(Outcome::Park { reason: format!("the ledger has no reversal {}", job.reversal_id) });
        };
        // Somebody moved the message back from the parking queue: that is an operator's replay.
        if task.status == ReversalStatus::PermanentlyFailed && was_parked_for(&task, delivery) {
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

    pub(super) async fn look(&self, task: &ReversalTask, transfer_id: &str) -> Result<Sight, Report> {
        self.limiter.turn().await;
        let sight = reconcile::look(&self.stripe, transfer_id, task.id).await?;
        self.limiter.raise();
        Ok(sight)
    }

    /// Does what follows from an answer of Stripe's.
    async fn follow(&self, task: &ReversalTask, transfer_id: &str, report: Report) -> Result<Outcome, LedgerError> {
        self.kill_switch.note(&report);
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
    pub(super) async fn report_if_seen(
        &self,
        task: &ReversalTask,
        sight: &Sight,
    ) -> Result<Option<Outcome>, LedgerError> {
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

    /// Neither the row nor Stripe was touched: the message comes again.
    fn not_now(&self, reason: String) -> Outcome {
        Outcome::Snooze { delay: self.policy.delay(0), reason }
    }

    /// Two machines' clocks may differ a little; a message that comes that much too early is on time.
    fn clock_tolerance(&self) -> Duration {
        (self.policy.delay(0) / 10).min(Duration::from_secs(1))
    }
}

/// Whether the message was parked because of the row's present failure. One that was parked earlier, replayed, and is
/// delivered again after the worker died between the new failure and its parking, must not count as another replay.
fn was_parked_for(task: &ReversalTask, delivery: &Delivery) -> bool {
    let after_the_failure = |at: DateTime<Utc>| at + PARKING_CLOCK_TOLERANCE >= task.updated_at;
    delivery.parked_reason.is_some() && delivery.parked_at.is_none_or(after_the_failure)
}

fn given_up_because(task: &ReversalTask) -> String {
    let code = task.failure_code.as_deref().unwrap_or("permanently_failed");
    format!("{code}: {}", task.failure_message.as_deref().unwrap_or("given up earlier"))
}
