//! The job that creates one transfer at Stripe: read the row, ask Stripe, report, settle the message.
//!
//! Safe at every point, as `reverse_transfer` is, and by the same rules: what Stripe did and the row does not say yet is
//! found again under the same idempotency key, or in Stripe's list. A transfer that is created twice pays a seller twice.

use chrono::TimeDelta;
use queues::{Delivery, Handler, Outcome};
use tracing::Instrument;

use super::context::{ACTOR, Halt, JobContext, given_up_because, oldest_trusted_epoch, was_parked_for};
use super::decision::{Decision, Pace};
use super::waiting::{PutOff, failure, wait};
use crate::ledger::{Aftermath, CreateTransferJob, CreationTask, Failure, LedgerError, Note, TransferStatus};
use crate::stripe::{self, Report, Transfer};
use crate::trace_context;

/// How far Stripe's clock may be behind ours: transfers are looked for from that long before the row was written.
const CLOCKS_DIFFER: TimeDelta = TimeDelta::hours(1);

/// The handler of [`CreateTransferJob`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CreateTransfer {
    context: JobContext,
}

impl Handler<CreateTransferJob> for CreateTransfer {
    async fn handle(&self, job: CreateTransferJob, delivery: Delivery) -> Outcome {
        let span = tracing::info_span!("create_transfer", transfer_id = %job.transfer_id);
        trace_context::go_on(&span, delivery.traceparent.as_deref());
        self.context.run(|| self.converge(job, &delivery)).instrument(span).await
    }
}

impl CreateTransfer {
    /// A handler that works with `context`.
    #[must_use]
    pub fn new(context: JobContext) -> Self {
        Self { context }
    }

    async fn converge(&self, job: CreateTransferJob, delivery: &Delivery) -> Result<Outcome, Halt> {
        let ledger = &self.context.ledger;
        let Some(mut task) = ledger.creation_task(job.transfer_id).await? else {
            return Ok(Outcome::Park { reason: format!("the ledger has no transfer {} to create", job.transfer_id) });
        };
        if task.stripe_transfer_id.is_some() {
            return Ok(Outcome::Done);
        }
        // Somebody moved the message back from the parking queue: that is an operator's retry.
        if task.status == TransferStatus::PermanentlyFailed && was_parked_for(task.updated_at, delivery) {
            let note = Note::new("operator", "retried: its message was moved back from the parking queue");
            task = ledger.replay_creation(&task, &note).await?;
        }
        if task.status == TransferStatus::PermanentlyFailed {
            let reason = given_up_because(task.failure_code.as_deref(), task.failure_message.as_deref());
            return Ok(Outcome::Park { reason });
        }
        if let Some(outcome) = self.context.too_early(task.next_retry_at) {
            return Ok(outcome);
        }
        self.advance(task).await
    }

    /// Takes the next step towards the end: looks at what Stripe has where that is in doubt, calls where it is not.
    async fn advance(&self, task: CreationTask) -> Result<Outcome, Halt> {
        if task.doubtful_since.is_none() && task.epoch_started_at >= oldest_trusted_epoch() {
            return self.call(&task).await;
        }
        let sight = match self.look(&task).await? {
            Ok(sight) => sight,
            Err(report) => return self.follow(&task, report).await,
        };
        if let Some(found) = &sight.ours {
            return self.report_seen(&task, found, sight.request_id).await;
        }
        if !self.context.has_settled(task.absent_since) {
            let why = failure("not_found_yet", "Stripe's list does not have it; looking once more before a new call");
            let settling = self.context.timing.settling;
            return self.put_off(&task, wait(Aftermath::Absent, settling, why, sight.request_id)).await;
        }
        let note =
            Note::new(ACTOR, "not at Stripe, looked twice: calling under a new key").with_request_id(sight.request_id);
        let task = self.context.ledger.begin_creation_epoch(&task, &note).await?;
        self.call(&task).await
    }

    /// Asks Stripe to create it, and does what its answer asks for.
    async fn call(&self, task: &CreationTask) -> Result<Outcome, Halt> {
        self.context.turn().await?;
        self.context.ledger.begin_creating(task, oldest_trusted_epoch()).await?;
        let report = self.context.stripe.create_transfer(&command(task)).await;
        self.follow(task, report).await
    }

