//! One call, from its message to the message's outcome: load, next step, turn, authorize, call, judge, report. Every kind of
//! call goes this way; what leaves it is in `look.rs` and `postpone.rs`.
//!
//! Safe at every point: what Stripe did and the row does not say yet is found again under the same idempotency key, or in
//! Stripe's list. The row decides; the message only says which row.

mod look;
mod look_up;
mod notify;
mod postpone;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use queues::{Delivery, Handler, Job, KeyPermit, KeyPermits, Outcome, RetryPolicy};
use tracing::Instrument;
use uuid::Uuid;

use super::decision::{Decision, WaitFor, decide};
use super::{CircuitBreaker, Limiter, Notifier, create, reverse};
use crate::ledger::{
    Call, CallJob, CallState, EventContent, Failure, Ledger, LedgerError, NextStep, Note, Remainder, Target, Task,
    TryOutcome, after, now,
};
use crate::reached::reached;
use crate::stripe::{self, Meaning, Report};
use crate::trace_context;

/// Who the history names.
const ACTOR: &str = "worker";
/// How often a job that another worker overtook reads its row again before it lets some time pass.
const MAX_OVERTAKEN: usize = 3;
/// A call that is not written so soon after it was authorized is not made: another worker may have gone on with it.
const AUTHORIZED_FOR: Duration = Duration::from_secs(3);
/// How long a job waits in its place for one of its seller's requests to be answered. Stripe is hardly ever that slow.
const SELLER_PATIENCE: Duration = Duration::from_secs(1);

/// The delays that are not the retry policy's.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a balance may be too low, from the first refusal since the call was last replayed.
    pub balance_deadline: Duration,
    /// Between two looks at Stripe's list that must both find nothing: longer than a call can be on its way.
    pub settling: Duration,
    /// A job waits no longer than this for a turn to call: the time counts as the job's, and the job timeout cuts it off.
    pub turn: Duration,
}

/// What makes the calls. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What is to be done, and where it is reported.
    pub ledger: Ledger,
    /// Who does it.
    pub stripe: stripe::Client,
    /// Every call waits for its turn here.
    pub limiter: Arc<Limiter>,
    /// Learns what every call met.
    pub breaker: Arc<CircuitBreaker>,
    /// One call about a transfer at a time: Stripe locks it while it works on it, and refuses who comes meanwhile.
    pub transfers: KeyPermits,
    /// So many requests about one connected account at a time: the other places are there for the other sellers.
    pub sellers: KeyPermits,
    /// When a call is tried again, and how often.
    pub policy: RetryPolicy,
    /// The other delays.
    pub timing: Timing,
    /// Reads a refund or a dispute as an event with it would be read.
    pub parse: Parse,
    /// Tells another system what happens, if one is to be told.
    pub notifier: Option<Notifier>,
}

/// What an object of Stripe's means for the ledger, or what is wrong with it.
pub type Parse = fn(&serde_json::Value) -> Result<EventContent, String>;

/// Why a job stops in the middle, with nothing to report.
#[derive(Debug)]
enum Interrupted {
    /// The ledger did not take a report, or could not be read.
    Ledger(LedgerError),
    /// The limiter lets this worker call only after that long.
    NoTurn(Duration),
    /// As many requests about the seller as there may be wait for Stripe's answer.
    SlowSeller,
    /// The circuit breaker is open.
    NoCalls,
    /// Too much time passed since the call was authorized, so it was not sent.
    NotSent,
}

impl From<LedgerError> for Interrupted {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// What Stripe has done for a call.
struct Success {
    /// Stripe's id of it.
    id: String,
    /// Another program asked for it.
    externally: bool,
    /// Stripe's id of what moved the money.
    balance_transaction: Option<String>,
}

impl<J: Job + Into<CallJob>> Handler<J> for Caller {
    type Output = Outcome;

