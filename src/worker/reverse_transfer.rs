//! The job that reverses one transfer for one refund: read the row, ask Stripe, report, settle the message.
//!
//! Safe at every point: what Stripe did and the row does not say yet is found again under the same idempotency key, or
//! in Stripe's list. The row decides; the message only says which row.

use queues::{Delivery, Handler, Outcome};
use tracing::Instrument;

use super::context::{ACTOR, Halt, JobContext, given_up_because, oldest_trusted_epoch, was_parked_for};
use super::decision::{Decision, Otherwise, Pace};
use super::reconcile::{self, Sight};
use super::waiting::{failure, wait};
use crate::ledger::{Aftermath, Note, REVERSAL_ENDED, ReversalStatus, ReversalTask, ReverseTransferJob};
use crate::stripe::{self, Report};
use crate::trace_context;

/// The handler of [`ReverseTransferJob`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReverseTransfer {
    pub(super) context: JobContext,
}

impl Handler<ReverseTransferJob> for ReverseTransfer {
    async fn handle(&self, job: ReverseTransferJob, delivery: Delivery) -> Outcome {
        let span = tracing::info_span!("reverse_transfer", reversal_id = %job.reversal_id);
        trace_context::go_on(&span, delivery.traceparent.as_deref());
        self.context.run(|| self.converge(job, &delivery)).instrument(span).await
    }
}

impl ReverseTransfer {
    /// A handler that works with `context`.
    #[must_use]
    pub fn new(context: JobContext) -> Self {
        Self { context }
    }

    async fn converge(&self, job: ReverseTransferJob, delivery: &Delivery) -> Result<Outcome, Halt> {
        let ledger = &self.context.ledger;
        let Some(mut task) = ledger.reversal_task(job.reversal_id).await? else {
            return Ok(Outcome::Park { reason: format!("the ledger has no reversal {}", job.reversal_id) });
        };
        if task.was_called_off() {
            return Ok(Outcome::Done);
        }
        // Somebody moved the message back from the parking queue: that is an operator's replay.
        if task.status == ReversalStatus::PermanentlyFailed && was_parked_for(task.updated_at, delivery) {
            let note = Note::new("operator", "replayed: its message was moved back from the parking queue");
            let Some(anew) = ledger.replay_if_owed(&task, &note).await? else { return self.only_look(&task).await };
            task = anew;
        }
        match task.status {
            ReversalStatus::Reversed => return Ok(Outcome::Done),
            ReversalStatus::PermanentlyFailed => {
                let reason = given_up_because(task.failure_code.as_deref(), task.failure_message.as_deref());
                return Ok(Outcome::Park { reason });
            }
            // Creating the transfer brings a job of its own.
            ReversalStatus::Pending if task.waits_for_transfer => return Ok(Outcome::Done),
            ReversalStatus::Pending => {}
        }
        if let Some(outcome) = self.context.too_early(task.next_retry_at) {
            return Ok(outcome);
        }
        let Some(transfer_id) = task.stripe_transfer_id.clone() else {
            let message = "the transfer has no Stripe id, so that Stripe can't be asked to reverse it";
            return self.give_up(&task, failure("no_stripe_transfer_id", message), None).await;
        };
        self.advance(task, &transfer_id).await
    }

    /// Takes the next step towards the end: looks at what Stripe has where that is in doubt, calls where it is not.
    async fn advance(&self, task: ReversalTask, transfer_id: &str) -> Result<Outcome, Halt> {
        let in_doubt = task.pending_reversal_id.is_some() || task.doubtful_since.is_some();
        if !in_doubt && task.epoch_started_at >= oldest_trusted_epoch() {
            return self.call(&task, transfer_id).await;
        }
        let sight = match self.look(&task, transfer_id).await? {
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
            return self.put_off(&task, wait(aftermath, self.context.longest(), why, sight.request_id)).await;
        }
        if !sight.complete || !self.context.has_settled(task.absent_since) {
            let why = failure("not_found_yet", "Stripe's list does not have it; looking once more before a new call");
            let settling = self.context.timing.settling;
            return self.put_off(&task, wait(Aftermath::Absent, settling, why, sight.request_id)).await;
        }
        let note =
            Note::new(ACTOR, "not at Stripe, looked twice: calling under a new key").with_request_id(sight.request_id);
        let task = self.context.ledger.begin_epoch(&task, &note).await?;
        self.call(&task, transfer_id).await
    }