    async fn look(&self, task: &CreationTask) -> Result<Result<Sight, Report>, Halt> {
        self.context.turn().await?;
        let since = task.created_at - CLOCKS_DIFFER;
        let list = match self.context.stripe.list_transfers(&command(task), since).await {
            Ok(list) => list,
            Err(report) => return Ok(Err(report)),
        };
        self.context.limiter.raise();
        let ours = list.items.into_iter().rfind(|transfer| transfer.transfer_id() == Some(task.id));
        Ok(Ok(Sight { ours, request_id: list.request_id }))
    }

    async fn report_seen(
        &self,
        task: &CreationTask,
        found: &Transfer,
        request_id: Option<String>,
    ) -> Result<Outcome, Halt> {
        match found.difference(&command(task)) {
            None => self.succeed(task, &found.id, request_id).await,
            Some(difference) => self.give_up(task, failure("transfer_mismatch", &difference), request_id).await,
        }
    }

    /// Does what follows from an answer of Stripe's.
    async fn follow(&self, task: &CreationTask, report: Report) -> Result<Outcome, Halt> {
        match self.context.judge(task.id, &report) {
            Decision::Succeed { id } => self.succeed(task, &id, report.request_id).await,
            Decision::GiveUp { code } => {
                let why = failure(report.code.as_deref().unwrap_or(code), &report.message);
                self.give_up(task, why, report.request_id).await
            }
            // No answer to a creation means that; looking is what is safe.
            Decision::Look { .. } => self.retry(task, Aftermath::Doubtful, Pace::Backoff, report).await,
            Decision::Retry { aftermath, pace } => self.retry(task, aftermath, pace, report).await,
            Decision::Wait { aftermath, reason } => {
                match self.context.wait_for(task.created_at, aftermath, reason, &report) {
                    Ok(put_off) => self.put_off(task, put_off).await,
                    Err(too_long) => self.give_up(task, too_long, report.request_id).await,
                }
            }
        }
    }

    /// Tries again later, unless the retries are used up.
    async fn retry(
        &self,
        task: &CreationTask,
        aftermath: Aftermath,
        pace: Pace,
        report: Report,
    ) -> Result<Outcome, Halt> {
        match self.context.retry(task.retry_count, aftermath, pace, &report) {
            Ok(put_off) => self.put_off(task, put_off).await,
            // It may have happened all the same, with its answers lost: one look before giving up.
            Err(exhausted) => match self.look(task).await? {
                Ok(Sight { ours: Some(found), request_id }) => self.report_seen(task, &found, request_id).await,
                _ => self.give_up(task, exhausted, report.request_id).await,
            },
        }
    }

    async fn succeed(
        &self,
        task: &CreationTask,
        stripe_transfer_id: &str,
        request_id: Option<String>,
    ) -> Result<Outcome, Halt> {
        let note = Note::new(ACTOR, "Stripe has created it").with_request_id(request_id.clone());
        match self.context.ledger.created(task.id, stripe_transfer_id, &note).await {
            Err(LedgerError::Conflict(problem)) => {
                return self.give_up(task, failure("registered_elsewhere", &problem), request_id).await;
            }
            result => result?,
        }
        tracing::info!(transfer_id = %task.id, stripe_transfer_id, "created");
        Ok(Outcome::Done)
    }

    async fn give_up(&self, task: &CreationTask, why: Failure, request_id: Option<String>) -> Result<Outcome, Halt> {
        let reason = format!("{}: {}", why.code, why.message);
        let note = Note::new(ACTOR, format!("given up, its message is parked: {reason}")).with_request_id(request_id);
        self.context.ledger.fail_creation(task, &why, &note).await?;
        tracing::warn!(transfer_id = %task.id, reason, "given up and parked");
        Ok(Outcome::Park { reason })
    }

    async fn put_off(&self, task: &CreationTask, put_off: PutOff) -> Result<Outcome, Halt> {
        self.context.ledger.postpone_creation(task, &put_off.how, &put_off.note).await?;
        Ok(put_off.outcome)
    }
}

/// What Stripe's list shows.
#[derive(Debug)]
struct Sight {
    /// The transfer that carries our id. The oldest, should there be two.
    ours: Option<Transfer>,
    /// Stripe's `Request-Id` of the list.
    request_id: Option<String>,
}

/// What Stripe is asked for: a function of what never changes in the row, and of the epoch.
fn command(task: &CreationTask) -> stripe::CreateTransfer {
    stripe::CreateTransfer {
        transfer_id: task.id,
        payment_ref: task.payment_ref.clone(),
        payment_currency: task.payment_currency.clone(),
        amount: task.amount,
        currency: task.currency.clone(),
        destination: task.destination.clone(),
        epoch: task.epoch,
    }
}
