//! What the reversal job writes into the ledger, and the outcome that goes with it: the row first, the message after it.
//!
//! Called by `reverse_transfer`. It calls Stripe only for a last look before giving up.

use queues::Outcome;

use super::context::{ACTOR, Halt};
use super::decision::{Pace, WaitFor};
use super::reverse_transfer::ReverseTransfer;
use super::waiting::PutOff;
use crate::ledger::{Aftermath, Failure, LedgerError, Note, ReversalStatus, ReversalTask};
use crate::stripe::Report;

impl ReverseTransfer {
    pub(super) async fn succeed(
        &self,
        task: &ReversalTask,
        stripe_reversal_id: &str,
        externally: bool,
        request_id: Option<String>,
    ) -> Result<Outcome, Halt> {
        let ledger = &self.context.ledger;
        let by = if externally { "somebody else has reversed it at Stripe" } else { "Stripe has reversed it" };
        let attempt = task.retry_count.saturating_add(1);
        let reason = format!("attempt {attempt}: {by}, as {stripe_reversal_id}");
        let note = Note::new(ACTOR, reason).with_request_id(request_id);
        match ledger.succeed(task, stripe_reversal_id, externally, &note).await {
            // Another worker gave it up while our call was on its way. Stripe's word counts.
            Err(LedgerError::Stale { .. }) if self.was_given_up(task).await? => {
                let late = Note::new(ACTOR, "Stripe had done it when it was given up");
                let task = ledger.replay(task, &late).await?;
                ledger.succeed(&task, stripe_reversal_id, externally, &note).await?;
            }
            result => result?,
        }
        let took = (crate::ledger::now() - task.created_at).to_std().unwrap_or_default();
        metrics::histogram!("clawback_refund_to_reversed_seconds").record(took);
        tracing::info!(reversal_id = %task.id, stripe_reversal_id, externally, "reversed");
        Ok(Outcome::Done)
    }

    async fn was_given_up(&self, task: &ReversalTask) -> Result<bool, LedgerError> {
        let current = self.context.ledger.reversal_task(task.id).await?;
        Ok(current.is_some_and(|row| row.status == ReversalStatus::PermanentlyFailed))
    }

    pub(super) async fn give_up(
        &self,
        task: &ReversalTask,
        why: Failure,
        request_id: Option<String>,
    ) -> Result<Outcome, Halt> {
        let reason = format!("{}: {}", why.code, why.message);
        let note = Note::new(ACTOR, format!("given up, its message is parked: {reason}")).with_request_id(request_id);
        self.context.ledger.fail(task, &why, &note).await?;
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
    ) -> Result<Outcome, Halt> {
        match self.context.retry(task.retry_count, aftermath, pace, &report) {
            Ok(put_off) => self.put_off(task, put_off).await,
            Err(exhausted) => {
                // It may have happened all the same, with its answers lost: one look before giving up.
                if let Ok(sight) = self.look(task, transfer_id).await?
                    && let Some(outcome) = self.report_if_seen(task, &sight).await?
                {
                    return Ok(outcome);
                }
                self.give_up(task, exhausted, report.request_id).await
            }
        }
    }

    /// Waits for somebody who is not the job, unless that takes too long.
    pub(super) async fn wait_for(
        &self,
        task: &ReversalTask,
        aftermath: Aftermath,
        reason: WaitFor,
        report: Report,
    ) -> Result<Outcome, Halt> {
        match self.context.wait_for(task.created_at, aftermath, reason, &report) {
            Ok(put_off) => self.put_off(task, put_off).await,
            Err(too_long) => self.give_up(task, too_long, report.request_id).await,
        }
    }

    pub(super) async fn put_off(&self, task: &ReversalTask, put_off: PutOff) -> Result<Outcome, Halt> {
        self.context.ledger.postpone(task, &put_off.how, &put_off.note).await?;
        Ok(put_off.outcome)
    }
}