    /// Asks Stripe to reverse, and does what its answer asks for.
    async fn call(&self, task: &ReversalTask, transfer_id: &str) -> Result<Outcome, Halt> {
        let command = stripe::ReverseTransfer {
            transfer_id: transfer_id.to_owned(),
            amount: task.amount,
            currency: task.currency.clone(),
            reversal_id: task.id,
            refund_id: task.refund_id,
            epoch: task.epoch,
        };
        self.context.turn().await?;
        self.context.ledger.begin_calling(task, oldest_trusted_epoch()).await?;
        let report = self.context.stripe.reverse_transfer(&command).await;
        self.follow(task, transfer_id, report).await
    }

    /// Nothing is owed any more, and so nothing is called. What Stripe has done all the same is recorded.
    async fn only_look(&self, task: &ReversalTask) -> Result<Outcome, Halt> {
        let (Some(transfer_id), Some(_)) = (&task.stripe_transfer_id, task.called_at) else { return Ok(Outcome::Done) };
        match self.look(task, transfer_id).await? {
            Ok(Sight { ours: Some(ours), request_id, .. })
                if ours.amount == task.amount && matches!(ours.status.as_deref(), None | Some("succeeded")) =>
            {
                self.succeed(task, &ours.id, false, request_id).await
            }
            Ok(_) => Ok(Outcome::Done),
            Err(report) => {
                self.context.judge(task.id, &report);
                let reason = format!("not owed any more; whether Stripe has done it is unknown: {}", report.message);
                Ok(Outcome::Park { reason })
            }
        }
    }

    pub(super) async fn look(&self, task: &ReversalTask, transfer_id: &str) -> Result<Result<Sight, Report>, Halt> {
        self.context.turn().await?;
        let sight = reconcile::look(&self.context.stripe, transfer_id, task.id).await;
        if sight.is_ok() {
            self.context.limiter.raise();
        }
        Ok(sight)
    }

    /// Does what follows from an answer of Stripe's.
    async fn follow(&self, task: &ReversalTask, transfer_id: &str, report: Report) -> Result<Outcome, Halt> {
        match self.context.judge(task.id, &report) {
            Decision::Succeed { id } => self.succeed(task, &id, false, report.request_id).await,
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
    ) -> Result<Outcome, Halt> {
        let sight = match self.look(task, transfer_id).await? {
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
    pub(super) async fn report_if_seen(&self, task: &ReversalTask, sight: &Sight) -> Result<Option<Outcome>, Halt> {
        let Some(ours) = &sight.ours else { return Ok(None) };
        let request_id = sight.request_id.clone();
        if ours.amount != task.amount {
            let message = format!("{} at Stripe takes back {}, not {}", ours.id, ours.amount, task.amount);
            return self.give_up(task, failure("amount_mismatch", &message), request_id).await.map(Some);
        }
        match ours.status.as_deref() {
            None | Some("succeeded") => self.succeed(task, &ours.id, false, request_id).await.map(Some),
            // One that we had waited for. Any other that Stripe has ended was never done, so that it may be called anew.
            Some("failed" | "canceled") if task.pending_reversal_id.as_ref() != Some(&ours.id) => Ok(None),
            Some(ended @ ("failed" | "canceled")) => {
                let message = format!("{} has {ended} at Stripe", ours.id);
                self.give_up(task, failure(REVERSAL_ENDED, &message), request_id).await.map(Some)
            }
            Some(status) => {
                let why = failure("pending_at_stripe", &format!("{} is {status} at Stripe", ours.id));
                let aftermath = Aftermath::AcceptedByStripe { reversal_id: ours.id.clone() };
                self.put_off(task, wait(aftermath, self.context.longest(), why, request_id)).await.map(Some)
            }
        }
    }
}