    /// Does what the call still needs. A duplicate, early or late delivery is harmless.
    async fn handle(&self, job: J, delivery: Delivery) -> Outcome {
        let id = job.into().call_id;
        let span = tracing::info_span!("call", kind = delivery.kind, call_id = %id);
        trace_context::go_on(&span, delivery.traceparent.as_deref());
        self.run(id, &delivery).instrument(span).await
    }
}

impl Caller {
    async fn run(&self, id: Uuid, delivery: &Delivery) -> Outcome {
        if self.breaker.is_open() {
            return Outcome::GiveBack;
        }
        let Some(_admitted) = self.breaker.admit(id).await else {
            return self.not_now("Stripe can't be used yet".to_owned());
        };
        for _ in 0..MAX_OVERTAKEN {
            match self.advance(id, delivery).await {
                Ok(outcome) => return outcome,
                Err(Interrupted::NoCalls) => return Outcome::GiveBack,
                Err(Interrupted::NoTurn(delay)) => {
                    let reason = format!("calls to Stripe are slowed down: the next turn is {delay:.0?} away");
                    return Outcome::Snooze { delay, reason };
                }
                Err(Interrupted::SlowSeller) => {
                    return self.not_now("Stripe is slow about this seller: calls about others go first".to_owned());
                }
                // Another worker with a duplicate was faster: the row then says what is left to do.
                Err(Interrupted::Ledger(LedgerError::Stale { .. }) | Interrupted::NotSent) => {}
                Err(Interrupted::Ledger(error @ (LedgerError::Database(_) | LedgerError::Overloaded))) => {
                    return self.not_now(error.to_string());
                }
                Err(Interrupted::Ledger(error)) => return Outcome::Retry { reason: error.to_string() },
            }
        }
        self.not_now("another worker holds the same job".to_owned())
    }

    /// Neither the row nor Stripe was touched: the message comes again.
    fn not_now(&self, reason: String) -> Outcome {
        Outcome::Snooze { delay: self.policy.delay(0), reason }
    }

    /// Takes steps until the row says what becomes of the message.
    async fn advance(&self, id: Uuid, delivery: &Delivery) -> Result<Outcome, Interrupted> {
        let Some(mut task) = self.ledger.task(id).await? else {
            return Ok(Outcome::Park { reason: format!("the ledger has no call {id}") });
        };
        let transfer = match &task.target {
            Target::Reversal(target) => target.transfer_id,
            Target::Creation(_) | Target::LookUp(_) | Target::Notification(_) => id,
        };
        let Some(_alone) = self.transfers.enter(&transfer.to_string(), self.timing.turn).await else {
            return Ok(self.not_now("another call about the same transfer is on its way".to_owned()));
        };
        // Two machines' clocks may differ a little: a message that comes that much too early is on time.
        let early = (self.policy.delay(0) / 10).min(Duration::from_secs(1));
        // The row waits for the resume, which makes a new job.
        if task.paused && matches!(task.next_step(after(now(), early)), NextStep::Look | NextStep::Make) {
            tracing::debug!("paused by an operator");
            return Ok(Outcome::Done);
        }
        if matches!(task.next_step(now()), NextStep::Park { .. }) && was_parked_for(&task.call, delivery) {
            let note = Note::new("operator", "replayed: its message was moved back from the parking queue");
            match self.ledger.replay_held(&task.call, &note).await {
                Ok(call) => task.call = call,
                // Nothing is owed any more.
                Err(LedgerError::Conflict(_)) => return self.only_look(&task).await,
                Err(error) => return Err(error.into()),
            }
        }
        let (retries, due) = (task.call.attempts, task.call.next_attempt_at);
        loop {
            task = match (task.next_step(after(now(), early)), &task.target) {
                // Reading changes nothing at Stripe: there is nothing to authorize.
                (NextStep::Look | NextStep::Make, Target::LookUp(target)) => self.look_up(&task, target).await?,
                (NextStep::Look | NextStep::Make, Target::Notification(target)) => self.notify(&task, target).await?,
                (NextStep::Nothing, _) => return Ok(Outcome::Done),
                (NextStep::Park { reason }, _) => return Ok(Outcome::Park { reason }),
                (NextStep::Wait { until }, _) => return Ok(later(&task.call, until, retries)),
                (NextStep::Look | NextStep::Make, _) if lacks_an_id(&task) => {
                    let message = "the transfer has no Stripe id, so Stripe can't be asked to reverse it";
                    self.fail(&task, failure("no_stripe_transfer_id", message), None).await?
                }
                (NextStep::Look, _) => self.look(task).await?,
                (NextStep::Make, _) => self.make(task).await?,
            };
            // A try that was just put off waits in the queue, however long the report took.
            if let (CallState::Open, Some(until)) = (task.call.state, task.call.next_attempt_at)
                && Some(until) != due
            {
                return Ok(later(&task.call, until, retries));
            }
        }
    }

