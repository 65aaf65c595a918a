//! The jobs: one saga for every kind of call, and a short file for what differs.

mod circuit_breaker;
mod create;
mod decision;
mod discovery;
mod limiter;
mod notifier;
mod recent_calls;
mod reverse;
mod saga;
mod sight;

use queues::{Job, RetryPolicy, Topology, TopologyError};
use serde::{Deserialize, Serialize};

pub use circuit_breaker::{CircuitBreaker, CircuitState, Consumers, Outage};
pub(crate) use create::{command as creation_command, created};
#[cfg(test)]
pub(crate) use decision::{Decision, Otherwise, decide};
pub use limiter::Limiter;
pub use notifier::{Notifier, NotifierError, SIGNING_SECRET, signing_key};
#[cfg(test)]
pub(crate) use reverse::{command, sight};
pub use saga::{Caller, Parse, Timing};
#[cfg(test)]
pub(crate) use sight::{AfterLook, AfterRefusal, Seen, Sight, after_look, after_refusal};

use crate::ledger::{CREATE_TRANSFER, CallJob, CallKind, LOOK_UP, NOTIFY, REVERSE_TRANSFER};

/// The exchange that all jobs go through.
const EXCHANGE: &str = "clawback.jobs";

/// The job of a kind of call. [`Caller`] handles all of them.
macro_rules! call_job {
    ($(#[$doc:meta])* $job:ident = $kind:ident) => {
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $job(pub CallJob);

        impl Job for $job {
            const KIND: &'static str = $kind;
        }

        impl From<$job> for CallJob {
            fn from($job(job): $job) -> Self {
                job
            }
        }
    };
}

call_job! {
    /// The job that reverses a transfer.
    ReverseTransfer = REVERSE_TRANSFER
}
call_job! {
    /// The job that creates a transfer.
    CreateTransfer = CREATE_TRANSFER
}
call_job! {
    /// The job that reads something at Stripe.
    LookUp = LOOK_UP
}
call_job! {
    /// The job that tells another system what has happened.
    Notify = NOTIFY
}

/// The queues of one kind of call: one for each delay that `policy` can ask for, the longest always among them.
///
/// # Errors
/// [`TopologyError`] for delays that no queue can have.
pub fn topology(kind: CallKind, policy: &RetryPolicy) -> Result<Topology, TopologyError> {
    let longest = policy.delay(u32::MAX);
    Topology::new(EXCHANGE, kind.queue(), policy.delays().into_iter().chain([longest]))
}
