//! The jobs: one saga for every kind of call, and a short file for what differs.

mod circuit_breaker;
mod create;
mod decision;
mod discovery;
mod limiter;
mod notifier;
mod one_by_one;
mod recent_calls;
mod reverse;
mod saga;
mod sight;

use queues::{Delivery, Handler, Job, Outcome, RetryPolicy, Topology, TopologyError};
use serde::{Deserialize, Serialize};

pub use circuit_breaker::{CircuitBreaker, CircuitState, Consumers, Outage};
pub(crate) use create::created;
#[cfg(test)]
pub(crate) use decision::{Decision, Otherwise, decide};
pub use limiter::Limiter;
pub use notifier::{Notifier, NotifierError};
pub use one_by_one::OneByOne;
#[cfg(test)]
pub(crate) use reverse::{command, sight};
pub use saga::{Caller, Parse, Timing};
#[cfg(test)]
pub(crate) use sight::{AfterLook, AfterRefusal, Seen, Sight, after_look, after_refusal};

use crate::ledger::{CREATE_TRANSFER, CallJob, CallKind, LOOK_UP, NOTIFY, REVERSE_TRANSFER};

/// The exchange that all jobs go through.
const EXCHANGE: &str = "clawback.jobs";

/// The job that reverses a transfer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReverseTransfer(pub CallJob);

/// The job that creates a transfer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CreateTransfer(pub CallJob);

/// The job that reads something at Stripe.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LookUp(pub CallJob);

/// The job that tells another system what has happened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notify(pub CallJob);

impl Job for ReverseTransfer {
    const KIND: &'static str = REVERSE_TRANSFER;
}

impl Job for CreateTransfer {
    const KIND: &'static str = CREATE_TRANSFER;
}

impl Job for LookUp {
    const KIND: &'static str = LOOK_UP;
}

impl Job for Notify {
    const KIND: &'static str = NOTIFY;
}

impl Handler<ReverseTransfer> for Caller {
    type Output = Outcome;

    async fn handle(&self, ReverseTransfer(job): ReverseTransfer, delivery: Delivery) -> Outcome {
        self.run(job.call_id, &delivery).await
    }
}

impl Handler<CreateTransfer> for Caller {
    type Output = Outcome;

    async fn handle(&self, CreateTransfer(job): CreateTransfer, delivery: Delivery) -> Outcome {
        self.run(job.call_id, &delivery).await
    }
}

impl Handler<LookUp> for Caller {
    type Output = Outcome;

    async fn handle(&self, LookUp(job): LookUp, delivery: Delivery) -> Outcome {
        self.run(job.call_id, &delivery).await
    }
}

impl Handler<Notify> for Caller {
    type Output = Outcome;

    async fn handle(&self, Notify(job): Notify, delivery: Delivery) -> Outcome {
        self.run(job.call_id, &delivery).await
    }
}

/// The queues of one kind of call: one for each delay that `policy` can ask for, the longest always among them.
///
/// # Errors
/// [`TopologyError`] for delays that no queue can have.
pub fn topology(kind: CallKind, policy: &RetryPolicy) -> Result<Topology, TopologyError> {
    let longest = policy.delay(u32::MAX);
    Topology::new(EXCHANGE, kind.queue(), policy.delays().into_iter().chain([longest]))
}