    /// Asks Stripe to do it, and reports what came of that.
    async fn make(&self, task: Task) -> Result<Task, Interrupted> {
        let place = self.turn(&task).await?;
        // Before the check, so the time that it takes counts.
        let stripe = self.stripe.write_within(AUTHORIZED_FOR);
        let task = self.ledger.authorize(task).await?;
        let report = match &task.target {
            Target::Reversal(target) => stripe.reverse_transfer(&reverse::command(&task.call, target)).await,
            Target::Creation(target) => stripe.create_transfer(&create::command(&task.call, target)).await,
            Target::LookUp(target) => return self.look_up(&task, target).await,
            Target::Notification(target) => return self.notify(&task, target).await,
        };
        drop(place);
        self.follow(task, report).await
    }

    /// Reports what follows from an answer of Stripe's.
    async fn follow(&self, task: Task, report: Report) -> Result<Task, Interrupted> {
        match self.judge(&task, &report) {
            Decision::Succeed { id, balance_transaction } => {
                if report.replayed {
                    reached!("an answer was lost after Stripe had done it");
                }
                let success = Success { id, externally: false, balance_transaction };
                self.succeed(&task, success, report.request_id).await
            }
            Decision::Fail { code } => {
                let why = failure(report.code.as_deref().unwrap_or(code), &report.message);
                self.fail(&task, why, report.request_id).await
            }
            Decision::End { code } => {
                let outcome = TryOutcome::Ended(failure(report.code.as_deref().unwrap_or(code), &report.message));
                self.report_failure(&task, outcome, report.request_id).await
            }
            Decision::Look { otherwise } => self.look_or(task, otherwise, report).await,
            Decision::Retry { remainder } => self.retry(&task, remainder, report).await,
            Decision::ReadAgain => Err(Interrupted::NotSent),
            Decision::Wait { remainder, reason } => {
                if remainder == Remainder::Burnt {
                    reached!("a key was burnt");
                }
                self.wait_for(&task, remainder, reason, report).await
            }
        }
    }

    /// Learns from what a call met how fast, and whether, to go on calling, and decides what the job does.
    fn judge(&self, task: &Task, report: &Report) -> Decision {
        let about = match &task.target {
            Target::Reversal(target) => target.stripe_transfer_id.as_deref().unwrap_or(&target.payment_ref),
            Target::Creation(target) => &target.payment_ref,
            Target::LookUp(target) => &target.reference,
            Target::Notification(target) => &target.topic,
        };
        let spared = self.breaker.note(task.call.id, seller(task).unwrap_or(about), about, report);
        match report.meaning {
            Meaning::RateLimited => self.limiter.halve(report.retry_after),
            Meaning::Unreached | Meaning::TlsFailed | Meaning::NotSent => {}
            _ => self.limiter.raise(),
        }
        match decide(report) {
            Decision::Retry { remainder } | Decision::Wait { remainder, .. } if spared => {
                Decision::Wait { remainder, reason: WaitFor::Recovery }
            }
            _ if spared => Decision::Wait { remainder: Remainder::SameKey, reason: WaitFor::Recovery },
            decision => decision,
        }
    }

    async fn succeed(&self, task: &Task, success: Success, request_id: Option<String>) -> Result<Task, Interrupted> {
        let Success { id: stripe_id, externally, balance_transaction } = success;
        let reason = match &task.target {
            Target::Reversal(_) => {
                let by =
                    if externally { "another program has reversed it at Stripe" } else { "Stripe has reversed it" };
                format!("attempt {}: {by}, as {stripe_id}", task.call.attempts.saturating_add(1))
            }
            Target::Creation(_) => "Stripe has created it".to_owned(),
            Target::LookUp(_) => "Stripe was read".to_owned(),
            Target::Notification(_) => "told".to_owned(),
        };
        let note =
            Note::new(ACTOR, reason).with_request_id(request_id.clone()).with_balance_transaction(balance_transaction);
        let outcome = TryOutcome::Done { stripe_id: stripe_id.clone(), externally };
        let done = match self.ledger.report(task, outcome, note).await {
            Err(LedgerError::Conflict(problem)) => {
                return self.fail(task, failure("registered_elsewhere", &problem), request_id).await;
            }
            done => done?,
        };
        match &task.target {
            Target::Reversal(target) => {
                let took = (now() - task.call.created_at).to_std().unwrap_or_default();
                metrics::histogram!("clawback_refund_to_reversed_seconds").record(took);
                if externally {
                    metrics::counter!("clawback_foreign_reversals_total").increment(1);
                }
                tracing::info!(
                    refund = target.claim_ref,
                    payment = target.payment_ref,
                    transfer = target.stripe_transfer_id,
                    reversal = stripe_id,
                    amount = target.amount,
                    currency = target.currency,
                    externally,
                    request_id,
                    "reversed"
                );
            }
            Target::Creation(target) => tracing::info!(
                payment = target.payment_ref,
                transfer = stripe_id,
                amount = target.amount,
                currency = target.currency,
                request_id,
                "transfer created"
            ),
            Target::LookUp(target) => tracing::info!(reference = target.reference, "looked up"),
            Target::Notification(target) => tracing::debug!(topic = target.topic, "told"),
        }
        Ok(done)
    }

    async fn report(
        &self,
        task: &Task,
        outcome: TryOutcome,
        reason: &str,
        request_id: Option<String>,
    ) -> Result<Task, Interrupted> {
        let note = Note::new(ACTOR, reason).with_request_id(request_id);
        Ok(self.ledger.report(task, outcome, note).await?)
    }

    /// Waits for this worker's turn to call Stripe, and for a place among the seller's requests, which is held until the answer
    /// is there. Neither the row nor Stripe is touched when either is too far away.
    async fn turn(&self, task: &Task) -> Result<Option<KeyPermit>, Interrupted> {
        // Without a place the turn would be wasted. It is not held until the turn comes: that is no seller's trouble.
        drop(self.place(task).await?);
        self.limiter.turn_within(self.timing.turn).await.map_err(Interrupted::NoTurn)?;
        let place = self.place(task).await?;
        // It may have opened since the job began.
        if self.breaker.lets_call(task.call.id) { Ok(place) } else { Err(Interrupted::NoCalls) }
    }

    async fn place(&self, task: &Task) -> Result<Option<KeyPermit>, Interrupted> {
        let Some(seller) = seller(task) else { return Ok(None) };
        let place = self.sellers.enter(seller, SELLER_PATIENCE).await;
        place.map(Some).ok_or(Interrupted::SlowSeller)
    }
}

/// The connected account that the call is about.
fn seller(task: &Task) -> Option<&str> {
    match &task.target {
        Target::Reversal(target) => Some(&target.destination),
        Target::Creation(target) => Some(&target.destination),
        Target::LookUp(_) | Target::Notification(_) => None,
    }
}

/// Whether it is to reverse a legacy transfer, which has no id at Stripe.
fn lacks_an_id(task: &Task) -> bool {
    matches!(&task.target, Target::Reversal(target) if target.stripe_transfer_id.is_none())
}

/// The message of a call that is not to be made before `until`. It had `retries` when the message came.
fn later(call: &Call, until: DateTime<Utc>, retries: i32) -> Outcome {
    let delay = (until - now()).to_std().unwrap_or_default();
    let reason = call.failure_message.clone().unwrap_or_else(|| "its next try lies ahead".to_owned());
    if call.attempts > retries { Outcome::RetryAfter { delay, reason } } else { Outcome::Snooze { delay, reason } }
}

/// Whether the message was parked because of the call's present failure. One that was parked earlier, replayed, and is
/// delivered again after the worker died between the new failure and its parking, must not count as another replay.
fn was_parked_for(call: &Call, delivery: &Delivery) -> bool {
    delivery.parked_reason.is_some() && !call.has_changed_since(delivery.parked_at)
}

fn failure(code: &str, message: &str) -> Failure {
    Failure { code: code.to_owned(), message: message.to_owned() }
}
